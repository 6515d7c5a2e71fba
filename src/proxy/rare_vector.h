// A vector that is nearly always empty, in the space of a pointer: idle sessions pay for what they
// have, and there are ten thousand of them.
#pragma once

#include <cstddef>
#include <memory>
#include <utility>
#include <vector>

namespace bascule::proxy {

template <typename T>
class RareVector {
 public:
  bool empty() const { return items_ == nullptr || items_->empty(); }
  size_t size() const { return items_ == nullptr ? 0 : items_->size(); }
  T* begin() { return items_ == nullptr ? nullptr : items_->data(); }
  T* end() { return begin() + size(); }
  const T* begin() const { return items_ == nullptr ? nullptr : items_->data(); }
  const T* end() const { return begin() + size(); }
  T& operator[](size_t i) { return (*items_)[i]; }
  T& back() { return items_->back(); }
  void push_back(T item) { items().push_back(std::move(item)); }
  template <typename... Args>
  T& emplace_back(Args&&... args) {
    return items().emplace_back(std::forward<Args>(args)...);
  }
  void pop_back() {
    items_->pop_back();
    if (items_->empty()) items_.reset();
  }
  void erase(size_t i) {
    items_->erase(items_->begin() + static_cast<std::ptrdiff_t>(i));
    if (items_->empty()) items_.reset();
  }
  template <typename Predicate>
  void remove_if(Predicate&& predicate) {
    if (items_ == nullptr) return;
    std::erase_if(*items_, std::forward<Predicate>(predicate));
    if (items_->empty()) items_.reset();
  }
  void clear() { items_.reset(); }
  // Empties it.
  std::vector<T> take() {
    if (items_ == nullptr) return {};
    return std::move(*std::exchange(items_, nullptr));
  }

 private:
  std::vector<T>& items() {
    if (items_ == nullptr) items_ = std::make_unique<std::vector<T>>();
    return *items_;
  }
  std::unique_ptr<std::vector<T>> items_;
};

}  // namespace bascule::proxy
