#include "proxy/access.h"

#include <utility>

namespace bascule::proxy {
namespace {

constexpr size_t kInstallationSecretBytes = 32;

Status load_client_tls(Access& access, env::Tls& tls) {
  const AccessConfig& config = access.config;
  if (config.client_tls == SslMode::kDisable) {
    if (access.rules.needs_certificates()) {
      return fail(ErrorCode::kInvalid,
                  (config.hba_file.empty() ? "auth_type cert" : config.hba_file) +
                      " demands client certificates",
                  "They need TLS: set client_tls");
    }
    return {};
  }
  const bool demands = config.client_tls >= SslMode::kVerifyCa ||
                       config.auth_type == AuthMethod::kCert || access.rules.needs_certificates();
  if (demands && config.client_tls_files.ca_file.empty()) {
    return fail(ErrorCode::kInvalid, "client certificates are demanded, and no authority is named",
                "Set client_tls.ca_file");
  }
  auto context = tls.server_context(config.client_tls_files);
  if (!context) return std::unexpected(context.error());
  access.client_tls = std::move(*context);
  return {};
}

Status load_server_tls(Access& access, env::Tls& tls) {
  AccessConfig& config = access.config;
  if (config.server_tls == SslMode::kDisable) return {};
  env::TlsClientOptions options = config.server_tls_files;
  options.check = config.server_tls == SslMode::kVerifyFull ? env::ServerCheck::kChainAndName
                  : config.server_tls == SslMode::kVerifyCa ? env::ServerCheck::kChain
                                                            : env::ServerCheck::kNone;
  if (options.check != env::ServerCheck::kNone && options.ca_file.empty()) {
    return fail(ErrorCode::kInvalid,
                "certificates of servers are to be verified, and no authority is named",
                "Set server_tls.ca_file");
  }
  auto context = tls.client_context(options);
  if (!context) return std::unexpected(context.error());
  access.server_tls = std::move(*context);
  return {};
}

Status load_rules(Access& access) {
  const AccessConfig& config = access.config;
  if (config.hba_file.empty()) {
    access.rules = HbaRules::all(config.auth_type);
    return {};
  }
  auto rules = HbaRules::parse(config.hba, config.hba_file, config.ident, config.ident_file);
  if (!rules) return std::unexpected(rules.error());
  if (rules->needs_roles() && config.auth_query.user.empty()) {
    return fail(ErrorCode::kInvalid,
                config.hba_file + ": +role and samerole need the members of roles",
                "Set auth_query.user: they are looked up as that user");
  }
  access.rules = std::move(*rules);
  return {};
}

Status load_networks(Access& access) {
  for (const std::string& text : access.config.proxy_protocol_from) {
    const auto network = Network::parse(text);
    if (!network) {
      return fail(ErrorCode::kInvalid, "proxy_protocol_from: \"" + text + "\" is not an address",
                  "Expected one like 10.0.0.0/8 or 10.1.2.3");
    }
    access.proxy_protocol_from.push_back(*network);
  }
  return {};
}

}  // namespace

Result<std::shared_ptr<const Access>> Access::build(AccessConfig config, env::Tls& tls,
                                                    env::Entropy& entropy, const Access* previous) {
  auto access = std::make_shared<Access>();
  access->config = std::move(config);
  access->installation_secret = previous != nullptr
                                    ? previous->installation_secret
                                    : random_bytes(entropy, kInstallationSecretBytes);
  auto users = Users::build(access->config.users, access->installation_secret);
  if (!users) return std::unexpected(users.error());
  access->users = std::move(*users);
  for (const auto& load : {load_rules, load_networks}) {
    if (auto s = load(*access); !s) return std::unexpected(s.error());
  }
  for (const auto& load : {load_client_tls, load_server_tls}) {
    if (auto s = load(*access, tls); !s) return std::unexpected(s.error());
  }
  return access;
}

}  // namespace bascule::proxy
