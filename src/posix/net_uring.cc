#include "posix/net_uring.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include <algorithm>
#include <utility>

#include "posix/socket_calls.h"

namespace bascule::posix {

// ---- Output
// --------------------------------------------------------------------------------------

UringStream::UringStream(UringNet& net, UniqueFd fd, Kind kind)
    : SocketStream(net, std::move(fd), kind) {}

UringNet& UringStream::net() const { return static_cast<UringNet&>(net_); }

void UringStream::send_raw(std::string_view bytes) {
  if (closed_ || broken_ || failure_ != 0 || bytes.empty()) return;
  if (bytes.size() >= kCollected && !connecting_ && !output_pending()) {
    bytes = send_now(bytes);
    if (bytes.empty()) return;
    blocked_ = true;
  }
  if (waiting_ == nullptr) waiting_ = &net().new_output();
  waiting_->bytes.append(bytes);
  if (flying_ != nullptr && waiting_->bytes.size() > kCongested) blocked_ = true;
  if (flying_ == nullptr && !connecting_ && !std::exchange(queued_output_, true)) {
    net().queue_output(fd_.get());
  }
}

std::string_view UringStream::send_now(std::string_view bytes) {
  const ssize_t n = send_bytes(fd_.get(), bytes, MSG_NOSIGNAL | MSG_DONTWAIT);
  if (n >= 0) return bytes.substr(static_cast<size_t>(n));
  if (errno == EAGAIN || errno == EINTR) return bytes;
  // Not reported: the peer's last words may still be unread, and they say why. The end of the
  // input follows them.
  broken_ = true;
  return {};
}

void UringStream::submit_output() {
  queued_output_ = false;
  if (waiting_ == nullptr || flying_ != nullptr) return;
  flying_ = std::exchange(waiting_, nullptr);
  flying_->stream_tag = net().stream_tag(UringNet::Op::kSend, fd_.get());
  net().submit_quietly(*flying_, fd_.get());
}

void UringStream::on_sent(int result) {
  flying_ = nullptr;
  if (result < 0) {
    broken_ = true;
    if (waiting_ != nullptr) net().give_back(*std::exchange(waiting_, nullptr));
    blocked_ = false;
    return;
  }
  if (waiting_ != nullptr) return submit_output();
  if (std::exchange(blocked_, false) || lingering_) flushed();
}

// ---- Input
// ---------------------------------------------------------------------------------------

void UringStream::on_placed() {
  if (failure_ != 0) return;
  if (!connecting_) return ask_for_input();
  io_uring_sqe* sqe = net().uring_.request();
  ::io_uring_prep_poll_add(sqe, fd_.get(), POLLOUT);
  UringLoop::tag(sqe, net().stream_tag(UringNet::Op::kConnect, fd_.get()));
}

void UringStream::on_writable() {
  connected();
  if (closed_ || connecting_) return;
  ask_for_input();
  if (waiting_ != nullptr) submit_output();
}

void UringStream::ask_for_input() {
  if (receiving_ || ended_ || held_.size() > kHeld) return;
  receiving_ = true;
  io_uring_sqe* sqe = net().uring_.request();
  ::io_uring_prep_recv_multishot(sqe, fd_.get(), nullptr, 0, 0);
  sqe->flags |= IOSQE_BUFFER_SELECT;
  sqe->buf_group = UringBuffers::kGroup;
  UringLoop::tag(sqe, net().stream_tag(UringNet::Op::kReceive, fd_.get()));
}

void UringStream::on_received(int result, uint32_t cqe_flags) {
  if ((cqe_flags & IORING_CQE_F_MORE) == 0) receiving_ = cancelling_ = false;
  if (result > 0) {
    const std::string_view bytes = net().buffers_.received(result, cqe_flags);
    if (!lingering_) paused_ || !held_.empty() ? hold(bytes) : take(bytes);
  } else if (result == 0 || (result != -ENOBUFS && result != -ECANCELED && result != -EINTR)) {
    return on_end(-result);
  }
  if (!closed_) ask_for_input();
}

void UringStream::on_end(int error) {
  ended_ = true;
  end_error_ = static_cast<int16_t>(error);
  if (lingering_) return close();
  if (paused_) {
    if (handler_ != nullptr) handler_->on_peer_gone();
  } else if (held_.empty()) {
    fail(error);
  }
}

void UringStream::on_hang_up() {
  watching_end_ = false;
  if (paused_ && handler_ != nullptr) handler_->on_peer_gone();
}

void UringStream::take(std::string_view bytes) {
  while (!bytes.empty()) {
    const size_t most = read_size();
    std::string_view piece = bytes.substr(0, most);
    bytes.remove_prefix(piece.size());
    if (!tls_ && !unread_.empty()) {
      char* scratch = net().scratch_.get();
      ::memcpy(scratch, unread_.view().data(), unread_.size());
      ::memcpy(scratch + unread_.size(), piece.data(), piece.size());
      piece = {scratch, unread_.size() + piece.size()};
    }
    if (take_in(piece)) continue;
    if (!closed_ && !lingering_) hold(bytes);
    return;
  }
}

void UringStream::hold(std::string_view bytes) {
  held_.append(bytes);
  if (held_.size() <= kHeld || !receiving_ || cancelling_) return;
  cancelling_ = true;
  net().uring_.cancel_request(net().stream_tag(UringNet::Op::kReceive, fd_.get()));
  // Nobody would learn from a receive any more that the peer has gone.
  if (std::exchange(watching_end_, true)) return;
  io_uring_sqe* sqe = net().uring_.request();
  ::io_uring_prep_poll_add(sqe, fd_.get(), POLLRDHUP);
  UringLoop::tag(sqe, net().stream_tag(UringNet::Op::kHangUp, fd_.get()));
}

void UringStream::read_on() {
  if (!held_.empty()) {
    const std::string held = held_.take();
    take(held);
    if (closed_ || lingering_ || paused_) return;
    if (!held_.empty()) return receive_later();
  }
  if (ended_) return fail(end_error_);
  ask_for_input();
}

void UringStream::discard_input() {
  held_.clear();
  if (ended_) return close();
  ask_for_input();
}

void UringStream::on_removed() {
  // A last word that waits for the end of the turn leaves now.
  if (waiting_ != nullptr) {
    if (flying_ == nullptr && !connecting_) send_now(waiting_->bytes);
    net().give_back(*std::exchange(waiting_, nullptr));
  }
  if (!net().uring_.running()) return;  // the ring's end is the end of its requests
  using Op = UringNet::Op;
  if (receiving_) net().uring_.cancel_request(net().stream_tag(Op::kReceive, fd_.get()));
  if (watching_end_) net().uring_.cancel_request(net().stream_tag(Op::kHangUp, fd_.get()));
  if (connecting_) net().uring_.cancel_request(net().stream_tag(Op::kConnect, fd_.get()));
  if (flying_ != nullptr && !flying_->quiet) {
    net().uring_.cancel_request(UringNet::tag_of(Op::kSend, 0, flying_->index));
  }
  flying_ = nullptr;
  // The connection ends when nothing refers to it any more: behind those.
  io_uring_sqe* sqe = net().uring_.request();
  ::io_uring_prep_close(sqe, fd_.release());
  UringLoop::tag(sqe, 0);
}

// ---- Net
// -----------------------------------------------------------------------------------------

// By polls, not by accepts: an accept waits alone (EPOLLEXCLUSIVE) even for TCP, so that of two
// processes only the first would be told of clients, and nobody of one that comes as it is
// cancelled. (io_uring/opdef.c of Linux: poll_exclusive.)
class UringNet::UringListener final : public Listener {
 public:
  UringListener(UringNet& net, UniqueFd fd, env::Acceptor& acceptor, env::Endpoint endpoint,
                uint32_t index)
      : Listener(net, std::move(fd), acceptor, std::move(endpoint)),
        uring_(net.uring_),
        tag_(tag_of(Op::kClients, 0, index)) {
    watch();
  }
  ~UringListener() override { unwatch(); }

  void on_completion(int result) {
    watched_ = false;
    result < 0 ? rest() : on_clients();
  }

 private:
  void watch() override {
    io_uring_sqe* sqe = uring_.request();
    ::io_uring_prep_poll_add(sqe, fd(), shared() ? POLLIN | EPOLLEXCLUSIVE : POLLIN);
    UringLoop::tag(sqe, tag_);
    watched_ = true;
  }
  void unwatch() override {
    if (!std::exchange(watched_, false) || !uring_.running()) return;
    uring_.cancel_request(tag_);
    if (shared()) uring_.hand_over();
  }
  UringLoop& uring_;
  const uint64_t tag_;
  bool watched_ = false;
};

UringNet::UringNet(UringLoop& loop, Resolver* resolver, ListeningSockets* listening)
    : SocketNet(loop, resolver, listening), uring_(loop), buffers_(loop.ring()) {
  uring_.set_client(this);
}

UringNet::~UringNet() {
  close_listeners();
  uring_.set_client(nullptr);
}

void UringNet::add_listener(UniqueFd fd, env::Acceptor& acceptor, env::Endpoint endpoint) {
  const auto index = static_cast<uint32_t>(listeners_.size());
  listeners_.push_back(
      std::make_unique<UringListener>(*this, std::move(fd), acceptor, std::move(endpoint), index));
}

void UringNet::close_listeners() {
  for (auto& listener : listeners_) {
    if (listener) listener->close();
    listener.reset();  // its place stays: completions may be late
  }
}

std::unique_ptr<SocketStream> UringNet::make_stream(UniqueFd fd, SocketStream::Kind kind) {
  return std::make_unique<UringStream>(*this, std::move(fd), kind);
}

void UringNet::on_placed(SocketStream& stream) {
  auto& placed = static_cast<UringStream&>(stream);
  const auto fd = static_cast<size_t>(placed.fd_.get());
  if (fd >= generations_.size()) generations_.resize(fd + 32);
  placed.on_placed();
}

void UringNet::on_removed(SocketStream& stream) {
  auto& removed = static_cast<UringStream&>(stream);
  const auto fd = static_cast<size_t>(removed.fd_.get());
  removed.on_removed();
  ++generations_[fd];
}

UringStream* UringNet::stream_of(uint64_t tag) const {
  const auto fd = static_cast<uint32_t>(tag);
  const uint32_t generation = static_cast<uint32_t>(tag >> 32) & 0xffffff;
  if (fd >= generations_.size() || (generations_[fd] & 0xffffff) != generation) return nullptr;
  return static_cast<UringStream*>(at(static_cast<int>(fd)));
}

void UringNet::on_completion(uint64_t tag, int result, uint32_t cqe_flags) {
  const auto op = static_cast<Op>(tag >> 56);
  if (op == Op::kSend) return on_sent(*outputs_[static_cast<uint32_t>(tag)], result);
  if (op == Op::kClients) {
    const auto& listener = listeners_[static_cast<uint32_t>(tag)];
    if (listener) listener->on_completion(result);
    return;
  }
  UringStream* stream = stream_of(tag);
  if (stream != nullptr) {
    if (op == Op::kReceive) stream->on_received(result, cqe_flags);
    if (op == Op::kHangUp) stream->on_hang_up();
    if (op == Op::kConnect) stream->on_writable();
  }
  if ((cqe_flags & IORING_CQE_F_BUFFER) != 0) buffers_.release(std::max(result, 0), cqe_flags);
}

bool UringNet::before_wait() {
  for (const uint64_t tag : queued_) {
    if (UringStream* stream = stream_of(tag)) stream->submit_output();
  }
  queued_.clear();
  return std::none_of(quiet_.begin(), quiet_.end(), [this](uint32_t index) {
    const UringStream* stream = stream_of(outputs_[index]->stream_tag);
    return stream != nullptr && stream->goes_on_when_sent();
  });
}

void UringNet::after_wait() {
  if (quiet_.empty()) return;
  sent_.swap(quiet_);  // what is asked for from here on has not been begun
  unsigned head;
  io_uring_cqe* cqe;
  io_uring_for_each_cqe(&uring_.ring(), head, cqe) {
    if (static_cast<Op>(cqe->user_data >> 56) != Op::kSend) continue;
    on_sent(*outputs_[static_cast<uint32_t>(cqe->user_data)], cqe->res);
    cqe->user_data = 0;
  }
  for (const uint32_t index : sent_) {
    UringOutput& output = *outputs_[index];
    output.quiet = false;
    on_sent(output, static_cast<int>(output.bytes.size()));
  }
  sent_.clear();
}

io_uring_sqe* UringNet::send_request(const UringOutput& output, int fd, int flags) {
  io_uring_sqe* sqe = uring_.request();
  ::io_uring_prep_send(sqe, fd, output.bytes.data() + output.done,
                       output.bytes.size() - output.done, MSG_NOSIGNAL | MSG_WAITALL | flags);
  UringLoop::tag(sqe, tag_of(Op::kSend, 0, output.index));
  return sqe;
}

void UringNet::submit_quietly(UringOutput& output, int fd) {
  send_request(output, fd, MSG_DONTWAIT)->flags |= IOSQE_CQE_SKIP_SUCCESS;
  output.quiet = true;
  quiet_.push_back(output.index);
}

void UringNet::submit(UringOutput& output, int fd) { send_request(output, fd, 0); }

void UringNet::on_sent(UringOutput& output, int result) {
  if (std::exchange(output.quiet, false)) {
    std::erase(quiet_, output.index);
    std::erase(sent_, output.index);
    if (result == -EAGAIN) result = 0;
  }
  UringStream* stream = stream_of(output.stream_tag);
  if (result > 0) output.done += static_cast<size_t>(result);
  const bool rest = stream != nullptr && result >= 0 && output.done < output.bytes.size();
  if (rest) return submit(output, stream->fd_.get());
  give_back(output);
  if (stream != nullptr) stream->on_sent(result);
}

UringOutput& UringNet::new_output() {
  if (free_outputs_.empty()) {
    outputs_.push_back(std::make_unique<UringOutput>());
    outputs_.back()->index = static_cast<uint32_t>(outputs_.size() - 1);
    return *outputs_.back();
  }
  UringOutput& output = *outputs_[free_outputs_.back()];
  free_outputs_.pop_back();
  return output;
}

void UringNet::give_back(UringOutput& output) {
  output.done = 0;
  output.bytes.clear();
  if (output.bytes.capacity() > kKeptCapacity) std::string().swap(output.bytes);
  free_outputs_.push_back(output.index);
}

}  // namespace bascule::posix
