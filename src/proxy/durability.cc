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

}  // namespace

bool is_weak(std::string_view synchronous_commit) {
  return synchronous_commit == "off" || synchronous_commit == "local" ||
         synchronous_commit == "remote_write";
}

std::string_view durability_of(const std::vector<DurabilityRule>& rules, std::string_view database,
                               std::string_view user, const Parameters& startup, Demands demands) {
  if (rules.empty() || says_itself(startup)) return {};
  const auto application = std::ranges::find_if(
      startup, [](const auto& parameter) { return parameter.first == "application_name"; });
  const std::string_view name =
      application == startup.end() ? std::string_view() : std::string_view(application->second);
  const auto fits = [](const std::string& wanted, std::string_view found) {
    return wanted.empty() || wanted == found;
  };
  const auto rule = std::ranges::find_if(rules, [&](const DurabilityRule& r) {
    return fits(r.database, database) && fits(r.user, user) && fits(r.application_name, name);
  });
  if (rule == rules.end()) return {};
  const bool refused =
      demands == Demands::kStandby && is_weak(rule->synchronous_commit) && !rule->even_if_strict;
  return refused ? std::string_view() : std::string_view(rule->synchronous_commit);
}

}  // namespace bascule::proxy
