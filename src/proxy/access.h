// What AccessConfig says, ready for use: rules parsed, secrets read, certificates loaded. Immutable
// but for caches; shared by all workers and by log-ins that began before it was replaced.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "base/result.h"
#include "env/entropy.h"
#include "env/tls.h"
#include "proxy/access_config.h"
#include "proxy/hba.h"
#include "proxy/users.h"

namespace bascule::proxy {

struct Access {
  // Blocking: reads certificates. `previous`: what this replaces, or null; its installation secret
  // goes on, so that a client sees the same salt. shared_ptr: each worker keeps its view until it
  // has taken the next, and log-ins keep theirs.
  static Result<std::shared_ptr<const Access>> build(AccessConfig config, env::Tls& tls,
                                                     env::Entropy& entropy, const Access* previous);

  AccessConfig config;
  std::string installation_secret;
  Users users;
  HbaRules rules;
  std::vector<Network> proxy_protocol_from;
  std::unique_ptr<env::TlsContext> client_tls;  // null: disabled
  std::unique_ptr<env::TlsContext> server_tls;  // null: disabled
};

}  // namespace bascule::proxy
