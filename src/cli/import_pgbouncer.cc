#include "cli/import_pgbouncer.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <utility>

#include "cli/import_databases.h"
#include "cli/import_settings.h"
#include "cli/units.h"

namespace bascule::cli {
namespace {

using nlohmann::ordered_json;

class Importer {
 public:
  explicit Importer(const Ini& ini) : ini_(ini) {}

  Import run() {
    find_last();
    for (const IniEntry& entry : ini_.entries) one(entry);
    for (const IniProblem& problem : ini_.problems) {
      import_.notes.push_back({problem.file, problem.line, "", Fate::kUnknown, "", problem.what});
    }
    std::ranges::stable_sort(import_.notes, [](const ImportNote& a, const ImportNote& b) {
      return a.file == b.file && a.line < b.line;
    });
    write();
    return std::move(import_);
  }

 private:
  // What a setting becomes. The first handler that knows it.
  struct Place {
    const char* name;
    void (Importer::*handle)(const IniEntry&);
  };
  static const Place kPlaces[];
  friend std::vector<std::string> bascule::cli::known_pgbouncer_settings();

  void note(const IniEntry& entry, Fate fate, std::string to, std::string text = {}) {
    import_.notes.push_back({entry.file, entry.line, entry.section + "." + entry.key, fate,
                             std::move(to), std::move(text)});
  }

  void find_last() {
    for (size_t i = 0; i < ini_.entries.size(); ++i) {
      const IniEntry& entry = ini_.entries[i];
      last_[entry.section + "." + entry.key] = i;
    }
  }

  std::string value_of(const std::string& key, std::string otherwise) const {
    const auto found = last_.find("pgbouncer." + key);
    return found == last_.end() ? otherwise : ini_.entries[found->second].value;
  }

  void one(const IniEntry& entry) {
    const size_t index = static_cast<size_t>(&entry - ini_.entries.data());
    if (last_.at(entry.section + "." + entry.key) != index) {
      return note(entry, Fate::kNoNeed, "", "it is set again further down");
    }
    if (entry.section == "databases") return database(entry);
    if (entry.section == "users") return user(entry);
    if (entry.section == "peers") return peer(entry);
    if (entry.section != "pgbouncer") {
      return note(entry, Fate::kUnknown, "", "no section of PgBouncer");
    }
    for (const Place* place = kPlaces; place->name != nullptr; ++place) {
      if (entry.key == place->name) return (this->*place->handle)(entry);
    }
    for (size_t i = 0; i < kPlainSettingsCount; ++i) {
      if (entry.key != kPlainSettings[i].name) continue;
      // Switched off is the same as not there.
      const bool off = kPlainSettings[i].fate == Fate::kLost &&
                       (entry.value.empty() || entry.value == "0" || entry.value == "0.0");
      return note(entry, off ? Fate::kNoNeed : kPlainSettings[i].fate, "",
                  off ? "it is off" : std::string(kPlainSettings[i].note));
    }
    const std::string near = nearest(entry.key, known_pgbouncer_settings());
    note(entry, Fate::kUnknown, "",
         near.empty() ? "no setting of PgBouncer 1.25"
                      : fmt::format("no setting of PgBouncer 1.25; did you mean {}?", near));
  }

  void peer(const IniEntry& entry) {
    const auto there = import_database(entry);  // the same keys
    if (!there) return bad(entry, "host and port of another proxy");
    const HostPort& host = there->hosts.front();
    if (host.host.starts_with('/')) {
      return note(entry, Fate::kNoNeed, "", "one process has as many workers as there are cores");
    }
    std::string& list = proxy_["peers"];
    if (!list.empty()) list.pop_back();
    list += (list.empty() ? "[" : ", ") + yaml_text(host.to_string()) + "]";
    note(entry, Fate::kKept, "proxy.peers");
  }

  void bad(const IniEntry& entry, const char* expected) {
    note(entry, Fate::kLost, "", fmt::format("expected {}", expected));
  }

  // ---- Settings with a place -------------------------------------------------------------------
  void listen_addr(const IniEntry& entry) {
    const std::string& value = entry.value;
    const size_t comma = value.find(',');
    std::string first = value.substr(0, comma);
    while (!first.empty() && first.back() == ' ') first.pop_back();
    if (first.empty()) {
      return note(entry, Fate::kChanged, "proxy.writer", "it also listens on 127.0.0.1");
    }
    listen_ = first == "localhost" ? "127.0.0.1" : first;
    if (comma != std::string::npos) {
      return note(entry, Fate::kChanged, "proxy.writer", "the first address only");
    }
    note(entry, Fate::kKept, "proxy.writer");
  }
  void listen_port(const IniEntry& entry) {
    const auto port = whole(entry.value);
    if (!port || *port < 1 || *port > 65535) return bad(entry, "a port");
    port_ = static_cast<int>(*port);
    note(entry, Fate::kKept, "proxy.writer");
  }
  void unix_socket_dir(const IniEntry& entry) {
    if (entry.value.empty()) return note(entry, Fate::kNoNeed, "", "it is off");
    if (entry.value.front() == '@') {
      return note(entry, Fate::kLost, "", "abstract sockets are not supported");
    }
    text(entry, "socket_dir");
  }
  void text(const IniEntry& entry, const std::string& key) {
    if (entry.value.empty()) return note(entry, Fate::kNoNeed, "", "it is off");
    proxy_[key] = yaml_text(entry.value);
    note(entry, Fate::kKept, "proxy." + key);
  }
  void top(const IniEntry& entry, const std::string& key, std::string line) {
    if (entry.value.empty()) return note(entry, Fate::kNoNeed, "", "it is off");
    top_.push_back(std::move(line));
    note(entry, Fate::kKept, key);
  }
  void logfile(const IniEntry& e) { top(e, "log.file", "log: {file: " + yaml_text(e.value) + "}"); }
  void pidfile(const IniEntry& e) { top(e, "pid_file", "pid_file: " + yaml_text(e.value)); }
  void run_as(const IniEntry& e) { top(e, "user", "user: " + yaml_text(e.value)); }
  void verbose(const IniEntry& entry) {
    if (entry.value == "0") return note(entry, Fate::kNoNeed, "", "it is off");
    note(entry, Fate::kChanged, "log.level", "set log.level: debug by hand");
  }
  void auth_file(const IniEntry& e) { text(e, "userlist_file"); }
  void auth_hba_file(const IniEntry& e) {
    if (value_of("auth_type", "md5") == "hba") return text(e, "hba_file");
    note(e, Fate::kNoNeed, "", "PgBouncer reads it with auth_type = hba only");
  }
  void auth_ident_file(const IniEntry& e) { text(e, "ident_file"); }
  void auth_type(const IniEntry& entry) {
    const std::string& type = entry.value;
    if (type == "trust" || type == "md5" || type == "scram-sha-256" || type == "cert") {
      proxy_["auth_type"] = type;
      return note(entry, Fate::kKept, "proxy.auth_type");
    }
    if (type == "hba") return note(entry, Fate::kKept, "proxy.hba_file", "rules decide if given");
    if (type == "plain") {
      proxy_["auth_type"] = "password";
      proxy_["password_in_clear"] = "true";
      return note(entry, Fate::kChanged, "proxy.auth_type", "passwords in clear text: use TLS");
    }
    if (type == "any") {
      return note(entry, Fate::kLost, "", "clients are not let in under another user's name");
    }
    note(entry, Fate::kLost, "", "clients are asked by SCRAM-SHA-256 instead");
  }
  void auth_query(const IniEntry& entry) {
    auth_query_["query"] = yaml_text(entry.value);
    if (value_of("auth_user", "").empty()) {
      auth_query_.erase("query");
      return note(entry, Fate::kNoNeed, "", "without auth_user it is not used");
    }
    note(entry, Fate::kKept, "proxy.auth_query.query");
  }
  void auth_user(const IniEntry& entry) {
    if (entry.value.empty()) return note(entry, Fate::kNoNeed, "", "it is off");
    auth_query_["user"] = yaml_text(entry.value);
    note(entry, Fate::kKept, "proxy.auth_query.user");
  }
  void auth_dbname(const IniEntry& entry) {
    if (entry.value.empty()) return note(entry, Fate::kNoNeed, "", "it is off");
    if (value_of("auth_user", "").empty()) {
      return note(entry, Fate::kNoNeed, "", "without auth_user it is not used");
    }
    auth_query_["database"] = yaml_text(entry.value);
    note(entry, Fate::kKept, "proxy.auth_query.database");
  }
  void pool_mode(const IniEntry& entry) {
    if (entry.value != "session" && entry.value != "transaction" && entry.value != "statement") {
      return bad(entry, "session, transaction or statement");
    }
    proxy_["pool_mode"] = entry.value;
    note(entry, Fate::kKept, "proxy.pool_mode");
  }
  void max_client_conn(const IniEntry& entry) {
    const auto count = whole(entry.value);
    if (!count || *count < 1 || *count > 1'000'000) return bad(entry, "a count from 1 to 1000000");
    proxy_["clients_max"] = fmt::format("{}", *count);
    note(entry, Fate::kKept, "proxy.clients_max");
  }
  // Limits that have the same name and meaning here.
  void count(const IniEntry& entry) {
    const auto value = whole(entry.value);
    if (!value || *value < 0 || *value > 10'000) return bad(entry, "a count from 0 to 10000");
    proxy_[entry.key] = fmt::format("{}", *value);
    note(entry, Fate::kKept, "proxy." + entry.key);
  }
  void count_clients(const IniEntry& entry) {
    const auto value = whole(entry.value);
    if (!value || *value < 0 || *value > 1'000'000) return bad(entry, "a count from 0 to 1000000");
    proxy_[entry.key] = fmt::format("{}", *value);
    note(entry, Fate::kKept, "proxy." + entry.key);
  }
  void time(const IniEntry& entry) {
    const auto ms = milliseconds(entry.value);
    if (!ms || *ms > 86'400'000) return bad(entry, "seconds, at most a day");
    proxy_[entry.key] = format_duration(Millis(*ms));
    note(entry, Fate::kKept, "proxy." + entry.key);
  }
  void query(const IniEntry& entry) {
    proxy_[entry.key] = yaml_text(entry.value);
    note(entry, Fate::kKept, "proxy." + entry.key);
  }
  // Empty, too: then nothing makes a session's server fit for the next session.
  void reset_query(const IniEntry& entry) { query(entry); }
  void check_query(const IniEntry& entry) {
    if (entry.value.empty() || entry.value == "<empty>") {
      return note(entry, Fate::kNoNeed, "", "a broken connection is noticed when it breaks");
    }
    query(entry);
  }
  void check_delay(const IniEntry& entry) {
    if (value_of("server_check_query", "").empty()) {
      return note(entry, Fate::kNoNeed, "", "without server_check_query it is not used");
    }
    time(entry);
  }
  void reset_always(const IniEntry& entry) {
    if (entry.value == "0") return note(entry, Fate::kNoNeed, "", "it is off");
    proxy_[entry.key] = "true";
    note(entry, Fate::kKept, "proxy." + entry.key);
  }
  void console(const IniEntry& entry) {
    std::string names;
    for (const std::string& name : split_list(entry.value)) {
      names += (names.empty() ? "" : ", ") + yaml_text(name);
    }
    if (names.empty()) return note(entry, Fate::kNoNeed, "", "it is off");
    const std::string key = entry.key == "admin_users" ? "admins" : "stats";
    console_[key] = "[" + names + "]";
    note(entry, Fate::kKept, "proxy.console." + key);
  }
  void max_prepared(const IniEntry& entry) {
    note(entry, entry.value == "0" ? Fate::kChanged : Fate::kNoNeed, "",
         "prepared statements always work, also in transaction mode");
  }
  struct Bounds {
    int64_t min_ms, max_ms;
    const char* off;  // what 0 becomes
  };
  void duration(const IniEntry& entry, const std::string& key, Bounds bounds) {
    const auto ms = milliseconds(entry.value);
    if (!ms) return bad(entry, "seconds");
    const int64_t wanted = *ms == 0 ? bounds.max_ms : *ms;
    const int64_t value = std::clamp(wanted, bounds.min_ms, bounds.max_ms);
    proxy_[key] = format_duration(Millis(value));
    if (*ms == 0) return note(entry, Fate::kChanged, "proxy." + key, bounds.off);
    if (value != *ms) {
      return note(entry, Fate::kChanged, "proxy." + key,
                  fmt::format("bounded: {}", format_duration(Millis(value))));
    }
    note(entry, Fate::kKept, "proxy." + key);
  }
  void query_wait_timeout(const IniEntry& e) {
    duration(e, "hold_timeout", {1, 3'600'000, "no wait is without an end: 1h"});
  }
  void server_idle_timeout(const IniEntry& e) {
    duration(e, "server_idle_timeout", {1000, 86'400'000, "at most a day"});
  }
  void server_connect_timeout(const IniEntry& e) {
    duration(e, "connect_timeout", {10, 60'000, "at most a minute"});
  }
  void client_login_timeout(const IniEntry& e) {
    duration(e, "login_timeout", {100, 600'000, "at most 10 minutes"});
  }

  // ---- TLS -------------------------------------------------------------------------------------
  using Section = std::map<std::string, std::string>;
  Section& tls_of(const IniEntry& entry) {
    return entry.key.starts_with("client") ? client_tls_ : server_tls_;
  }
  std::string tls_key(const IniEntry& entry, const std::string& key) const {
    return fmt::format("proxy.{}_tls.{}", entry.key.substr(0, 6), key);
  }
  void tls_mode(const IniEntry& entry) {
    tls_of(entry)["mode"] = yaml_text(entry.value);
    note(entry, Fate::kKept, tls_key(entry, "mode"));
  }
  void tls_file(const IniEntry& entry) {
    if (entry.value.empty()) return note(entry, Fate::kNoNeed, "", "it is off");
    const std::string key = entry.key.ends_with("_key_file")    ? "key_file"
                            : entry.key.ends_with("_cert_file") ? "certificate_file"
                                                                : "ca_file";
    tls_of(entry)[key] = yaml_text(entry.value);
    note(entry, Fate::kKept, tls_key(entry, key));
  }
  void tls_protocols(const IniEntry& entry) {
    if (entry.value == "secure" || entry.value == "default") {
      return note(entry, Fate::kKept, "", "TLS 1.2 and 1.3");
    }
    if (entry.value == "tlsv1.3") {
      tls_of(entry)["min_version"] = "\"1.3\"";
      return note(entry, Fate::kKept, tls_key(entry, "min_version"));
    }
    note(entry, Fate::kChanged, "", "TLS 1.2 and 1.3; nothing older");
  }
  void tls_ciphers(const IniEntry& entry) {
    static const std::set<std::string> kWords = {"default", "secure", "fast", "normal", "all", ""};
    if (kWords.contains(entry.value)) {
      return note(entry, Fate::kChanged, "", "the default HIGH:!aNULL:!MD5");
    }
    tls_of(entry)["ciphers"] = yaml_text(entry.value);
    note(entry, Fate::kKept, tls_key(entry, "ciphers"));
  }

  // ---- Databases and users ---------------------------------------------------------------------
  void database(const IniEntry& entry) {
    auto imported = import_database(entry);
    if (!imported) return bad(entry, imported.error().message.c_str());
    if (databases_.empty()) server_ = imported->hosts.front();
    note(entry, imported->lost.empty() ? Fate::kKept : Fate::kLost, "proxy.databases",
         imported->lost);
    databases_.push_back(std::move(*imported));
  }
  void user(const IniEntry& entry) {
    auto imported = import_user(entry);
    if (!imported) return bad(entry, imported.error().message.c_str());
    if (imported->yaml.empty() && imported->lost.empty()) {
      return note(entry, Fate::kNoNeed, "", "it says nothing");
    }
    note(entry, imported->lost.empty() ? Fate::kKept : Fate::kLost, "proxy.pools", imported->lost);
    if (!imported->yaml.empty()) users_.push_back(std::move(imported->yaml));
  }

  // ---- The file --------------------------------------------------------------------------------
  void write() {
    std::string& out = import_.yaml;
    out = "# From a PgBouncer configuration, by `bascule import`.\n";
    for (const std::string& line : top_) out += line + "\n";
    // PgBouncer has no limit over all pools.
    proxy_["pool_size"] = "1000";
    proxy_.try_emplace("userlist_file", "/etc/bascule/userlist.txt");
    // Defaults of PgBouncer that differ.
    proxy_.try_emplace("clients_max", "100");
    proxy_.try_emplace("pool_mode", "session");
    proxy_.try_emplace("hold_timeout", "2min");
    proxy_.try_emplace("default_pool_size", "20");
    proxy_.try_emplace("server_idle_timeout", "10min");
    proxy_.try_emplace("connect_timeout", "15s");
    proxy_.try_emplace("login_timeout", "1min");
    out += "proxy:\n";
    out += fmt::format("  writer: {}\n", yaml_text(HostPort{listen_, port_}.to_string()));
    for (const auto& [key, value] : proxy_) out += fmt::format("  {}: {}\n", key, value);
    if (!users_.empty()) out += "  pools:\n";
    for (const std::string& user : users_) out += "    - " + user + "\n";
    section(out, "console", console_);
    section(out, "auth_query", auth_query_.contains("user") ? auth_query_ : Section());
    if (!client_tls_.empty() && !client_tls_.contains("mode")) client_tls_["mode"] = "\"disable\"";
    section(out, "client_tls", client_tls_);
    section(out, "server_tls", server_tls_);
    out += fmt::format("  servers:\n    - {{host: {}, port: {}, role: primary}}\n",
                       yaml_text(server_.host), server_.port);
    if (!databases_.empty()) out += "  databases:\n";
    for (const ImportedDatabase& database : databases_) {
      out += "    - " + database.yaml(server_) + "\n";
    }
  }
  static void section(std::string& out, const char* name, const Section& keys) {
    if (keys.empty()) return;
    out += fmt::format("  {}:\n", name);
    for (const auto& [key, value] : keys) out += fmt::format("    {}: {}\n", key, value);
  }

  const Ini& ini_;
  Import import_;
  std::map<std::string, size_t> last_;
  std::string listen_ = "127.0.0.1";
  int port_ = 6432;
  std::vector<std::string> top_;
  Section proxy_, auth_query_, client_tls_, server_tls_, console_;
  HostPort server_{"/var/run/postgresql", 5432};
  std::vector<ImportedDatabase> databases_;
  std::vector<std::string> users_;
};

const Importer::Place Importer::kPlaces[] = {
    {"listen_addr", &Importer::listen_addr},
    {"listen_port", &Importer::listen_port},
    {"unix_socket_dir", &Importer::unix_socket_dir},
    {"logfile", &Importer::logfile},
    {"pidfile", &Importer::pidfile},
    {"user", &Importer::run_as},
    {"verbose", &Importer::verbose},
    {"auth_file", &Importer::auth_file},
    {"auth_hba_file", &Importer::auth_hba_file},
    {"auth_ident_file", &Importer::auth_ident_file},
    {"auth_type", &Importer::auth_type},
    {"auth_query", &Importer::auth_query},
    {"auth_user", &Importer::auth_user},
    {"auth_dbname", &Importer::auth_dbname},
    {"pool_mode", &Importer::pool_mode},
    {"max_client_conn", &Importer::max_client_conn},
    {"default_pool_size", &Importer::count},
    {"min_pool_size", &Importer::count},
    {"reserve_pool_size", &Importer::count},
    {"max_db_connections", &Importer::count},
    {"max_db_client_connections", &Importer::count_clients},
    {"max_user_client_connections", &Importer::count_clients},
    {"max_user_connections", &Importer::count},
    {"reserve_pool_timeout", &Importer::time},
    {"server_lifetime", &Importer::time},
    {"query_timeout", &Importer::time},
    {"transaction_timeout", &Importer::time},
    {"idle_transaction_timeout", &Importer::time},
    {"client_idle_timeout", &Importer::time},
    {"server_check_query", &Importer::check_query},
    {"server_check_delay", &Importer::check_delay},
    {"server_reset_query_always", &Importer::reset_always},
    {"admin_users", &Importer::console},
    {"stats_users", &Importer::console},
    {"max_prepared_statements", &Importer::max_prepared},
    {"server_reset_query", &Importer::reset_query},
    {"query_wait_timeout", &Importer::query_wait_timeout},
    {"server_idle_timeout", &Importer::server_idle_timeout},
    {"server_connect_timeout", &Importer::server_connect_timeout},
    {"client_login_timeout", &Importer::client_login_timeout},
    {"client_tls_sslmode", &Importer::tls_mode},
    {"client_tls_key_file", &Importer::tls_file},
    {"client_tls_cert_file", &Importer::tls_file},
    {"client_tls_ca_file", &Importer::tls_file},
    {"client_tls_protocols", &Importer::tls_protocols},
    {"client_tls_ciphers", &Importer::tls_ciphers},
    {"server_tls_sslmode", &Importer::tls_mode},
    {"server_tls_key_file", &Importer::tls_file},
    {"server_tls_cert_file", &Importer::tls_file},
    {"server_tls_ca_file", &Importer::tls_file},
    {"server_tls_protocols", &Importer::tls_protocols},
    {"server_tls_ciphers", &Importer::tls_ciphers},
    {nullptr, nullptr},
};

}  // namespace

std::string_view to_string(Fate fate) {
  constexpr std::string_view kNames[] = {"kept", "changed", "not needed", "lost", "unknown"};
  return kNames[static_cast<size_t>(fate)];
}

bool Import::complete() const {
  return std::ranges::none_of(
      notes, [](const ImportNote& n) { return n.fate == Fate::kLost || n.fate == Fate::kUnknown; });
}

Import import_pgbouncer(const Ini& ini) { return Importer(ini).run(); }

std::vector<std::string> known_pgbouncer_settings() {
  std::vector<std::string> names;
  for (const auto* place = Importer::kPlaces; place->name != nullptr; ++place) {
    names.emplace_back(place->name);
  }
  for (size_t i = 0; i < kPlainSettingsCount; ++i) names.emplace_back(kPlainSettings[i].name);
  return names;
}

std::string render_import(const Import& import) {
  std::string out;
  std::map<Fate, int> counts;
  for (const ImportNote& n : import.notes) {
    ++counts[n.fate];
    out += fmt::format("{}:{}: {}: {}", n.file, n.line, to_string(n.fate), n.setting);
    if (!n.to.empty()) out += " -> " + n.to;
    if (!n.note.empty()) out += (n.setting.empty() ? "" : ": ") + n.note;
    out += '\n';
  }
  out += fmt::format("{} kept, {} changed, {} not needed, {} lost, {} unknown\n",
                     counts[Fate::kKept], counts[Fate::kChanged], counts[Fate::kNoNeed],
                     counts[Fate::kLost], counts[Fate::kUnknown]);
  return out;
}

std::string import_json(const Import& import) {
  ordered_json notes = ordered_json::array();
  for (const ImportNote& n : import.notes) {
    notes.push_back({{"file", n.file},
                     {"line", n.line},
                     {"setting", n.setting},
                     {"fate", to_string(n.fate)},
                     {"to", n.to},
                     {"note", n.note}});
  }
  const ordered_json document = {
      {"complete", import.complete()}, {"notes", std::move(notes)}, {"yaml", import.yaml}};
  return document.dump(2, ' ', false, ordered_json::error_handler_t::replace);
}

}  // namespace bascule::cli
