#include "proxy/shared.h"

#include <algorithm>

namespace bascule::proxy {

bool ServerLimit::acquire(int worker, MonoTime since) {
  const std::lock_guard lock(mutex_);
  if (const auto it = std::find(granted_.begin(), granted_.end(), worker); it != granted_.end()) {
    granted_.erase(it);
    return true;
  }
  if (used_ < max_ && waiting_.empty()) {
    ++used_;
    return true;
  }
  insert(worker, since);
  return false;
}

void ServerLimit::claim(int worker, MonoTime since) {
  const std::lock_guard lock(mutex_);
  insert(worker, since);
}

void ServerLimit::insert(int worker, MonoTime since) {
  std::erase_if(waiting_, [&](const Entry& e) { return e.worker == worker; });
  if (since != MonoTime::max()) {
    const auto at = std::upper_bound(waiting_.begin(), waiting_.end(), since,
                                     [](MonoTime t, const Entry& e) { return t < e.since; });
    waiting_.insert(at, {since, worker});
  }
  publish_front();
}

void ServerLimit::publish_front() {
  const MonoTime front = waiting_.empty() ? MonoTime::max() : waiting_.front().since;
  waiting_since_.store(front.time_since_epoch().count(), std::memory_order_relaxed);
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

void ReportedParameters::store(const Key& key, const Parameters& parameters) {
  const std::lock_guard lock(mutex_);
  if (known_.size() >= kMax && !known_.contains(key)) known_.clear();
  known_[key] = parameters;
}

std::optional<Parameters> ReportedParameters::find(const Key& key) {
  const std::lock_guard lock(mutex_);
  const auto it = known_.find(key);
  if (it == known_.end()) return std::nullopt;
  return it->second;
}

PoolMode Shared::mode(const std::string&, const std::string&) const { return config.pool_mode; }

std::optional<int> ServerLimit::grant_next() {
  if (waiting_.empty() || used_ >= max_) return std::nullopt;
  const int worker = waiting_.front().worker;
  waiting_.pop_front();
  publish_front();
  granted_.push_back(worker);
  ++used_;
  return worker;
}

}  // namespace bascule::proxy
