// Life, WAL, commits and synchronous replication. Streaming: replication_model.cc.
#include "sim/postgres_model.h"

#include <algorithm>
#include <utility>

namespace bascule::sim {

namespace {
constexpr double kSegmentFull = 0.02;  // of flushes, with a full disk

}  // namespace

bool same_name(const std::string& a, const std::string& b) {
  return std::ranges::equal(
      a, b, [](unsigned char x, unsigned char y) { return std::tolower(x) == std::tolower(y); });
}

Nanos Disk::flush_time(Prng& random, SimTime now) const {
  Nanos t = micros(random.between(flush_low.count() / 1000, flush_high.count() / 1000));
  if (hung_until > now) t += hung_until - now;
  return t;
}

PostgresModel::PostgresModel(Fabric& fabric, Endpoint host, NodeName name)
    : fabric_(fabric),
      host_(host),
      name_(std::move(name)),
      random_(fabric.world.stream(fmt::format("postgres {}", host))) {}

// ---- life ---------------------------------------------------------------------------------------

void PostgresModel::begin_process(Run run) {
  process_ = world().spawn(host_);
  run_ = run;
  orphans_ = false;
  was_standby_ = false;
  by_hand_ = false;
  shutdown_record_written_ = false;
  shutdown_done_ = nullptr;
  flush_pending_ = false;
  reaction_pending_ = false;
  relaunch_pending_ = false;
  receive_reported_ = 0;
  upstream_end_ = 0;
  released_ = 0;
  replay_blocked_until_ = SimTime{0};
  receiver_ = Receiver{};
  data_.clean = false;
  max_connections_ = max_connections_set_;
  data_.drop_temporary_slots();
  if (data_.logical) data_.logical->confirmed = data_.logical->saved;
  // Recovery reads, and syncs, what the page cache kept.
  make_durable(data_.wal.size());
  fabric_.observer.started(host_, data_);
  world().after_quietly(millis(1000), process_, [this] { heartbeat(); });
}

void PostgresModel::start_primary(std::vector<std::string> sync, size_t count, Done done) {
  begin_process(Run::kStarting);
  world().after(random_ms(random_, 40, 400), process_,
                [this, sync = std::move(sync), count, done = std::move(done)] {
                  if (run_ != Run::kStarting) return;
                  append(WalKind::kCheckpoint, 120);
                  make_durable(data_.wal.size());
                  data_.checkpoint_timeline = data_.timeline;
                  setting_ = sync;
                  count_ = count;
                  sync_defined_ = !sync.empty();
                  replayed_ = data_.wal.size();
                  run_ = Run::kPrimary;
                  done(true);
                });
}

void PostgresModel::start_standby(std::optional<control::Upstream> upstream,
                                  std::string application_name, Done done) {
  begin_process(Run::kStarting);
  application_name_ = std::move(application_name);
  conninfo_ = upstream;
  startup_conninfo_ = std::move(upstream);
  world().after(random_ms(random_, 40, 400), process_, [this, done = std::move(done)] {
    if (run_ != Run::kStarting) return;
    run_ = Run::kStandby;
    count_ = 1;
    setting_ = {"bascule_nobody"};  // as node/ renders it: a promotion never comes from empty
    sync_defined_ = true;
    replayed_ = data_.wal.size();
    relaunch_later();
    done(true);
  });
}

void PostgresModel::lose_clients() {
  for (Pending& p : std::exchange(unflushed_, {})) p.reply(Answer::kNo);
  for (Pending& p : std::exchange(waiters_, {})) p.reply(Answer::kNo);
  markers_.clear();
}

void PostgresModel::end_process() {
  world().kill(process_);
  process_ = ProcessId::kWorld;
  run_ = Run::kDown;
  orphans_ = false;
  receiver_ = Receiver{};
  senders_.clear();
  shutdown_done_ = nullptr;
}

void PostgresModel::kill_all() {
  if (!any_process()) return;
  while (!senders_.empty()) drop_sender(senders_.back().session, true);
  drop_receiver(true);
  lose_clients();
  end_process();
  // What was written and not synced may or may not have reached the page cache.
  const size_t unsynced = data_.wal.size() - data_.flushed;
  data_.keep(data_.flushed + random_.below(unsynced + 1));
}

void PostgresModel::power_loss() {
  if (any_process()) {
    lose_clients();
    end_process();
  }
  data_.keep(data_.flushed);
}

void PostgresModel::kill_postmaster(Nanos orphans_for) {
  if (run_ == Run::kDown) return;
  world().resume(process_);
  run_ = Run::kDown;
  orphans_ = true;
  shutdown_done_ = nullptr;
  // Auxiliary processes watch the postmaster and leave at once; a backend in the middle of a
  // statement notices when it next waits.
  world().after(std::min(orphans_for, random_ms(random_, 0, 5)), process_, [this] {
    while (!senders_.empty()) drop_sender(senders_.back().session, true);
    drop_receiver(true);
  });
  world().after(orphans_for, process_, [this] { exited("signal 9"); });
}

void PostgresModel::exited(std::string_view how) {
  kill_all();
  if (on_exit) on_exit(how);
}

void PostgresModel::fast_shutdown(Done done) {
  if (run_ == Run::kDown) return;
  shutdown_done_ = std::move(done);
  if (run_ == Run::kStopping) return;
  was_standby_ = run_ != Run::kPrimary;
  run_ = Run::kStopping;
  Nanos delay = random_ms(random_, 5, 120);
  if (slow_shutdown_) delay += random_ms(random_, 2000, 60000);  // e.g. a broken archive_command
  world().after(delay, process_, [this] {
    // Backends were terminated: "already committed locally, might not have been replicated".
    lose_clients();
    if (was_standby_) {
      drop_receiver(true);
    } else {
      append(WalKind::kShutdown, 120);
      data_.checkpoint_timeline = data_.timeline;
    }
    make_durable(data_.wal.size());
    shutdown_record_written_ = true;
    pump_all();
    maybe_finish_shutdown();
  });
}

// Walsenders stay until their standbys have flushed the shutdown checkpoint too.
void PostgresModel::maybe_finish_shutdown() {
  if (run_ != Run::kStopping || !shutdown_record_written_) return;
  for (const Sender& s : senders_) {
    if (s.flush < data_.end()) return;
  }
  world().after(random_ms(random_, 1, 20), process_, [this] {
    if (!shutdown_done_) return;
    data_.clean = true;
    const Done done = std::exchange(shutdown_done_, nullptr);
    while (!senders_.empty()) drop_sender(senders_.back().session, true);
    end_process();
    done(true);
  });
}

// ---- WAL ----------------------------------------------------------------------------------------

WalRecord PostgresModel::append(WalKind kind, uint32_t bytes, uint64_t commit) {
  const uint64_t start = data_.end();
  const bool on_such =
      !data_.wal.empty() && data_.wal.back().by_hand && data_.wal.back().timeline == data_.timeline;
  data_.wal.push_back(WalRecord{fabric_.next_content++, commit, start, start + bytes,
                                data_.timeline, kind, by_hand_ || on_such});
  return data_.wal.back();
}

void PostgresModel::make_durable(size_t count) {
  for (; data_.flushed < count; ++data_.flushed) {
    const uint64_t previous = data_.flushed == 0 ? 0 : data_.wal[data_.flushed - 1].id;
    fabric_.observer.wal_durable(host_, data_.wal[data_.flushed], previous);
  }
}

void PostgresModel::flush_soon() {
  if (flush_pending_) return;
  flush_pending_ = true;
  const size_t target = data_.wal.size();
  world().after(disk_.flush_time(random_, world().now()), process_, [this, target] {
    flush_pending_ = false;
    if (panics()) return;
    make_durable(std::min(target, data_.wal.size()));
    if (run_ == Run::kStandby || (run_ == Run::kStopping && was_standby_)) {
      receive_reported_ = data_.flushed_end();
      pump_all();  // to those that stream from here
      replay();
      send_reply();
    } else {
      flushed_locally();
    }
    if (data_.flushed < data_.wal.size()) flush_soon();
  });
}

// The segment is full, and there is no room for the next one.
bool PostgresModel::panics() {
  if (disk_.full != control::DiskFull::kWal || !random_.chance(kSegmentFull)) return false;
  world().count("model.panic_disk_full");
  if (run_ == Run::kStandby) {
    signal_receiver();  // a receiver only ends, and is started again
    return false;
  }
  exited("signal 6: no space left on device");
  return true;
}

void PostgresModel::flushed_locally() {
  pump_all();
  const uint64_t end = data_.flushed_end();
  std::vector<Pending> ready;
  while (!unflushed_.empty() && unflushed_.front().record.end <= end) {
    ready.push_back(std::move(unflushed_.front()));
    unflushed_.erase(unflushed_.begin());
  }
  for (Pending& p : ready) {
    // SyncRepWaitForLSN: what counts is the flag in shared memory, which the checkpointer sets.
    if (!sync_defined_) {
      finish(std::move(p), Release{Release::By::kNoSync, {}, setting_});
    } else if (p.record.end <= released_) {
      finish(std::move(p), Release{Release::By::kStandby, "(already released)", setting_});
    } else {
      waiters_.push_back(std::move(p));
    }
  }
  std::erase_if(markers_, [end](std::pair<uint64_t, Done>& m) {
    if (m.first > end) return false;
    m.second(true);
    return true;
  });
}

void PostgresModel::commit(uint64_t id, uint32_t bytes, Reply reply) {
  const bool refused = connections_exhausted_ || disk_.full == control::DiskFull::kData;
  if (!accepts_writes() || refused) return reply(Answer::kNo);
  const WalRecord record = append(WalKind::kCommit, bytes, id);
  fabric_.observer.commit_inserted(host_, record);
  unflushed_.push_back(Pending{record, std::move(reply)});
  flush_soon();
}

void PostgresModel::cancel(uint64_t id) {
  const auto it = std::ranges::find(waiters_, id, [](const Pending& p) { return p.record.commit; });
  if (it == waiters_.end() || world().stopped(process_)) return;
  Pending pending = std::move(*it);
  waiters_.erase(it);
  finish(std::move(pending), Release{Release::By::kCancelled, {}, setting_});
}

uint64_t PostgresModel::write_marker(Done flushed) {
  const uint64_t end = append(WalKind::kOther, 64).end;
  markers_.emplace_back(end, std::move(flushed));
  flush_soon();
  return end;
}

void PostgresModel::write_checkpoint() {
  append(WalKind::kCheckpoint, 120);
  flush_soon();
  data_.checkpoint_timeline = data_.timeline;
  if (by_hand_) return;  // it writes less than a segment: its timeline's first is there
  // Recycles what no slot and no wal_keep_size holds.
  const uint64_t keep = fabric_.wal_keep_bytes;
  uint64_t oldest = data_.end() > kFirstLsn + keep ? data_.end() - keep : kFirstLsn;
  for (const auto& [slot, restart] : data_.slots) oldest = std::min(oldest, restart);
  data_.oldest = std::max(data_.oldest, oldest);
}

void PostgresModel::checkpoint(Done done) {
  world().after(random_ms(random_, 1, 30), process_, [this, done = std::move(done)] {
    reload_checkpointer();  // it looks at SIGHUP before it begins a requested checkpoint
    world().after(random_ms(random_, 10, 400), process_, [this, done] {
      if (run_ == Run::kPrimary) write_checkpoint();
      done(true);
    });
  });
}

void PostgresModel::ensure_slots(const std::vector<std::string>& slots,
                                 const std::vector<std::string>& drop) {
  // Created with immediately_reserve = true: from the oldest WAL that is certainly there.
  for (const std::string& s : slots) data_.slots.try_emplace(s, data_.oldest);
  for (const std::string& s : drop) {
    data_.slots.erase(s);
    data_.confirmed_by.erase(s);
  }
}

void PostgresModel::promote(const control::op::Promote& op,
                            std::function<void(uint32_t timeline)> done) {
  world().after(random_ms(random_, 30, 500), process_, [this, op, done = std::move(done)] {
    if (run_ != Run::kStandby) return;
    if (disk_.full == control::DiskFull::kWal) return exited("signal 6: no space left on device");
    if (op.timeline != Timeline{}) by_hand_ = false;  // its agent was faster than somebody
    drop_receiver(true);
    conninfo_.reset();
    startup_conninfo_.reset();
    make_durable(data_.wal.size());
    const uint64_t fork = data_.end();
    data_.ancestors.push_back(Fork{data_.timeline, fork});
    data_.timeline = std::max(data_.max_timeline + 1, op.timeline.value);
    data_.max_timeline = data_.timeline;
    append(WalKind::kTimeline, 80);
    make_durable(data_.wal.size());
    replayed_ = data_.wal.size();
    ensure_slots(op.slots, {});
    data_.drop_temporary_slots();  // ShutDownSlotSync
    setting_ = op.sync_standbys;
    count_ = op.sync_count;
    sync_defined_ = !setting_.empty();
    run_ = Run::kPrimary;
    reload_senders();  // cascaded standbys were let in under the setting of a standby
    fabric_.observer.promoted(host_, data_.timeline, fork);
    world().after(random_ms(random_, 50, 3000), process_, [this] {
      if (run_ == Run::kPrimary) write_checkpoint();
    });
    done(data_.timeline);
  });
}

// ---- synchronous replication (syncrep.c) --------------------------------------------------------

Nanos PostgresModel::reload_delay() {
  if (slow_reload_ || random_.chance(fabric_.slow_reloads)) {
    world().count("model.slow_reload");
    return random_ms(random_, 100, 2500);
  }
  return random_ms(random_, 0, 30);
}

void PostgresModel::set_sync(std::vector<std::string> names, size_t count) {
  setting_ = std::move(names);
  count_ = count;
  set_at_ = data_.end();
  reload_senders();
  world().after(reload_delay(), process_, [this] { reload_checkpointer(); });
}

// Each at its own pace.
void PostgresModel::reload_senders() {
  for (const Sender& s : senders_) {
    world().after(reload_delay(), process_, [this, session = s.session] {
      if (Sender* sender = find_sender(session)) reload_sender(*sender);
    });
  }
}

void PostgresModel::reload_sender(Sender& sender) {
  sender.setting = setting_;
  sender.count = count_;
  sender.priority = 0;
  for (size_t i = 0; i < setting_.size() && sender.priority == 0; ++i) {
    if (same_name(setting_[i], sender.name)) sender.priority = i + 1;
  }
}

void PostgresModel::reload_checkpointer() {
  if (run_ != Run::kPrimary) return;
  sync_defined_ = !setting_.empty();
  if (!sync_defined_) {
    release_up_to(UINT64_MAX, Release{Release::By::kSettingEmptied, {}, setting_});
  }
}

// SyncRepReleaseWaiters, run by a walsender for itself after a reply, by its own copy of the
// setting; whether the others are synchronous is what they computed from theirs. One name is
// FIRST 1 (name), several are ANY count (...): SyncRepGetNthLatestSyncRecPtr.
void PostgresModel::release_waiters(const Sender& sender) {
  if (sender.priority == 0 || !sender.streaming || sender.flush == 0) return;
  std::vector<const Sender*> synchronous;
  for (const Sender& s : senders_) {
    if (s.priority != 0 && s.streaming && s.flush != 0) synchronous.push_back(&s);
  }
  uint64_t up_to = sender.flush;
  if (sender.setting.size() > 1) {
    if (synchronous.size() < sender.count) return;
    std::ranges::sort(synchronous, std::greater{}, &Sender::flush);
    up_to = synchronous[sender.count - 1]->flush;
  } else {
    const auto* first = *std::ranges::min_element(synchronous, {}, &Sender::priority);
    if (first != &sender) return;
  }
  released_ = std::max(released_, up_to);
  release_up_to(up_to, Release{Release::By::kStandby, sender.name, sender.setting});
}

void PostgresModel::release_up_to(uint64_t lsn, const Release& release) {
  std::vector<Pending> released;
  while (!waiters_.empty() && waiters_.front().record.end <= lsn) {
    released.push_back(std::move(waiters_.front()));
    waiters_.erase(waiters_.begin());
  }
  for (Pending& p : released) finish(std::move(p), release);
}

void PostgresModel::finish(Pending pending, const Release& release) {
  fabric_.observer.commit_released(host_, pending.record, release);
  pending.reply(release.by == Release::By::kCancelled ? Answer::kHereOnly : Answer::kAcknowledged);
}

// ---- status -------------------------------------------------------------------------------------

control::PgStatus PostgresModel::status() const {
  using control::PgRun;
  control::PgStatus s;
  s.data = data_.state;
  s.disk_full = disk_.full;
  const bool up = run_ == Run::kStandby || run_ == Run::kPrimary;
  if (any_process() && (!up || hung())) {  // nobody can log in, and the files are not looked at
    s.run = up ? PgRun::kUnresponsive : PgRun::kStarting;
    return s;
  }
  s.system_id = data_.system_id;
  s.timeline = Timeline{up ? data_.timeline : data_.checkpoint_timeline};
  s.checkpoint_timeline = Timeline{data_.checkpoint_timeline};
  if (!up) return s;
  s.pending_restart = max_connections_set_ != max_connections_;
  s.pending_lowers = max_connections_set_ < max_connections_;
  if (run_ == Run::kPrimary) {
    s.run = PgRun::kPrimary;
    s.flush_lsn = s.replay_lsn = Lsn{data_.flushed_end()};
    for (const Sender& w : senders_) {
      s.senders.push_back(control::WalSender{w.name, w.streaming, Lsn{w.flush}, Lsn{w.replay}});
    }
    s.sync_standbys = setting_;
    s.sync_count = count_;
    s.running_transactions = static_cast<int>(unflushed_.size() + waiters_.size());
    return s;
  }
  s.run = PgRun::kStandby;
  s.flush_lsn = Lsn{receive_reported_};
  s.replay_lsn = Lsn{replayed_ == 0 ? kFirstLsn : data_.wal[replayed_ - 1].end};
  s.receiver_streaming = receiver_streaming();
  s.upstream_lsn = Lsn{upstream_end_};
  if (conninfo_) s.upstream = conninfo_->member;
  return s;
}

std::string PostgresModel::describe() const {
  static constexpr const char* kRuns[] = {"down", "starting", "standby", "primary", "stopping"};
  std::string text = fmt::format(
      "{}{}{} timeline {} end {:X} flushed {:X} waiters {} unflushed {} sync '{}'{} receiver {} "
      "upstream {}/{}",
      kRuns[static_cast<size_t>(run_)], orphans_ ? " orphans" : "", hung() ? " hung" : "",
      data_.timeline, data_.end(), data_.flushed_end(), waiters_.size(), unflushed_.size(),
      fmt::join(setting_, ","), sync_defined_ ? " defined" : "", static_cast<int>(receiver_.state),
      conninfo_ ? conninfo_->member.str() : "-",
      startup_conninfo_ ? startup_conninfo_->member.str() : "-");
  for (const Sender& w : senders_) {
    text += fmt::format(" [{} prio {} flush {:X}{}{}{}]", w.name, w.priority, w.flush,
                        w.started ? "" : " not started", w.in_flight ? " in flight" : "",
                        w.streaming ? "" : " catching up");
  }
  for (const Fork& f : data_.ancestors) text += fmt::format(" {}@{:X}", f.timeline, f.end);
  return text;
}

}  // namespace bascule::sim
