// Runs the programs that print passwords for servers, again before what they printed expires.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/result.h"
#include "cli/access_section.h"
#include "env/loop.h"
#include "env/process.h"

namespace bascule::cli {

// What a run of a command yields: the first line of its standard output; an error that shows how it
// ended and the first line of its standard error, never anything of its output.
Result<std::string> run_password_command(env::Process& process, env::Clock& clock,
                                         const PasswordCommandSection& section,
                                         std::function<bool()> cancelled);

class PasswordCommands {
 public:
  // On the loop's thread, at start with an error for each user, then whenever something changes.
  using Deliver = std::function<void(const std::string& user, Result<std::string> password)>;
  // The pool must have ended before this object and the loop do; see stop().
  PasswordCommands(env::Loop& loop, env::BlockingPool& pool, env::Process& process,
                   std::vector<PasswordCommandSection> sections, Deliver deliver);
  void start();
  void stop();  // commands that run are killed

 private:
  struct Entry {
    PasswordCommandSection section;
    MonoTime good_until{};  // of what was delivered last
    Nanos retry{};
  };
  static constexpr Nanos kRetryMin = 1s, kRetryMax = 30s;
  void run(Entry& entry);
  void on_result(Entry& entry, MonoTime begun, Result<std::string> result);

  env::Loop& loop_;
  env::BlockingPool& pool_;
  env::Process& process_;
  std::vector<std::unique_ptr<Entry>> entries_;
  Deliver deliver_;
  std::atomic<bool> stopping_{false};
};

}  // namespace bascule::cli
