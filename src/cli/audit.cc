#include "cli/audit.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

namespace bascule::cli {
namespace {

using Kind = api::Command::Kind;
using nlohmann::json;

constexpr size_t kTextBytesMax = 2000;

std::string_view name_of(Kind kind) {
  switch (kind) {
    case Kind::kSwitchover:
      return "switchover";
    case Kind::kFailover:
      return "failover";
    case Kind::kPause:
      return "pause";
    case Kind::kResume:
      return "resume";
    case Kind::kConfig:
      return "config";
    case Kind::kConfigHistory:
      return "config history";
    case Kind::kCheckHealth:
      return "check health";
    case Kind::kRestart:
      return "restart";
    case Kind::kReload:
      return "reload";
    case Kind::kReinit:
      return "reinit";
    case Kind::kRemove:
      return "remove";
    case Kind::kCancel:
      return "cancel";
    case Kind::kAudit:
      return "audit";
    case Kind::kReconnect:
      return "reconnect";
    case Kind::kAnalyzeQuery:
      return "analyze query";
  }
  return "command";
}

}  // namespace

std::string describe(const api::Command& command) {
  std::string out(name_of(command.kind));
  if (!command.candidate.empty()) out += " candidate=" + command.candidate.str();
  if (!command.region.empty()) out += " region=" + command.region;
  if (command.force) out += " force";
  if (command.old_primary_dead) out += " old-primary-is-dead";
  if (command.only_pending) out += " pending";
  if (command.by_switchover) out += " by-switchover";
  if (command.replace) out += " replace";
  if (command.at != WallTime{}) out += " at=" + to_iso8601(command.at);
  for (const NodeName& name : command.members) out += " " + name.str();
  if (command.kind == Kind::kCancel) {
    out += " " +
           (command.id.empty() ? "scheduled " + std::string(name_of(command.cancels)) : command.id);
  }
  for (const auto& [key, value] : command.changes) out += fmt::format(" {}={}", key, value);
  if (!command.reason.empty()) out += " reason=" + command.reason;
  return out.substr(0, kTextBytesMax);
}

bool is_audited(const api::Command& command) {
  return command.kind != Kind::kConfigHistory && command.kind != Kind::kAudit &&
         command.kind != Kind::kAnalyzeQuery;
}

std::string audit_prefix(const std::string& cluster) {
  return fmt::format("/bascule/.log/{}/audit/", cluster);
}

std::string audit_line(const AuditEntry& entry) {
  const json out = {
      {"at", entry.at}, {"by", entry.by}, {"what", entry.what}, {"outcome", entry.outcome}};
  return out.dump(-1, ' ', false, json::error_handler_t::replace);
}

store::Txn audit_txn(const std::string& cluster, const AuditEntry& entry, WallTime at,
                     const std::string& id, const std::vector<store::Entry>& present) {
  store::Txn txn;
  txn.writes.push_back(
      {fmt::format("{}{:015}-{}", audit_prefix(cluster), at.time_since_epoch().count(), id),
       audit_line(entry)});
  constexpr size_t kDroppedMax = 50;
  for (size_t i = 0; i + kAuditKept <= present.size() && i < kDroppedMax; ++i) {
    txn.writes.push_back({present[i].key, std::nullopt});
  }
  return txn;
}

std::vector<AuditEntry> parse_audit(const std::vector<store::Entry>& entries) {
  std::vector<AuditEntry> out;
  for (const store::Entry& entry : entries) {
    const json record = json::parse(entry.value, nullptr, /*allow_exceptions=*/false);
    if (!record.is_object()) continue;
    const auto text = [&](const char* key) {
      const auto found = record.find(key);
      return found != record.end() && found->is_string() ? found->get<std::string>() : "";
    };
    out.push_back({text("at"), text("by"), text("what"), text("outcome")});
  }
  return out;
}

}  // namespace bascule::cli
