// env::Process on Linux: fork and exec, pidfds, /proc, unix sockets.
#pragma once

#include "env/process.h"

namespace bascule::posix {

class PosixProcess final : public env::Process {
 public:
  Result<env::Finished> run(const env::Command& command) override;
  Result<std::unique_ptr<env::ProcessHandle>> spawn_detached(const env::Command& command,
                                                             const std::string& log_file) override;
  Result<std::unique_ptr<env::ProcessHandle>> open(env::Pid pid) override;
  std::vector<env::Pid> children(env::Pid parent) override;
  std::string title(env::Pid pid) override;
  std::vector<env::Pid> in_directory(const std::string& directory,
                                     std::string_view program) override;
  bool works_in(env::Pid pid, const std::string& directory, std::string_view program) override;
  bool stopped(env::Pid pid) override;
  Result<uint64_t> voluntary_switches(env::Pid pid) override;
  Result<std::unique_ptr<env::PacketSocket>> connect(const std::string& path) override;
  env::Pid self() override;
  std::string self_program() override;
  std::string user() override;
  void sleep(Millis time) override;
};

}  // namespace bascule::posix
