// A listening socket of a net, whichever engine tells when clients wait there. Others may wait for
// clients of the same socket: the process that takes over (env::HandOver), and of a unix socket
// the nets of all workers.
#pragma once

#include <cstdint>

#include "env/loop.h"
#include "env/net.h"
#include "posix/unique_fd.h"

namespace bascule::posix {

class SocketNet;

class Listener {
 public:
  Listener(SocketNet& net, UniqueFd fd, env::Acceptor& acceptor, env::Endpoint endpoint);
  virtual ~Listener();  // unwatched by then
  Listener(const Listener&) = delete;
  Listener& operator=(const Listener&) = delete;

  // Nobody is accepted any more. A client of whom the kernel has told nobody but us still is.
  void close();

 protected:
  // To be told, by on_clients(), while clients wait. Of a shared socket the kernel tells only one
  // of those who watch, the one that began first: who is told begins anew, behind the others.
  virtual void watch() = 0;
  // From its return on the kernel tells others.
  virtual void unwatch() = 0;

  // Level-triggered, and one at first: a client that comes alone does not cost a second call that
  // finds nobody. Where more come turn by turn, twice as many as in the one before.
  void on_clients();
  void rest();  // watches again a little later

  int fd() const { return fd_.get(); }
  bool shared() const { return endpoint_.host.starts_with('/'); }

 private:
  static constexpr int kAcceptsPerTurn = 32;
  static constexpr Nanos kRest = 100ms;

  enum class Outcome { kAccepted, kNobody, kRefused };
  Outcome accept_one();

  SocketNet& net_;
  UniqueFd fd_;
  env::Acceptor& acceptor_;
  const env::Endpoint endpoint_;
  env::TimerId retry_ = env::TimerId::kNone;
  int most_ = 1;
  uint64_t last_turn_ = 0;
};

}  // namespace bascule::posix
