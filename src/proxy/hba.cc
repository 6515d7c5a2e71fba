#include "proxy/hba.h"

#include <regex.h>

#include <algorithm>

namespace bascule::proxy {
namespace {

constexpr size_t kNameMax = 63;

bool matches(const HbaName& name, std::string_view text, const HbaClient& client) {
  switch (name.kind) {
    case HbaName::Kind::kAll:
      return true;
    case HbaName::Kind::kExact:
      return name.text == text;
    case HbaName::Kind::kPattern:
      return name.pattern.matches(text);
    case HbaName::Kind::kSameUser:
      return client.user == client.database;
    case HbaName::Kind::kSameRole:
      return client.roles != nullptr &&
             std::ranges::find(*client.roles, client.database) != client.roles->end();
    case HbaName::Kind::kRole:
      return client.roles != nullptr &&
             std::ranges::find(*client.roles, name.text) != client.roles->end();
    case HbaName::Kind::kReplication:
      return false;
  }
  return false;
}

bool database_matches(const HbaRule& rule, const HbaClient& client) {
  // As PostgreSQL: physical replication has no database, and "all" does not mean it.
  if (client.replication) {
    return std::ranges::any_of(
        rule.databases, [](const HbaName& n) { return n.kind == HbaName::Kind::kReplication; });
  }
  return std::ranges::any_of(rule.databases,
                             [&](const HbaName& n) { return matches(n, client.database, client); });
}

bool connection_matches(const HbaRule& rule, const HbaClient& client) {
  switch (rule.connection) {
    case HbaRule::Connection::kLocal:
      return !client.address;
    case HbaRule::Connection::kHost:
      break;
    case HbaRule::Connection::kHostSsl:
      if (!client.tls) return false;
      break;
    case HbaRule::Connection::kHostNoSsl:
      if (client.tls) return false;
      break;
  }
  return client.address && (!rule.network || rule.network->contains(*client.address));
}

}  // namespace

struct NamePattern::Compiled {
  regex_t regex{};
  bool valid = false;
  ~Compiled() {
    if (valid) ::regfree(&regex);
  }
};

Result<NamePattern> NamePattern::compile(const std::string& pattern) {
  auto compiled = std::make_shared<Compiled>();
  const int error = ::regcomp(&compiled->regex, pattern.c_str(), REG_EXTENDED);
  if (error != 0) {
    char text[128];
    ::regerror(error, &compiled->regex, text, sizeof text);
    return fail(ErrorCode::kInvalid, std::string("bad regular expression: ") + text);
  }
  compiled->valid = true;
  NamePattern result;
  result.compiled_ = std::move(compiled);
  return result;
}

bool NamePattern::matches(std::string_view name, std::string* first_group) const {
  if (!compiled_ || name.size() > kNameMax) return false;
  const std::string text(name);
  regmatch_t groups[2] = {{-1, -1}, {-1, -1}};
  if (::regexec(&compiled_->regex, text.c_str(), 2, groups, 0) != 0) return false;
  if (first_group != nullptr && groups[1].rm_so >= 0) {
    *first_group = text.substr(static_cast<size_t>(groups[1].rm_so),
                               static_cast<size_t>(groups[1].rm_eo - groups[1].rm_so));
  }
  return true;
}

HbaRules HbaRules::all(AuthMethod method) {
  HbaRules rules;
  const std::vector<HbaName> everything{{HbaName::Kind::kAll, "all", {}}};
  const std::vector<HbaName> databases{{HbaName::Kind::kAll, "all", {}},
                                       {HbaName::Kind::kReplication, "replication", {}}};
  for (const auto connection : {HbaRule::Connection::kHost, HbaRule::Connection::kLocal}) {
    HbaRule rule;
    rule.connection = connection;
    rule.databases = databases;
    rule.users = everything;
    rule.method = method;
    rules.rules_.push_back(std::move(rule));
  }
  return rules;
}

const HbaRule* HbaRules::match(const HbaClient& client) const {
  for (const HbaRule& rule : rules_) {
    if (!connection_matches(rule, client) || !database_matches(rule, client)) continue;
    const bool user = std::ranges::any_of(
        rule.users, [&](const HbaName& n) { return matches(n, client.user, client); });
    if (user) return &rule;
  }
  return nullptr;
}

bool HbaRules::needs_certificates() const {
  return std::ranges::any_of(rules_, [](const HbaRule& r) {
    return r.method == AuthMethod::kCert || r.client_cert != HbaRule::ClientCert::kNone;
  });
}

bool HbaRules::allows(const std::string& map, std::string_view system_name,
                      std::string_view user) const {
  if (system_name.empty()) return false;
  if (map.empty()) return system_name == user;
  const auto found = maps_.find(map);
  if (found == maps_.end()) return false;
  for (const MapEntry& entry : found->second) {
    std::string group;
    const bool system = entry.system.kind == HbaName::Kind::kPattern
                            ? entry.system.pattern.matches(system_name, &group)
                            : entry.system.text == system_name;
    if (!system) continue;
    if (entry.user.kind == HbaName::Kind::kAll) return true;
    if (entry.user.kind == HbaName::Kind::kPattern) {
      if (entry.user.pattern.matches(user)) return true;
      continue;
    }
    std::string expected = entry.user.text;
    if (const size_t at = expected.find("\\1"); at != std::string::npos) {
      expected.replace(at, 2, group);
    }
    if (expected == user) return true;
  }
  return false;
}

}  // namespace bascule::proxy
