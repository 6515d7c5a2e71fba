// Opens a stream to a server and makes it what AccessConfig::server_tls asks for. Not over unix
// sockets: nobody is in between, and PostgreSQL offers no TLS there.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "env/net.h"
#include "proxy/access.h"

namespace bascule::proxy {

class ServerDial final : public env::StreamHandler {
 public:
  struct Failure {
    // 08xxx: it may be different the next time; 28000: certificates or levels do not fit.
    std::string sqlstate, message;
  };
  // Exactly one of them is called, once a dial, never before dial() returns. on_open: set another
  // handler at once; the stream is the owner's from then on. Either may destroy this object.
  struct Owner {
    virtual ~Owner() = default;
    virtual void on_dialed(env::Stream& stream) = 0;
    virtual void on_dial_failed(const Failure& failure) = 0;
  };

  ServerDial(env::Net& net, std::shared_ptr<const Access> access, env::Endpoint endpoint,
             Owner& owner);
  ~ServerDial() override;  // closes the stream if it is not the owner's yet
  ServerDial(const ServerDial&) = delete;
  ServerDial& operator=(const ServerDial&) = delete;

  void dial();
  // The server refused the log-in by its rules (28000): levels allow and prefer try the other way
  // once. True: a new dial has begun; the stream of the first is the caller's to close.
  bool dial_otherwise();

  void on_connected() override;
  size_t on_data(std::string_view bytes) override;
  void on_secured() override;
  void on_closed(int error) override;

 private:
  enum class Wish { kPlain, kTry, kDemand };
  Wish first_wish() const;
  void begin(Wish wish);
  void hand_over();
  void fail(std::string sqlstate, std::string message);

  env::Net& net_;
  std::shared_ptr<const Access> access_;
  const env::Endpoint endpoint_;
  Owner& owner_;
  env::Stream* stream_ = nullptr;  // until it is handed over
  Wish wish_ = Wish::kPlain;
  bool used_tls_ = false;
  bool second_ = false;
};

// What a connection that was dialed can be bound to.
pgwire::ChannelBinding channel_binding(const env::Stream& stream);

}  // namespace bascule::proxy
