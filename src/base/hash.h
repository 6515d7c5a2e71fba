// FNV-1a: fast, the same on every machine and in every run, and easy to find collisions for. For
// what a collision can't harm.
#pragma once

#include <cstdint>
#include <string_view>

namespace bascule {

constexpr uint64_t kFnvBasis = 0xCBF29CE484222325u;

constexpr uint64_t fnv1a(std::string_view bytes, uint64_t hash = kFnvBasis) {
  for (const char c : bytes) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001B3u;
  return hash;
}

}  // namespace bascule
