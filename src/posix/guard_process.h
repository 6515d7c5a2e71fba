// The guard: a small process that is the postmaster's parent, and makes sure that PostgreSQL does
// not outlive the deadline its agent has set, whether the agent lives or not.
//
//   bascule guard --run-dir DIR      (started by node::GuardClient, detached)
//
// It is the subreaper of every process of PostgreSQL, single-threaded, locked in memory and
// real-time scheduled where permitted; after its start it touches no disk and allocates nothing.
// Should the guard itself die, the kernel sends SIGQUIT to the postmaster (PR_SET_PDEATHSIG).
//
// The agent's going changes nothing: the deadline stays armed. Without PostgreSQL and without an
// agent for kLonelySeconds it ends. It ignores SIGTERM, SIGINT and SIGHUP while PostgreSQL runs.
#pragma once

namespace bascule::posix {

inline constexpr int kLonelySeconds = 60;

// argv as of main() with "guard" removed: argv[0] is the program. Returns the exit code.
int guard_main(int argc, char** argv);

}  // namespace bascule::posix
