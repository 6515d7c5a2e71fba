// Processes, as an interface: children with a deadline, signals that can't hit a stranger, what
// /proc tells, and packets to a process on this host. Blocking calls are marked; all are
// thread-safe.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "base/time.h"

namespace bascule::env {

using Pid = int32_t;

struct Command {
  std::vector<std::string> argv;         // argv[0] is the path of the program; no shell, no search
  std::vector<std::string> environment;  // "NAME=value", added to PATH, LANG=C and TZ=UTC only
  std::string directory;                 // working directory; empty: as ours
  // kApart: standard error is Finished::errors, and not part of the output.
  enum class Errors { kWithOutput, kApart };
  Errors errors_go = Errors::kWithOutput;
  // Called in the waiting thread with every piece of output (both streams).
  std::function<void(std::string_view)> on_output;
  // Asked some times a second: true ends the child by SIGKILL, with its process group.
  std::function<bool()> cancelled;
  MonoTime deadline{};  // likewise
};

struct Finished {
  int exit_code = -1;  // -1: by a signal
  int signal = 0;
  std::string output;  // the last 16 KiB
  std::string errors;  // Errors::kApart: the first 4 KiB
  bool ok() const { return exit_code == 0; }
  std::string how() const {
    return signal != 0 ? "signal " + std::to_string(signal) : "exit " + std::to_string(exit_code);
  }
};

// One process, named by a descriptor: never hits another one that got the same number.
class ProcessHandle {
 public:
  virtual ~ProcessHandle() = default;
  virtual Pid pid() const = 0;
  virtual int fd() const = 0;  // readable once it has ended
  virtual bool alive() const = 0;
  virtual Status signal(int number) = 0;
};

// A connected SOCK_SEQPACKET to a process on this host.
class PacketSocket {
 public:
  virtual ~PacketSocket() = default;
  virtual int fd() const = 0;  // for env::Loop::watch; non-blocking
  virtual Pid peer() const = 0;
  virtual Status send(std::string_view packet) = 0;
  // nullopt: nothing to read now. An error: the peer has hung up.
  virtual Result<std::optional<std::string>> receive() = 0;
  virtual bool wait_readable(Millis at_most) = 0;  // blocking
};

class Process {
 public:
  virtual ~Process() = default;
  // Blocking. Timeout and cancellation are errors (kTimeout, kUnavailable); an exit code is not.
  virtual Result<Finished> run(const Command& command) = 0;
  // A process in a session of its own that outlives us; output is appended to `log_file`.
  virtual Result<std::unique_ptr<ProcessHandle>> spawn_detached(const Command& command,
                                                                const std::string& log_file) = 0;
  virtual Result<std::unique_ptr<ProcessHandle>> open(Pid pid) = 0;  // kNotFound: no such process
  virtual std::vector<Pid> children(Pid parent) = 0;  // direct ones; empty if it is gone
  virtual std::string title(Pid pid) = 0;  // command line, '\0' as ' '; empty if it is gone
  // Processes of program `program` (its file's name) whose working directory is `directory`.
  virtual std::vector<Pid> in_directory(const std::string& directory, std::string_view program) = 0;
  virtual bool works_in(Pid pid, const std::string& directory, std::string_view program) = 0;
  virtual bool stopped(Pid pid) = 0;  // by SIGSTOP or a debugger
  // Voluntary context switches so far: grows whenever the process went to wait and woke up.
  virtual Result<uint64_t> voluntary_switches(Pid pid) = 0;
  virtual Result<std::unique_ptr<PacketSocket>> connect(const std::string& path) = 0;
  virtual Pid self() = 0;
  virtual std::string self_program() = 0;  // path of the running binary
  virtual std::string user() = 0;          // name of the effective user
  virtual void sleep(Millis time) = 0;     // blocking: only where nothing tells of an event
};

}  // namespace bascule::env
