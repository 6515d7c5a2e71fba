// PostgreSQL refuses to run as root, so a program started as root becomes somebody else by itself.
#pragma once

#include <string>

#include "base/result.h"
#include "cli/platform.h"

namespace bascule::cli {

struct User {
  std::string name;
  unsigned uid = 0;
  unsigned gid = 0;
  std::string home;
};

bool running_as_root();
Result<User> current_user();
Result<User> find_user(const std::string& name);
// Who to become as root: `wanted` if given, else "postgres" if it exists, else who called sudo.
// Not as root: the current user; an error when another one is wanted.
Result<User> choose_user(const Platform& platform, const std::string& wanted);
// For good: groups, gid, uid, and $HOME. Nothing when it is already us.
Status become(const Platform& platform, const User& user);
// Who owns a file; commands that open a cluster's store as root become its owner first.
Result<User> owner_of(const std::string& path);

// Makes `dir` (not its parents' owners' business) for `user` and checks that the user can work in
// it: a directory below /root can't be reached by anybody else, and the message says so.
Status make_directory_for(const User& user, const std::string& dir);

}  // namespace bascule::cli
