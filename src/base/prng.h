// Deterministic random numbers in named streams: adding a draw to one stream never shifts another,
// so a simulation seed keeps its meaning when unrelated code changes.
// Generator: xoshiro256** seeded by splitmix64 (Blackman, Vigna, https://prng.di.unimi.it/).
#pragma once

#include <cstdint>
#include <string_view>

namespace bascule {

class Prng {
 public:
  explicit Prng(uint64_t seed);
  // An independent stream derived from (seed, name).
  static Prng stream(uint64_t seed, std::string_view name);

  uint64_t next();
  uint64_t below(uint64_t bound);              // uniform in [0, bound); bound > 0
  int64_t between(int64_t low, int64_t high);  // uniform in [low, high]
  bool chance(double probability);

 private:
  uint64_t state_[4];
};

}  // namespace bascule
