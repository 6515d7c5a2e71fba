// What the nets of both engines have in common: streams by descriptor, names that are looked up
// before a connection, TLS between the socket and the handler, and the rules of env::Stream for
// what a handler does not consume. How bytes get out of and into the kernel is the engine's part:
// the protected virtual functions.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/rare_string.h"
#include "env/net.h"
#include "posix/listening_sockets.h"
#include "posix/loop_core.h"
#include "posix/resolver.h"
#include "posix/tls_layer.h"
#include "posix/unique_fd.h"

namespace bascule::posix {

class SocketNet;

class SocketStream : public env::Stream {
 public:
  enum class Kind { kAccepted, kConnecting };
  SocketStream(SocketNet& net, UniqueFd fd, Kind kind);

  void set_handler(env::StreamHandler& handler) final { handler_ = &handler; }
  void send(std::string_view bytes) final;
  void pause() final { paused_ = true; }
  void resume() final;
  void delay_acks() final;
  void gather(size_t bytes) final;
  void close() final;
  void close_after_flush() final;
  void close_when_sent() final;
  void start_tls(const env::TlsContext& context, TlsSide side,
                 const std::string& server_name) final;
  bool secured() const final { return tls_ && tls_->established(); }
  env::TlsInfo tls_info() const final { return tls_ ? tls_->info() : env::TlsInfo{}; }
  std::string tls_error() const final { return tls_ ? tls_->error() : std::string(); }
  std::string peer() const final;
  std::string peer_host() const final;
  std::string peer_user() const final;

 protected:
  friend class SocketNet;

  // Takes everything, in order; what can't be sent any more is dropped.
  virtual void send_raw(std::string_view bytes) = 0;
  // Output that the kernel has not taken.
  virtual bool output_pending() const = 0;
  // There may be input that no event will announce.
  virtual bool input_pending() const = 0;
  // Hands what there is, and then whatever comes, to take_in() until that says stop.
  virtual void read_on() = 0;
  // While lingering: input is thrown away up to its end, then close().
  virtual void discard_input() = 0;
  // read_on() meets the end of the input, or the connection's error, after what is still unread.
  virtual void expect_end() = 0;

  size_t read_size() const;  // at most so much goes to take_in() at a time
  void receive();            // a turn of reading, with all that comes before the socket's bytes
  void receive_later();
  // `received`: of the socket; where TLS does not protect it, behind a copy of unread_. False: stop
  // reading.
  bool take_in(std::string_view received);
  void connected();
  void flushed();  // no output is pending any more
  void fail(int error);

  SocketNet& net_;
  env::StreamHandler* handler_ = nullptr;
  UniqueFd fd_;
  bool connecting_;
  const bool outgoing_;  // of Net::connect(): the peer is one of few, and chosen by us
  bool paused_ = false;
  bool closed_ = false;
  bool lingering_ = false;  // close_after_flush() was called: the handler is gone
  int failure_ = 0;         // to be reported in a later turn
  RareString unread_;
  std::unique_ptr<TlsLayer> tls_;

 private:
  bool deliver(std::string_view bytes);  // false: stop reading
  void half_close();
  void send_sealed();  // what the TLS layer has left in the net's buffer
  // Ciphertext: what it says goes to the handler. False: stop reading.
  bool receive_sealed(std::string_view sealed);
  bool receive_backlog();
  void end_tls();

  bool offer_again_ = false;  // resumed with unread_
  bool queued_ = false;       // in SocketNet::ready_
};

class SocketNet : public env::Net {
 public:
  SocketNet(const SocketNet&) = delete;
  SocketNet& operator=(const SocketNet&) = delete;
  ~SocketNet() override;

  Status listen(const env::Endpoint& endpoint, env::Acceptor& acceptor) final;
  env::Stream& connect(const env::Endpoint& endpoint, env::StreamHandler& handler) final;

  static constexpr size_t kReadSize = 64 * 1024;
  // Of streams that we connected: large results come by few calls, and still fit a core's cache.
  static constexpr size_t kBulkReadSize = 256 * 1024;
  // With a record begun before it, it must not make more than what a handler may leave unread.
  static constexpr size_t kSealedReadSize = 48 * 1024;

 protected:
  // Without a resolver only addresses can be connected to. They must outlive the net.
  // Without `listening` a unix socket can be listened on by one net only.
  SocketNet(LoopCore& loop, Resolver* resolver, ListeningSockets* listening);

  // Of a unix socket other nets have descriptors too. forget_listener() before it is closed.
  virtual void add_listener(UniqueFd fd, env::Acceptor& acceptor, env::Endpoint endpoint) = 0;
  void forget_listener(const env::Endpoint& endpoint, int fd);
  // A client that has been accepted.
  virtual SocketStream& welcome(UniqueFd fd, env::Acceptor& acceptor);
  virtual std::unique_ptr<SocketStream> make_stream(UniqueFd fd, SocketStream::Kind kind) = 0;
  // It has got its descriptor: events of it are wanted from now on.
  virtual void on_placed(SocketStream& stream) = 0;
  // Nothing more of it is wanted: its descriptor is closed.
  virtual void on_removed(SocketStream& stream) = 0;

  SocketStream& adopt(UniqueFd fd, SocketStream::Kind kind);
  SocketStream* at(int fd) const {
    const auto index = static_cast<size_t>(fd);
    return index < streams_.size() ? streams_[index].get() : nullptr;
  }

  template <typename F>
  void for_each_stream(F&& f) {
    for (auto& stream : streams_) {
      if (stream) f(*stream);
    }
  }

  LoopCore& loop_;
  ListeningSockets* listening_;
  // Room for what a handler may leave unread and one read behind it.
  std::unique_ptr<char[]> scratch_;

 private:
  friend class Listener;
  friend class SocketStream;
  static constexpr Nanos kLinger = 1s;

  void begin_connect(SocketStream& stream, const env::Endpoint& endpoint);
  void on_resolved(uint64_t lookup, const env::Endpoint& endpoint);
  SocketStream& place(std::unique_ptr<SocketStream> stream);
  std::unique_ptr<SocketStream> take_unplaced(SocketStream& stream);
  void bury(SocketStream& stream);
  void free_buried();
  void enqueue(SocketStream& stream);  // its receive() goes on in a later turn
  void run_ready();

  // Who is being welcomed: nobody need ask the kernel once more where it comes from.
  struct Newcomer {
    int fd = -1;
    std::string address;
  };

  Newcomer newcomer_;
  Resolver* resolver_;
  std::map<uint64_t, SocketStream*> lookups_;  // streams that wait for the address of their host
  uint64_t next_lookup_ = 0;
  std::vector<std::unique_ptr<SocketStream>> streams_;   // by descriptor
  std::vector<std::unique_ptr<SocketStream>> unplaced_;  // without one: no address or no socket
  std::vector<std::unique_ptr<SocketStream>> buried_;
  std::vector<SocketStream*> ready_, running_;
  std::map<const SocketStream*, env::TimerId> lingering_;
  std::string sealed_;  // TLS: to be sent; empty between calls
  std::string plain_;   // TLS: being delivered
  bool ready_posted_ = false;
};

}  // namespace bascule::posix
