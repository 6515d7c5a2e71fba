#include "posix/worker_engine.h"

#include <pthread.h>
#include <signal.h>

#include <thread>
#include <utility>

#include "base/log.h"
#include "posix/entropy.h"
#include "posix/net_epoll.h"
#include "posix/net_uring.h"

namespace bascule::posix {
namespace {

template <typename LoopType, typename NetType>
class WorkerEngine final : public env::Engine {
 public:
  WorkerEngine(std::string name, Resolver& resolver, ListeningSockets& listening)
      : name_(std::move(name)), net_(loop_, &resolver, &listening) {}
  ~WorkerEngine() override {
    if (!thread_.joinable()) return;
    loop_.stop();
    thread_.join();
  }

  env::Loop& loop() override { return loop_; }
  env::Net& net() override { return net_; }
  env::Entropy& entropy() override { return entropy_; }
  env::LoopStats stats() const override { return loop_.stats(); }
  MonoTime turn_began() const override { return loop_.turn_began(); }

  void start() override {
    // Signals belong to the main thread.
    sigset_t all, before;
    ::sigfillset(&all);
    ::pthread_sigmask(SIG_SETMASK, &all, &before);
    thread_ = std::thread([this] {
      ::pthread_setname_np(::pthread_self(), name_.substr(0, 15).c_str());
      loop_.run();
    });
    ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
  }
  void join() override {
    if (thread_.joinable()) thread_.join();
  }

 private:
  std::string name_;
  LoopType loop_;
  NetType net_;
  SystemEntropy entropy_;
  std::thread thread_;
};

}  // namespace

WorkerEngineFactory::WorkerEngineFactory() : WorkerEngineFactory(&UringLoop::unavailable) {}

Result<env::EngineKind> WorkerEngineFactory::choose(env::EngineKind wanted) {
  using enum env::EngineKind;
  if (wanted == kEpoll) return kEpoll;
  const std::string why = probe_();
  if (why.empty()) return kUring;
  if (wanted == kUring) return fail(ErrorCode::kUnavailable, "io_uring can't be used: " + why);
  log(LogLevel::kWarn, "net", "io_uring can't be used: epoll instead", {{"reason", why}});
  return kEpoll;
}

std::unique_ptr<env::Engine> WorkerEngineFactory::create(const std::string& name,
                                                         env::EngineKind kind) {
  listening_.expect_net();
  if (kind == env::EngineKind::kUring) {
    return std::make_unique<WorkerEngine<UringLoop, UringNet>>(name, resolver_, listening_);
  }
  return std::make_unique<WorkerEngine<Reactor, EpollNet>>(name, resolver_, listening_);
}

}  // namespace bascule::posix
