// How many there are of each name, with a limit: clients of one address that are logging in (one
// host must not take all places with connections that prove nothing), clients of a database, of a
// user. Thread-safe.
#pragma once

#include <map>
#include <mutex>
#include <string>

namespace bascule::proxy {

class NameCounts {
 public:
  // False: `max` are there already; 0: no limit. Each true needs a leave() with the same name.
  bool enter(const std::string& name, int max) {
    const std::lock_guard lock(mutex_);
    int& count = counts_[name];
    if (max > 0 && count >= max) return false;
    ++count;
    return true;
  }
  void leave(const std::string& name) {
    const std::lock_guard lock(mutex_);
    const auto it = counts_.find(name);
    if (it != counts_.end() && --it->second == 0) counts_.erase(it);
  }

 private:
  std::mutex mutex_;
  std::map<std::string, int> counts_;  // guarded by mutex_; as many as are there
};

}  // namespace bascule::proxy
