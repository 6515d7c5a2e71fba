// Processes and their children as /proc shows them, without allocation, and signals by descriptor:
// a pid can be given to another process between looking and signalling, a pidfd can't.
#pragma once

#include <sys/types.h>

namespace bascule::posix {

int open_pidfd(pid_t pid);  // -1 with errno
bool signal_by_fd(int pidfd, int number);

// Parent of a process; 0 if it is gone. A zombie has its parent still.
pid_t parent_of(pid_t pid);

// Fills `out` with the direct children of a single-threaded process; returns how many, at most
// `max`.
int children_of(pid_t pid, pid_t* out, int max);

// SIGKILL to everything below `root`, deepest first, `root` itself excluded. One thread only.
void kill_descendants(pid_t root);

}  // namespace bascule::posix
