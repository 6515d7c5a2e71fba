// Equal values as one object: whoever holds two of them compares pointers. One table a worker.
#pragma once

#include <algorithm>
#include <cstddef>
#include <map>
#include <memory>
#include <string>
#include <utility>

namespace bascule::proxy {

// shared_ptr: clients and servers hold the values for as long as each of them needs.
template <typename T>
class InternTable {
 public:
  // `key` is equal for equal values only.
  template <typename Make>
  std::shared_ptr<const T> get(const std::string& key, Make make) {
    if (const auto it = known_.find(key); it != known_.end()) {
      if (auto value = it->second.lock()) return value;
    }
    if (known_.size() >= sweep_at_) sweep();
    std::shared_ptr<const T> value = std::make_shared<const T>(make());
    known_.insert_or_assign(key, value);
    return value;
  }
  size_t size() const { return known_.size(); }

 private:
  // Amortised: what nobody holds any more is let go when the table has doubled.
  void sweep() {
    std::erase_if(known_, [](const auto& entry) { return entry.second.expired(); });
    sweep_at_ = std::max<size_t>(64, known_.size() * 2);
  }
  std::map<std::string, std::weak_ptr<const T>> known_;
  size_t sweep_at_ = 64;
};

}  // namespace bascule::proxy
