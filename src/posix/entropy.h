// The kernel's random numbers (`man 2 getrandom`).
#pragma once

#include "env/entropy.h"

namespace bascule::posix {

class SystemEntropy final : public env::Entropy {
 public:
  void fill(std::span<uint8_t> out) override;  // aborts if the kernel has none
};

}  // namespace bascule::posix
