// Durations and sizes as people write them in bascule.yaml and on the command line.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/result.h"
#include "base/time.h"

namespace bascule::cli {

// "400ms", "5s", "1.5s", "2min", "1h". A number without a unit is refused (0 is allowed): half of
// the world's configuration mistakes are milliseconds taken for seconds.
Result<Millis> parse_duration(std::string_view text);
// The shortest exact form: 5000 -> "5s", 400 -> "400ms".
std::string format_duration(Millis duration);

// "16MB", "8kB", "1GB", "512B"; powers of 1024 as in PostgreSQL's settings.
Result<uint64_t> parse_size(std::string_view text);
std::string format_size(uint64_t bytes);
// For people, rounded: "0 B", "12 kB", "3.4 MB".
std::string human_bytes(uint64_t bytes);

// "127.0.0.1:6432", "[::1]:6432", "*:6432".
struct HostPort {
  std::string host;
  int port = 0;
  bool operator==(const HostPort&) const = default;
  std::string to_string() const;
};
Result<HostPort> parse_host_port(std::string_view text);

// The candidate nearest to `word` by edits, or "" when none is near enough to be meant.
template <typename Range>
std::string nearest(std::string_view word, const Range& candidates);
size_t edit_distance(std::string_view a, std::string_view b);

template <typename Range>
std::string nearest(std::string_view word, const Range& candidates) {
  std::string best;
  size_t best_distance = word.size() / 3 + 2;  // exclusive: one or two slips in a short word
  for (const auto& candidate : candidates) {
    const size_t distance = edit_distance(word, candidate);
    if (distance < best_distance) {
      best_distance = distance;
      best = candidate;
    }
  }
  return best;
}

}  // namespace bascule::cli
