// The other proxies behind the same address (ProxyConfig::peers): a cancel request comes to any of
// them. One that is for nobody here is passed on to all; only who knows the secret acts. What was
// passed on is marked, and goes no further.
#pragma once

#include <memory>
#include <vector>

#include "env/loop.h"
#include "pgwire/startup.h"
#include "proxy/cancel_delivery.h"

namespace bascule::proxy {

// Of one worker, on its thread.
class PeerProxies {
 public:
  explicit PeerProxies(Worker& worker) : worker_(worker) {}

  // `done`, once: each has closed, or can't be reached, or nobody is asked (too many are asked
  // already: anybody can make this work by connecting).
  void pass(const pgwire::CancelKey& key, env::Callback done);
  void close() { rounds_.clear(); }

  // The secret as the client has it; nothing if the request does not come from another proxy.
  static std::optional<std::string> passed_on(const pgwire::CancelKey& key);

 private:
  static constexpr size_t kRoundsMax = 64;
  struct Round {
    size_t left = 0;  // to be waited for
    env::Callback done;
    std::vector<std::unique_ptr<CancelDelivery>> deliveries;
  };
  void on_outcome(Round& round);

  Worker& worker_;
  std::vector<std::unique_ptr<Round>> rounds_;
};

}  // namespace bascule::proxy
