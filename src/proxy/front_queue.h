// A queue in a vector: nothing allocated while empty, popping amortised O(1). std::deque takes half
// a kilobyte when empty, which idle sessions would pay.
#pragma once

#include <cstddef>
#include <utility>
#include <vector>

namespace bascule::proxy {

template <typename T>
class FrontQueue {
 public:
  bool empty() const { return head_ == items_.size(); }
  size_t size() const { return items_.size() - head_; }
  T& front() { return items_[head_]; }
  const T& front() const { return items_[head_]; }
  T& back() { return items_.back(); }
  const T& back() const { return items_.back(); }
  T& operator[](size_t i) { return items_[head_ + i]; }
  const T& operator[](size_t i) const { return items_[head_ + i]; }
  void push_back(T item) { items_.push_back(std::move(item)); }

  void pop_front() {
    items_[head_] = T{};
    if (++head_ == items_.size()) return clear();
    if (head_ >= 32 && head_ * 2 >= items_.size()) {
      items_.erase(items_.begin(), items_.begin() + static_cast<std::ptrdiff_t>(head_));
      head_ = 0;
    }
  }
  void clear() {
    items_.clear();
    head_ = 0;
    // A pipeline leaves no memory behind.
    if (items_.capacity() > 64) std::vector<T>().swap(items_);
  }

 private:
  std::vector<T> items_;
  size_t head_ = 0;
};

}  // namespace bascule::proxy
