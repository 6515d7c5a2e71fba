// env::Engine of one proxy worker: a thread with a loop and a net, over epoll or io_uring.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <utility>

#include "env/net.h"
#include "posix/listening_sockets.h"
#include "posix/resolver.h"
#include "posix/tls_context.h"

namespace bascule::posix {

// Must outlive its engines: they share its resolver.
class WorkerEngineFactory final : public env::EngineFactory {
 public:
  // Why io_uring can't be used; empty: it can.
  using Probe = std::function<std::string()>;
  WorkerEngineFactory();
  explicit WorkerEngineFactory(Probe uring_unavailable) : probe_(std::move(uring_unavailable)) {}
  Result<env::EngineKind> choose(env::EngineKind wanted) override;
  std::unique_ptr<env::Engine> create(const std::string& name, env::EngineKind kind) override;
  env::Tls& tls() override { return tls_; }
  ListeningSockets& listening() { return listening_; }

 private:
  Probe probe_;
  OpenSslTls tls_;
  ListeningSockets listening_;
  Resolver resolver_;
};

}  // namespace bascule::posix
