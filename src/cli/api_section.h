// `api` in bascule.yaml, and what the server is given for it.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "api/http_server.h"
#include "base/network.h"
#include "cli/units.h"
#include "cli/yaml_reader.h"

namespace bascule::cli {

struct ApiSection {
  HostPort listen{"127.0.0.1", 8008};
  std::optional<api::HttpTls> tls;
  std::vector<api::Token> tokens;
  std::optional<api::Anonymous> anonymous;
  int requests_per_second = 200;
  std::vector<Network> allow;
  std::string audit_file;  // empty: only log and store

  api::HttpOptions options() const;
  std::string url() const;
};

// `resolve` makes paths absolute.
void read_api(MapReader reader, Problems& problems,
              const std::function<std::string(const std::string&)>& resolve, ApiSection& out);
// What is allowed and yet wants a word, for `validate-config`.
std::vector<std::string> notes_about(const ApiSection& api);

}  // namespace bascule::cli
