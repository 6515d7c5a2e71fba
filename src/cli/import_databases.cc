#include "cli/import_databases.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <nlohmann/json.hpp>

namespace bascule::cli {

using nlohmann::ordered_json;

namespace {

constexpr int64_t kDayMs = 86'400'000;

void add(std::string& text, std::string_view what) {
  text += fmt::format("{}{}", text.empty() ? "" : "; ", what);
}

std::string mapping(const std::vector<std::pair<std::string, std::string>>& keys) {
  std::string out;
  for (const auto& [key, value] : keys) {
    out += fmt::format("{}{}: {}", out.empty() ? "" : ", ", key, value);
  }
  return "{" + out + "}";
}

std::vector<std::string> at_commas(const std::string& text) {
  std::vector<std::string> parts;
  for (size_t begin = 0; begin <= text.size();) {
    const size_t end = std::min(text.find(',', begin), text.size());
    parts.push_back(text.substr(begin, end - begin));
    begin = end + 1;
  }
  return parts;
}

// As libpq: one port for all hosts, or one for each.
Result<std::vector<HostPort>> hosts_of(const std::string& host, const std::string& port) {
  const std::vector<std::string> hosts = at_commas(host), ports = at_commas(port);
  if (ports.size() != 1 && ports.size() != hosts.size()) {
    return fail(ErrorCode::kInvalid, "one port, or one for each host");
  }
  std::vector<HostPort> out;
  for (size_t i = 0; i < hosts.size(); ++i) {
    const auto number = whole(ports[ports.size() == 1 ? 0 : i]);
    if (!number || *number < 1 || *number > 65535) return fail(ErrorCode::kInvalid, "a port");
    if (hosts[i].empty()) return fail(ErrorCode::kInvalid, "a host");
    out.push_back({hosts[i], static_cast<int>(*number)});
  }
  return out;
}

// Counts and modes that have the same name here. nullopt: another key; empty: not such a value.
std::optional<std::string> same_here(const std::string& key, const std::string& value) {
  if (key == "pool_size" || key == "min_pool_size" || key == "reserve_pool_size" ||
      key == "max_db_connections" || key == "max_user_connections") {
    const auto number = whole(value);
    return number && *number >= 0 && *number <= 10'000 ? value : "";
  }
  if (key == "max_db_client_connections" || key == "max_user_client_connections") {
    const auto number = whole(value);
    return number && *number >= 0 && *number <= 1'000'000 ? value : "";
  }
  if (key == "pool_mode") {
    return value == "session" || value == "transaction" || value == "statement" ? value : "";
  }
  return std::nullopt;
}

}  // namespace

std::string yaml_text(std::string_view text) {
  return ordered_json(std::string(text))
      .dump(-1, ' ', false, ordered_json::error_handler_t::replace);
}

std::optional<int64_t> whole(std::string_view text) {
  int64_t value = 0;
  const auto [stop, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || stop != text.data() + text.size()) return std::nullopt;
  return value;
}

std::optional<int64_t> milliseconds(std::string_view text) {
  double value = 0;
  const auto [stop, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || stop != text.data() + text.size()) return std::nullopt;
  if (!(value >= 0) || value > 1e9) return std::nullopt;
  return static_cast<int64_t>(value * 1000);
}

std::vector<std::string> split_list(std::string_view text) {
  std::vector<std::string> out;
  while (!text.empty()) {
    const size_t end = std::min(text.find_first_of(", \t"), text.size());
    if (end > 0) out.emplace_back(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return out;
}

std::string ImportedDatabase::yaml(const HostPort& usual) const {
  auto all = keys;
  if (hosts.size() != 1 || hosts.front() != usual) {
    std::string list;
    for (const HostPort& host : hosts) {
      const bool directory = host.host.starts_with('/');
      list += (list.empty() ? "" : ", ") + yaml_text(directory ? host.host : host.to_string());
    }
    all.insert(all.begin(), {"hosts", "[" + list + "]"});
    if (hosts.front().host.starts_with('/')) {
      all.insert(all.begin() + 1, {"port", fmt::format("{}", hosts.front().port)});
    }
  }
  all.insert(all.begin(), {"name", yaml_text(name)});
  return mapping(all);
}

Result<ImportedDatabase> import_database(const IniEntry& entry) {
  const auto pairs = parse_connect_string(entry.value);
  if (!pairs) return fail(ErrorCode::kInvalid, "key=value key=value ...");
  ImportedDatabase out;
  out.name = entry.key;
  std::string host = "/var/run/postgresql", port = "5432", settings, lost;
  for (const auto& [key, value] : *pairs) {
    if (key == "host" && !value.empty()) {
      host = value;
    } else if (key == "port") {
      port = value;
    } else if (key == "dbname" && (value == entry.key || value.empty())) {
      // The same name on both sides.
    } else if (key == "dbname" || key == "user" || key == "connect_query") {
      out.keys.emplace_back(key, yaml_text(value));
    } else if (key == "password") {
      lost = "password: put it into a file of mode 0600 and name that as password_file";
    } else if (key == "load_balance_hosts" && (value == "round-robin" || value == "disable")) {
      out.keys.emplace_back(key, value);
    } else if (key == "application_name" || key == "client_encoding" || key == "datestyle" ||
               key == "timezone") {
      settings += fmt::format("{}{}: {}", settings.empty() ? "" : ", ", key, yaml_text(value));
    } else if (const auto ms = milliseconds(value);
               key == "server_lifetime" && ms && *ms <= kDayMs) {
      out.keys.emplace_back(key, format_duration(Millis(*ms)));
    } else if (const auto same = same_here(key, value); same && !same->empty()) {
      out.keys.emplace_back(key, *same);
    } else {
      add(lost, "not carried over: " + key);
    }
  }
  if (!settings.empty()) out.keys.emplace_back("settings", "{" + settings + "}");
  auto hosts = hosts_of(host, port);
  if (!hosts) return std::unexpected(hosts.error());
  out.hosts = std::move(*hosts);
  out.lost = std::move(lost);
  return out;
}

Result<ImportedUser> import_user(const IniEntry& entry) {
  const auto pairs = parse_connect_string(entry.value);
  if (!pairs) return fail(ErrorCode::kInvalid, "key=value key=value ...");
  ImportedUser out;
  std::vector<std::pair<std::string, std::string>> keys = {{"user", yaml_text(entry.key)}};
  for (const auto& [key, value] : *pairs) {
    const auto same = same_here(key, value);
    if (same && !same->empty() && key != "min_pool_size" && !key.starts_with("max_db_")) {
      keys.emplace_back(key, *same);
    } else {
      add(out.lost, "not carried over: " + key);
    }
  }
  if (keys.size() > 1) out.yaml = mapping(keys);
  return out;
}

}  // namespace bascule::cli
