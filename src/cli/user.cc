#include "cli/user.h"

#include <fmt/format.h>
#include <grp.h>
#include <linux/capability.h>
#include <pwd.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <vector>

namespace bascule::cli {
namespace {

Result<User> from_passwd(const passwd* entry, const std::string& wanted) {
  if (entry == nullptr) {
    return fail(ErrorCode::kNotFound, fmt::format("there is no user \"{}\" here", wanted),
                "Name another one with --user");
  }
  return User{entry->pw_name, entry->pw_uid, entry->pw_gid, entry->pw_dir};
}

bool in_group(const User& user, gid_t gid) {
  if (user.gid == gid) return true;
  int count = 64;
  std::vector<gid_t> groups(static_cast<size_t>(count));
  if (getgrouplist(user.name.c_str(), user.gid, groups.data(), &count) < 0) return false;
  for (int i = 0; i < count; ++i) {
    if (groups[static_cast<size_t>(i)] == gid) return true;
  }
  return false;
}

bool may_search(const User& user, const std::string& dir) {
  struct stat info{};
  if (stat(dir.c_str(), &info) != 0) return false;
  if (user.uid == 0) return true;
  if (info.st_uid == user.uid) return (info.st_mode & S_IXUSR) != 0;
  if (in_group(user, info.st_gid)) return (info.st_mode & S_IXGRP) != 0;
  return (info.st_mode & S_IXOTH) != 0;
}

// Of root's powers the guard keeps two, where the container has them: real-time scheduling and
// locked memory. They pass through exec as ambient capabilities; PostgreSQL and the tools are
// started without (posix/). Without them the guard still works, as an ordinary process.
void keep_for_the_guard() {
  constexpr unsigned kKept[] = {CAP_SYS_NICE, CAP_IPC_LOCK};
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct sets[2]{};
  if (syscall(SYS_capget, &header, sets) != 0) return;
  const uint32_t had = sets[0].permitted;
  sets[0] = sets[1] = {};
  for (const unsigned one : kKept) sets[0].permitted |= had & (1u << one);
  sets[0].effective = sets[0].inheritable = sets[0].permitted;
  if (syscall(SYS_capset, &header, sets) != 0) return;
  for (const unsigned one : kKept) prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, one, 0, 0);
}

}  // namespace

bool running_as_root() { return geteuid() == 0; }

Result<User> current_user() {
  const passwd* entry = getpwuid(geteuid());
  if (entry != nullptr) return from_passwd(entry, "");
  // Containers run as numbers without a name; PostgreSQL itself needs one for initdb.
  return fail(ErrorCode::kNotFound, fmt::format("user id {} has no name in /etc/passwd", geteuid()),
              "PostgreSQL's initdb needs one: add the user, or run as another");
}

Result<User> find_user(const std::string& name) {
  return from_passwd(getpwnam(name.c_str()), name);
}

Result<User> choose_user(const Platform& platform, const std::string& wanted) {
  if (!running_as_root()) {
    auto me = current_user();
    if (me && !wanted.empty() && me->name != wanted) {
      return fail(ErrorCode::kInvalid,
                  fmt::format("can't become user {}: started as {}, not as root", wanted, me->name),
                  fmt::format("Start it as root or as {}", wanted));
    }
    return me;
  }
  if (wanted == "root") {
    return fail(ErrorCode::kInvalid, "PostgreSQL refuses to run as root",
                "Name another user with --user");
  }
  if (!wanted.empty()) return find_user(wanted);
  if (auto postgres = find_user("postgres")) return postgres;
  const auto sudo_user = platform.environment("SUDO_USER");
  if (sudo_user && *sudo_user != "root") return find_user(*sudo_user);
  return fail(ErrorCode::kInvalid,
              "started as root, and there is no user \"postgres\" to run PostgreSQL as",
              "Name a user with --user, or start it as a user other than root");
}

Status become(const Platform& platform, const User& user) {
  if (geteuid() == user.uid) return {};
  prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0);
  if (initgroups(user.name.c_str(), user.gid) != 0 || setgid(user.gid) != 0 ||
      setuid(user.uid) != 0) {
    return fail(ErrorCode::kInternal,
                fmt::format("can't become user {}: {}", user.name, std::strerror(errno)),
                "Are the capabilities SETUID and SETGID taken from this container?");
  }
  keep_for_the_guard();
  // libpq and psql look for files of the user there; no thread runs yet.
  platform.set_environment("HOME", user.home);
  platform.set_environment("USER", user.name);
  return {};
}

Result<User> owner_of(const std::string& path) {
  struct stat info{};
  if (stat(path.c_str(), &info) != 0) {
    return fail(ErrorCode::kNotFound, fmt::format("{}: {}", path, std::strerror(errno)));
  }
  return from_passwd(getpwuid(info.st_uid), fmt::format("#{}", info.st_uid));
}

Status make_directory_for(const User& user, const std::string& dir) {
  std::error_code error;
  const bool fresh = std::filesystem::create_directories(dir, error);
  if (error) {
    return fail(ErrorCode::kInvalid, fmt::format("can't make {}: {}", dir, error.message()),
                "Choose another place with --dir");
  }
  if (fresh) {
    std::filesystem::permissions(dir, std::filesystem::perms::owner_all, error);
    if (running_as_root() && chown(dir.c_str(), user.uid, user.gid) != 0) {
      return fail(ErrorCode::kInternal, fmt::format("chown {}: {}", dir, std::strerror(errno)));
    }
  }
  for (std::filesystem::path at = dir; at.has_relative_path(); at = at.parent_path()) {
    if (may_search(user, at.string())) continue;
    if (fresh) std::filesystem::remove(dir, error);
    return fail(
        ErrorCode::kInvalid,
        fmt::format("user {} can't enter {}, so it can't work in {}", user.name, at.string(), dir),
        fmt::format("Choose a place that {} can reach, e.g. --dir /var/lib/bascule, or "
                    "another user with --user",
                    user.name));
  }
  return {};
}

}  // namespace bascule::cli
