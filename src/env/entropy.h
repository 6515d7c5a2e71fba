// Randomness, as an interface.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

namespace bascule::env {

class Entropy {
 public:
  virtual ~Entropy() = default;
  // Cryptographically strong bytes. Thread-safe.
  virtual void fill(std::span<uint8_t> out) = 0;

  // 2 * `bytes` characters of [0-9a-f].
  std::string hex(size_t bytes) {
    static constexpr char kDigits[] = "0123456789abcdef";
    std::string raw(bytes, '\0');
    fill({reinterpret_cast<uint8_t*>(raw.data()), raw.size()});
    std::string text;
    for (const char c : raw) {
      text += kDigits[static_cast<uint8_t>(c) >> 4];
      text += kDigits[static_cast<uint8_t>(c) & 15];
    }
    return text;
  }
};

}  // namespace bascule::env
