#include "posix/net_epoll.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include <algorithm>
#include <optional>
#include <utility>

#include "base/log.h"
#include "posix/socket_address.h"

namespace bascule::posix {
namespace {

constexpr uint32_t kInput = EPOLLIN | EPOLLRDHUP;

}  // namespace

EpollStream::EpollStream(EpollNet& net, UniqueFd fd, Kind kind)
    : net_(net), fd_(std::move(fd)), connecting_(kind == Kind::kConnecting) {}

std::string EpollStream::peer() const { return peer_name(fd_.get()); }

std::string EpollStream::peer_host() const { return peer_address(fd_.get()); }

std::string EpollStream::peer_user() const { return unix_peer_user(fd_.get()); }

void EpollStream::send(std::string_view bytes) {
  if (!tls_) return send_raw(bytes);
  if (closed_ || failure_ != 0 || !tls_->established()) return;
  while (!bytes.empty()) {
    const std::string_view piece = bytes.substr(0, EpollNet::kReadSize);
    tls_->seal(piece, net_.sealed_);
    send_sealed();
    bytes.remove_prefix(piece.size());
  }
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
      // Not reported yet: the peer's last words may still be unread, and they say why.
      readable_ = hung_up_ = true;
      net_.enqueue(*this);
      return;
    }
    if (bytes.empty()) return;
  }
  out_ = std::make_unique<Output>();
  out_->bytes.assign(bytes);
  net_.reactor_.modify(fd_.get(), kInput | EPOLLOUT);
}

void EpollStream::flush() {
  const std::string_view rest = std::string_view(out_->bytes).substr(out_->done);
  const ssize_t n = ::send(fd_.get(), rest.data(), rest.size(), MSG_NOSIGNAL);
  if (n < 0) {
    if (errno == EAGAIN || errno == EINTR) return;
    out_.reset();
    readable_ = hung_up_ = true;
    net_.enqueue(*this);
    return;
  }
  out_->done += static_cast<size_t>(n);
  if (out_->done < out_->bytes.size()) return;
  out_.reset();
  net_.reactor_.modify(fd_.get(), kInput);
  if (lingering_) {
    half_close();
  } else {
    handler_->on_drained();
  }
}

void EpollStream::resume() {
  paused_ = false;
  offer_again_ = !unread_.empty();
  if (readable_ || offer_again_) net_.enqueue(*this);
}

void EpollStream::close() {
  if (closed_) return;
  if (!lingering_ && !out_) end_tls();
  closed_ = true;
  handler_ = nullptr;
  net_.bury(*this);
}

void EpollStream::close_after_flush() {
  if (closed_ || lingering_) return;
  end_tls();
  lingering_ = true;
  paused_ = false;
  handler_ = nullptr;
  unread_.clear();
  linger_timer_ = net_.reactor_.call_after(EpollNet::kLinger, [this] { close(); });
  if (!out_) half_close();
}

// ---- TLS ---------------------------------------------------------------------------------------

void EpollStream::start_tls(const env::TlsContext& context, TlsSide side,
                            const std::string& server_name) {
  if (closed_ || lingering_ || tls_) return;
  // The engine is handed its own contexts only: see EngineFactory::tls().
  tls_ = std::make_unique<TlsLayer>(static_cast<const OpenSslContext&>(context), side, server_name);
  tls_->backlog = std::exchange(unread_, {});
  const bool begun = side == TlsSide::kServer || tls_->begin(net_.sealed_);
  send_sealed();
  if (!begun) failure_ = EPROTO;
  net_.enqueue(*this);
}

void EpollStream::send_sealed() {
  send_raw(net_.sealed_);
  net_.sealed_.clear();
}

void EpollStream::end_tls() {
  if (!tls_ || failure_ != 0) return;
  tls_->end(net_.sealed_);
  send_sealed();
}

bool EpollStream::receive_sealed(std::string_view sealed) {
  std::string& plain = net_.plain_;
  plain.assign(unread_);
  const bool before = tls_->established();
  const TlsLayer::Outcome outcome = tls_->open(sealed, plain, net_.sealed_);
  send_sealed();
  if (closed_) return false;
  if (!before && tls_->established() && outcome != TlsLayer::Outcome::kFailed) {
    handler_->on_secured();
    if (closed_ || lingering_) return lingering_ && !closed_;
  }
  if (outcome == TlsLayer::Outcome::kFailed) {
    fail(EPROTO);
    return false;
  }
  bool more = !paused_;
  if (paused_) {
    keep_unread(plain);  // it was not when the bytes were received, but on_secured() paused
  } else if (plain.size() > unread_.size()) {
    more = deliver(plain);
  }
  if (outcome == TlsLayer::Outcome::kOpen || closed_ || lingering_) return more;
  // Whoever reads on gets the end of file now, and whoever pauses, when it resumes.
  hung_up_ = readable_ = true;
  if (more) fail(0);
  return false;
}

void EpollStream::half_close() {
  ::shutdown(fd_.get(), SHUT_WR);
  readable_ = true;
  net_.enqueue(*this);
}

void EpollStream::fail(int error) {
  if (closed_) return;
  env::StreamHandler* handler = std::exchange(handler_, nullptr);
  if (handler != nullptr) handler->on_closed(error);
  // The peer should read the alert that says why.
  if (tls_ && !tls_->established() && error == EPROTO) return close_after_flush();
  close();
}

void EpollStream::finish_connect() {
  int error = 0;
  socklen_t size = sizeof error;
  ::getsockopt(fd_.get(), SOL_SOCKET, SO_ERROR, &error, &size);
  if (error != 0) return fail(error);
  connecting_ = false;
  net_.reactor_.modify(fd_.get(), out_ ? kInput | EPOLLOUT : kInput);
  handler_->on_connected();
}

void EpollStream::on_events(uint32_t events) {
  if (connecting_) {
    if (events & (EPOLLOUT | EPOLLERR | EPOLLHUP)) finish_connect();
    if (closed_ || connecting_) return;
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

void EpollStream::keep_unread(std::string_view bytes) {
  if (bytes.empty()) {
    if (!unread_.empty()) std::string().swap(unread_);
  } else {
    unread_.assign(bytes);
  }
}

bool EpollStream::deliver(std::string_view bytes) {
  const bool sealed = tls_ != nullptr;
  const size_t used = handler_->on_data(bytes);
  if (closed_ || lingering_) return lingering_ && !closed_;
  bytes.remove_prefix(std::min(used, bytes.size()));
  if (tls_ && !sealed) {
    tls_->backlog.assign(bytes);
    unread_.clear();
    return true;  // receive() goes on with them
  }
  if (bytes.size() > kMaxUnread) {
    log(LogLevel::kError, "net", "handler keeps too much", {{"bytes", bytes.size()}});
    fail(EMSGSIZE);
    return false;
  }
  keep_unread(bytes);
  return !paused_;
}

void EpollStream::receive() {
  if (closed_ || connecting_) return;
  if (failure_ != 0) return fail(failure_);
  if (lingering_) return discard_input();
  if (std::exchange(offer_again_, false) && !unread_.empty()) {
    const std::string again = std::exchange(unread_, {});
    if (!deliver(again)) return;
    if (lingering_) return discard_input();
  }
  if (tls_ && !tls_->backlog.empty() && !receive_backlog()) return;
  for (int i = 0; readable_; ++i) {
    if (i == EpollNet::kReadsPerTurn) return net_.enqueue(*this);
    char* scratch = net_.scratch_.get();
    const size_t kept = tls_ ? 0 : unread_.size();
    ::memcpy(scratch, unread_.data(), kept);
    const size_t wanted = tls_ ? EpollNet::kSealedReadSize : EpollNet::kReadSize;
    const ssize_t n = ::recv(fd_.get(), scratch + kept, wanted, 0);
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
    const std::string_view received(scratch, kept + static_cast<size_t>(n));
    if (!(tls_ ? receive_sealed(received) : deliver(received))) return;
    if (lingering_) return discard_input();
    if (tls_ && !tls_->backlog.empty() && !receive_backlog()) return;
  }
}

// False: stop reading.
bool EpollStream::receive_backlog() {
  const std::string backlog = std::exchange(tls_->backlog, {});
  if (!receive_sealed(backlog)) return false;
  if (lingering_) discard_input();
  return !lingering_;
}

void EpollStream::discard_input() {
  for (int i = 0; i < EpollNet::kReadsPerTurn; ++i) {
    const ssize_t n = ::recv(fd_.get(), net_.scratch_.get(), EpollNet::kReadSize, 0);
    if (n > 0) continue;
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
    return close();
  }
  net_.enqueue(*this);
}

class EpollNet::Listener final : public EventSink {
 public:
  // `shared`: a unix socket of which other nets have descriptors too; not every one of them need
  // wake up for a client.
  Listener(EpollNet& net, UniqueFd fd, env::Acceptor& acceptor, std::optional<env::Endpoint> shared)
      : net_(net), fd_(std::move(fd)), acceptor_(acceptor), shared_(std::move(shared)) {
    net_.reactor_.add(fd_.get(), shared_ ? EPOLLIN | EPOLLEXCLUSIVE : EPOLLIN, *this);
  }
  ~Listener() override {
    net_.reactor_.remove(fd_.get());
    net_.reactor_.cancel(retry_);
    if (shared_) net_.unix_listeners_->close(*shared_);
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
      set_stream_options(fd.get());
      acceptor_.on_accept(net_.adopt(std::move(fd), EpollStream::Kind::kAccepted));
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
  std::optional<env::Endpoint> shared_;
  env::TimerId retry_ = env::TimerId::kNone;
};

EpollNet::EpollNet(Reactor& reactor, Resolver* resolver, UnixListeners* unix_listeners)
    : reactor_(reactor),
      resolver_(resolver),
      unix_listeners_(unix_listeners),
      scratch_(std::make_unique_for_overwrite<char[]>(env::Stream::kMaxUnread + kReadSize)) {}

EpollNet::~EpollNet() {
  if (resolver_ != nullptr) resolver_->forget(reactor_);
  for (auto& stream : streams_) {
    if (!stream) continue;
    reactor_.remove(stream->fd_.get());
    reactor_.cancel(stream->linger_timer_);
  }
}

Status EpollNet::listen(const env::Endpoint& endpoint, env::Acceptor& acceptor) {
  const bool shared = unix_listeners_ != nullptr && endpoint.host.starts_with('/');
  Result<UniqueFd> fd = shared ? unix_listeners_->open(endpoint) : listen_socket(endpoint);
  if (!fd) return std::unexpected(fd.error());
  listeners_.push_back(std::make_unique<Listener>(*this, std::move(*fd), acceptor,
                                                  shared ? std::optional(endpoint) : std::nullopt));
  return {};
}

void EpollNet::close_listeners() { listeners_.clear(); }

EpollStream& EpollNet::adopt(UniqueFd fd, EpollStream::Kind kind) {
  auto stream = std::make_unique<EpollStream>(*this, std::move(fd), kind);
  return place(std::move(stream));
}

EpollStream& EpollNet::place(std::unique_ptr<EpollStream> owned) {
  EpollStream& stream = *owned;
  if (!stream.fd_.valid()) {
    unplaced_.push_back(std::move(owned));
    return stream;
  }
  const auto index = static_cast<size_t>(stream.fd_.get());
  if (index >= streams_.size()) streams_.resize(index + 32);
  streams_[index] = std::move(owned);
  reactor_.add(stream.fd_.get(), stream.connecting_ ? kInput | EPOLLOUT : kInput, stream);
  return stream;
}

std::unique_ptr<EpollStream> EpollNet::take_unplaced(EpollStream& stream) {
  const auto it = std::find_if(unplaced_.begin(), unplaced_.end(),
                               [&](const auto& s) { return s.get() == &stream; });
  std::unique_ptr<EpollStream> owned = std::move(*it);
  unplaced_.erase(it);
  return owned;
}

env::Stream& EpollNet::connect(const env::Endpoint& endpoint, env::StreamHandler& handler) {
  EpollStream& stream = adopt(UniqueFd(), EpollStream::Kind::kConnecting);
  stream.set_handler(handler);
  if (resolver_ == nullptr || is_address(endpoint)) {
    begin_connect(stream, endpoint);
    return stream;
  }
  const uint64_t lookup = ++next_lookup_;
  lookups_[lookup] = &stream;
  resolver_->lookup(endpoint.host, reactor_,
                    [this, lookup, port = endpoint.port](const std::string& address) {
                      on_resolved(lookup, {address, port});
                    });
  return stream;
}

void EpollNet::on_resolved(uint64_t lookup, const env::Endpoint& endpoint) {
  const auto it = lookups_.find(lookup);
  if (it == lookups_.end()) return;  // closed meanwhile
  EpollStream& stream = *it->second;
  lookups_.erase(it);
  begin_connect(stream, endpoint);
}

void EpollNet::begin_connect(EpollStream& stream, const env::Endpoint& endpoint) {
  std::unique_ptr<EpollStream> owned = take_unplaced(stream);
  ConnectAttempt attempt = start_connect(endpoint);
  stream.fd_ = std::move(attempt.fd);
  if (attempt.error != 0) {
    stream.connecting_ = false;
    stream.failure_ = attempt.error;
  }
  place(std::move(owned));
  if (attempt.error != 0) enqueue(stream);
}

void EpollNet::enqueue(EpollStream& stream) {
  if (stream.queued_ || stream.closed_) return;
  stream.queued_ = true;
  ready_.push_back(&stream);
  if (ready_posted_) return;
  ready_posted_ = true;
  reactor_.post([this] { run_ready(); });
}

void EpollNet::run_ready() {
  ready_posted_ = false;
  std::vector<EpollStream*> batch;
  batch.swap(ready_);
  for (EpollStream* stream : batch) {
    stream->queued_ = false;
    if (!stream->closed_ && !stream->paused_) stream->receive();
  }
}

void EpollNet::bury(EpollStream& stream) {
  const int fd = stream.fd_.get();
  reactor_.remove(fd);
  reactor_.cancel(stream.linger_timer_);
  if (buried_.empty()) reactor_.post([this] { free_buried(); });
  if (fd < 0) {
    std::erase_if(lookups_, [&](const auto& entry) { return entry.second == &stream; });
    buried_.push_back(take_unplaced(stream));
    return;
  }
  buried_.push_back(std::move(streams_[static_cast<size_t>(fd)]));
  // At once: the number may be reused within this turn, and the peer should not wait.
  stream.fd_.reset();
}

void EpollNet::free_buried() {
  std::erase_if(ready_, [](const EpollStream* s) { return s->closed_; });
  buried_.clear();
}

}  // namespace bascule::posix
