// Does the primary's storage still take writes? Once a second a small WAL record is flushed over a
// connection of its own (a replication session, so that used-up connections are no reason), with a
// deadline of its own: statement_timeout would not end a flush that hangs. `synchronous_commit =
// local`: standbys are none of its business.
#pragma once

#include <memory>
#include <mutex>

#include "env/loop.h"
#include "node/server.h"

namespace bascule::node {

class WriteProbe {
 public:
  explicit WriteProbe(Server& server) : server_(server) {}

  // Whether it is time for the next one; then run() is to be called, in the pool. Thread-safe.
  bool due(bool primary);
  void run();
  // For how long a probe has been without success, its own pauses not counted; 0: the last one
  // succeeded. Thread-safe.
  Nanos waits() const;

 private:
  Status flush();

  Server& server_;
  std::optional<PgConnection> session_;  // of the one that runs
  mutable std::mutex mutex_;
  bool running_ = false;      // guarded by mutex_, as what follows
  MonoTime begun_{};          // of the last one
  MonoTime waiting_since_{};  // zero: not waiting
};

}  // namespace bascule::node
