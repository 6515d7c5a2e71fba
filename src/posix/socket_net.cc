#include "posix/socket_net.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/socket.h>

#include <algorithm>
#include <utility>

#include "base/log.h"
#include "posix/socket_address.h"

namespace bascule::posix {

SocketStream::SocketStream(SocketNet& net, UniqueFd fd, Kind kind)
    : net_(net),
      fd_(std::move(fd)),
      connecting_(kind == Kind::kConnecting),
      outgoing_(kind == Kind::kConnecting) {}

std::string SocketStream::peer() const { return peer_name(fd_.get()); }

std::string SocketStream::peer_host() const {
  const SocketNet::Newcomer& newcomer = net_.newcomer_;
  return !outgoing_ && newcomer.fd == fd_.get() ? newcomer.address : peer_address(fd_.get());
}

std::string SocketStream::peer_user() const { return unix_peer_user(fd_.get()); }

size_t SocketStream::read_size() const {
  if (tls_) return SocketNet::kSealedReadSize;
  return outgoing_ ? SocketNet::kBulkReadSize : SocketNet::kReadSize;
}

void SocketStream::receive_later() { net_.enqueue(*this); }

void SocketStream::send(std::string_view bytes) {
  if (!tls_) return send_raw(bytes);
  if (closed_ || failure_ != 0 || !tls_->established()) return;
  while (!bytes.empty()) {
    const std::string_view piece = bytes.substr(0, SocketNet::kReadSize);
    tls_->seal(piece, net_.sealed_);
    send_sealed();
    bytes.remove_prefix(piece.size());
  }
}

void SocketStream::flushed() {
  if (lingering_) {
    half_close();
  } else if (handler_ != nullptr) {
    handler_->on_drained();
  }
}

void SocketStream::resume() {
  paused_ = false;
  offer_again_ = !unread_.empty();
  if (offer_again_ || input_pending()) receive_later();
}

// tcp(7), TCP_QUICKACK: "not permanent"; the kernel leaves the mode when a delay has run out.
void SocketStream::delay_acks() {
  const int quick = 0;
  ::setsockopt(fd_.get(), IPPROTO_TCP, TCP_QUICKACK, &quick, sizeof quick);  // unix sockets: fails
}

// socket(7), SO_RCVLOWAT: fewer bytes wake nobody up; the end of the input does. Protected bytes
// are others than those that are counted, and unix sockets take no notice.
void SocketStream::gather(size_t bytes) {
  if (tls_) return;
  const int least = static_cast<int>(std::min(bytes, read_size()));
  ::setsockopt(fd_.get(), SOL_SOCKET, SO_RCVLOWAT, &least, sizeof least);
}

void SocketStream::close() {
  if (closed_) return;
  if (!lingering_ && !output_pending()) end_tls();
  closed_ = true;
  handler_ = nullptr;
  net_.bury(*this);
}

void SocketStream::close_after_flush() {
  if (closed_ || lingering_) return;
  end_tls();
  lingering_ = true;
  paused_ = false;
  handler_ = nullptr;
  unread_.clear();
  net_.lingering_[this] = net_.loop_.call_after(SocketNet::kLinger, [this] { close(); });
  if (!output_pending()) half_close();
}

void SocketStream::close_when_sent() { output_pending() ? close_after_flush() : close(); }

void SocketStream::half_close() {
  ::shutdown(fd_.get(), SHUT_WR);
  receive_later();
}

void SocketStream::fail(int error) {
  if (closed_) return;
  env::StreamHandler* handler = std::exchange(handler_, nullptr);
  if (handler != nullptr) handler->on_closed(error);
  // The peer should read the alert that says why.
  if (tls_ && !tls_->established() && error == EPROTO) return close_after_flush();
  close();
}

void SocketStream::connected() {
  int error = 0;
  socklen_t size = sizeof error;
  ::getsockopt(fd_.get(), SOL_SOCKET, SO_ERROR, &error, &size);
  if (error != 0) return fail(error);
  connecting_ = false;
  handler_->on_connected();
}

// ---- Input
// ---------------------------------------------------------------------------------------

void SocketStream::receive() {
  if (closed_ || connecting_) return;
  if (failure_ != 0) return fail(failure_);
  if (lingering_) return discard_input();
  if (std::exchange(offer_again_, false) && !unread_.empty()) {
    const std::string again = unread_.take();
    if (!deliver(again)) return;
    if (lingering_) return discard_input();
  }
  if (tls_ && !tls_->backlog.empty() && !receive_backlog()) return;
  read_on();
}

bool SocketStream::take_in(std::string_view received) {
  if (!(tls_ ? receive_sealed(received) : deliver(received))) return false;
  if (lingering_) {
    discard_input();
    return false;
  }
  return !tls_ || tls_->backlog.empty() || receive_backlog();
}

// False: stop reading.
bool SocketStream::receive_backlog() {
  const std::string backlog = std::exchange(tls_->backlog, {});
  if (!receive_sealed(backlog)) return false;
  if (lingering_) discard_input();
  return !lingering_;
}

bool SocketStream::deliver(std::string_view bytes) {
  const bool sealed = tls_ != nullptr;
  const size_t used = handler_->on_data(bytes);
  if (closed_ || lingering_) return lingering_ && !closed_;
  bytes.remove_prefix(std::min(used, bytes.size()));
  if (tls_ && !sealed) {
    tls_->backlog.assign(bytes);
    unread_.clear();
    return true;  // take_in() goes on with them
  }
  if (bytes.size() > (outgoing_ ? SocketNet::kBulkReadSize : 0) + kMaxUnread) {
    log(LogLevel::kError, "net", "handler keeps too much", {{"bytes", bytes.size()}});
    fail(EMSGSIZE);
    return false;
  }
  unread_ = bytes;
  return !paused_;
}

// ---- TLS
// -----------------------------------------------------------------------------------------

void SocketStream::start_tls(const env::TlsContext& context, TlsSide side,
                             const std::string& server_name) {
  if (closed_ || lingering_ || tls_) return;
  // The engine is handed its own contexts only: see EngineFactory::tls().
  tls_ = std::make_unique<TlsLayer>(static_cast<const OpenSslContext&>(context), side, server_name);
  tls_->backlog = unread_.take();
  const bool begun = side == TlsSide::kServer || tls_->begin(net_.sealed_);
  send_sealed();
  if (!begun) failure_ = EPROTO;
  receive_later();
}

void SocketStream::send_sealed() {
  send_raw(net_.sealed_);
  net_.sealed_.clear();
}

void SocketStream::end_tls() {
  if (!tls_ || failure_ != 0) return;
  tls_->end(net_.sealed_);
  send_sealed();
}

bool SocketStream::receive_sealed(std::string_view sealed) {
  std::string& plain = net_.plain_;
  plain.assign(unread_.view());
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
    unread_ = plain;  // it was not when the bytes were received, but on_secured() paused
  } else if (plain.size() > unread_.size()) {
    more = deliver(plain);
  }
  if (outcome == TlsLayer::Outcome::kOpen || closed_ || lingering_) return more;
  // Whoever reads on gets the end of file now, and whoever pauses, when it resumes.
  expect_end();
  if (more) fail(0);
  return false;
}

// ---- Net
// -----------------------------------------------------------------------------------------

SocketNet::SocketNet(LoopCore& loop, Resolver* resolver, ListeningSockets* listening)
    : loop_(loop),
      listening_(listening),
      scratch_(std::make_unique_for_overwrite<char[]>(env::Stream::kMaxUnread + 2 * kBulkReadSize)),
      resolver_(resolver) {}

SocketNet::~SocketNet() {
  if (resolver_ != nullptr) resolver_->forget(loop_);
  for (const auto& [stream, timer] : lingering_) loop_.cancel(timer);
}

Status SocketNet::listen(const env::Endpoint& endpoint, env::Acceptor& acceptor) {
  if (listening_ == nullptr) {
    auto fd = listen_socket(endpoint);
    if (!fd) return std::unexpected(fd.error());
    add_listener(std::move(*fd), acceptor, endpoint);
    return {};
  }
  auto fds = listening_->open(endpoint);
  if (!fds) return std::unexpected(fds.error());
  for (UniqueFd& fd : *fds) add_listener(std::move(fd), acceptor, endpoint);
  return {};
}

void SocketNet::forget_listener(const env::Endpoint& endpoint, int fd) {
  if (listening_ != nullptr) listening_->close(endpoint, fd);
}

SocketStream& SocketNet::welcome(UniqueFd fd, env::Acceptor& acceptor) {
  SocketStream& stream = adopt(std::move(fd), SocketStream::Kind::kAccepted);
  acceptor.on_accept(stream);
  return stream;
}

SocketStream& SocketNet::adopt(UniqueFd fd, SocketStream::Kind kind) {
  return place(make_stream(std::move(fd), kind));
}

SocketStream& SocketNet::place(std::unique_ptr<SocketStream> owned) {
  SocketStream& stream = *owned;
  if (!stream.fd_.valid()) {
    unplaced_.push_back(std::move(owned));
    return stream;
  }
  const auto index = static_cast<size_t>(stream.fd_.get());
  if (index >= streams_.size()) streams_.resize(index + 32);
  streams_[index] = std::move(owned);
  on_placed(stream);
  return stream;
}

std::unique_ptr<SocketStream> SocketNet::take_unplaced(SocketStream& stream) {
  const auto it = std::find_if(unplaced_.begin(), unplaced_.end(),
                               [&](const auto& s) { return s.get() == &stream; });
  std::unique_ptr<SocketStream> owned = std::move(*it);
  unplaced_.erase(it);
  return owned;
}

env::Stream& SocketNet::connect(const env::Endpoint& endpoint, env::StreamHandler& handler) {
  SocketStream& stream = adopt(UniqueFd(), SocketStream::Kind::kConnecting);
  stream.set_handler(handler);
  if (resolver_ == nullptr || is_address(endpoint)) {
    begin_connect(stream, endpoint);
    return stream;
  }
  const uint64_t lookup = ++next_lookup_;
  lookups_[lookup] = &stream;
  resolver_->lookup(endpoint.host, loop_,
                    [this, lookup, port = endpoint.port](const std::string& address) {
                      on_resolved(lookup, {address, port});
                    });
  return stream;
}

void SocketNet::on_resolved(uint64_t lookup, const env::Endpoint& endpoint) {
  const auto it = lookups_.find(lookup);
  if (it == lookups_.end()) return;  // closed meanwhile
  SocketStream& stream = *it->second;
  lookups_.erase(it);
  begin_connect(stream, endpoint);
}

void SocketNet::begin_connect(SocketStream& stream, const env::Endpoint& endpoint) {
  std::unique_ptr<SocketStream> owned = take_unplaced(stream);
  ConnectAttempt attempt = start_connect(endpoint);
  stream.fd_ = std::move(attempt.fd);
  if (attempt.error != 0) {
    stream.connecting_ = false;
    stream.failure_ = attempt.error;
  }
  place(std::move(owned));
  if (attempt.error != 0) enqueue(stream);
}

void SocketNet::enqueue(SocketStream& stream) {
  if (stream.queued_ || stream.closed_) return;
  stream.queued_ = true;
  ready_.push_back(&stream);
  if (ready_posted_) return;
  ready_posted_ = true;
  loop_.post([this] { run_ready(); });
}

void SocketNet::run_ready() {
  ready_posted_ = false;
  running_.swap(ready_);
  for (SocketStream* stream : running_) {
    stream->queued_ = false;
    if (!stream->closed_ && !stream->paused_) stream->receive();
  }
  running_.clear();
}

void SocketNet::bury(SocketStream& stream) {
  if (const auto timer = lingering_.find(&stream); timer != lingering_.end()) {
    loop_.cancel(timer->second);
    lingering_.erase(timer);
  }
  if (buried_.empty()) loop_.post([this] { free_buried(); });
  const int fd = stream.fd_.get();
  if (fd < 0) {
    std::erase_if(lookups_, [&](const auto& entry) { return entry.second == &stream; });
    buried_.push_back(take_unplaced(stream));
    return;
  }
  buried_.push_back(std::move(streams_[static_cast<size_t>(fd)]));
  // At once: the number may be reused within this turn, and the peer should not wait.
  on_removed(stream);
  stream.fd_.reset();
}

void SocketNet::free_buried() {
  std::erase_if(ready_, [](const SocketStream* s) { return s->closed_; });
  buried_.clear();
}

}  // namespace bascule::posix
