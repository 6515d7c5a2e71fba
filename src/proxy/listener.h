// LISTEN where clients share servers: one connection for each user and database listens for all of
// their clients on this worker, and each notification goes to every client that listens to its
// channel, in the order in which the server sent them. Beside the pools; to the primary. One a
// worker.
//
// When the connection is lost it is made again, and the clients are told by a WARNING that
// notifications may be missing: the server keeps them for nobody.
#pragma once

#include <deque>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "proxy/own_query.h"
#include "proxy/pool.h"
#include "proxy/route_table.h"

namespace bascule::proxy {

class Worker;

class Listeners {
 public:
  explicit Listeners(Worker& worker) : worker_(worker) {}
  ~Listeners();

  // The client is to get what comes on this channel. ClientConnection::on_channel() follows, not
  // before this returns: when it is certain that nothing is missed from then on, or that there is
  // nobody who could listen.
  void listen(Handle client, const Pool& pool, const std::string& channel);
  void unlisten(Handle client, const Pool& pool, const std::string& channel);
  void leave(Handle client, const Pool& pool);  // of all channels
  void on_route();                              // another primary?
  void close();

  static constexpr size_t kChannelsMax = 10'000;  // of one user and database

 private:
  struct Channel {
    std::vector<Handle> clients;
    std::vector<Handle> waiting;  // to be told: likewise, but may be there twice
    bool live = false;            // the server listens
  };
  struct Feed {
    std::string user, database, server_database;
    std::map<std::string, Channel> channels;
    std::deque<std::string> tasks;  // names in `channels`, or no longer: to listen to, or not
    std::shared_ptr<const Access> access;  // what the connection uses must live as long
    std::unique_ptr<OwnConnection> connection;
    std::string server;  // whom it leads to
    env::TimerId retry = env::TimerId::kNone;
    int failures = 0;
    bool lost = false;  // since it was live: notifications may be missing
  };
  using Key = std::pair<std::string, std::string>;

  static std::string name_of(const Route& route);  // of its primary
  bool connect(Feed& feed);
  void work(Feed& feed);
  void done(Feed& feed, const Status& status);
  void restart(Feed& feed);
  void failed(Feed& feed, const std::string& why);
  void tell(Feed& feed, const std::string& name);
  void refuse_waiting(Feed& feed);
  void warn(Feed& feed);
  void on_notification(Feed& feed, std::string_view message);

  static constexpr Nanos kTimeout = 3s;
  static constexpr Nanos kRetry = 100ms, kRetryMax = 5s;
  static constexpr int kAttempts = 4;  // then those who wait are refused

  Worker& worker_;
  std::map<Key, Feed> feeds_;
};

}  // namespace bascule::proxy
