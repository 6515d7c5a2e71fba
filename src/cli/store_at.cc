#include "cli/store_at.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "cli/secrets.h"
#include "store/etcd_store.h"
#include "store/sqlite_store.h"

namespace bascule::cli {
namespace {

constexpr std::string_view kFile = "file:";
// So many attempts at other members fit into the time of a request.
constexpr int kAttempts = 4;

void read_etcd(MapReader& map, const std::function<std::string(const std::string&)>& resolve,
               EtcdAt& out) {
  int type = 0;
  if (!map.choice("type", type, {"etcd"})) map.problem("type", "is missing (etcd)");
  if (!map.text_list("endpoints", out.endpoints)) map.problem("endpoints", "is missing");
  map.text("prefix", out.prefix);
  map.text("user", out.user);
  const std::pair<const char*, std::string*> files[] = {{"password_file", &out.password_file},
                                                        {"ca", &out.ca_file},
                                                        {"cert", &out.cert_file},
                                                        {"key", &out.key_file}};
  for (const auto& [key, to] : files) {
    if (map.text(key, *to)) *to = resolve(*to);
  }
  map.duration("timeout", out.timeout, {.min = 200ms, .max = 10s});
  if (out.cert_file.empty() != out.key_file.empty()) map.problem("cert", "needs key, and key cert");
  const bool tls = !out.endpoints.empty() && out.endpoints[0].starts_with("https:");
  if (!tls && !(out.ca_file.empty() && out.cert_file.empty())) {
    map.problem("ca", "ca, cert and key are for https:// endpoints");
  }
  store::EtcdOptions options;
  options.endpoints = out.endpoints;
  options.prefix = out.prefix;
  options.user = out.user;
  options.password = out.password_file;  // not read here: whether there is one
  options.timeout = out.timeout;
  options.attempt = out.timeout / kAttempts;
  if (auto s = store::validate(options); !s && !out.endpoints.empty()) {
    map.problem("endpoints", s.error().message);
  }
  map.finish();
}

}  // namespace

std::string StoreAt::to_string() const {
  return etcd ? fmt::format("etcd {}", fmt::join(etcd->endpoints, ", ")) : path;
}

void read_store(MapReader& top, const std::function<std::string(const std::string&)>& resolve,
                StoreAt& out) {
  const YAML::Node node = top.raw("store");
  if (node && node.IsMap()) {
    MapReader map = top.map("store");
    read_etcd(map, resolve, out.etcd.emplace());
    return;
  }
  std::string url;
  if (!top.text("store", url, Need::kRequired) || url.empty()) return;
  if (!url.starts_with(kFile) || url.size() == kFile.size()) {
    top.problem("store", "expected file:/path/of/store.db, or {type: etcd, endpoints: [...]}");
    return;
  }
  out.path = resolve(url.substr(kFile.size()));
}

std::string render_store(const StoreAt& at) {
  if (!at.etcd) return fmt::format("store: \"{}{}\"\n", kFile, at.path);
  const EtcdAt& etcd = *at.etcd;
  std::string out = "store:\n  type: etcd\n  endpoints:\n";
  for (const std::string& endpoint : etcd.endpoints) out += fmt::format("    - {}\n", endpoint);
  const auto line = [&](std::string_view key, const std::string& value) {
    if (!value.empty()) out += fmt::format("  {}: \"{}\"\n", key, value);
  };
  line("prefix", etcd.prefix);
  line("user", etcd.user);
  line("password_file", etcd.password_file);
  line("ca", etcd.ca_file);
  line("cert", etcd.cert_file);
  line("key", etcd.key_file);
  if (etcd.timeout != EtcdAt{}.timeout) line("timeout", format_duration(etcd.timeout));
  return out;
}

Result<std::unique_ptr<OpenStore>> OpenStore::open(const Platform& platform, const StoreAt& at,
                                                   env::Loop& loop, const Options& options) {
  std::unique_ptr<OpenStore> self(new OpenStore);
  if (!at.etcd) {
    store::SqliteOptions sqlite;
    sqlite.path = at.path;
    sqlite.identity = options.identity;
    sqlite.timeout = options.timeout;
    self->pool_ = platform.make_pool(options.threads);
    self->hint_ = platform.make_hint(loop);
    self->store_ =
        std::make_unique<store::SqliteStore>(sqlite, loop, *self->pool_, self->hint_.get());
    return self;
  }
  store::EtcdOptions etcd;
  etcd.endpoints = at.etcd->endpoints;
  etcd.prefix = at.etcd->prefix;
  etcd.user = at.etcd->user;
  etcd.identity = options.identity;
  etcd.timeout = at.etcd->timeout;
  etcd.attempt = at.etcd->timeout / kAttempts;
  if (!at.etcd->password_file.empty()) {
    auto password = read_secret(platform.disk, at.etcd->password_file);
    if (!password) return std::unexpected(password.error());
    etcd.password = std::move(*password);
  }
  if (auto s = store::validate(etcd); !s) {
    return fail(ErrorCode::kInvalid, "store: " + s.error().message);
  }
  self->http_ = platform.make_http(loop, {at.etcd->ca_file, at.etcd->cert_file, at.etcd->key_file});
  self->store_ = std::make_unique<store::EtcdStore>(std::move(etcd), loop, *self->http_);
  return self;
}

OpenStore::~OpenStore() {
  store_.reset();
  pool_.reset();  // its last work may still use the hint
  hint_.reset();
  http_.reset();
}

}  // namespace bascule::cli
