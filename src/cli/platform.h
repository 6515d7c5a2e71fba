// The operating system as the command line sees it: factories and interfaces filled in by main.cc
// (and by tests), so that nothing in cli/ depends on posix/.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "env/disk.h"
#include "env/entropy.h"
#include "env/file_watch.h"
#include "env/handover.h"
#include "env/http.h"
#include "env/loop.h"
#include "env/net.h"
#include "env/process.h"

namespace bascule::cli {

struct Platform {
  std::function<std::unique_ptr<env::Loop>()> make_loop;
  std::function<std::unique_ptr<env::BlockingPool>(int threads)> make_pool;
  std::function<std::unique_ptr<env::ChangeHint>(env::Loop&)> make_hint;
  env::Clock& clock;
  env::Process& process;
  env::Disk& disk;
  env::Entropy& entropy;
  env::EngineFactory& engines;
  std::function<std::optional<std::string>(const char* name)> environment;
  std::function<void(const char* name, const std::string& value)> set_environment;
  int cores = 1;
  int descriptors = 1024;  // that this process may have open
  std::function<std::unique_ptr<env::HttpClient>(env::Loop&, env::HttpTls)> make_http = {};
  std::function<std::vector<std::string>()> environment_names = {};
  env::HandOver* hand_over = nullptr;  // null: not possible here
};

}  // namespace bascule::cli
