// Files that hold secrets: passwords (one line) and the proxy's list of users. What is read here is
// never logged; messages name the file and the line, not the content.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "env/disk.h"

namespace bascule::cli {

// The first line, without its end. A warning is logged when others may read the file.
Result<std::string> read_secret(env::Disk& disk, const std::string& file);

struct UserEntry {
  std::string name;
  std::string secret;  // "SCRAM-SHA-256$..." or a password
};
// PgBouncer's format: `"name" "secret"` a line, "" for a quote within, ; and # begin comments.
Result<std::vector<UserEntry>> parse_userlist(std::string_view text, const std::string& file);
std::string render_userlist(const std::vector<UserEntry>& users);

}  // namespace bascule::cli
