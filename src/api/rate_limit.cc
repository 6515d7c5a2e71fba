#include "api/rate_limit.h"

#include <algorithm>

namespace bascule::api {
namespace {

constexpr double kBurst = 2;  // seconds' worth
constexpr Nanos kTidyEvery = 1s;

}  // namespace

// A bucket that is full again is as good as none.
void RateLimit::forget_idle(MonoTime now) {
  if (now - tidied_at_ < kTidyEvery) return;
  tidied_at_ = now;
  std::erase_if(buckets_, [&](const auto& entry) {
    return now - entry.second.filled_at > std::chrono::seconds(static_cast<int>(kBurst) + 1);
  });
}

bool RateLimit::allow(const std::string& address, MonoTime now) {
  if (per_second_ <= 0) return true;
  forget_idle(now);
  const double full = per_second_ * kBurst;
  const bool known = buckets_.contains(address);
  Bucket& bucket = buckets_[known || buckets_.size() < kAddressesMax ? address : ""];
  if (bucket.filled_at == MonoTime{}) {
    bucket = {full, now};
  } else {
    const double passed = std::chrono::duration<double>(now - bucket.filled_at).count();
    bucket.tokens = std::min(full, bucket.tokens + std::max(passed, 0.0) * per_second_);
    bucket.filled_at = now;
  }
  if (bucket.tokens < 1) return false;
  bucket.tokens -= 1;
  return true;
}

}  // namespace bascule::api
