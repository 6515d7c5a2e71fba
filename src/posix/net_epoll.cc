#include "posix/net_epoll.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include <algorithm>
#include <utility>

#include "posix/socket_calls.h"

namespace bascule::posix {
namespace {

constexpr uint32_t kInput = EPOLLIN | EPOLLRDHUP | EPOLLET;

}  // namespace

EpollStream::EpollStream(EpollNet& net, UniqueFd fd, Kind kind)
    : SocketStream(net, std::move(fd), kind) {}

EpollNet& EpollStream::net() const { return static_cast<EpollNet&>(net_); }

void EpollStream::watch() {
  net().reactor_.add(fd_.get(), connecting_ ? kInput | EPOLLOUT : kInput, *this);
}

void EpollStream::unwatch() { net().reactor_.forget(fd_.get()); }

void EpollStream::send_raw(std::string_view bytes) {
  if (closed_ || failure_ != 0 || bytes.empty()) return;
  if (out_) {
    out_->bytes.append(bytes);
    return;
  }
  if (!connecting_) {
    const ssize_t n = send_bytes(fd_.get(), bytes, MSG_NOSIGNAL);
    if (n >= 0) {
      bytes.remove_prefix(static_cast<size_t>(n));
    } else if (errno != EAGAIN && errno != EINTR) {
      return on_broken_output();
    }
    if (bytes.empty()) return;
  }
  out_ = std::make_unique<Output>();
  out_->bytes.assign(bytes);
  net().reactor_.modify(fd_.get(), kInput | EPOLLOUT);
}

// Not reported yet: the peer's last words may still be unread, and they say why.
void EpollStream::on_broken_output() {
  readable_ = hung_up_ = true;
  receive_later();
}

void EpollStream::flush() {
  const std::string_view rest = std::string_view(out_->bytes).substr(out_->done);
  const ssize_t n = send_bytes(fd_.get(), rest, MSG_NOSIGNAL);
  if (n < 0) {
    if (errno == EAGAIN || errno == EINTR) return;
    out_.reset();
    return on_broken_output();
  }
  out_->done += static_cast<size_t>(n);
  if (out_->done < out_->bytes.size()) return;
  out_.reset();
  net().reactor_.modify(fd_.get(), kInput);
  flushed();
}

void EpollStream::on_events(uint32_t events) {
  if (connecting_) {
    if (!(events & (EPOLLOUT | EPOLLERR | EPOLLHUP))) return;
    connected();
    if (closed_) return;
    net().reactor_.modify(fd_.get(), out_ ? kInput | EPOLLOUT : kInput);
  }
  if ((events & EPOLLOUT) && out_) {
    flush();
    if (closed_) return;
  }
  const bool broken = (events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0;
  if (broken) hung_up_ = true;
  if (broken || (events & EPOLLIN)) {
    readable_ = true;
    if (paused_) {
      if (broken && handler_ != nullptr) handler_->on_peer_gone();
      return;
    }
    const bool asks = !hung_up_ && !tls_ && unread_.empty() && handler_ != nullptr;
    if (!asks || handler_->on_readable()) receive();
  }
}

void EpollStream::read_on() {
  for (size_t done = 0; readable_;) {
    if (done >= kReadPerTurn) return receive_later();
    char* const scratch = net().scratch_.get();
    const size_t kept = tls_ ? 0 : unread_.size();
    ::memcpy(scratch, unread_.view().data(), kept);
    const size_t wanted = read_size();
    const ssize_t n = receive_bytes(fd_.get(), scratch + kept, wanted);
    if (n < 0) {
      if (errno == EINTR) continue;
      if (errno != EAGAIN) return fail(errno);
      // It was told while the handler paused; the connection itself may stay open.
      if (tls_ && tls_->ended()) return fail(0);
      readable_ = false;
      return;
    }
    if (n == 0) return fail(0);
    done += static_cast<size_t>(n);
    // A short read has drained the socket: later input makes a new edge. Not so after a hang-up,
    // whose edge has been seen already.
    if (static_cast<size_t>(n) < wanted && !hung_up_) readable_ = false;
    if (!take_in(std::string_view(scratch, kept + static_cast<size_t>(n)))) return;
  }
}

void EpollStream::discard_input() {
  for (size_t done = 0; done < kReadPerTurn;) {
    const ssize_t n = receive_bytes(fd_.get(), net().scratch_.get(), SocketNet::kReadSize);
    if (n > 0) {
      done += static_cast<size_t>(n);
      continue;
    }
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
    return close();
  }
  receive_later();
}

class EpollNet::EpollListener final : public Listener, public EventSink {
 public:
  EpollListener(EpollNet& net, UniqueFd fd, env::Acceptor& acceptor, env::Endpoint endpoint)
      : Listener(net, std::move(fd), acceptor, std::move(endpoint)), reactor_(net.reactor_) {
    watch();
  }
  ~EpollListener() override { unwatch(); }

  void on_events(uint32_t) override { on_clients(); }

 private:
  void watch() override {
    if (std::exchange(watched_, true)) return;
    reactor_.add(fd(), shared() ? EPOLLIN | EPOLLEXCLUSIVE : EPOLLIN, *this);
  }
  void unwatch() override {
    if (std::exchange(watched_, false)) reactor_.remove(fd());
  }
  Reactor& reactor_;
  bool watched_ = false;
};

EpollNet::EpollNet(Reactor& reactor, Resolver* resolver, ListeningSockets* listening)
    : SocketNet(reactor, resolver, listening), reactor_(reactor) {}

EpollNet::~EpollNet() {
  for_each_stream([this](SocketStream& stream) { on_removed(stream); });
}

std::unique_ptr<SocketStream> EpollNet::make_stream(UniqueFd fd, SocketStream::Kind kind) {
  return std::make_unique<EpollStream>(*this, std::move(fd), kind);
}

void EpollNet::add_listener(UniqueFd fd, env::Acceptor& acceptor, env::Endpoint endpoint) {
  listeners_.push_back(
      std::make_unique<EpollListener>(*this, std::move(fd), acceptor, std::move(endpoint)));
}

SocketStream& EpollNet::welcome(UniqueFd fd, env::Acceptor& acceptor) {
  SocketStream& stream = SocketNet::welcome(std::move(fd), acceptor);
  static_cast<EpollStream&>(stream).read_soon();  // who is accepted has spoken
  return stream;
}

void EpollNet::close_listeners() {
  for (const auto& listener : listeners_) listener->close();
  listeners_.clear();
}

}  // namespace bascule::posix
