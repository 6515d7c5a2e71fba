// What the analysis of a statement does at each member of PostgreSQL's parse tree. Pure, any
// thread.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

namespace bascule::sql {

// Fields of a plain type and lists of nodes need nothing themselves: kPlain.
enum class Step : uint8_t {
  kPlain,
  kFunction,
  kColumn,
  kIndirection,
  kType,
  kRelation,
  kOperator,
  kSample,
  kLocking,
  kInto,
  kSkip,  // nothing inside matters: names
};

// Of the member with this key. Upper case: a node of that type; lower case: a field. Nothing: it
// belongs to a construct that nobody has thought about.
std::optional<Step> step_at(std::string_view key);

}  // namespace bascule::sql
