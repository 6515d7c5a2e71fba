#include "proxy/shared.h"

#include <algorithm>

namespace bascule::proxy {

bool ServerLimit::acquire(int worker) {
  const std::lock_guard lock(mutex_);
  if (const auto it = std::find(granted_.begin(), granted_.end(), worker); it != granted_.end()) {
    granted_.erase(it);
    return true;
  }
  if (used_ < max_ && waiting_.empty()) {
    ++used_;
    return true;
  }
  if (std::find(waiting_.begin(), waiting_.end(), worker) == waiting_.end()) {
    waiting_.push_back(worker);
  }
  contended_.store(true, std::memory_order_relaxed);
  return false;
}

std::optional<int> ServerLimit::release() {
  const std::lock_guard lock(mutex_);
  --used_;
  return grant_next();
}

std::optional<int> ServerLimit::decline(int worker) {
  const std::lock_guard lock(mutex_);
  const auto it = std::find(granted_.begin(), granted_.end(), worker);
  if (it == granted_.end()) return std::nullopt;
  granted_.erase(it);
  --used_;
  return grant_next();
}

std::optional<int> ServerLimit::grant_next() {
  if (waiting_.empty() || used_ >= max_) return std::nullopt;
  const int worker = waiting_.front();
  waiting_.pop_front();
  contended_.store(!waiting_.empty(), std::memory_order_relaxed);
  granted_.push_back(worker);
  ++used_;
  return worker;
}

}  // namespace bascule::proxy
