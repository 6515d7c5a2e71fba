#include "proxy/durability.h"

#include <algorithm>

namespace bascule::proxy {
namespace {

constexpr std::string_view kName = "synchronous_commit";

bool says_itself(const Parameters& startup) {
  return std::ranges::any_of(startup, [](const auto& parameter) {
    const auto& [name, value] = parameter;
    return name == kName || (name == "options" && value.find(kName) != std::string::npos);
  });
}

// Of one session.
class Client {
 public:
  Client(std::string_view database, std::string_view user, const Parameters& startup,
         Demands demands)
      : database_(database), user_(user), demands_(demands) {
    const auto application = std::ranges::find_if(
        startup, [](const auto& parameter) { return parameter.first == "application_name"; });
    if (application != startup.end()) application_ = application->second;
  }

  bool fits(const DurabilityRule& rule) const {
    const auto same = [](const std::string& wanted, std::string_view found) {
      return wanted.empty() || wanted == found;
    };
    return same(rule.database, database_) && same(rule.user, user_) &&
           same(rule.application_name, application_);
  }
  bool refused(const DurabilityRule& rule) const {
    return demands_ == Demands::kStandby && is_weak(rule.synchronous_commit) &&
           !rule.even_if_strict;
  }

 private:
  const std::string_view database_, user_;
  std::string_view application_;
  const Demands demands_;
};

sql::TableName table_name(std::string_view text) {
  const size_t dot = text.find('.');
  if (dot == std::string_view::npos) return {"", std::string(text)};
  return {std::string(text.substr(0, dot)), std::string(text.substr(dot + 1))};
}

}  // namespace

bool is_weak(std::string_view synchronous_commit) {
  return synchronous_commit == "off" || synchronous_commit == "local" ||
         synchronous_commit == "remote_write";
}

std::string_view durability_of(const std::vector<DurabilityRule>& rules, std::string_view database,
                               std::string_view user, const Parameters& startup, Demands demands) {
  if (rules.empty() || says_itself(startup)) return {};
  const Client client(database, user, startup, demands);
  const auto rule = std::ranges::find_if(
      rules, [&](const DurabilityRule& r) { return r.table.empty() && client.fits(r); });
  if (rule == rules.end() || client.refused(*rule)) return {};
  return rule->synchronous_commit;
}

std::optional<TableDurability> table_durability_of(const std::vector<DurabilityRule>& rules,
                                                   std::string_view database, std::string_view user,
                                                   const Parameters& startup, Demands demands) {
  if (rules.empty() || says_itself(startup)) return std::nullopt;
  const Client client(database, user, startup, demands);
  const CommitLevel session =
      commit_level_of(durability_of(rules, database, user, startup, demands));
  std::vector<TableLevel> tables;
  for (const DurabilityRule& rule : rules) {
    if (rule.table.empty() || !client.fits(rule)) continue;
    // One that does not count hides the ones behind it, as among the rules without a table.
    tables.push_back({table_name(rule.table),
                      client.refused(rule) ? session : commit_level_of(rule.synchronous_commit)});
  }
  if (tables.empty()) return std::nullopt;
  return TableDurability(std::move(tables), session);
}

}  // namespace bascule::proxy
