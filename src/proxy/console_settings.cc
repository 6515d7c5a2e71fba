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
  std::string ProxyConfig::* text = nullptr;
  Change change = Change::kYes;
  int64_t min = 0;  // of a count; of a time in milliseconds
  int64_t max = 1'000'000;
};

constexpr Setting count(std::string_view name, int ProxyConfig::* at, int64_t min, int64_t max,
                        Setting::Change change = Setting::Change::kYes) {
  return {.name = name, .count = at, .change = change, .min = min, .max = max};
}
constexpr Setting time(std::string_view name, Nanos ProxyConfig::* at, int64_t min, int64_t max) {
  return {.name = name, .time = at, .min = min, .max = max};
}
constexpr Setting text(std::string_view name, std::string ProxyConfig::* at) {
  return {.name = name, .text = at};
}

constexpr int64_t kDay = 24 * 3600 * 1000;
constexpr int64_t kHour = 3600 * 1000;
constexpr auto kNo = Setting::Change::kNo;
using P = ProxyConfig;

constexpr Setting kSettings[] = {
    time("client_idle_timeout", &P::client_idle_timeout, 0, kDay),
    time("client_login_timeout", &P::auth_timeout, 100, 600'000),
    count("default_pool_size", &P::default_pool_size, 0, 10'000),
    time("idle_transaction_timeout", &P::idle_transaction_timeout, 0, kDay),
    count("max_client_conn", &P::clients_max, 1, 1'000'000),
    count("max_db_client_connections", &P::max_db_client_connections, 0, 1'000'000),
    count("max_db_connections", &P::max_db_connections, 0, 10'000),
    count("max_user_client_connections", &P::max_user_client_connections, 0, 1'000'000),
    count("max_user_connections", &P::max_user_connections, 0, 10'000),
    count("min_pool_size", &P::min_pool_size, 0, 10'000),
    time("query_timeout", &P::query_timeout, 0, kDay),
    time("query_wait_timeout", &P::hold_timeout, 1, kHour),
    count("reserve_pool_size", &P::reserve_pool_size, 0, 10'000),
    time("reserve_pool_timeout", &P::reserve_pool_timeout, 0, kHour),
    time("server_check_delay", &P::server_check_delay, 100, kDay),
    text("server_check_query", &P::server_check_query),
    time("server_connect_timeout", &P::connect_timeout, 10, 60'000),
    time("server_idle_timeout", &P::server_idle_timeout, 1'000, kDay),
    time("server_lifetime", &P::server_lifetime, 0, kDay),
    text("server_reset_query", &P::server_reset_query),
    time("transaction_timeout", &P::transaction_timeout, 0, kDay),
    // Ours.
    count("held_max", &P::hold_count_max, 0, 1'000'000),
    time("leave_timeout", &P::leave_timeout, 0, kDay),
    count("pool_size", &P::pool_size, 1, 10'000),
    count("workers", &P::workers, 1, 128, kNo),
};

// PgBouncer writes whole seconds where it can.
std::string seconds(Nanos time) {
  return fmt::format("{}", std::chrono::duration<double>(time).count());
}

std::string text_of(const Setting& setting, const ProxyConfig& config) {
  if (setting.text != nullptr) return config.*setting.text;
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
                    setting.change == kNo ? "no" : "yes"});
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
  if (setting->text != nullptr) {
    config.*setting->text = value;
    return {};
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
