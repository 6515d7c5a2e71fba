#include "cli/access_section.h"

#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "cli/secrets.h"
#include "proxy/access.h"

namespace bascule::cli {
namespace {

constexpr size_t kUserlistBytesMax = 16 << 20;
constexpr size_t kRulesBytesMax = 1 << 20;

const std::vector<std::string> kSslModes = {"disable", "allow",     "prefer",
                                            "require", "verify-ca", "verify-full"};
const std::vector<std::string> kAuthTypes = {"trust",    "reject", "scram-sha-256", "md5",
                                             "password", "cert",   "peer"};

class Reader {
 public:
  Reader(Problems& problems, const ResolvePath& resolve) : problems_(problems), resolve_(resolve) {}

  void file(MapReader& reader, const std::string& key, std::string& out,
            Need need = Need::kOptional) {
    if (reader.text(key, out, need) && !out.empty()) out = resolve_(out);
  }

  void mode(MapReader& reader, proxy::SslMode& out) {
    int index = static_cast<int>(out);
    reader.choice("mode", index, kSslModes);
    out = static_cast<proxy::SslMode>(index);
  }

  void limits(MapReader& reader, env::TlsLimits& out) {
    int version = static_cast<int>(out.min_version);
    reader.choice("min_version", version, {"1.2", "1.3"});
    out.min_version = static_cast<env::TlsVersion>(version);
    reader.text("ciphers", out.ciphers);
  }

  void client_tls(MapReader reader, proxy::AccessConfig& out) {
    mode(reader, out.client_tls);
    env::TlsServerOptions& files = out.client_tls_files;
    const bool on = out.client_tls != proxy::SslMode::kDisable;
    file(reader, "certificate_file", files.certificate_file,
         on ? Need::kRequired : Need::kOptional);
    file(reader, "key_file", files.key_file, on ? Need::kRequired : Need::kOptional);
    file(reader, "ca_file", files.ca_file);
    file(reader, "crl_file", files.crl_file);
    limits(reader, files.limits);
    if (out.client_tls >= proxy::SslMode::kVerifyCa && files.ca_file.empty()) {
      reader.problem("mode", "client certificates are demanded: name their authority (ca_file)");
    }
    reader.finish();
  }

  void server_tls(MapReader reader, proxy::AccessConfig& out) {
    mode(reader, out.server_tls);
    env::TlsClientOptions& files = out.server_tls_files;
    file(reader, "ca_file", files.ca_file);
    file(reader, "crl_file", files.crl_file);
    file(reader, "certificate_file", files.certificate_file);
    file(reader, "key_file", files.key_file);
    limits(reader, files.limits);
    if (out.server_tls >= proxy::SslMode::kVerifyCa && files.ca_file.empty()) {
      reader.problem("mode", "certificates are to be verified: name their authority (ca_file)");
    }
    if (files.certificate_file.empty() != files.key_file.empty()) {
      reader.problem("certificate_file", "it and key_file go together");
    }
    reader.finish();
  }

  void auth_query(MapReader reader, proxy::AuthQuery& out) {
    reader.text("user", out.user, Need::kRequired);
    reader.text("database", out.database);
    reader.text("query", out.query);
    if (out.query.find("$1") == std::string::npos) {
      reader.problem("query", "expected $1 in it, for the user's name");
    }
    Millis ttl(std::chrono::duration_cast<Millis>(out.ttl));
    Millis unknown(std::chrono::duration_cast<Millis>(out.ttl_unknown));
    reader.duration("ttl", ttl, {.min = 0ms, .max = 24h});
    reader.duration("ttl_unknown", unknown, {.min = 0ms, .max = 1h});
    out.ttl = ttl;
    out.ttl_unknown = unknown;
    reader.finish();
  }

  void password_commands(MapReader& proxy, std::vector<PasswordCommandSection>& out) {
    const YAML::Node list = proxy.raw("password_commands");
    if (!list) return;
    if (!list.IsSequence()) {
      proxy.problem("password_commands", "expected a list of {user, command, lifetime, timeout}");
      return;
    }
    for (const auto& item : list) {
      MapReader entry(problems_, item, "proxy.password_commands");
      PasswordCommandSection section;
      entry.text("user", section.user, Need::kRequired);
      entry.text_list("command", section.command);
      entry.duration("lifetime", section.lifetime, {.min = 1s, .max = 24h * 7});
      entry.duration("timeout", section.timeout, {.min = 100ms, .max = 5min});
      if (section.command.empty() || !section.command.front().starts_with('/')) {
        entry.problem("command", "expected a list that begins with the path of a program");
      }
      entry.finish();
      out.push_back(std::move(section));
    }
  }

 private:
  Problems& problems_;
  const ResolvePath& resolve_;
};

void check_readable(const std::string& key, const std::string& path, AccessCheck& check) {
  if (path.empty() || access(path.c_str(), R_OK) == 0) return;
  const int error = errno;
  (error == ENOENT ? check.errors : check.notes)
      .push_back(fmt::format("{}: {}: {}", key, path, std::strerror(error)));
}

void check_private(const std::string& key, const std::string& path, AccessCheck& check) {
  check_readable(key, path, check);
  struct stat info{};
  if (path.empty() || stat(path.c_str(), &info) != 0) return;
  if ((info.st_mode & 0077) != 0) {
    check.notes.push_back(fmt::format("{}: {} is readable by others: chmod 600", key, path));
  }
}

void check_files(const AccessSection& section, AccessCheck& check) {
  const proxy::AccessConfig& config = section.config;
  check_private("proxy.userlist_file", section.userlist_file, check);
  check_readable("proxy.hba_file", config.hba_file, check);
  check_readable("proxy.ident_file", config.ident_file, check);
  if (config.client_tls != proxy::SslMode::kDisable) {
    const env::TlsServerOptions& files = config.client_tls_files;
    check_readable("proxy.client_tls.certificate_file", files.certificate_file, check);
    check_private("proxy.client_tls.key_file", files.key_file, check);
    check_readable("proxy.client_tls.ca_file", files.ca_file, check);
    check_readable("proxy.client_tls.crl_file", files.crl_file, check);
  }
  const env::TlsClientOptions& files = config.server_tls_files;
  check_readable("proxy.server_tls.ca_file", files.ca_file, check);
  check_readable("proxy.server_tls.crl_file", files.crl_file, check);
  check_readable("proxy.server_tls.certificate_file", files.certificate_file, check);
  check_private("proxy.server_tls.key_file", files.key_file, check);
  for (const PasswordCommandSection& command : section.password_commands) {
    if (access(command.command.front().c_str(), X_OK) != 0) {
      check.errors.push_back(fmt::format("proxy.password_commands: {}: {}", command.command.front(),
                                         std::strerror(errno)));
    }
  }
}

}  // namespace

void read_access(MapReader& proxy, Problems& problems, const ResolvePath& resolve,
                 AccessSection& out) {
  Reader reader(problems, resolve);
  reader.file(proxy, "userlist_file", out.userlist_file, Need::kRequired);
  reader.client_tls(proxy.map("client_tls"), out.config);
  reader.server_tls(proxy.map("server_tls"), out.config);
  int auth_type = static_cast<int>(out.config.auth_type);
  proxy.choice("auth_type", auth_type, kAuthTypes);
  out.config.auth_type = static_cast<proxy::AuthMethod>(auth_type);
  reader.file(proxy, "hba_file", out.config.hba_file);
  reader.file(proxy, "ident_file", out.config.ident_file);
  if (proxy.has("auth_query")) reader.auth_query(proxy.map("auth_query"), out.config.auth_query);
  proxy.raw("auth_query");
  proxy.flag("password_in_clear", out.config.password_in_clear);
  proxy.text_list("proxy_protocol_from", out.config.proxy_protocol_from);
  reader.password_commands(proxy, out.password_commands);
  MapReader console = proxy.map("console");
  console.text_list("admins", out.config.console_admins);
  console.text_list("stats", out.config.console_stats);
  console.finish();
  reader.file(proxy, "socket_dir", out.socket_dir);
}

Result<proxy::AccessConfig> load_access(const AccessSection& section, env::Disk& disk) {
  proxy::AccessConfig config = section.config;
  const auto text = disk.read(section.userlist_file, kUserlistBytesMax);
  if (!text) return std::unexpected(text.error());
  const auto users = parse_userlist(*text, section.userlist_file);
  if (!users) return std::unexpected(users.error());
  for (const UserEntry& user : *users) config.users.push_back({user.name, user.secret});
  for (const auto& [file, to] :
       {std::pair(&config.hba_file, &config.hba), std::pair(&config.ident_file, &config.ident)}) {
    if (file->empty()) continue;
    auto content = disk.read(*file, kRulesBytesMax);
    if (!content) return std::unexpected(content.error());
    *to = std::move(*content);
  }
  return config;
}

AccessCheck check_access(const AccessSection& section, env::Disk& disk, env::Tls& tls,
                         env::Entropy& entropy) {
  AccessCheck check;
  check_files(section, check);
  const auto unreadable = std::ranges::any_of(
      check.notes, [](const std::string& n) { return n.ends_with(std::strerror(EACCES)); });
  // What is inside is the daemon's to read, if it can't be read here.
  if (unreadable || !check.errors.empty()) return check;
  auto loaded = load_access(section, disk);
  const std::string& asks = section.config.auth_query.user;
  if (loaded && !asks.empty() &&
      std::ranges::none_of(loaded->users,
                           [&](const proxy::ProxyUser& u) { return u.name == asks; })) {
    check.notes.push_back(fmt::format(
        "proxy.auth_query.user: {} is not in userlist_file: servers must let it in without a "
        "password",
        asks));
  }
  const auto built = loaded ? proxy::Access::build(std::move(*loaded), tls, entropy, nullptr)
                            : std::unexpected(loaded.error());
  if (!built) check.errors.push_back("proxy: " + built.error().to_string());
  return check;
}

}  // namespace bascule::cli
