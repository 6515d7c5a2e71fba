// Streaming replication: receivers on standbys, senders on their upstream.
#include <algorithm>
#include <memory>

#include "control/agent.h"
#include "sim/postgres_model.h"

namespace bascule::sim {

// ---- the standby's side -------------------------------------------------------------------------

void PostgresModel::set_upstream(std::optional<control::Upstream> upstream,
                                 std::string application_name) {
  conninfo_ = std::move(upstream);
  // Part of primary_conninfo: another name is another setting.
  renamed_ = renamed_ || application_name != application_name_;
  application_name_ = std::move(application_name);
  if (reaction_pending_) return;
  reaction_pending_ = true;
  world().after(random_ms(random_, 0, 80), process_, [this] { startup_reacts(); });
}

// The startup process looks at a reload only when it next needs WAL: not while replay is paused or
// blocked. Until then a receiver goes on, and a lost one is launched again with the old setting.
void PostgresModel::startup_reacts() {
  if (replay_blocked_until_ > world().now()) {
    world().after(millis(20), process_, [this] { startup_reacts(); });
    return;
  }
  reaction_pending_ = false;
  const bool same = startup_conninfo_ == conninfo_ && !std::exchange(renamed_, false);
  startup_conninfo_ = conninfo_;
  if (!same && receiver_.state != Receiver::State::kNone) signal_receiver();
  if (receiver_.state == Receiver::State::kNone) relaunch_later();
}

void PostgresModel::unblock_replay() {
  if (replay_blocked_until_ <= world().now()) return;
  replay_blocked_until_ = world().now() + random_ms(random_, 1, 60);
  world().after(replay_blocked_until_ - world().now(), process_, [this] { replay(); });
}

void PostgresModel::block_replay(Nanos how_long) {
  if (run_ != Run::kStandby) return;
  replay_blocked_until_ = world().now() + how_long;
  world().after(how_long, process_, [this] { replay(); });
}

void PostgresModel::signal_receiver() {
  if (receiver_.state == Receiver::State::kNone) return;
  world().after(random_ms(random_, 0.2, 25), process_, [this, attempt = receiver_.attempt] {
    if (receiver_.attempt != attempt) return;
    drop_receiver(true);
    relaunch_later();
  });
}

bool PostgresModel::isolated() const {
  return run_ == Run::kStandby && receiver_.state == Receiver::State::kNone && !reaction_pending_ &&
         !startup_conninfo_ && data_.flushed == data_.wal.size() && replayed_ == data_.wal.size() &&
         replay_blocked_until_ <= world().now();
}

void PostgresModel::relaunch_later() {
  if (relaunch_pending_ || run_ != Run::kStandby) return;
  relaunch_pending_ = true;
  const Nanos wait = random_ms(random_, 1, static_cast<double>(to_ms(fabric_.retry_interval)));
  world().after(wait, process_, [this] {
    relaunch_pending_ = false;
    launch_receiver();
  });
}

void PostgresModel::launch_receiver() {
  if (run_ != Run::kStandby || receiver_.state != Receiver::State::kNone) return;
  if (!startup_conninfo_) return;
  // It asks for a new receiver only after it has replayed everything on disk.
  if (replayed_ < data_.wal.size() || replay_blocked_until_ > world().now()) {
    relaunch_later();
    return;
  }
  const auto host = fabric_.host_of(startup_conninfo_->member);
  if (!host || *host == host_) return relaunch_later();
  const uint64_t attempt = fabric_.next_session++;
  receiver_ = Receiver{Receiver::State::kConnecting, startup_conninfo_, *host, 0, attempt, {}};
  world().after(random_ms(random_, 2000, 5000), process_, [this, attempt] {
    if (receiver_.attempt != attempt || receiver_.state != Receiver::State::kConnecting) return;
    drop_receiver(false);
    relaunch_later();
  });
  PostgresModel* upstream = fabric_.servers[static_cast<size_t>(*host)];
  world().send(host_, *host, ProcessId::kWorld, [this, upstream, attempt, me = process_] {
    if (!upstream->any_process() || world().frozen(upstream->host_) || upstream->hung()) return;
    const uint64_t session = fabric_.next_session++;
    const bool accepted =
        world().alive(me) &&
        upstream->accept_standby(*this, session, application_name_, control::slot_name(name_));
    world().send(upstream->host_, host_, me, [this, attempt, session, accepted, upstream] {
      if (receiver_.attempt != attempt || receiver_.state != Receiver::State::kConnecting) return;
      if (accepted) return connected(attempt, session, upstream->host_);
      drop_receiver(false);
      relaunch_later();
    });
  });
}

void PostgresModel::connected(uint64_t, uint64_t session, Endpoint host) {
  receiver_.state = Receiver::State::kStreaming;
  receiver_.session = session;
  receiver_.last_contact = world().now();
  const DataDirectory& up = fabric_.servers[static_cast<size_t>(host)]->data();
  data_.max_timeline = std::max(data_.max_timeline, up.timeline);  // history files are fetched
  // RequestXLogStreaming: flushedUpto restarts at the beginning of the segment.
  if (receive_reported_ == 0) receive_reported_ = data_.end() / kSegmentBytes * kSegmentBytes;
  upstream_end_ = std::max(upstream_end_, up.flushed_end());
  send_reply();
}

void PostgresModel::drop_receiver(bool tell_upstream) {
  const Receiver old = std::exchange(receiver_, Receiver{});
  if (old.state != Receiver::State::kStreaming || !tell_upstream) return;
  PostgresModel* upstream = fabric_.servers[static_cast<size_t>(old.host)];
  world().send(host_, old.host, upstream->process_,
               [upstream, session = old.session] { upstream->drop_sender(session, false); });
}

void PostgresModel::receive(uint64_t session, const Streamed& streamed, uint64_t upstream_end) {
  if (receiver_.state != Receiver::State::kStreaming || receiver_.session != session) return;
  receiver_.last_contact = world().now();
  upstream_end_ = upstream_end;
  for (const WalRecord& r : streamed.records) {
    if (r.start < data_.end()) continue;
    if (r.timeline != data_.timeline) {
      data_.timeline = r.timeline;
      data_.ancestors.clear();
      for (const Fork& f : streamed.ancestors) {
        if (f.end <= r.start) data_.ancestors.push_back(f);
      }
      data_.max_timeline = std::max(data_.max_timeline, r.timeline);
    }
    data_.wal.push_back(r);
  }
  flush_soon();
}

void PostgresModel::replay() {
  if (run_ != Run::kStandby || replay_blocked_until_ > world().now()) return;
  for (; replayed_ < data_.flushed; ++replayed_) {
    const WalRecord& r = data_.wal[replayed_];
    if (r.kind == WalKind::kCheckpoint || r.kind == WalKind::kShutdown) {
      data_.checkpoint_timeline = r.timeline;  // the restartpoint follows soon enough
    }
  }
}

void PostgresModel::send_reply() {
  if (receiver_.state != Receiver::State::kStreaming) return;
  PostgresModel* upstream = fabric_.servers[static_cast<size_t>(receiver_.host)];
  const uint64_t applied = replayed_ == 0 ? 0 : data_.wal[replayed_ - 1].end;
  world().send(host_, receiver_.host, upstream->process_,
               [upstream, session = receiver_.session, flush = data_.flushed_end(), applied] {
                 upstream->handle_reply(session, flush, applied);
               });
}

// It would change nothing there: not even a waiter would go, nor a shutdown.
bool PostgresModel::reply_is_known(const PostgresModel& upstream) const {
  const auto sender = std::ranges::find(upstream.senders_, receiver_.session, &Sender::session);
  const bool steady = upstream.run_ == Run::kPrimary || upstream.run_ == Run::kStandby;
  if (sender == upstream.senders_.end() || !steady || !upstream.waiters_.empty()) return false;
  const uint64_t applied = replayed_ == 0 ? 0 : data_.wal[replayed_ - 1].end;
  const auto slot = upstream.data_.slots.find(control::slot_name(name_));
  return sender->started && sender->flush == data_.flushed_end() && sender->replay == applied &&
         (slot == upstream.data_.slots.end() || slot->second >= sender->flush);
}

// ---- the upstream's side ------------------------------------------------------------------------

PostgresModel::Sender* PostgresModel::find_sender(uint64_t session) {
  const auto it = std::ranges::find(senders_, session, &Sender::session);
  return it == senders_.end() ? nullptr : &*it;
}

bool PostgresModel::accept_standby(PostgresModel& standby, uint64_t session,
                                   const std::string& name, const std::string& slot) {
  if (run_ != Run::kPrimary && run_ != Run::kStandby) return false;
  const DataDirectory& theirs = standby.data_;
  if (theirs.system_id != data_.system_id) return false;
  // Replication slot does not exist. On a standby the shell has made those of all members.
  if (run_ == Run::kPrimary && !data_.slots.contains(slot)) return false;
  // A slot has one user: after a partition the old walsender holds it until its time-out.
  for (const Sender& w : senders_) {
    if (w.standby == standby.host_) return false;
  }
  const uint64_t from = theirs.end();
  const uint64_t left = data_.left_at(theirs.timeline);
  // "requested starting point is ahead of" / "this server's history forked from timeline".
  if (left == 0 || from > std::min(left, data_.flushed_end())) return false;
  if (from < data_.oldest) {
    world().count("model.wal_removed");
    return false;
  }
  Sender w;
  w.session = session;
  w.standby = standby.host_;
  w.name = name;
  w.next = data_.index_at(from);
  w.last_contact = world().now();
  senders_.push_back(std::move(w));
  reload_sender(senders_.back());
  return true;
}

void PostgresModel::pump_all() {
  for (Sender& s : senders_) pump(s);
}

void PostgresModel::pump(Sender& sender) {
  if (!sender.started || sender.in_flight) return;
  if (sender.next >= data_.flushed) {
    sender.streaming = true;
    return;
  }
  auto streamed = std::make_shared<Streamed>();
  streamed->records.assign(data_.wal.begin() + static_cast<long>(sender.next),
                           data_.wal.begin() + static_cast<long>(data_.flushed));
  streamed->ancestors = data_.ancestors;
  sender.in_flight = true;
  PostgresModel* standby = fabric_.servers[static_cast<size_t>(sender.standby)];
  // The bytes wait for the link (TCP sends again) until the connection is given up.
  const auto transmit = [this, standby, streamed, session = sender.session, next = data_.flushed,
                         end = data_.flushed_end()] {
    world().send_stream(host_, standby->host_, standby->process_,
                        [this, standby, streamed, session, next, end] {
                          standby->receive(session, *streamed, end);
                          Sender* s = find_sender(session);
                          if (s == nullptr) return;
                          s->in_flight = false;
                          s->next = next;
                          pump(*s);
                        });
  };
  if (standby->receive_delay_ > Nanos{0}) {
    world().after(standby->receive_delay_, process_, transmit);
  } else {
    transmit();
  }
}

void PostgresModel::handle_reply(uint64_t session, uint64_t flush, uint64_t replayed) {
  Sender* s = find_sender(session);
  if (s == nullptr) return;
  s->last_contact = world().now();
  s->flush = std::max(s->flush, flush);
  s->replay = std::max(s->replay, replayed);
  const auto slot =
      data_.slots.find(control::slot_name(fabric_.servers[static_cast<size_t>(s->standby)]->name_));
  if (slot != data_.slots.end()) {
    slot->second = std::max(slot->second, flush);
    if (fabric_.consumer != nullptr) data_.confirmed_by[slot->first] = flush;
  }
  if (!std::exchange(s->started, true)) pump(*s);
  // WalSndLoop looks for a reload before it reads replies. The signal was pending when this WAL was
  // written, and at the latest its handler ran when the walsender had read it.
  if (s->flush > set_at_) reload_sender(*s);
  release_waiters(*s);
  if (run_ == Run::kStopping) maybe_finish_shutdown();
}

void PostgresModel::drop_sender(uint64_t session, bool tell_standby) {
  const auto it = std::ranges::find(senders_, session, &Sender::session);
  if (it == senders_.end()) return;
  PostgresModel* standby = fabric_.servers[static_cast<size_t>(it->standby)];
  senders_.erase(it);
  if (tell_standby) {
    world().send(host_, standby->host_, standby->process_, [standby, session] {
      if (standby->receiver_.session != session) return;
      standby->drop_receiver(false);
      standby->relaunch_later();
    });
  }
  maybe_finish_shutdown();
}

void PostgresModel::terminate_senders(const std::vector<std::string>& names) {
  std::vector<uint64_t> sessions;
  for (const Sender& s : senders_) {
    const auto is = [&](const std::string& name) { return same_name(name, s.name); };
    if (std::ranges::any_of(names, is)) sessions.push_back(s.session);
  }
  for (const uint64_t session : sessions) drop_sender(session, true);
}

// Keepalives and time-outs of both sides, once a second.
void PostgresModel::heartbeat() {
  const SimTime now = world().now();
  const auto gone = [this, now](SimTime last) { return now - last > fabric_.stream_timeout; };
  std::vector<uint64_t> dead;
  for (Sender& s : senders_) {
    PostgresModel* standby = fabric_.servers[static_cast<size_t>(s.standby)];
    const bool quiet = !world().reachable(s.standby, host_) || world().frozen(s.standby) ||
                       standby->receiver_.session != s.session || standby->hung();
    if (!quiet) s.last_contact = now;
    if (gone(s.last_contact)) dead.push_back(s.session);
  }
  if (!dead.empty()) world().disturb(process_);
  for (const uint64_t session : dead) drop_sender(session, true);
  if (receiver_.state == Receiver::State::kStreaming) {
    PostgresModel* upstream = fabric_.servers[static_cast<size_t>(receiver_.host)];
    const bool quiet = !world().reachable(receiver_.host, host_) ||
                       world().frozen(receiver_.host) ||
                       upstream->find_sender(receiver_.session) == nullptr || upstream->hung();
    if (!quiet) {
      receiver_.last_contact = now;
      const uint64_t end = upstream->data_.flushed_end();
      if (end > upstream_end_) world().disturb(process_);
      upstream_end_ = std::max(upstream_end_, end);
    }
    if (gone(receiver_.last_contact)) {
      world().disturb(process_);
      drop_receiver(true);
      relaunch_later();
    } else if (quiet || !fabric_.calm || !reply_is_known(*upstream)) {
      send_reply();
    }
  }
  world().after_quietly(millis(1000), process_, [this] { heartbeat(); });
}

}  // namespace bascule::sim
