// env::Net over the reactor: edge-triggered, each descriptor registered once, a short read means
// drained, EPOLLOUT interest only while output is pending.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "env/net.h"
#include "posix/reactor.h"
#include "posix/resolver.h"
#include "posix/tls_layer.h"
#include "posix/unique_fd.h"
#include "posix/unix_listeners.h"

namespace bascule::posix {

class EpollNet;

class EpollStream final : public env::Stream, public EventSink {
 public:
  enum class Kind { kAccepted, kConnecting };
  EpollStream(EpollNet& net, UniqueFd fd, Kind kind);

  void set_handler(env::StreamHandler& handler) override { handler_ = &handler; }
  void send(std::string_view bytes) override;
  bool congested() const override { return out_ != nullptr; }
  void pause() override { paused_ = true; }
  void resume() override;
  void close() override;
  void close_after_flush() override;
  void start_tls(const env::TlsContext& context, TlsSide side,
                 const std::string& server_name) override;
  bool secured() const override { return tls_ && tls_->established(); }
  env::TlsInfo tls_info() const override { return tls_ ? tls_->info() : env::TlsInfo{}; }
  std::string tls_error() const override { return tls_ ? tls_->error() : std::string(); }
  std::string peer() const override;
  std::string peer_host() const override;
  std::string peer_user() const override;

  void on_events(uint32_t events) override;

 private:
  friend class EpollNet;
  struct Output {
    std::string bytes;
    size_t done = 0;
  };

  void finish_connect();
  void flush();
  void receive();
  bool deliver(std::string_view bytes);  // false: stop reading
  void discard_input();                  // while lingering
  void half_close();
  void fail(int error);
  void keep_unread(std::string_view bytes);
  void send_raw(std::string_view bytes);
  void send_sealed();  // what the TLS layer has left in the net's buffer
  // Ciphertext: what it says goes to the handler. False: stop reading.
  bool receive_sealed(std::string_view sealed);
  bool receive_backlog();
  void end_tls();

  EpollNet& net_;
  env::StreamHandler* handler_ = nullptr;
  UniqueFd fd_;
  bool connecting_;
  bool paused_ = false;
  bool readable_ = false;     // there may be input that no edge will announce again
  bool offer_again_ = false;  // resumed with unread_
  bool hung_up_ = false;      // read until end of file even after short reads
  bool closed_ = false;
  bool lingering_ = false;  // close_after_flush() was called: the handler is gone
  bool queued_ = false;     // in EpollNet::ready_
  int failure_ = 0;         // to be reported in a later turn
  std::unique_ptr<Output> out_;
  std::string unread_;
  std::unique_ptr<TlsLayer> tls_;
  env::TimerId linger_timer_ = env::TimerId::kNone;
};

class EpollNet final : public env::Net {
 public:
  // Without a resolver only addresses can be connected to. They must outlive the net.
  // Without `unix_listeners` a unix socket can be listened on by one net only.
  explicit EpollNet(Reactor& reactor, Resolver* resolver = nullptr,
                    UnixListeners* unix_listeners = nullptr);
  ~EpollNet() override;
  EpollNet(const EpollNet&) = delete;
  EpollNet& operator=(const EpollNet&) = delete;

  Status listen(const env::Endpoint& endpoint, env::Acceptor& acceptor) override;
  void close_listeners() override;
  env::Stream& connect(const env::Endpoint& endpoint, env::StreamHandler& handler) override;

 private:
  friend class EpollStream;
  class Listener;

  static constexpr size_t kReadSize = 64 * 1024;
  // With a record begun before it, it must not make more than what a handler may leave unread.
  static constexpr size_t kSealedReadSize = 48 * 1024;
  // Fairness: so much is read from one stream before the others have their turn.
  static constexpr int kReadsPerTurn = 4;
  static constexpr Nanos kLinger = 1s;

  void begin_connect(EpollStream& stream, const env::Endpoint& endpoint);
  void on_resolved(uint64_t lookup, const env::Endpoint& endpoint);
  EpollStream& adopt(UniqueFd fd, EpollStream::Kind kind);
  EpollStream& place(std::unique_ptr<EpollStream> owned);
  std::unique_ptr<EpollStream> take_unplaced(EpollStream& stream);
  void enqueue(EpollStream& stream);  // its receive() goes on in a later turn
  void run_ready();
  void bury(EpollStream& stream);
  void free_buried();

  Reactor& reactor_;
  Resolver* resolver_;
  UnixListeners* unix_listeners_;
  std::map<uint64_t, EpollStream*> lookups_;  // streams that wait for the address of their host
  uint64_t next_lookup_ = 0;
  std::vector<std::unique_ptr<EpollStream>> streams_;   // by descriptor
  std::vector<std::unique_ptr<EpollStream>> unplaced_;  // without one: no address or no socket
  std::vector<std::unique_ptr<EpollStream>> buried_;
  std::vector<EpollStream*> ready_;
  std::vector<std::unique_ptr<Listener>> listeners_;
  std::unique_ptr<char[]> scratch_;
  std::string sealed_;  // TLS: to be sent; empty between calls
  std::string plain_;   // TLS: being delivered
  bool ready_posted_ = false;
};

}  // namespace bascule::posix
