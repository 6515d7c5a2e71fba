// How many requests an address may send: a bucket of tokens each. Pure; one thread at a time.
#pragma once

#include <map>
#include <string>

#include "base/time.h"

namespace bascule::api {

class RateLimit {
 public:
  static constexpr size_t kAddressesMax = 4096;  // beyond that, strangers share one bucket

  // 0: no limit. Twice as many may come at once after a rest.
  explicit RateLimit(int per_second) : per_second_(per_second) {}

  // Whether a request that comes now is to be answered; otherwise with 429.
  bool allow(const std::string& address, MonoTime now);

 private:
  struct Bucket {
    double tokens = 0;
    MonoTime filled_at{};
  };
  void forget_idle(MonoTime now);

  const double per_second_;
  std::map<std::string, Bucket> buckets_;
  MonoTime tidied_at_{};
};

}  // namespace bascule::api
