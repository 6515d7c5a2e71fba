// Rules in the format of pg_hba.conf, with the user name maps of pg_ident.conf:
// https://www.postgresql.org/docs/18/auth-pg-hba-conf.html
// Read once, matched for each client. What the proxy can't do is an error that says so, never a
// rule that is passed over. Not offered: @file and include, host names, samehost and samenet,
// and the methods that need other services (gss, sspi, ident, ldap, radius, pam, bsd, oauth).
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/network.h"
#include "base/result.h"
#include "proxy/access_config.h"

namespace bascule::proxy {

// POSIX extended regular expression; never applied to more than 63 bytes (a name's limit).
class NamePattern {
 public:
  static Result<NamePattern> compile(const std::string& pattern);
  // `first_group`: what its first parenthesis matched.
  bool matches(std::string_view name, std::string* first_group = nullptr) const;

 private:
  struct Compiled;
  std::shared_ptr<const Compiled> compiled_;  // rules are copied, the library's pattern can't be
};

// A word of a list of databases or users.
struct HbaName {
  enum class Kind { kAll, kExact, kPattern, kSameUser, kSameRole, kReplication, kRole };
  Kind kind = Kind::kExact;
  std::string text;
  NamePattern pattern;
};

struct HbaRule {
  enum class Connection { kLocal, kHost, kHostSsl, kHostNoSsl };
  enum class ClientCert { kNone, kVerifyCa, kVerifyFull };
  Connection connection = Connection::kHost;
  std::vector<HbaName> databases, users;
  std::optional<Network> network;  // none: all
  AuthMethod method = AuthMethod::kReject;
  ClientCert client_cert = ClientCert::kNone;
  bool match_subject = false;  // clientname=DN: the whole subject instead of the common name
  std::string map;
  int line = 0;
};

// What a client says and is, and the roles that its user is a member of.
struct HbaClient {
  std::optional<IpAddress> address;  // none: a unix socket
  bool tls = false;
  bool replication = false;  // physical
  std::string_view user, database;
  const std::vector<std::string>* roles = nullptr;  // null: not known
};

class HbaRules {
 public:
  // All problems in one error, one a line, with `file` and line number.
  static Result<HbaRules> parse(std::string_view text, const std::string& file,
                                std::string_view ident, const std::string& ident_file);
  // One rule for everybody.
  static HbaRules all(AuthMethod method);

  // The first that matches; null: none does.
  const HbaRule* match(const HbaClient& client) const;
  // Some rule asks what roles a user is a member of.
  bool needs_roles() const { return needs_roles_; }
  bool needs_certificates() const;
  // May `system_name` (of the operating system, or of a certificate) be `user`? By the map, or by
  // being equal if it is empty.
  bool allows(const std::string& map, std::string_view system_name, std::string_view user) const;

 private:
  friend class HbaParser;
  struct MapEntry {
    HbaName system, user;
  };
  std::vector<HbaRule> rules_;
  std::map<std::string, std::vector<MapEntry>> maps_;
  bool needs_roles_ = false;
};

}  // namespace bascule::proxy
