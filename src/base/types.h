// Strong types for the field's own quantities, so that an LSN can't be passed for an epoch.
#pragma once

#include <compare>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <utility>

#include "base/result.h"

namespace bascule {

// Byte position in the write-ahead log. 0 is "invalid / unknown" (InvalidXLogRecPtr).
// Text form "16/B374D848": https://www.postgresql.org/docs/15/datatype-pg-lsn.html
struct Lsn {
  uint64_t value = 0;
  auto operator<=>(const Lsn&) const = default;
  bool valid() const { return value != 0; }
  std::string to_string() const;
  static Result<Lsn> parse(std::string_view text);
};

// Timeline id of the write-ahead log; 0 is "unknown".
struct Timeline {
  uint32_t value = 0;
  auto operator<=>(const Timeline&) const = default;
};

// Fencing token: plus one at each change of leader, never reused. 0 is "none yet".
struct Epoch {
  uint64_t value = 0;
  auto operator<=>(const Epoch&) const = default;
  Epoch next() const { return Epoch{value + 1}; }
};

// A place in the cluster's history: where the WAL of a member ends. Ordering of positions needs the
// history (control/history.h); comparing members of the struct does not order them.
struct Position {
  Timeline timeline;
  Lsn lsn;
  bool operator==(const Position&) const = default;
  bool known() const { return timeline.value != 0 && lsn.valid(); }
  std::string to_string() const;  // "3@0/5000148"
};

// Name of a cluster member: 1 to 40 of [a-z0-9_-], first a letter. Lower case only, because
// synchronous_standby_names matches without regard to case.
class NodeName {
 public:
  NodeName() = default;  // empty: "nobody"
  static Result<NodeName> parse(std::string_view text);
  const std::string& str() const { return text_; }
  bool empty() const { return text_.empty(); }
  auto operator<=>(const NodeName&) const = default;

 private:
  explicit NodeName(std::string text) : text_(std::move(text)) {}
  std::string text_;
};

}  // namespace bascule
