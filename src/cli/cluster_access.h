// A cluster as a command sees it: through its store, or (`--api`) through one of its daemons. Also
// what the API's daemon does with a command. One thread; every call blocks.
#pragma once

#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "api/routes.h"
#include "cli/audit.h"
#include "cli/config_change.h"
#include "cli/platform.h"
#include "cli/store_session.h"
#include "control/records.h"

namespace bascule::cli {

// How a command finds its cluster.
struct ApiAt {
  std::string url;  // "https://db1:8008"; empty: not by an API
  std::string token_file;
  std::string ca_file, cert_file, key_file;
};
struct ClusterWhere {
  std::string dir;
  std::string config_file;
  ApiAt api;
};

class ClusterAccess {
 public:
  using Done = std::function<bool(const control::ClusterView&)>;

  virtual ~ClusterAccess() = default;
  virtual const std::string& cluster() const = 0;
  virtual Result<control::ClusterView> view() = 0;
  // Checks the command against the cluster as it is and asks for it. The request's id; for what is
  // done at once, anything. kConflict: refused, with the reason; kUnknown: it may have been done.
  virtual Result<std::string> ask(const api::Command& command) = 0;
  virtual Result<std::vector<ConfigChange>> config_history() = 0;
  virtual Result<std::vector<AuditEntry>> audit() = 0;
  // Until `done` returns true or `limit` has passed (false).
  virtual bool follow(Millis limit, const Done& done) = 0;

  static Result<std::unique_ptr<ClusterAccess>> open(const Platform& platform,
                                                     const ClusterWhere& where);
};

// The command, carried out on the store, and the audit of it. `daemon`: carries out what concerns a
// daemon itself; empty: there is none.
Result<std::string> carry_out(const Platform& platform, StoreSession& session,
                              const std::string& cluster, const api::Command& command,
                              const api::CommandHandler& daemon = {});
std::string outcome_of(const Result<std::string>& done);  // as the audit has it
// Best effort: what was done is done.
void record_audit(const Platform& platform, StoreSession& session, const std::string& cluster,
                  const api::Command& command, const std::string& outcome);
nlohmann::ordered_json config_history_json(const std::vector<ConfigChange>& history);

}  // namespace bascule::cli
