#include "cli/config_change.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "cli/config.h"

namespace bascule::cli {
namespace {

using nlohmann::json;

Result<control::ClusterConfig> with_changes(control::ClusterConfig config,
                                            const std::map<std::string, std::string>& wanted) {
  YAML::Node node(YAML::NodeType::Map);
  for (const auto& [key, value] : wanted) {
    const bool nested = key.starts_with("parameters.") || key.starts_with("slots.") ||
                        key.starts_with("standby_cluster.");
    if (!nested) {
      node[key] = value;
      continue;
    }
    const size_t point = key.find('.');
    node[key.substr(0, point)][key.substr(point + 1)] = value;
  }
  Problems problems;
  MapReader reader(problems, node, "");
  read_cluster_config(reader, config);
  reader.finish();
  if (!problems.list.empty()) {
    const Problem& problem = problems.list.front();
    return fail(ErrorCode::kInvalid, fmt::format("{}: {}", problem.key, problem.what));
  }
  if (auto s = control::validate(config); !s) return std::unexpected(s.error());
  return config;
}

std::map<std::string, std::string> settings(const control::ClusterConfig& config) {
  std::map<std::string, std::string> out;
  const std::string text = render_cluster_config(config);
  std::string section;
  for (size_t at = 0; at < text.size();) {
    const size_t end = text.find('\n', at);
    std::string line = text.substr(at, end - at);
    at = end + 1;
    const bool inner = line.starts_with("  ");
    if (!inner) section = line.ends_with(':') ? line.substr(0, line.size() - 1) + "." : "";
    if (inner) line = section + line.substr(2);
    const size_t colon = line.find(": ");
    if (colon != std::string::npos) out[line.substr(0, colon)] = line.substr(colon + 2);
  }
  return out;
}

std::string encode_change(const control::ClusterConfig& before, const control::ClusterConfig& after,
                          const ConfigRequest& request) {
  json changes = json::object();
  const auto old = settings(before);
  const auto now = settings(after);
  for (const auto& [key, value] : now) {
    const auto found = old.find(key);
    const std::string was = found == old.end() ? "" : found->second;
    if (was != value) changes[key] = {was, value};
  }
  for (const auto& [key, value] : old) {
    if (!now.contains(key)) changes[key] = {value, ""};
  }
  const json out = {{"at", to_iso8601(request.at)}, {"by", request.by}, {"changes", changes}};
  return out.dump(-1, ' ', false, json::error_handler_t::replace);
}

}  // namespace

std::string config_history_prefix(const std::string& cluster) {
  // No cluster's name begins with a point.
  return fmt::format("/bascule/.log/{}/config/", cluster);
}

std::vector<ConfigChange> parse_config_history(const std::vector<store::Entry>& entries) {
  std::vector<ConfigChange> out;
  for (const store::Entry& entry : entries) {
    const json record = json::parse(entry.value, nullptr, /*allow_exceptions=*/false);
    if (!record.is_object() || !record.contains("changes")) continue;
    ConfigChange change;
    const auto text = [&](const char* key) {
      const auto found = record.find(key);
      return found != record.end() && found->is_string() ? found->get<std::string>() : "";
    };
    change.at = text("at");
    change.by = text("by");
    if (!record["changes"].is_object()) continue;
    for (const auto& [key, pair] : record["changes"].items()) {
      const bool good =
          pair.is_array() && pair.size() == 2 && pair[0].is_string() && pair[1].is_string();
      if (good) change.changes[key] = {pair[0].get<std::string>(), pair[1].get<std::string>()};
    }
    out.push_back(std::move(change));
  }
  return out;
}

Result<store::Txn> change_config(const control::ClusterView& view, const ConfigRequest& request,
                                 const std::vector<store::Entry>& history) {
  if (!view.config) {
    return fail(ErrorCode::kConflict, "the cluster has no configuration yet",
                "Wait until it is bootstrapped");
  }
  const control::ClusterConfig& before = view.config->value;
  const auto after =
      with_changes(request.replace ? control::ClusterConfig{} : before, request.wanted);
  if (!after) return std::unexpected(after.error());
  if (after->standby_cluster && !before.standby_cluster) {
    return fail(ErrorCode::kInvalid, "standby_cluster: this cluster leads itself",
                "Only a cluster that is made with it (defaults) follows another one");
  }
  if (*after == before) return fail(ErrorCode::kConflict, "nothing changes: it is so already");
  const std::string key = control::Keys(request.cluster).config();
  store::Txn txn;
  txn.compares.push_back({key, view.config->revision});
  txn.writes.push_back({key, control::encode(*after)});
  // The revision that it replaces: unique, and sorted by time.
  txn.writes.push_back(
      {fmt::format("{}{:016}", config_history_prefix(request.cluster), view.config->revision),
       encode_change(before, *after, request)});
  for (size_t i = 0; i + kConfigChangesKept <= history.size() && i < kConfigChangesKept; ++i) {
    txn.writes.push_back({history[i].key, std::nullopt});
  }
  return txn;
}

}  // namespace bascule::cli
