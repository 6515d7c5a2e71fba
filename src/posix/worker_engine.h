// env::Engine of one proxy worker: a thread with a reactor and an epoll net.
#pragma once

#include <memory>
#include <string>
#include <thread>

#include "env/net.h"
#include "posix/resolver.h"
#include "posix/tls_context.h"
#include "posix/unix_listeners.h"

namespace bascule::posix {

// Must outlive its engines: they share its resolver.
class EpollEngineFactory final : public env::EngineFactory {
 public:
  std::unique_ptr<env::Engine> create(const std::string& name) override;
  env::Tls& tls() override { return tls_; }

 private:
  OpenSslTls tls_;
  UnixListeners unix_listeners_;
  Resolver resolver_;
};

}  // namespace bascule::posix
