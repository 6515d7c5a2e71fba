// Byte streams for the data plane: the seam between the proxy and its engine (epoll or io_uring).
// It is narrow in the way that both need:
//   - Bytes come to the handler where they were received (the worker's scratch with epoll, a buffer
//     of the ring with io_uring). What the handler does not consume the engine keeps and offers
//     again in front of what follows, so that a handler never owns an input buffer.
//   - send() takes everything. What lies in the bytes being delivered goes to the peer without a
//     copy unless the peer blocks; only then the engine keeps a copy (or holds the ring's buffer).
//   - Back-pressure is the handler's: it pauses the source while congested() is true for the sink.
// Everything runs on the loop's thread. Streams belong to the engine: a Stream& is valid until
// close(), close_after_flush() or the return of on_closed(), and freed at the end of that turn.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "base/result.h"
#include "env/entropy.h"
#include "env/loop.h"
#include "env/loop_stats.h"
#include "env/tls.h"

namespace bascule::env {

// host: an IPv4 or IPv6 address, the directory of a unix socket ("/run/..."), or, to connect to, a
// name.
struct Endpoint {
  std::string host;
  uint16_t port = 0;
  bool operator==(const Endpoint&) const = default;
  std::string to_string() const { return host + ":" + std::to_string(port); }
};

class StreamHandler {
 public:
  virtual ~StreamHandler() = default;
  virtual void on_connected() {}  // of Net::connect()
  // There is input, and an engine that can leave it where it is asks before it reads. False: the
  // handler has paused.
  virtual bool on_readable() { return true; }
  // Returns how many bytes it is done with; the rest, at most kMaxUnread, comes again in front of
  // later bytes (after resume(), also without any). Less than all without pausing means "more
  // bytes are needed".
  virtual size_t on_data(std::string_view bytes) = 0;
  // Of start_tls(): the handshake is through, and bytes from here on are protected.
  virtual void on_secured() {}
  virtual void on_drained() {}  // the output that congested() was true for has gone
  // While paused only: the peer has closed its side or the connection broke. What it sent before
  // may still be unread.
  virtual void on_peer_gone() {}
  // The last call. 0: the peer closed in order; else errno.
  virtual void on_closed(int error) = 0;
};

class Stream {
 public:
  static constexpr size_t kMaxUnread = 66 * 1024;

  virtual ~Stream() = default;
  virtual void set_handler(StreamHandler& handler) = 0;
  virtual void send(std::string_view bytes) = 0;  // errors show up in on_closed()
  // Output waits in memory for the peer: stop feeding it. on_drained() follows.
  virtual bool congested() const = 0;
  virtual void pause() = 0;   // no on_data() after this, until
  virtual void resume() = 0;  // on_data() comes in a later turn
  // The peer waited for its answer longer than the kernel delays an acknowledgement (40 ms), and
  // would get one in a packet of its own for whatever is read from now on: not again before it has
  // to wait as long.
  virtual void delay_acks() = 0;
  // Input is of no use before `bytes` of it are there: the engine may leave it to the kernel until
  // then, and may offer less all the same. They must be sure to come behind what on_data() has got;
  // it says so anew each time, and 1 ends it.
  virtual void gather(size_t bytes) = 0;
  virtual void close() = 0;  // at once; unsent output is lost
  // Sends what is pending (bounded by time), tells the peer, and lets it read: a plain close with
  // unread input resets the connection, and the peer would lose a last error message.
  virtual void close_after_flush() = 0;
  // For a peer that has said it is done: sends what is pending likewise, and closes without waiting
  // for it to read.
  virtual void close_when_sent() = 0;
  // TLS begins with the next byte of either direction: what on_data() does not consume, if called
  // inside it, is the first of the peer's handshake. on_secured() or on_closed(EPROTO) follows,
  // never before it returns; what is sent until then is dropped. The handshake is bounded in size;
  // its time is the caller's to bound.
  enum class TlsSide { kServer, kClient };
  // `server_name`, of a client: for SNI and, by the context, the name to find in the certificate.
  virtual void start_tls(const TlsContext& context, TlsSide side,
                         const std::string& server_name) = 0;
  virtual bool secured() const = 0;
  virtual TlsInfo tls_info() const = 0;       // only if secured()
  virtual std::string tls_error() const = 0;  // in on_closed(EPROTO): why; nothing of the peer's

  virtual std::string peer() const = 0;  // "10.0.0.1:5432", for people
  // The address alone; empty for a unix socket.
  virtual std::string peer_host() const = 0;
  // Who is at the other end of a unix socket, by name; empty if that can't be told. May be slow.
  virtual std::string peer_user() const = 0;
};

class Acceptor {
 public:
  virtual ~Acceptor() = default;
  virtual void on_accept(Stream& stream) = 0;  // must set a handler or close
};

class Net {
 public:
  virtual ~Net() = default;
  // SO_REUSEPORT: each worker listens on the same endpoint and the kernel spreads the clients. The
  // listener lives until close_listeners().
  virtual Status listen(const Endpoint& endpoint, Acceptor& acceptor) = 0;
  // From its return on nobody is accepted; whom the kernel has told this net alone of has been.
  virtual void close_listeners() = 0;
  // Never calls the handler before it returns; failure is on_closed().
  virtual Stream& connect(const Endpoint& endpoint, StreamHandler& handler) = 0;
};

// One worker's thread with its loop and its net.
class Engine {
 public:
  virtual ~Engine() = default;
  virtual Loop& loop() = 0;
  virtual Net& net() = 0;
  virtual Entropy& entropy() = 0;
  virtual void start() = 0;  // begins the thread; before it, the caller's thread owns loop and net
  virtual void join() = 0;  // after loop().stop(): ends the thread; then the caller owns them again
  virtual LoopStats stats() const = 0;  // any thread
  // On the loop's thread: when its present turn began. A clock that costs nothing.
  virtual MonoTime turn_began() const = 0;
};

// How an engine talks to the kernel; kAuto: by what is best here.
enum class EngineKind { kAuto, kEpoll, kUring };

class EngineFactory {
 public:
  virtual ~EngineFactory() = default;
  // Never kAuto. An error if the kernel, or a rule of its administrator, refuses what is wanted;
  // where that happens to kAuto, it says so once in the log and chooses another.
  virtual Result<EngineKind> choose(EngineKind wanted) = 0;
  // `kind`: as chosen.
  virtual std::unique_ptr<Engine> create(const std::string& name, EngineKind kind) = 0;
  virtual Tls& tls() = 0;  // any thread
};

}  // namespace bascule::env
