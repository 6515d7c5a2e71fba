// SIGTERM and SIGINT as an event of a loop. By handler and eventfd, not by a blocked mask: a mask
// would be inherited by pg_basebackup and its like, and make them immune.
#pragma once

#include <functional>

#include "base/result.h"
#include "env/loop.h"

namespace bascule::cli {

// At most one object at a time.
class StopSignals {
 public:
  // `callback` runs on the loop for every SIGTERM, SIGINT or SIGHUP; if there is `reload`, it runs
  // for SIGHUP instead.
  StopSignals(env::Loop& loop, std::function<void()> callback, std::function<void()> reload = {});
  ~StopSignals();  // default handlers again
  StopSignals(const StopSignals&) = delete;
  StopSignals& operator=(const StopSignals&) = delete;

 private:
  env::Loop& loop_;
  std::function<void()> callback_, reload_;
  int fd_;
};

// For code without a loop (the demo): whether one of these signals came since install.
void install_interrupt_flag();
bool interrupted();

}  // namespace bascule::cli
