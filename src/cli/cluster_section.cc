// The cluster's dynamic configuration as text: the section `defaults`, and what `bascule config`
// reads and shows.
#include <fmt/format.h>

#include "cli/config.h"
#include "node/pg_files.h"

namespace bascule::cli {

const std::vector<std::string> kTimingPresets = {"fast", "default", "wide"};

void apply_timing(std::string_view preset, control::ClusterConfig& config) {
  if (preset == "fast") {
    config.ttl = 2s;
    config.ballot_window = 200ms;
    config.sync_degrade_after = 300ms;
  } else if (preset == "wide") {
    config.ttl = 30s;
    config.ballot_window = 2s;
    config.sync_degrade_after = 2s;
    config.promote_timeout = 60s;
    config.rejoin_timeout = 120s;
  }
}

namespace {

void set_parameters(MapReader& reader, const std::map<std::string, std::string>& wanted,
                    control::ClusterConfig& config) {
  for (const auto& [name, value] : wanted) {
    if (value.empty()) {
      config.parameters.erase(name);
    } else {
      config.parameters[name] = value;
    }
  }
  if (auto good = node::check_dynamic(config.parameters); !good) {
    reader.problem("parameters", good.error().message);
  }
}

// "physical", or "logical:DATABASE:PLUGIN".
void set_slots(MapReader& reader, const std::map<std::string, std::string>& wanted,
               control::ClusterConfig& config) {
  constexpr std::string_view kLogical = "logical:";
  for (const auto& [name, value] : wanted) {
    const bool good_name =
        !name.empty() && name.size() <= 63 && !name.starts_with("bascule_") &&
        name.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789_") == std::string::npos;
    if (!good_name) {
      reader.problem("slots",
                     fmt::format("\"{}\" is not a slot's name, or one of Bascule's", name));
      continue;
    }
    if (value.empty()) {
      config.slots.erase(name);
      continue;
    }
    control::PermanentSlot slot;
    if (value != "physical") {
      const size_t colon = value.find(':', kLogical.size());
      if (!value.starts_with(kLogical) || colon == std::string::npos || colon == kLogical.size() ||
          colon + 1 == value.size()) {
        reader.problem("slots",
                       fmt::format("{}: expected physical or logical:DATABASE:PLUGIN", name));
        continue;
      }
      slot.database = value.substr(kLogical.size(), colon - kLogical.size());
      slot.plugin = value.substr(colon + 1);
    }
    config.slots[name] = slot;
  }
}

std::string yaml_quoted(std::string_view value) {
  std::string out = "\"";
  for (const char c : value) {
    if (c == '"' || c == '\\') out += '\\';
    out += c;
  }
  return out + "\"";
}

// Written as false or as nothing it is taken away: the cluster follows nobody any more.
// In the order of their enumerations.
const std::vector<std::string> kOnCrash = {"failover", "restart", "restart_then_failover"};
const std::vector<std::string> kOnDiskFull = {"failover", "stay"};
const std::vector<std::string> kSyncRegions = {"any", "other", "same"};

template <typename Enum>
void read_word(MapReader& reader, const char* key, const std::vector<std::string>& words,
               Enum& out) {
  int index = static_cast<int>(out);
  reader.choice(key, index, words);
  out = static_cast<Enum>(index);
}

void read_standby_cluster(MapReader& reader, control::ClusterConfig& config) {
  const YAML::Node node = reader.raw("standby_cluster");
  if (node.IsNull() || (node.IsScalar() && (node.Scalar().empty() || node.Scalar() == "false"))) {
    config.standby_cluster.reset();
    return;
  }
  control::StandbyCluster follow = config.standby_cluster.value_or(control::StandbyCluster{});
  MapReader map = reader.map("standby_cluster");  // of what is said, the rest stays
  map.text("host", follow.host);
  map.integer("port", follow.port, {.min = 1, .max = 65535});
  map.text("primary_slot_name", follow.primary_slot_name, Need::kOptional,
           MapReader::Empty::kAllowed);
  map.text("restore_command", follow.restore_command, Need::kOptional, MapReader::Empty::kAllowed);
  map.finish();
  if (follow.host.empty()) map.problem("host", "is missing: the primary to follow");
  config.standby_cluster = std::move(follow);
}

}  // namespace

void read_cluster_config(MapReader& reader, control::ClusterConfig& config) {
  int timing = 1;
  if (reader.choice("timing", timing, kTimingPresets)) apply_timing(kTimingPresets[timing], config);
  reader.duration("ttl", config.ttl, {.min = 1s, .max = 10min});
  int sync = static_cast<int>(config.sync_mode);
  using enum control::SyncMode;
  constexpr control::SyncMode kMeant[] = {kOff, kOn, kQuorum, kOff, kOn};
  reader.choice("sync", sync, {"off", "on", "quorum", "false", "true"});
  config.sync_mode = kMeant[sync];
  int count = static_cast<int>(config.sync_count);
  reader.integer("sync_count", count, {.min = 1, .max = 8});
  config.sync_count = static_cast<size_t>(count);
  reader.flag("sync_strict", config.sync_strict);
  reader.duration("sync_degrade_after", config.sync_degrade_after, {.min = 50ms, .max = 10min});
  read_word(reader, "on_crash", kOnCrash, config.on_crash);
  read_word(reader, "on_disk_full", kOnDiskFull, config.on_disk_full);
  int limit = static_cast<int>(config.failover_limit);
  reader.integer("failover_limit", limit, {.min = 0, .max = 1000});
  config.failover_limit = static_cast<size_t>(limit);
  reader.duration("failover_window", config.failover_window, {.min = 1s, .max = 24h});
  read_word(reader, "sync_region", kSyncRegions, config.sync_region);
  reader.size("maximum_lag", config.maximum_lag_bytes, 0);
  reader.duration("ballot_window", config.ballot_window, {.min = 10ms, .max = 1min});
  reader.duration("drain_timeout", config.drain_timeout, {.min = 0ms, .max = 10min});
  reader.duration("promote_timeout", config.promote_timeout, {.min = 1s, .max = 1h});
  reader.duration("rejoin_timeout", config.rejoin_timeout, {.min = 1s, .max = 24h});
  reader.text("primary_region", config.primary_region, Need::kOptional, MapReader::Empty::kAllowed);
  std::map<std::string, std::string> parameters;
  if (reader.text_map("parameters", parameters)) set_parameters(reader, parameters, config);
  std::map<std::string, std::string> slots;
  if (reader.text_map("slots", slots)) set_slots(reader, slots, config);
  reader.flag("failsafe", config.failsafe);
  reader.flag("early_takeover", config.early_takeover);
  reader.duration("blip_tolerance", config.blip_tolerance, {.min = 200ms, .max = 10min});
  reader.flag("region_relays", config.region_relays);
  if (reader.has("standby_cluster")) read_standby_cluster(reader, config);
}

std::string render_cluster_config(const control::ClusterConfig& config) {
  std::string out;
  const auto line = [&](std::string_view key, std::string_view value) {
    out += fmt::format("{}: {}\n", key, value);
  };
  line("ttl", format_duration(config.ttl));
  line("sync", to_string(config.sync_mode));
  line("sync_count", fmt::format("{}", config.sync_count));
  line("sync_strict", config.sync_strict ? "true" : "false");
  line("sync_degrade_after", format_duration(config.sync_degrade_after));
  line("on_crash", kOnCrash[static_cast<size_t>(config.on_crash)]);
  line("on_disk_full", kOnDiskFull[static_cast<size_t>(config.on_disk_full)]);
  line("failover_limit", fmt::format("{}", config.failover_limit));
  line("failover_window", format_duration(config.failover_window));
  line("sync_region", kSyncRegions[static_cast<size_t>(config.sync_region)]);
  line("maximum_lag", format_size(config.maximum_lag_bytes));
  line("ballot_window", format_duration(config.ballot_window));
  line("drain_timeout", format_duration(config.drain_timeout));
  line("promote_timeout", format_duration(config.promote_timeout));
  line("rejoin_timeout", format_duration(config.rejoin_timeout));
  if (!config.primary_region.empty()) line("primary_region", yaml_quoted(config.primary_region));
  if (!config.parameters.empty()) out += "parameters:\n";
  for (const auto& [name, value] : config.parameters) line("  " + name, yaml_quoted(value));
  if (!config.slots.empty()) out += "slots:\n";
  for (const auto& [name, slot] : config.slots) {
    line("  " + name, slot.logical() ? fmt::format("\"logical:{}:{}\"", slot.database, slot.plugin)
                                     : "physical");
  }
  line("failsafe", config.failsafe ? "true" : "false");
  line("early_takeover", config.early_takeover ? "true" : "false");
  line("blip_tolerance", format_duration(config.blip_tolerance));
  line("region_relays", config.region_relays ? "true" : "false");
  if (const auto& follow = config.standby_cluster) {
    out += "standby_cluster:\n";
    line("  host", yaml_quoted(follow->host));
    line("  port", fmt::format("{}", follow->port));
    if (!follow->primary_slot_name.empty()) {
      line("  primary_slot_name", yaml_quoted(follow->primary_slot_name));
    }
    if (!follow->restore_command.empty()) {
      line("  restore_command", yaml_quoted(follow->restore_command));
    }
  }
  return out;
}

}  // namespace bascule::cli
