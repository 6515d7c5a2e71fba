#include "proxy/console_settings.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>

namespace bascule::proxy {
namespace {

// One setting: where it is, and whether it may change while the proxy runs.
struct Setting {
  enum class Change { kYes, kNo };
  std::string_view name;
  int ProxyConfig::* count = nullptr;
  Nanos ProxyConfig::* time = nullptr;
  Change change = Change::kYes;
  int64_t min = 0;  // of a count; of a time in milliseconds
  int64_t max = 1'000'000;
};

constexpr int64_t kDay = 24 * 3600 * 1000;
constexpr auto kNo = Setting::Change::kNo;
constexpr auto kYes = Setting::Change::kYes;

constexpr Setting kSettings[] = {
    {"client_idle_timeout", nullptr, &ProxyConfig::client_idle_timeout, kYes, 0, kDay},
    {"client_login_timeout", nullptr, &ProxyConfig::auth_timeout, kYes, 100, 600'000},
    {"default_pool_size", &ProxyConfig::default_pool_size, nullptr, kNo},
    {"idle_transaction_timeout", nullptr, &ProxyConfig::idle_transaction_timeout, kYes, 0, kDay},
    {"max_client_conn", &ProxyConfig::clients_max, nullptr, kYes, 1},
    {"max_db_connections", &ProxyConfig::max_db_connections, nullptr, kNo},
    {"max_user_connections", &ProxyConfig::max_user_connections, nullptr, kNo},
    {"query_timeout", nullptr, &ProxyConfig::query_timeout, kYes, 0, kDay},
    {"query_wait_timeout", nullptr, &ProxyConfig::hold_timeout, kYes, 1, 3'600'000},
    {"reserve_pool_size", &ProxyConfig::reserve_pool_size, nullptr, kNo},
    {"reserve_pool_timeout", nullptr, &ProxyConfig::reserve_pool_timeout, kYes, 0, 3'600'000},
    {"server_connect_timeout", nullptr, &ProxyConfig::connect_timeout, kYes, 10, 60'000},
    {"server_idle_timeout", nullptr, &ProxyConfig::server_idle_timeout, kYes, 1'000, kDay},
    {"server_lifetime", nullptr, &ProxyConfig::server_lifetime, kYes, 0, kDay},
    {"transaction_timeout", nullptr, &ProxyConfig::transaction_timeout, kYes, 0, kDay},
    // Ours.
    {"held_max", &ProxyConfig::hold_count_max, nullptr, kYes},
    {"pool_size", &ProxyConfig::pool_size, nullptr, kNo, 1, 10'000},
    {"workers", &ProxyConfig::workers, nullptr, kNo, 1, 128},
};

// PgBouncer writes whole seconds where it can.
std::string seconds(Nanos time) {
  return fmt::format("{}", std::chrono::duration<double>(time).count());
}

std::string text_of(const Setting& setting, const ProxyConfig& config) {
  return setting.time != nullptr ? seconds(config.*setting.time)
                                 : fmt::format("{}", config.*setting.count);
}

std::optional<double> number(std::string_view text) {
  double value = 0;
  const auto [stop, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || stop != text.data() + text.size() || !std::isfinite(value)) {
    return std::nullopt;
  }
  return value;
}

Status out_of_range(const Setting& setting) {
  if (setting.time == nullptr) {
    return fail(ErrorCode::kInvalid, fmt::format("{}: expected a whole number from {} to {}",
                                                 setting.name, setting.min, setting.max));
  }
  return fail(ErrorCode::kInvalid,
              fmt::format("{}: expected seconds from {} to {}", setting.name,
                          static_cast<double>(setting.min) / 1000, setting.max / 1000));
}

}  // namespace

std::vector<std::vector<std::optional<std::string>>> config_rows(const ProxyConfig& config,
                                                                 const ProxyConfig& defaults) {
  std::vector<std::vector<std::optional<std::string>>> rows;
  for (const Setting& setting : kSettings) {
    rows.push_back({std::string(setting.name), text_of(setting, config), text_of(setting, defaults),
                    setting.change == kYes ? "yes" : "no"});
  }
  constexpr std::string_view kModes[] = {"session", "transaction", "statement"};
  const auto fixed = [&](std::string_view name, std::string value, std::string otherwise) {
    rows.push_back({std::string(name), std::move(value), std::move(otherwise), "no"});
  };
  fixed("max_prepared_statements", fmt::format("{}", config.server_prepared_max),
        fmt::format("{}", defaults.server_prepared_max));
  fixed("pool_mode", std::string(kModes[static_cast<size_t>(config.pool_mode)]),
        std::string(kModes[static_cast<size_t>(defaults.pool_mode)]));
  if (!config.listeners.empty()) {
    const env::Endpoint& at = config.listeners.front().endpoint;
    fixed("listen_addr", at.host, "127.0.0.1");
    fixed("listen_port", fmt::format("{}", at.port), "6432");
  }
  std::ranges::sort(rows, {}, [](const auto& row) { return *row.front(); });
  return rows;
}

Status set_config(ProxyConfig& config, std::string_view name, std::string_view value) {
  const Setting* setting = std::ranges::find(kSettings, name, &Setting::name);
  if (setting == std::end(kSettings)) {
    return fail(ErrorCode::kNotFound, fmt::format("unknown setting \"{}\"", name));
  }
  if (setting->change == kNo) {
    return fail(ErrorCode::kConflict,
                fmt::format("{} can't be changed while the proxy runs", name));
  }
  const auto given = number(value);
  if (!given) return out_of_range(*setting);
  if (setting->time != nullptr) {
    const double ms = *given * 1000;
    if (ms < static_cast<double>(setting->min) || ms > static_cast<double>(setting->max)) {
      return out_of_range(*setting);
    }
    config.*setting->time = Millis(static_cast<int64_t>(std::llround(ms)));
    return {};
  }
  if (*given != std::floor(*given) || *given < static_cast<double>(setting->min) ||
      *given > static_cast<double>(setting->max)) {
    return out_of_range(*setting);
  }
  config.*setting->count = static_cast<int>(*given);
  return {};
}

}  // namespace bascule::proxy
