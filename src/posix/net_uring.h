// env::Net over io_uring: receives are asked for once and answered many times (multishot), into
// buffers that all streams share; small output is collected and handed over once
// a turn, with whatever else is asked for, by the system call that waits. Large output is sent at
// once: a copy would cost more than the call.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "posix/listener.h"
#include "posix/socket_net.h"
#include "posix/uring_buffers.h"
#include "posix/uring_loop.h"

namespace bascule::posix {

class UringNet;

// Output on its way into the kernel, which reads it until its completion: it outlives its stream.
struct UringOutput {
  std::string bytes;
  size_t done = 0;
  uint64_t stream_tag = 0;  // whose; see UringNet::stream_of()
  uint32_t index = 0;
  bool quiet = false;  // in UringNet::quiet_
};

class UringStream final : public SocketStream {
 public:
  UringStream(UringNet& net, UniqueFd fd, Kind kind);

  bool congested() const override { return blocked_; }

 private:
  friend class UringNet;

  UringNet& net() const;
  void send_raw(std::string_view bytes) override;
  bool output_pending() const override { return waiting_ != nullptr || flying_ != nullptr; }
  bool input_pending() const override { return !held_.empty() || ended_ || !receiving_; }
  void read_on() override;
  void discard_input() override;
  void expect_end() override { ended_ = true; }

  void on_placed();
  void on_removed();
  void on_writable();  // of a connect
  void on_received(int result, uint32_t cqe_flags);
  void on_hang_up();
  void on_sent(int result);
  bool goes_on_when_sent() const { return waiting_ != nullptr || blocked_ || lingering_; }
  void on_end(int error);
  void take(std::string_view bytes);
  void hold(std::string_view bytes);
  void ask_for_input();
  void submit_output();
  std::string_view send_now(std::string_view bytes);  // what the kernel does not take

  // More is sent by a system call of its own.
  static constexpr size_t kCollected = 4 * 1024;
  // Output that waits for the peer beyond this is congestion.
  static constexpr size_t kCongested = 16 * 1024;
  // Input that waits for the handler: beyond it no more is received.
  static constexpr size_t kHeld = 16 * 1024;

  // There are many streams: these fit behind the last of the base class.
  bool watching_end_ = false;  // a poll for the peer's end is under way
  bool blocked_ = false;       // congested, and on_drained() is owed
  bool queued_output_ = false;
  bool receiving_ : 1 = false;      // a multishot receive is under way
  bool cancelling_ : 1 = false;     // ... and was told to end
  bool ended_ : 1 = false;          // the input has ended, by `end_error_`
  bool broken_ : 1 = false;         // output can't be sent any more
  int16_t end_error_ = 0;           // of errno
  UringOutput* waiting_ = nullptr;  // not handed over yet
  UringOutput* flying_ = nullptr;   // the kernel's
  RareString held_;                 // received while the handler paused
};

class UringNet final : public SocketNet, public UringLoop::Client {
 public:
  explicit UringNet(UringLoop& loop, Resolver* resolver = nullptr,
                    ListeningSockets* listening = nullptr);
  ~UringNet() override;

  void close_listeners() override;

  void on_completion(uint64_t tag, int result, uint32_t cqe_flags) override;
  bool before_wait() override;
  void after_wait() override;

 private:
  friend class UringStream;
  class UringListener;
  // What a tag is of. Streams: with the descriptor, and how often it has been used.
  enum class Op : uint8_t { kClients = 1, kReceive, kHangUp, kConnect, kSend };

  void add_listener(UniqueFd fd, env::Acceptor& acceptor, env::Endpoint endpoint) override;
  std::unique_ptr<SocketStream> make_stream(UniqueFd fd, SocketStream::Kind kind) override;
  void on_placed(SocketStream& stream) override;
  void on_removed(SocketStream& stream) override;

  static uint64_t tag_of(Op op, uint32_t generation, uint32_t index) {
    return uint64_t{static_cast<uint8_t>(op)} << 56 | uint64_t{generation & 0xffffff} << 32 | index;
  }
  uint64_t stream_tag(Op op, int fd) const {
    return tag_of(op, generations_[static_cast<size_t>(fd)], static_cast<uint32_t>(fd));
  }
  UringStream* stream_of(uint64_t tag) const;  // null: it has gone
  void on_sent(UringOutput& output, int result);
  UringOutput& new_output();
  void give_back(UringOutput& output);
  void queue_output(int fd) { queued_.push_back(stream_tag(Op::kSend, fd)); }
  // Takes what the kernel has room for, at once, and tells only if that is not all: a completion
  // for each would end the wait that hands it over.
  void submit_quietly(UringOutput& output, int fd);
  // Completes when all of it has been taken, however long the peer blocks.
  void submit(UringOutput& output, int fd);
  io_uring_sqe* send_request(const UringOutput& output, int fd, int flags);

  static constexpr size_t kKeptCapacity = 64 * 1024;

  UringLoop& uring_;
  UringBuffers buffers_;
  std::vector<uint32_t> generations_;                  // by descriptor
  std::vector<std::unique_ptr<UringOutput>> outputs_;  // by index
  std::vector<uint32_t> free_outputs_;
  std::vector<uint64_t> queued_;  // streams with output to be handed over
  std::vector<uint32_t> quiet_;   // outputs whose end is told only if they failed; by index
  std::vector<uint32_t> sent_;    // of them, those that after_wait() is about to find sent
  std::vector<std::unique_ptr<UringListener>> listeners_;  // null: closed
};

}  // namespace bascule::posix
