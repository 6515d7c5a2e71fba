// The only place where the operating system is chosen: fills cli::Platform with posix/.
#include <signal.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "cli/app.h"
#include "posix/blocking_pool.h"
#include "posix/clock.h"
#include "posix/disk.h"
#include "posix/entropy.h"
#include "posix/file_watch.h"
#include "posix/guard_process.h"
#include "posix/handover.h"
#include "posix/http_curl.h"
#include "posix/process.h"
#include "posix/reactor.h"
#include "posix/worker_engine.h"

namespace {

// Log-in shells and service managers give 1,024 and leave the rest to whoever needs it: a proxy
// does.
int raise_descriptor_limit() {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return 1024;
  limit.rlim_cur = limit.rlim_max;
  (void)setrlimit(RLIMIT_NOFILE, &limit);
  (void)getrlimit(RLIMIT_NOFILE, &limit);
  return static_cast<int>(std::min<rlim_t>(limit.rlim_cur, 1 << 30));
}

}  // namespace

int main(int argc, char** argv) {
  using namespace bascule;
  // The guard does one thing and shares nothing with the rest.
  if (argc > 1 && std::string_view(argv[1]) == "guard") {
    argv[1] = argv[0];
    return posix::guard_main(argc - 1, argv + 1);
  }
  signal(SIGPIPE, SIG_IGN);
  posix::SystemClock clock;
  posix::PosixProcess process;
  posix::PosixDisk disk;
  posix::SystemEntropy entropy;
  posix::WorkerEngineFactory engines;
  posix::HandOverSocket hand_over(engines.listening());
  const cli::Platform platform{
      .make_loop = [] { return std::make_unique<posix::Reactor>(); },
      .make_pool = [](int threads) { return std::make_unique<posix::ThreadPool>(threads); },
      .make_hint = [](env::Loop& loop) { return std::make_unique<posix::InotifyHint>(loop); },
      .clock = clock,
      .process = process,
      .disk = disk,
      .entropy = entropy,
      .engines = engines,
      .environment = [](const char* name) -> std::optional<std::string> {
        const char* value = getenv(name);
        return value == nullptr ? std::nullopt : std::optional<std::string>(value);
      },
      .set_environment = [](const char* name,
                            const std::string& value) { setenv(name, value.c_str(), 1); },
      .cores = static_cast<int>(std::max(1u, std::thread::hardware_concurrency())),
      .descriptors = raise_descriptor_limit(),
      .make_http =
          [](env::Loop& loop, env::HttpTls tls) {
            return std::make_unique<posix::CurlHttp>(loop, std::move(tls));
          },
      .environment_names =
          [] {
            std::vector<std::string> names;
            for (char** entry = environ; *entry != nullptr; ++entry) {
              const std::string_view text = *entry;
              names.emplace_back(text.substr(0, text.find('=')));
            }
            return names;
          },
      .hand_over = &hand_over,
  };
  return cli::run_cli(argc, argv, platform);
}
