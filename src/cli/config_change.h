// Changing the cluster's dynamic configuration, and what was changed before. Pure.
//
// The history lies beside the cluster's records, not among them: members read those several times a
// second.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "base/result.h"
#include "base/time.h"
#include "control/records.h"
#include "store/store.h"

namespace bascule::cli {

inline constexpr size_t kConfigChangesKept = 50;

struct ConfigChange {
  std::string at;  // ISO 8601
  std::string by;
  // Key, value before and after, as `bascule config show` prints them.
  std::map<std::string, std::pair<std::string, std::string>> changes;
};

// Of the keys that hold changes, oldest first.
std::string config_history_prefix(const std::string& cluster);
// `entries`: what is stored below that prefix. What does not parse is left out.
std::vector<ConfigChange> parse_config_history(const std::vector<store::Entry>& entries);

// The transaction that changes `wanted` (key and value as `bascule config set`), records who did
// so, and drops the oldest records. kInvalid: a wrong key or value, or a combination under which
// fencing can't be on time; kConflict: nothing to change, or no configuration yet.
struct ConfigRequest {
  std::string cluster;
  std::map<std::string, std::string> wanted;
  std::string by;
  WallTime at{};
  bool replace = false;  // what is not in `wanted` gets its default
};
Result<store::Txn> change_config(const control::ClusterView& view, const ConfigRequest& request,
                                 const std::vector<store::Entry>& history);

}  // namespace bascule::cli
