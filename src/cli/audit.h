// Who asked the cluster for what, from where, and what came of it: kept in the store beside the
// history of the configuration, so that it survives the daemon that was asked. Pure.
#pragma once

#include <string>
#include <vector>

#include "api/routes.h"
#include "base/result.h"
#include "base/time.h"
#include "store/store.h"

namespace bascule::cli {

inline constexpr size_t kAuditKept = 500;

struct AuditEntry {
  std::string at;  // ISO 8601
  std::string by;
  std::string what;  // "switchover candidate=n2"
  std::string outcome;
};

std::string describe(const api::Command& command);
bool is_audited(const api::Command& command);  // reading is not
std::string audit_prefix(const std::string& cluster);
// Records `entry`, and drops the oldest of `present` (what is stored below that prefix).
store::Txn audit_txn(const std::string& cluster, const AuditEntry& entry, WallTime at,
                     const std::string& id, const std::vector<store::Entry>& present);
// Oldest first; what does not parse is left out.
std::vector<AuditEntry> parse_audit(const std::vector<store::Entry>& entries);
std::string audit_line(const AuditEntry& entry);  // one JSON object

}  // namespace bascule::cli
