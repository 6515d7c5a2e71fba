// Store over one SQLite file that several processes of a host share (sqlite_file.h has the format).
// Belongs to one loop's thread. The constructor does no I/O: a file that can't be opened fails each
// request with the reason, and is tried again by the next one.
//
// Order: commits are applied in the order given. A read shows the commits answered before it was
// given; about others in flight nothing is promised (it may overtake one that waits for a lock).
//
// Time: every request is answered within options.timeout of being given, also when another process
// was stopped while it held the write lock, or when the disk hangs. Answers then are
//   read    kTimeout
//   commit  kUnknown. Its error says "not applied" where that is certain (it never got the
//           lock, it was refused, it is out of bounds); callers must not build on the difference.
//
// Watches are woken through `hint` (may be null) within a millisecond or so of a commit by any
// process, and by a look at the file every options.poll otherwise.
//
// Destroying it drops unanswered requests without calling back; a commit may still be applied. The
// pool must have run its work before the loop or the hint is destroyed.
#pragma once

#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <vector>

#include "env/file_watch.h"
#include "env/loop.h"
#include "store/sqlite_file.h"
#include "store/store.h"

namespace bascule::store {

class SqliteStore final : public Store {
 public:
  SqliteStore(SqliteOptions options, env::Loop& loop, env::BlockingPool& pool,
              env::ChangeHint* hint);
  ~SqliteStore() override;
  SqliteStore(const SqliteStore&) = delete;
  SqliteStore& operator=(const SqliteStore&) = delete;

  void read(std::string prefix, ReadCallback callback) override;
  void commit(Txn txn, TxnCallback callback) override;
  uint64_t watch(std::string prefix, WatchCallback callback) override;
  void unwatch(uint64_t id) override;

 private:
  using Id = uint64_t;
  struct QueuedCommit {
    Id id = 0;
    SqliteFile::Item item;
  };
  // What goes to the pool, and what comes back.
  struct Job {
    std::vector<Id> read_ids;
    std::vector<std::string> prefixes;
    std::vector<QueuedCommit> commits;
    Millis lock_wait{0};
    bool look = false;  // find out what changed
  };
  struct Outcome {
    Job job;
    Result<SqliteFile::ReadResult> read;
    SqliteFile::CommitResult commit;
    Result<SqliteFile::Changes> changes;
  };
  struct Pending {
    MonoTime deadline;
    ReadCallback read;  // one of the two
    TxnCallback commit;
    bool started = false;
  };
  struct Watcher {
    std::string prefix;
    WatchCallback callback;
  };

  Id add_pending(ReadCallback read, TxnCallback commit);
  void start_job();
  static Outcome run_job(SqliteFile& file, Job job, env::ChangeHint* hint, const std::string& path);
  Millis take_commits(std::vector<QueuedCommit>& commits);
  // `last`: the job is over, not only its answers there. Only one job may use the file at a time.
  void finish(Outcome outcome, bool last);
  void finish_job();
  void finish_reads(Outcome& outcome);
  void finish_commits(Outcome& outcome);
  void notify(const SqliteFile::Changes& changes);
  void answer(Id id, Result<Snapshot> result);
  void answer(Id id, TxnResult result);
  void arm_deadline();
  void expire();
  void poll();
  void listen();
  void unlisten();

  const SqliteOptions options_;
  env::Loop& loop_;
  env::BlockingPool& pool_;
  env::ChangeHint* const hint_;
  // Shared with the job in flight, which outlives this object when the disk hangs.
  std::shared_ptr<SqliteFile> file_;
  // Tells what comes back to the loop whether this object is still there. Loop thread only.
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);

  Id next_id_ = 1;
  std::map<Id, Pending> pending_;  // deadlines grow with the id
  std::deque<std::pair<Id, std::string>> queued_reads_;
  std::deque<QueuedCommit> queued_commits_;
  bool look_wanted_ = false;
  bool running_ = false;
  std::optional<uint64_t> listener_;
  SqliteFile::Generation generation_ = 0;  // of the content the caller has seen
  std::map<uint64_t, Watcher> watchers_;
  env::TimerId deadline_timer_ = env::TimerId::kNone;
  env::TimerId poll_timer_ = env::TimerId::kNone;
};

}  // namespace bascule::store
