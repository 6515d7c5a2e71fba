// How many clients of one address may be logging in at once: one host must not take all places with
// connections that prove nothing. Thread-safe.
#pragma once

#include <map>
#include <mutex>
#include <string>

namespace bascule::proxy {

class AddressLimit {
 public:
  explicit AddressLimit(int max) : max_(max) {}  // 0: none
  // False: too many. Each true needs a leave() with the same address.
  bool enter(const std::string& address) {
    const std::lock_guard lock(mutex_);
    int& count = counts_[address];
    if (max_ > 0 && count >= max_) return false;
    ++count;
    return true;
  }
  void leave(const std::string& address) {
    const std::lock_guard lock(mutex_);
    const auto it = counts_.find(address);
    if (it != counts_.end() && --it->second == 0) counts_.erase(it);
  }

 private:
  const int max_;
  std::mutex mutex_;
  std::map<std::string, int> counts_;  // guarded by mutex_; as many as connections
};

}  // namespace bascule::proxy
