// For tests that hold for both engines: a loop and a net of the kind that the test is given.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "posix/net_epoll.h"
#include "posix/net_uring.h"

namespace bascule::posix {

// Those that this kernel lets us have.
inline std::vector<env::EngineKind> engines_here() {
  std::vector<env::EngineKind> kinds = {env::EngineKind::kEpoll};
  if (UringLoop::unavailable().empty()) kinds.push_back(env::EngineKind::kUring);
  return kinds;
}

inline std::string engine_name(const testing::TestParamInfo<env::EngineKind>& info) {
  return info.param == env::EngineKind::kUring ? "uring" : "epoll";
}

inline std::unique_ptr<LoopCore> make_loop(env::EngineKind kind) {
  if (kind == env::EngineKind::kUring) return std::make_unique<UringLoop>();
  return std::make_unique<Reactor>();
}

inline std::unique_ptr<SocketNet> make_net(env::EngineKind kind, LoopCore& loop,
                                           Resolver* resolver = nullptr,
                                           ListeningSockets* listening = nullptr) {
  if (kind == env::EngineKind::kUring) {
    return std::make_unique<UringNet>(static_cast<UringLoop&>(loop), resolver, listening);
  }
  return std::make_unique<EpollNet>(static_cast<Reactor&>(loop), resolver, listening);
}

class EngineTest : public testing::TestWithParam<env::EngineKind> {
 private:
  std::unique_ptr<LoopCore> own_loop_ = make_loop(GetParam());

 protected:
  LoopCore& loop = *own_loop_;
};

}  // namespace bascule::posix
