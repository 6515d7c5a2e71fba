#include "posix/worker_engine.h"

#include <pthread.h>
#include <signal.h>

#include "posix/entropy.h"
#include "posix/net_epoll.h"
#include "posix/reactor.h"

namespace bascule::posix {
namespace {

class EpollEngine final : public env::Engine {
 public:
  EpollEngine(std::string name, Resolver& resolver, UnixListeners& unix_listeners)
      : name_(std::move(name)), net_(reactor_, &resolver, &unix_listeners) {}
  ~EpollEngine() override {
    if (!thread_.joinable()) return;
    reactor_.stop();
    thread_.join();
  }

  env::Loop& loop() override { return reactor_; }
  env::Net& net() override { return net_; }
  env::Entropy& entropy() override { return entropy_; }
  env::LoopStats stats() const override { return reactor_.stats(); }

  void start() override {
    // Signals belong to the main thread.
    sigset_t all, before;
    ::sigfillset(&all);
    ::pthread_sigmask(SIG_SETMASK, &all, &before);
    thread_ = std::thread([this] {
      ::pthread_setname_np(::pthread_self(), name_.substr(0, 15).c_str());
      reactor_.run();
    });
    ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
  }
  void join() override {
    if (thread_.joinable()) thread_.join();
  }

 private:
  std::string name_;
  Reactor reactor_;
  EpollNet net_;
  SystemEntropy entropy_;
  std::thread thread_;
};

}  // namespace

std::unique_ptr<env::Engine> EpollEngineFactory::create(const std::string& name) {
  return std::make_unique<EpollEngine>(name, resolver_, unix_listeners_);
}

}  // namespace bascule::posix
