// `proxy.databases` in bascule.yaml: what the names that clients use lead to, and what differs for
// them.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "base/result.h"
#include "cli/yaml_reader.h"
#include "env/disk.h"
#include "proxy/databases.h"

namespace bascule::cli {

struct DatabaseSection {
  proxy::DatabaseRule rule;   // complete but for the secret
  std::string password_file;  // of rule.user; empty: none
};

// `resolve`: makes a path absolute.
void read_databases(MapReader& proxy, Problems& problems,
                    const std::function<std::string(const std::string&)>& resolve,
                    std::vector<DatabaseSection>& out);

// Reads the files.
Result<std::vector<proxy::DatabaseRule>> load_databases(
    const std::vector<DatabaseSection>& sections, env::Disk& disk);

}  // namespace bascule::cli
