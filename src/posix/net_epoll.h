// env::Net over the reactor: edge-triggered, each descriptor registered once, a short read means
// drained, EPOLLOUT interest only while output is pending.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "posix/listener.h"
#include "posix/reactor.h"
#include "posix/socket_net.h"

namespace bascule::posix {

class EpollNet;

class EpollStream final : public SocketStream, public EventSink {
 public:
  EpollStream(EpollNet& net, UniqueFd fd, Kind kind);

  bool congested() const override { return out_ != nullptr; }
  void on_events(uint32_t events) override;
  void watch();
  void unwatch();
  // Without waiting to be told that there is something.
  void read_soon() {
    readable_ = true;
    receive_later();
  }

 private:
  struct Output {
    std::string bytes;
    size_t done = 0;
  };

  void send_raw(std::string_view bytes) override;
  bool output_pending() const override { return out_ != nullptr; }
  bool input_pending() const override { return readable_; }
  void read_on() override;
  void discard_input() override;
  void expect_end() override { hung_up_ = readable_ = true; }
  EpollNet& net() const;
  void flush();
  void on_broken_output();

  // Fairness: so much is read from one stream before the others have their turn.
  static constexpr size_t kReadPerTurn = 256 * 1024;

  bool readable_ = false;  // there may be input that no edge will announce again
  bool hung_up_ = false;   // read until end of file even after short reads
  std::unique_ptr<Output> out_;
};

class EpollNet final : public SocketNet {
 public:
  explicit EpollNet(Reactor& reactor, Resolver* resolver = nullptr,
                    ListeningSockets* listening = nullptr);
  ~EpollNet() override;

  void close_listeners() override;

 private:
  friend class EpollStream;
  class EpollListener;

  void add_listener(UniqueFd fd, env::Acceptor& acceptor, env::Endpoint endpoint) override;
  SocketStream& welcome(UniqueFd fd, env::Acceptor& acceptor) override;
  std::unique_ptr<SocketStream> make_stream(UniqueFd fd, SocketStream::Kind kind) override;
  void on_placed(SocketStream& stream) override { static_cast<EpollStream&>(stream).watch(); }
  void on_removed(SocketStream& stream) override { static_cast<EpollStream&>(stream).unwatch(); }

  Reactor& reactor_;
  std::vector<std::unique_ptr<EpollListener>> listeners_;
};

}  // namespace bascule::posix
