#include "store/sqlite_store.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "store/bounds.h"

namespace bascule::store {
namespace {

// How long one job waits for another process's lock before it gives the queue back: reads that came
// meanwhile don't wait for a lock that they don't need.
constexpr Millis kLockWait = 20ms;
// No attempt to get the lock lasts until the deadline itself.
constexpr Millis kAnswerMargin = 5ms;
constexpr size_t kCommitsPerJob = 64;

TxnResult unknown(std::string error) { return {TxnOutcome::kUnknown, 0, std::move(error)}; }

}  // namespace

SqliteStore::SqliteStore(SqliteOptions options, env::Loop& loop, env::BlockingPool& pool,
                         env::ChangeHint* hint)
    : options_(std::move(options)),
      loop_(loop),
      pool_(pool),
      hint_(hint),
      file_(std::make_shared<SqliteFile>(options_)) {}

SqliteStore::~SqliteStore() {
  *alive_ = false;
  loop_.cancel(deadline_timer_);
  loop_.cancel(poll_timer_);
  unlisten();
  // Closing may wait for the disk.
  pool_.submit([file = std::move(file_)]() mutable { file.reset(); });
}

void SqliteStore::read(std::string prefix, ReadCallback callback) {
  if (auto ok = check_prefix(prefix); !ok) {
    loop_.post([error = ok.error(), callback = std::move(callback)]() mutable {
      callback(std::unexpected(std::move(error)));
    });
    return;
  }
  const Id id = add_pending(std::move(callback), nullptr);
  queued_reads_.emplace_back(id, std::move(prefix));
  start_job();
}

void SqliteStore::commit(Txn txn, TxnCallback callback) {
  if (auto ok = check_bounds(txn); !ok) {
    loop_.post([error = ok.error().to_string(), callback = std::move(callback)]() mutable {
      callback(unknown("not applied: " + error));
    });
    return;
  }
  const Id id = add_pending(nullptr, std::move(callback));
  queued_commits_.push_back({id, {generation_, std::move(txn)}});
  start_job();
}

SqliteStore::Id SqliteStore::add_pending(ReadCallback read, TxnCallback commit) {
  const Id id = next_id_++;
  pending_.emplace(
      id, Pending{loop_.now() + options_.timeout, std::move(read), std::move(commit), false});
  arm_deadline();
  return id;
}

void SqliteStore::start_job() {
  if (running_) return;
  Job job;
  for (auto& [id, prefix] : std::exchange(queued_reads_, {})) {
    job.read_ids.push_back(id);
    job.prefixes.push_back(std::move(prefix));
  }
  job.lock_wait = take_commits(job.commits);
  job.look = std::exchange(look_wanted_, false) || (!job.commits.empty() && !watchers_.empty());
  if (job.read_ids.empty() && job.commits.empty() && !job.look) return;
  for (const Id id : job.read_ids) pending_.at(id).started = true;
  for (const auto& commit : job.commits) pending_.at(commit.id).started = true;
  running_ = true;
  pool_.submit([this, alive = alive_, file = file_, job = std::move(job), hint = hint_,
                path = options_.path, &loop = loop_]() mutable {
    auto outcome = run_job(*file, std::move(job), hint, path);
    const bool last = !file->checkpoint_due();
    loop.post([this, alive, last, outcome = std::move(outcome)]() mutable {
      if (*alive) finish(std::move(outcome), last);
    });
    if (last) return;  // the next job may have begun
    file->checkpoint();
    loop.post([this, alive] {
      if (*alive) finish_job();
    });
  });
}

// Leaves those in the queue whose time is about over: they are told "not applied" with certainty.
Millis SqliteStore::take_commits(std::vector<QueuedCommit>& commits) {
  Millis lock_wait = kLockWait;
  while (!queued_commits_.empty() && commits.size() < kCommitsPerJob) {
    const auto left = pending_.at(queued_commits_.front().id).deadline - loop_.now();
    const auto wait = std::chrono::floor<Millis>(left - kAnswerMargin);
    if (wait < 1ms) {
      // The first is the oldest; the timer comes for it.
      break;
    }
    lock_wait = std::min(lock_wait, wait);
    commits.push_back(std::move(queued_commits_.front()));
    queued_commits_.pop_front();
  }
  return lock_wait;
}

void SqliteStore::finish_job() {
  running_ = false;
  start_job();
}

// Commits before reads: a read then shows what its own process asked for just before.
SqliteStore::Outcome SqliteStore::run_job(SqliteFile& file, Job job, env::ChangeHint* hint,
                                          const std::string& path) {
  Outcome outcome;
  file.set_lock_wait(job.lock_wait);
  if (!job.commits.empty()) {
    std::vector<SqliteFile::Item> items;
    items.reserve(job.commits.size());
    for (auto& commit : job.commits) items.push_back(std::move(commit.item));
    outcome.commit = file.commit(items);
    for (size_t i = 0; i < items.size(); ++i) job.commits[i].item = std::move(items[i]);
    const bool committed = std::ranges::any_of(outcome.commit.results, [](const TxnResult& r) {
      return r.outcome != TxnOutcome::kConflict;
    });
    if (hint && committed && !outcome.commit.busy) hint->ring(path);
  }
  if (!job.prefixes.empty()) outcome.read = file.read(job.prefixes);
  if (job.look) outcome.changes = file.changes();
  outcome.job = std::move(job);
  return outcome;
}

void SqliteStore::finish(Outcome outcome, bool last) {
  const auto alive = alive_;  // a callback may destroy this object
  finish_commits(outcome);
  if (!*alive) return;
  finish_reads(outcome);
  if (!*alive) return;
  if (outcome.job.look && outcome.changes) notify(*outcome.changes);
  if (*alive && last) finish_job();
}

void SqliteStore::finish_commits(Outcome& outcome) {
  auto& commits = outcome.job.commits;
  if (outcome.commit.busy) {
    // In front of what came meanwhile; those whose time is over have been answered.
    for (auto it = commits.rbegin(); it != commits.rend(); ++it) {
      const auto pending = pending_.find(it->id);
      if (pending == pending_.end()) continue;
      pending->second.started = false;
      queued_commits_.push_front(std::move(*it));
    }
    return;
  }
  const auto alive = alive_;
  for (size_t i = 0; i < commits.size(); ++i) {
    answer(commits[i].id, std::move(outcome.commit.results[i]));
    if (!*alive) return;
  }
}

void SqliteStore::finish_reads(Outcome& outcome) {
  const auto& ids = outcome.job.read_ids;
  if (ids.empty()) return;
  if (!outcome.read && SqliteFile::is_busy(outcome.read.error())) {
    for (size_t i = ids.size(); i-- > 0;) {
      if (!pending_.contains(ids[i])) continue;
      queued_reads_.emplace_front(ids[i], std::move(outcome.job.prefixes[i]));
    }
    return;
  }
  const bool seen = std::ranges::any_of(ids, [this](Id id) { return pending_.contains(id); });
  if (outcome.read && seen) generation_ = outcome.read->generation;
  const auto alive = alive_;
  for (size_t i = 0; i < ids.size(); ++i) {
    answer(ids[i], outcome.read ? Result<Snapshot>(std::move(outcome.read->snapshots[i]))
                                : Result<Snapshot>(std::unexpected(outcome.read.error())));
    if (!*alive) return;
  }
}

void SqliteStore::answer(Id id, Result<Snapshot> result) {
  auto node = pending_.extract(id);  // empty when its time was over
  if (node) node.mapped().read(std::move(result));
}

void SqliteStore::answer(Id id, TxnResult result) {
  auto node = pending_.extract(id);
  if (node) node.mapped().commit(std::move(result));
}

void SqliteStore::arm_deadline() {
  if (pending_.empty() || deadline_timer_ != env::TimerId::kNone) return;
  deadline_timer_ = loop_.call_at(pending_.begin()->second.deadline, [this] {
    deadline_timer_ = env::TimerId::kNone;
    expire();
  });
}

void SqliteStore::expire() {
  const auto alive = alive_;
  while (!pending_.empty() && pending_.begin()->second.deadline <= loop_.now()) {
    const Id id = pending_.begin()->first;
    const bool is_read = static_cast<bool>(pending_.begin()->second.read);
    const bool started = pending_.begin()->second.started;
    std::erase_if(queued_reads_, [id](const auto& read) { return read.first == id; });
    std::erase_if(queued_commits_, [id](const auto& commit) { return commit.id == id; });
    const std::string late =
        fmt::format("store {}: no answer within {} ms", options_.path, options_.timeout.count());
    if (is_read) {
      answer(id, fail(ErrorCode::kTimeout, late, "The disk or a stopped process blocks it"));
    } else {
      answer(id, unknown(started ? late + "; it may still be applied"
                                 : late + "; not applied. The disk or a process that holds its "
                                          "lock blocks it"));
    }
    if (!*alive) return;
  }
  arm_deadline();
}

uint64_t SqliteStore::watch(std::string prefix, WatchCallback callback) {
  const uint64_t id = next_id_++;
  watchers_.emplace(id, Watcher{std::move(prefix), std::move(callback)});
  if (poll_timer_ == env::TimerId::kNone) poll();
  return id;
}

void SqliteStore::unwatch(uint64_t id) {
  watchers_.erase(id);
  if (!watchers_.empty()) return;
  loop_.cancel(std::exchange(poll_timer_, env::TimerId::kNone));
  unlisten();
}

// Only while somebody watches.
void SqliteStore::poll() {
  listen();
  look_wanted_ = true;
  start_job();
  poll_timer_ = loop_.call_after(options_.poll, [this] { poll(); });
}

// Again with every poll: the directory may have been made anew, and it is one system call.
void SqliteStore::listen() {
  if (!hint_) return;
  const auto id = hint_->listen(options_.path, [this] {
    look_wanted_ = true;
    start_job();
  });
  unlisten();
  if (id) listener_ = *id;
}

void SqliteStore::unlisten() {
  if (listener_) hint_->unlisten(*std::exchange(listener_, std::nullopt));
}

void SqliteStore::notify(const SqliteFile::Changes& changes) {
  std::vector<uint64_t> concerned;
  for (const auto& [id, watcher] : watchers_) {
    const bool hit = changes.all || std::ranges::any_of(changes.keys, [&](const std::string& key) {
                       return key.starts_with(watcher.prefix);
                     });
    if (hit) concerned.push_back(id);
  }
  const auto alive = alive_;
  for (const uint64_t id : concerned) {
    const auto found = watchers_.find(id);
    if (found == watchers_.end()) continue;
    const auto callback = found->second.callback;  // it may unwatch itself
    callback();
    if (!*alive) return;
  }
}

}  // namespace bascule::store
