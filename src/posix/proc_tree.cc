#include "posix/proc_tree.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "posix/unique_fd.h"

namespace bascule::posix {
namespace {

constexpr int kChildrenMax = 4096;
constexpr int kDepthMax = 4;  // postmaster, backend, shell, command

void kill_below(pid_t root, int depth) {
  // Static: the guard allocates nothing and its stack is small. One level a depth.
  static pid_t found[kDepthMax + 1][kChildrenMax];
  if (depth > kDepthMax) return;
  const int count = children_of(root, found[depth], kChildrenMax);
  for (int i = 0; i < count; ++i) {
    const pid_t pid = found[depth][i];
    const UniqueFd fd(open_pidfd(pid));
    // The descriptor may name a stranger that was given the number: its parent tells.
    if (!fd.valid() || parent_of(pid) != root) continue;
    kill_below(pid, depth + 1);
    signal_by_fd(fd.get(), SIGKILL);
  }
}

}  // namespace

int open_pidfd(pid_t pid) { return static_cast<int>(syscall(SYS_pidfd_open, pid, 0)); }

bool signal_by_fd(int pidfd, int number) {
  return syscall(SYS_pidfd_send_signal, pidfd, number, nullptr, 0) == 0;
}

pid_t parent_of(pid_t pid) {
  char path[64];
  std::snprintf(path, sizeof path, "/proc/%d/stat", pid);
  const UniqueFd fd(open(path, O_RDONLY | O_CLOEXEC));
  char text[512];
  const ssize_t n = fd.valid() ? read(fd.get(), text, sizeof text - 1) : 0;
  if (n <= 0) return 0;
  text[n] = '\0';
  // "pid (name) state ppid …": the name may hold anything, ')' included.
  const char* after = strrchr(text, ')');
  return after == nullptr || strlen(after) < 4 ? 0 : atoi(after + 3);
}

int children_of(pid_t pid, pid_t* out, int max) {
  char path[64];
  std::snprintf(path, sizeof path, "/proc/%d/task/%d/children", pid, pid);
  const UniqueFd fd(open(path, O_RDONLY | O_CLOEXEC));
  if (!fd.valid()) return 0;
  int count = 0;
  pid_t number = 0;
  char text[4096];
  ssize_t n;
  while ((n = read(fd.get(), text, sizeof text)) > 0) {
    for (ssize_t i = 0; i < n; ++i) {
      if (text[i] >= '0' && text[i] <= '9') {
        number = number * 10 + (text[i] - '0');
      } else if (number != 0) {
        if (count < max) out[count++] = number;
        number = 0;
      }
    }
  }
  if (number != 0 && count < max) out[count++] = number;
  return count;
}

void kill_descendants(pid_t root) { kill_below(root, 0); }

}  // namespace bascule::posix
