#include "posix/listener.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include <algorithm>
#include <utility>

#include "base/log.h"
#include "posix/socket_address.h"
#include "posix/socket_net.h"

namespace bascule::posix {

Listener::Listener(SocketNet& net, UniqueFd fd, env::Acceptor& acceptor, env::Endpoint endpoint)
    : net_(net), fd_(std::move(fd)), acceptor_(acceptor), endpoint_(std::move(endpoint)) {}

Listener::~Listener() {
  net_.loop_.cancel(retry_);
  net_.forget_listener(endpoint_, fd_.get());
}

Listener::Outcome Listener::accept_one() {
  for (;;) {
    std::string address;
    UniqueFd client = accept_client(fd_.get(), address);
    if (client.valid()) {
      net_.newcomer_ = {client.get(), std::move(address)};
      net_.welcome(std::move(client), acceptor_);
      net_.newcomer_ = {};
      return Outcome::kAccepted;
    }
    if (errno == EAGAIN) return Outcome::kNobody;
    if (errno != ECONNABORTED && errno != EINTR) return Outcome::kRefused;
  }
}

void Listener::on_clients() {
  if (shared()) unwatch();  // who comes meanwhile is for those who have nothing to do
  const uint64_t turn = net_.loop_.stats().turns;
  most_ = turn == last_turn_ + 1 ? std::min(2 * most_, kAcceptsPerTurn) : 1;
  last_turn_ = turn;
  Outcome outcome = Outcome::kAccepted;
  for (int i = 0; i < most_ && outcome == Outcome::kAccepted; ++i) outcome = accept_one();
  if (outcome != Outcome::kRefused) return watch();
  // Out of descriptors or memory: the backlog waits, and asking at once would spin.
  log(LogLevel::kWarn, "net", "can't accept", {{"error", ::strerror(errno)}});
  rest();
}

void Listener::rest() {
  unwatch();
  retry_ = net_.loop_.call_after(kRest, [this] { watch(); });
}

void Listener::close() {
  net_.loop_.cancel(retry_);
  unwatch();
  while (shared() && net_.loop_.running() && accept_one() == Outcome::kAccepted) {
  }
}

}  // namespace bascule::posix
