// A queue in a vector: nothing allocated before it is used, popping amortised O(1), in the space of
// a pointer. std::deque takes half a kilobyte when empty, which idle sessions would pay.
#pragma once

#include <cstddef>
#include <memory>
#include <utility>
#include <vector>

namespace bascule::proxy {

template <typename T>
class FrontQueue {
 public:
  bool empty() const { return rep_ == nullptr || rep_->head == rep_->items.size(); }
  size_t size() const { return rep_ == nullptr ? 0 : rep_->items.size() - rep_->head; }
  T& front() { return rep_->items[rep_->head]; }
  const T& front() const { return rep_->items[rep_->head]; }
  T& back() { return rep_->items.back(); }
  const T& back() const { return rep_->items.back(); }
  T& operator[](size_t i) { return rep_->items[rep_->head + i]; }
  const T& operator[](size_t i) const { return rep_->items[rep_->head + i]; }
  void push_back(T item) {
    if (rep_ == nullptr) rep_ = std::make_unique<Rep>();
    rep_->items.push_back(std::move(item));
  }

  void pop_front() {
    std::vector<T>& items = rep_->items;
    size_t& head = rep_->head;
    items[head] = T{};
    if (++head == items.size()) return clear();
    if (head >= 32 && head * 2 >= items.size()) {
      items.erase(items.begin(), items.begin() + static_cast<std::ptrdiff_t>(head));
      head = 0;
    }
  }
  void clear() {
    if (rep_ == nullptr) return;
    rep_->items.clear();
    rep_->head = 0;
    // A pipeline leaves no memory behind.
    if (rep_->items.capacity() > 64) rep_.reset();
  }

 private:
  struct Rep {
    std::vector<T> items;
    size_t head = 0;
  };
  std::unique_ptr<Rep> rep_;
};

}  // namespace bascule::proxy
