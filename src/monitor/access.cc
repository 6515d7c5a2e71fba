#include "monitor/access.h"

#include <fmt/format.h>
#include <libpq-fe.h>

#include <algorithm>
#include <charconv>
#include <memory>
#include <optional>

namespace bascule::monitor {
namespace {

constexpr Millis kRegionInterval{30000};  // B2
constexpr Millis kInterval{10000};        // D7
constexpr size_t kUrlBytesMax = 4096;

struct FreeOptions {
  void operator()(PQconninfoOption* options) const { PQconninfoFree(options); }
};

std::optional<std::string> get(const Environment& environment, const std::string& name) {
  const auto found = environment.find(name);
  if (found == environment.end() || found->second.empty()) return std::nullopt;
  return found->second;
}

Result<int64_t> number(const std::string& name, const std::string& text, int64_t low,
                       int64_t high) {
  int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || value < low || value > high) {
    return fail(ErrorCode::kInvalid,
                fmt::format("{}: expected a whole number from {} to {}", name, low, high));
  }
  return value;
}

Result<Ssl> ssl_of(const Environment& environment, const std::string& name) {
  const auto text = get(environment, name);
  if (!text) return Ssl::kAsUrl;
  std::string lower = *text;
  std::ranges::transform(lower, lower.begin(), [](unsigned char c) { return std::tolower(c); });
  for (const char* yes : {"true", "1", "on", "yes", "require"}) {
    if (lower == yes) return Ssl::kRequire;
  }
  for (const char* no : {"false", "0", "off", "no", "disable"}) {
    if (lower == no) return Ssl::kDisable;
  }
  return fail(ErrorCode::kInvalid, name + ": expected true or false",
              "sslmode=verify-full and the like belong into the URL");
}

// "DB_US_EAST" + "_URL": the region's part in the form of a name, "us-east".
Result<NodeName> name_of(const std::string& variable, std::string_view middle) {
  std::string text;
  for (const char c : middle) {
    text += c == '_' ? '-' : static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  }
  auto name = NodeName::parse(text);
  if (!name)
    return fail(ErrorCode::kInvalid, fmt::format("{}: {}", variable, name.error().message));
  return name;
}

struct Defaults {
  std::optional<Millis> interval;  // FAILOVER_HEALTH_CHECK_INTERVAL
};

Result<Source> source(const std::string& variable, const std::string& url, Ssl ssl,
                      const NodeName& name) {
  auto out = parse_url(url, ssl);
  if (!out) {
    return fail(out.error().code, fmt::format("{}: {}", variable, out.error().message),
                out.error().hint);
  }
  out->config.name = name;
  return out;
}

// "EU_WEST_REPLICA2" -> "EU_WEST"; "EU_WEST" as it is.
std::string_view region_of(std::string_view middle) {
  const size_t at = middle.rfind("_REPLICA");
  if (at == std::string_view::npos || at == 0) return middle;
  const std::string_view digits = middle.substr(at + 8);
  const bool numbered =
      !digits.empty() && std::ranges::all_of(digits, [](char c) { return c >= '0' && c <= '9'; });
  return numbered ? middle.substr(0, at) : middle;
}

Status read_region(const Environment& environment, const std::string& variable,
                   const std::string& url, const Defaults& defaults, std::vector<Source>& out) {
  const std::string_view middle =
      std::string_view(variable).substr(3, variable.size() - 3 - 4);  // between DB_ and _URL
  const std::string region(region_of(middle));
  const std::string prefix = "DB_" + region;
  std::string text(middle);
  // The name of a replica is "<region>-replica<n>".
  auto name = name_of(variable, text);
  if (!name) return std::unexpected(name.error());
  const auto region_name = name_of(variable, region);
  if (!region_name) return std::unexpected(region_name.error());
  const auto ssl = ssl_of(environment, prefix + "_SSL");
  if (!ssl) return std::unexpected(ssl.error());
  auto endpoint = source(variable, url, *ssl, *name);
  if (!endpoint) return std::unexpected(endpoint.error());
  endpoint->config.region = region_name->str();
  endpoint->config.health_interval = defaults.interval.value_or(kRegionInterval);
  const auto millis = [&](const char* suffix, Millis& to) -> Status {
    const auto value = get(environment, prefix + suffix);
    if (!value) return {};
    const auto ms = number(prefix + suffix, *value, 100, 24LL * 3600 * 1000);
    if (!ms) return std::unexpected(ms.error());
    to = Millis(*ms);
    return {};
  };
  if (auto s = millis("_HEALTH_INTERVAL", endpoint->config.health_interval); !s) return s;
  if (auto s = millis("_FAILOVER_TIMEOUT", endpoint->config.failover_timeout); !s) return s;
  if (const auto priority = get(environment, prefix + "_PRIORITY")) {
    const auto value = number(prefix + "_PRIORITY", *priority, 0, 1000);
    if (!value) return std::unexpected(value.error());
    endpoint->config.priority = static_cast<int>(*value);
  }
  out.push_back(std::move(*endpoint));
  return {};
}

std::string quoted(const std::string& value) {
  std::string out = "'";
  for (const char c : value) {
    if (c == '\'' || c == '\\') out += '\\';
    out += c;
  }
  return out + "'";
}

Status read_single(const Environment& environment, const Defaults& defaults,
                   std::vector<Source>& out) {
  const auto add = [&](const std::string& variable, const std::string& url, const char* name,
                       Ssl ssl) -> Status {
    auto endpoint = source(variable, url, ssl, *NodeName::parse(name));
    if (!endpoint) return std::unexpected(endpoint.error());
    endpoint->config.health_interval = defaults.interval.value_or(kInterval);
    out.push_back(std::move(*endpoint));
    return {};
  };
  const auto ssl = ssl_of(environment, "DB_SSL");
  if (!ssl) return std::unexpected(ssl.error());
  if (const auto url = get(environment, "DATABASE_URL")) {
    if (auto s = add("DATABASE_URL", *url, "primary", *ssl); !s) return s;
  } else if (const auto host = get(environment, "DB_HOST")) {
    std::string text = "host=" + quoted(*host);
    const auto part = [&](const char* variable, const char* keyword) {
      if (const auto value = get(environment, variable)) {
        text += fmt::format(" {}={}", keyword, quoted(*value));
      }
    };
    part("DB_PORT", "port");
    part("DB_NAME", "dbname");
    part("DB_USER", "user");
    part("DB_PASSWORD", "password");
    if (auto s = add("DB_HOST", text, "primary", *ssl); !s) return s;
  }
  if (const auto url = get(environment, "DATABASE_REPLICA_URL")) {
    if (auto s = add("DATABASE_REPLICA_URL", *url, "replica", *ssl); !s) return s;
  }
  return {};
}

}  // namespace

Result<Source> parse_url(std::string_view url, Ssl ssl) {
  // libpq's own message quotes what it can't read, and that may be the password.
  const auto refuse = [](const char* what) {
    return fail(ErrorCode::kInvalid, what,
                "Expected postgresql://user:password@host:port/database, with special characters "
                "of the password percent-encoded");
  };
  if (url.size() > kUrlBytesMax) return refuse("the URL is longer than 4096 bytes");
  char* message = nullptr;
  const std::unique_ptr<PQconninfoOption, FreeOptions> options(
      PQconninfoParse(std::string(url).c_str(), &message));
  PQfreemem(message);
  if (!options) return refuse("not a URL of PostgreSQL");
  Source out;
  std::string host, sslmode, port = "5432";
  for (const PQconninfoOption* o = options.get(); o->keyword != nullptr; ++o) {
    if (o->val == nullptr || *o->val == '\0') continue;
    const std::string_view keyword = o->keyword;
    if (keyword == "host") host = o->val;
    if (keyword == "port") port = o->val;
    if (keyword == "user") out.access.user = o->val;
    if (keyword == "dbname") out.access.database = o->val;
    if (keyword == "sslmode") sslmode = o->val;
    if (keyword == "target_session_attrs" || keyword == "service" || keyword == "options") {
      return refuse("target_session_attrs, service and options are the monitor's own business");
    }
    if (keyword != "sslmode") out.access.parameters.emplace_back(o->keyword, o->val);
  }
  if (host.empty()) return refuse("the URL names no host");
  if (host.contains(',') || port.contains(',')) {
    return refuse("the URL names several hosts: an endpoint is one database");
  }
  const auto parsed_port = number("port", port, 1, 65535);
  if (!parsed_port) return refuse("the port is not a number from 1 to 65535");
  if (sslmode.empty() && ssl != Ssl::kAsUrl) sslmode = ssl == Ssl::kRequire ? "require" : "disable";
  if (!sslmode.empty()) out.access.parameters.emplace_back("sslmode", sslmode);
  out.access.parameters.emplace_back("application_name", "bascule-monitor");
  out.config.host = host;
  out.config.port = static_cast<int>(*parsed_port);
  out.access.shown =
      fmt::format("postgresql://{}{}{}:{}/{}", out.access.user, out.access.user.empty() ? "" : "@",
                  host, *parsed_port, out.access.database);
  return out;
}

Result<std::vector<Source>> sources_from_environment(const Environment& environment) {
  std::vector<Source> out;
  Defaults defaults;
  if (const auto text = get(environment, "FAILOVER_HEALTH_CHECK_INTERVAL")) {
    const auto ms = number("FAILOVER_HEALTH_CHECK_INTERVAL", *text, 100, 3600 * 1000);
    if (!ms) return std::unexpected(ms.error());
    defaults.interval = Millis(*ms);
  }
  for (const auto& [variable, value] : environment) {
    const std::string_view text = variable;
    if (!text.starts_with("DB_") || !text.ends_with("_URL") || text.size() <= 7 || value.empty()) {
      continue;
    }
    if (auto s = read_region(environment, variable, value, defaults, out); !s) {
      return std::unexpected(s.error());
    }
  }
  if (auto s = read_single(environment, defaults, out); !s) return std::unexpected(s.error());
  std::ranges::sort(out, {}, [](const Source& s) { return s.config.name; });
  return out;
}

}  // namespace bascule::monitor
