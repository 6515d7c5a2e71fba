// The part of `proxy` in bascule.yaml that says who may come in: TLS, rules, lists, look-ups,
// passwords for servers. It can be read again while the daemon runs.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "base/result.h"
#include "cli/yaml_reader.h"
#include "env/disk.h"
#include "env/entropy.h"
#include "env/tls.h"
#include "proxy/access_config.h"

namespace bascule::cli {

// A program that prints the password with which the proxy logs in to servers as this user.
struct PasswordCommandSection {
  std::string user;
  std::vector<std::string> command;  // no shell; the first is a path
  Millis lifetime{15min};            // of what it prints; fetched anew after three quarters
  Millis timeout{10s};
};

struct AccessSection {
  // Complete but for the contents of files: `hba`, `ident`, `users`.
  proxy::AccessConfig config;
  std::string userlist_file;
  std::vector<PasswordCommandSection> password_commands;
  std::string socket_dir;  // of a unix socket for the writer port; empty: none
};

// `resolve`: makes a path absolute.
using ResolvePath = std::function<std::string(const std::string&)>;
void read_access(MapReader& proxy, Problems& problems, const ResolvePath& resolve,
                 AccessSection& out);

// Reads the files. Errors name them, and nothing of what is in a list of users.
Result<proxy::AccessConfig> load_access(const AccessSection& section, env::Disk& disk);

// For validate-config. `errors`: what no daemon could start with: files that are missing or hold
// nonsense. `notes`: files that this user can't read or that others can.
struct AccessCheck {
  std::vector<std::string> errors, notes;
};
AccessCheck check_access(const AccessSection& section, env::Disk& disk, env::Tls& tls,
                         env::Entropy& entropy);

}  // namespace bascule::cli
