#include "posix/net_epoll.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include <utility>

#include "base/log.h"

namespace bascule::posix {
namespace {

constexpr uint32_t kInput = EPOLLIN | EPOLLRDHUP;

}  // namespace

EpollStream::EpollStream(SocketNet& net, Reactor& reactor, char* scratch, UniqueFd fd, Kind kind)
    : SocketStream(net, std::move(fd), kind), reactor_(reactor), scratch_(scratch) {}

void EpollStream::watch() {
  reactor_.add(fd_.get(), connecting_ ? kInput | EPOLLOUT : kInput, *this);
}

void EpollStream::send_raw(std::string_view bytes) {
  if (closed_ || failure_ != 0 || bytes.empty()) return;
  if (out_) {
    out_->bytes.append(bytes);
    return;
  }
  if (!connecting_) {
    const ssize_t n = ::send(fd_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (n >= 0) {
      bytes.remove_prefix(static_cast<size_t>(n));
    } else if (errno != EAGAIN && errno != EINTR) {
      return on_broken_output();
    }
    if (bytes.empty()) return;
  }
  out_ = std::make_unique<Output>();
  out_->bytes.assign(bytes);
  reactor_.modify(fd_.get(), kInput | EPOLLOUT);
}

// Not reported yet: the peer's last words may still be unread, and they say why.
void EpollStream::on_broken_output() {
  readable_ = hung_up_ = true;
  receive_later();
}

void EpollStream::flush() {
  const std::string_view rest = std::string_view(out_->bytes).substr(out_->done);
  const ssize_t n = ::send(fd_.get(), rest.data(), rest.size(), MSG_NOSIGNAL);
  if (n < 0) {
    if (errno == EAGAIN || errno == EINTR) return;
    out_.reset();
    return on_broken_output();
  }
  out_->done += static_cast<size_t>(n);
  if (out_->done < out_->bytes.size()) return;
  out_.reset();
  reactor_.modify(fd_.get(), kInput);
  flushed();
}

void EpollStream::on_events(uint32_t events) {
  if (connecting_) {
    if (!(events & (EPOLLOUT | EPOLLERR | EPOLLHUP))) return;
    connected();
    if (closed_) return;
    reactor_.modify(fd_.get(), out_ ? kInput | EPOLLOUT : kInput);
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
    receive();
  }
}

void EpollStream::read_on() {
  for (int i = 0; readable_; ++i) {
    if (i == kReadsPerTurn) return receive_later();
    const size_t kept = tls_ ? 0 : unread_.size();
    ::memcpy(scratch_, unread_.data(), kept);
    const size_t wanted = tls_ ? SocketNet::kSealedReadSize : SocketNet::kReadSize;
    const ssize_t n = ::recv(fd_.get(), scratch_ + kept, wanted, 0);
    if (n < 0) {
      if (errno == EINTR) continue;
      if (errno != EAGAIN) return fail(errno);
      // It was told while the handler paused; the connection itself may stay open.
      if (tls_ && tls_->ended()) return fail(0);
      readable_ = false;
      return;
    }
    if (n == 0) return fail(0);
    // A short read has drained the socket: later input makes a new edge. Not so after a hang-up,
    // whose edge has been seen already.
    if (static_cast<size_t>(n) < wanted && !hung_up_) readable_ = false;
    if (!take_in(std::string_view(scratch_, kept + static_cast<size_t>(n)))) return;
  }
}

void EpollStream::discard_input() {
  for (int i = 0; i < kReadsPerTurn; ++i) {
    const ssize_t n = ::recv(fd_.get(), scratch_, SocketNet::kReadSize, 0);
    if (n > 0) continue;
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
    return close();
  }
  receive_later();
}

class EpollNet::Listener final : public EventSink {
 public:
  Listener(EpollNet& net, UniqueFd fd, env::Acceptor& acceptor, env::Endpoint endpoint)
      : net_(net), fd_(std::move(fd)), acceptor_(acceptor), endpoint_(std::move(endpoint)) {
    // Not every net that has a descriptor of a unix socket need wake up for a client.
    const bool shared = endpoint_.host.starts_with('/');
    net_.reactor_.add(fd_.get(), shared ? EPOLLIN | EPOLLEXCLUSIVE : EPOLLIN, *this);
  }
  ~Listener() override {
    net_.reactor_.remove(fd_.get());
    net_.reactor_.cancel(retry_);
    net_.forget_listener(endpoint_, fd_.get());
  }

  void on_events(uint32_t) override {
    for (int i = 0; i < kAcceptsPerTurn; ++i) {
      UniqueFd fd(::accept4(fd_.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
      if (!fd.valid()) {
        if (errno == EAGAIN) return;
        if (errno == ECONNABORTED || errno == EINTR) continue;
        // Out of descriptors or memory: the backlog waits, and asking at once would spin.
        log(LogLevel::kWarn, "net", "can't accept", {{"error", ::strerror(errno)}});
        return again(100ms);
      }
      acceptor_.on_accept(net_.adopt(std::move(fd), SocketStream::Kind::kAccepted));
    }
    again(0ms);
  }

 private:
  static constexpr int kAcceptsPerTurn = 32;
  void again(Nanos delay) {
    net_.reactor_.cancel(retry_);
    retry_ = net_.reactor_.call_after(delay, [this] { on_events(EPOLLIN); });
  }
  EpollNet& net_;
  UniqueFd fd_;
  env::Acceptor& acceptor_;
  const env::Endpoint endpoint_;
  env::TimerId retry_ = env::TimerId::kNone;
};

EpollNet::EpollNet(Reactor& reactor, Resolver* resolver, ListeningSockets* listening)
    : SocketNet(reactor, resolver, listening), reactor_(reactor) {}

EpollNet::~EpollNet() {
  for_each_stream([this](SocketStream& stream) { on_removed(stream); });
}

std::unique_ptr<SocketStream> EpollNet::make_stream(UniqueFd fd, SocketStream::Kind kind) {
  return std::make_unique<EpollStream>(*this, reactor_, scratch_.get(), std::move(fd), kind);
}

void EpollNet::add_listener(UniqueFd fd, env::Acceptor& acceptor, env::Endpoint endpoint) {
  listeners_.push_back(
      std::make_unique<Listener>(*this, std::move(fd), acceptor, std::move(endpoint)));
}

void EpollNet::close_listeners() { listeners_.clear(); }

}  // namespace bascule::posix
