#include "node/config.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cctype>

#include "node/pg_files.h"

namespace bascule::node {
namespace {

constexpr size_t kSocketPathMax = 100;  // sun_path holds 108, with "/guard.sock" and the like

bool one_line(const std::string& text) {
  return text.find_first_of(std::string_view("\n\r\0", 3)) == std::string::npos;
}

Status invalid(std::string message, std::string hint = {}) {
  return fail(ErrorCode::kInvalid, std::move(message), std::move(hint));
}

Status check_parameters(const NodeConfig& config) {
  const auto& owned = owned_parameters();
  for (const auto& [name, value] : config.parameters) {
    if (!is_parameter_name(name) || !one_line(value)) {
      return invalid(fmt::format("parameters: \"{}\" is not a parameter of PostgreSQL", name));
    }
    if (std::ranges::binary_search(owned, name)) {
      return invalid(fmt::format("parameters: {} is managed by Bascule", name), "remove it");
    }
  }
  return {};
}

}  // namespace

Status validate(const NodeConfig& config) {
  for (const auto& [setting, path] :
       {std::pair<const char*, const std::string&>{"data_dir", config.data_dir},
        {"run_dir", config.run_dir},
        {"state_file", config.state_file}}) {
    const bool may_be_empty = std::string_view(setting) == "state_file";
    if (path.empty() ? !may_be_empty : !path.starts_with('/')) {
      return invalid(fmt::format("{}: must be an absolute path, not \"{}\"", setting, path));
    }
    if (!one_line(path)) return invalid(fmt::format("{}: has a line break", setting));
  }
  if (config.run_dir.size() > kSocketPathMax - 16) {
    return invalid(fmt::format("run_dir: {} is too long for a socket's path", config.run_dir),
                   "choose one of at most 84 bytes");
  }
  if (config.data_dir == config.run_dir || config.run_dir.starts_with(config.data_dir + "/") ||
      config.state_file.starts_with(config.data_dir + "/")) {
    return invalid("run_dir and state_file must lie outside of data_dir", "clones replace it");
  }
  if (config.agent.name.empty()) return invalid("name: missing");
  if (config.agent.port <= 0 || config.agent.port > 65535) {
    return invalid(fmt::format("port: {} is not a port", config.agent.port));
  }
  if (config.agent.host.empty()) return invalid("host: missing");
  if (config.superuser.empty() || config.replication_user.empty()) {
    return invalid("superuser and replication_user must be named");
  }
  if (config.superuser == config.replication_user) {
    return invalid("replication_user: must differ from superuser");
  }
  if (config.replication_password.empty()) return invalid("replication_password: missing");
  for (const std::string* text : {&config.superuser, &config.replication_user,
                                  &config.superuser_password, &config.replication_password}) {
    if (!one_line(*text) || text->size() > 512) {
      return invalid("names and passwords must be of one line and at most 512 bytes");
    }
  }
  for (const std::string& name : {config.superuser, config.replication_user}) {
    if (name.find('"') != std::string::npos) return invalid("names of roles must not contain \"");
  }
  for (const std::string& line : config.hba) {
    if (!one_line(line)) return invalid("hba: one rule a line");
  }
  for (const ClientUser& user : config.client_users) {
    if (user.name.empty()) return invalid("client_users: name missing");
  }
  return check_parameters(config);
}

Status complete(NodeConfig& config, env::Process& process, env::Disk& disk) {
  if (auto done = validate(config); !done) return done;
  if (config.state_file.empty()) config.state_file = config.run_dir + "/state.json";
  if (config.program.empty()) config.program = process.self_program();
  if (config.bin_dir.empty()) {
    for (int version = 18; version >= 13 && config.bin_dir.empty(); --version) {
      const std::string directory = fmt::format("/usr/lib/postgresql/{}/bin", version);
      if (disk.exists(directory + "/postgres")) config.bin_dir = directory;
    }
  }
  if (config.bin_dir.empty() || !disk.exists(config.bin_dir + "/postgres")) {
    return invalid("bin_dir: no PostgreSQL 13 to 18 found",
                   "install one (apt install postgresql) or name its bin directory");
  }
  // Some distributions of PostgreSQL leave them out. Missed in the middle of a failover is too
  // late.
  for (const char* tool :
       {"initdb", "pg_basebackup", "pg_controldata", "pg_rewind", "pg_waldump"}) {
    if (disk.exists(fmt::format("{}/{}", config.bin_dir, tool))) continue;
    return invalid(fmt::format("bin_dir: {} has no {}", config.bin_dir, tool),
                   "name the bin directory of a complete PostgreSQL");
  }
  return {};
}

}  // namespace bascule::node
