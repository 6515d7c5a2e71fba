// Asks the servers of a static list again and again who they are and how far they have come, over
// connections of its own on a thread of its own, and says what the route table is.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "env/net.h"
#include "proxy/own_query.h"
#include "proxy/topology.h"

namespace bascule::proxy {

struct MonitorConfig {
  std::vector<ServerSpec> servers;  // empty: no monitor
  std::string user;                 // empty: nobody is asked, every role must be given
  std::string password;             // secret
  std::string database = "postgres";
  Nanos interval = 1s;
  Nanos timeout = 2s;  // of one question, connecting included
};

class Monitor {
 public:
  using Publish = std::function<void(RouteTable)>;  // on the monitor's thread
  Monitor(MonitorConfig config, std::unique_ptr<env::Engine> engine,
          std::shared_ptr<const Access> access, Publish publish);
  ~Monitor();  // stops
  void start();
  void stop();

  // kInvalid: the list makes no sense, or a role is to be found out and nobody may ask.
  static Status validate(const MonitorConfig& config);

 private:
  void ask_all();
  void ask(size_t server);
  void publish();

  const MonitorConfig config_;
  std::unique_ptr<env::Engine> engine_;
  Publish publish_;
  StaticTopology topology_;
  std::vector<std::unique_ptr<OwnConnection>> connections_;
  bool started_ = false;
};

}  // namespace bascule::proxy
