// Clients, and proxies as far as safety goes: a route read from the leader record, a permit that
// expires, acknowledgements forwarded only under both. Some clients go directly to PostgreSQL.
#pragma once

#include <optional>

#include "control/lease.h"
#include "control/records.h"
#include "sim/checkers/checker.h"

namespace bascule::sim {

struct Workload {
  Nanos think_low = millis(20);
  Nanos think_high = millis(250);
  int clients_per_proxy = 2;
  int direct_clients = 1;
  bool seldom = false;  // proxies look only as often as the program's do (cli/cluster_watch.cc)
};

class Proxy {
 public:
  Proxy(Truth& truth, Observer& observer, Endpoint me, bool seldom,
        control::UnsafeMutations unsafe);
  void start();
  // `done(true)`: acknowledged to the client. Never called if the outcome stays unknown: the
  // client's own time-out says so. Whom it was sent to, for a cancel; nullptr: to nobody.
  Member* write(uint64_t commit, uint32_t bytes, std::function<void(bool)> done);

 private:
  void poll();
  void poll_later();
  void poll_at(SimTime when);
  Nanos ask_again() const;
  void seen(MonoTime begun, const SnapshotPtr& snapshot);
  bool permitted() const;
  void ask_leader();

  Truth& truth_;
  Observer& observer_;
  Endpoint me_;
  bool seldom_;
  control::UnsafeMutations unsafe_;
  Prng random_;
  ProcessId process_{};
  bool reading_ = false;
  bool read_again_ = false;  // a hint came during a read
  uint64_t poll_token_ = 0;
  SimTime poll_at_{};     // seldom: no earlier
  bool polling_ = false;  // ... and an event waits for that
  Nanos poll_every_ = millis(250);
  store::Revision leader_revision_ = 0;
  std::optional<control::LeaderRecord> route_;
  MonoTime permit_until_{};
  MonoTime last_read_begun_{};
  bool read_before_ = false;
  control::LeaseReader lease_;
};

class Clients {
 public:
  Clients(Truth& truth, Observer& observer, Workload workload, control::UnsafeMutations unsafe);
  void start();
  void stop() { running_ = false; }
  uint64_t acknowledged() const { return acknowledged_; }
  SimTime last_proxied_ack() const { return last_proxied_ack_; }
  // Between two acknowledgements through proxies; the one that lasts still counts.
  Nanos longest_gap() const {
    return std::max(longest_gap_, truth_.world.now() - last_proxied_ack_);
  }
  void measure_from_now() { longest_gap_ = Nanos{0}; }

 private:
  // One that writes, waits for its answer or its time-out (and then may cancel), and thinks.
  struct Client {
    uint64_t turn = 0;      // answers to earlier ones come too late
    SimTime give_up_at{0};  // of this turn
    bool watched = false;   // an event will look whether it is time to give up
    Endpoint target = 0;    // of a direct one
    uint64_t commit = 0;    // of this turn
    Member* asked = nullptr;
  };
  void think(size_t client);
  void proxied(size_t client);
  void direct(size_t client);
  void begin_turn(size_t client, Nanos limit);
  void end_turn(size_t client, uint64_t turn, bool acknowledged);
  void watch(size_t client);
  void cancel(size_t client);
  bool is_direct_client(size_t client) const { return client >= proxied_; }
  uint64_t next_id(uint64_t direct_bit) { return (++ids_ << 1) | direct_bit; }

  Truth& truth_;
  Workload workload_;
  Prng random_;
  Prng cancels_;
  std::vector<std::unique_ptr<Proxy>> proxies_;
  size_t proxied_ = 0;  // of the clients, the first ones
  std::vector<Client> clients_;
  uint64_t ids_ = 0;
  uint64_t acknowledged_ = 0;
  SimTime last_proxied_ack_{0};
  Nanos longest_gap_{0};
  bool running_ = true;
};

}  // namespace bascule::sim
