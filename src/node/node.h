// One member of the cluster beside one PostgreSQL: the control::Agent that decides and the Shell
// that carries out. Everything runs on the given loop's thread; blocking work runs in the pool.
//
//   Node node(config, {loop, pool, process, disk, entropy, store});
//   node.on_exit([&] { loop.stop(); });
//   node.start();            // on the loop's thread: attaches to a living guard or starts one
//   node.request_shutdown(); // any thread: leaves the cluster in order, then calls on_exit
//   node.view();             // any thread: what to show
//
// The process must already run as the unprivileged user that owns data_dir and run_dir: PostgreSQL
// refuses to run as root. `bascule guard …` must reach posix::guard_main (posix/guard_process.h).
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/result.h"
#include "control/agent.h"
#include "env/disk.h"
#include "env/entropy.h"
#include "env/http.h"
#include "env/loop.h"
#include "env/process.h"
#include "node/config.h"
#include "node/notes.h"
#include "store/store.h"

namespace bascule::node {

struct NodeDeps {
  env::Loop& loop;
  env::BlockingPool& pool;  // at least 4 threads
  env::Process& process;
  env::Disk& disk;
  env::Entropy& entropy;
  store::Store& store;
  env::HttpClient* http = nullptr;  // to the agents of other members; nullptr: they are not asked
};

// A consistent copy, made after every step of the agent.
struct NodeView {
  control::Phase phase = control::Phase::kStarting;
  std::string reason;
  Epoch leading_epoch;   // 0 unless this member holds the leader record
  MonoTime deadline{};   // of the record held
  MonoTime proved_at{};  // what it counts from
  MonoTime taken_at{};
  control::PgStatus postgres;    // last sample
  control::ClusterView cluster;  // last snapshot of the store
  control::LocalState local;
  std::vector<NoteRecord> notes;  // last 200, oldest first
  std::string guard;              // "pid 123, real-time, memory locked"
};

class Node {
 public:
  Node(NodeConfig config, NodeDeps deps);
  ~Node();  // does not stop PostgreSQL: a later agent adopts it
  Node(const Node&) = delete;
  Node& operator=(const Node&) = delete;

  // Called once, on the loop's thread, when the agent has left the cluster in order and its hooks
  // have ended (after their limit without them), or when it can't go on (error set).
  void on_exit(std::function<void(Status)> callback);

  Status start();           // loop's thread
  void request_shutdown();  // thread-safe
  // Another process is to go on with this member. `done`, once, in a turn of the loop of its own,
  // at a moment when nothing is left half done: the agent has ended, PostgreSQL and its guard go
  // on, and until that time somebody else must have begun to lead here (max(): it does not lead).
  // Or, within seconds, why there is no such moment (kConflict); then everything goes on. Loop's
  // thread.
  void leave(std::function<void(Result<MonoTime>)> done);
  // The member's file was read again: tags, priority and hooks are those from now on. Loop's
  // thread.
  void retag(const control::AgentConfig& agent, HookConfig hooks);
  NodeView view() const;  // thread-safe
  // What another agent asks, as it came from the network (node/peers.h). Thread-safe; `done` gets
  // the answer on the loop's thread, or nothing if the agent is not there any more.
  void peer_asks(std::string sealed, std::function<void(Result<std::string>)> done);

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace bascule::node
