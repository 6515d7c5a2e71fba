// What every implementation of Store refuses before it looks at any data. Pure; any thread.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "store/store.h"

namespace bascule::store {

// kInvalid when a key is empty or too long, a value is too large, there are too many items, or two
// writes name the same key (etcd refuses that too: the result would depend on the order).
Status check_bounds(const Txn& txn);
Status check_prefix(std::string_view prefix);  // may be empty: everything

// The smallest key greater than every key that begins with `prefix`; nullopt when there is none
// (the prefix is empty or consists of 0xff only). Keys compare as unsigned bytes.
std::optional<std::string> prefix_end(std::string_view prefix);

}  // namespace bascule::store
