// The agents of a small cluster in an ideal world, for tests: operations succeed at once, the store
// answers at once. What goes wrong in a real one is the simulation's job (sim/); this is for a
// readable example of every flow and for single decisions.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <map>
#include <memory>

#include "control/agent.h"
#include "control/history.h"

namespace bascule::control {

inline NodeName name(std::string_view text) { return *NodeName::parse(text); }

struct World;

struct Member {
  World& world;
  NodeName self;
  std::unique_ptr<Agent> agent;
  PgStatus pg;
  LocalState disk;
  std::vector<effect::Note> notes;
  MonoTime armed{};
  std::vector<MonoTime> armings{};
  std::vector<RequestId> unanswered{};  // commits while the store was away
  bool exited = false;
  bool rewinds_fail = false;
  bool rewinds_do_nothing = false;  // "no rewind required"
  bool verify_fails = false;
  bool inits_fail = false;
  bool starts_hang = false;             // of isolated standbys: never consistent
  int starts_fail = 0;                  // so many starts of a standby from now on
  int primaries_fail = 0;               // likewise, as a primary
  bool primaries_seem_to_fail = false;  // they start, and it is reported as a failure
  int clones_fail = 0;
  int clones_unheard = 0;          // broken off: they change nothing, and no answer comes
  std::vector<std::string> ops{};  // carried out, by name
  std::vector<LeaderPhase> checkpointed_in{};  // what the record said at each checkpoint
  std::map<std::string, std::string> parameters{};
  std::string reload_problem{};
  bool power = true;                          // without: nobody answers for it
  bool peers_cut = false;                     // other agents don't reach it, nor it them
  bool served = true;                         // by the leader that it streams from
  Nanos stop_takes{0};                        // of the receiver
  Nanos start_takes{0};                       // of a primary
  std::function<PgStatus(PgStatus)> shows{};  // what a sample makes of what there is
  Nanos rewind_takes{0};
  Origin origin{};  // of its timeline, where somebody else has promoted it

  int port = 5000;
  PeerReply last_reply{};

  void give(const Event& event);
  void ask(const effect::AskPeer& e);
  void carry_out(const Effects& effects);
  Result<OpData> perform(const Op& op);
};

struct World {
  MonoTime now{std::chrono::hours(1)};
  std::map<std::string, store::Entry> entries;
  store::Revision revision = 0;
  std::string identity = "store-1";
  std::map<NodeName, std::unique_ptr<Member>> members;
  std::deque<std::function<void()>> queue;
  bool store_answers = true;
  std::string lost_answer;  // to the next transaction that writes this key: it is carried out
  Nanos store_delay{0};     // of every answer; applied half-way
  std::multimap<MonoTime, std::function<void()>> delayed;
  ClusterConfig config;
  PgStatus followed;  // the primary that a standby cluster follows

  PgStatus& server(const NodeName& n) {
    return n == followed_cluster() ? followed : members.at(n)->pg;
  }

  // `key`: what at() finds it by, where that is not its name.
  Member& add(std::string_view text, MemberTags tags = {}, std::string region = "",
              std::string_view key = "") {
    const NodeName n = name(text);
    AgentConfig c;
    c.tags = std::move(tags);
    c.region = std::move(region);
    c.cluster = "test";
    c.name = n;
    c.host = "127.0.0.1";
    c.port = 5000 + static_cast<int>(members.size());
    c.api_url = "http://127.0.0.1:" + std::to_string(c.port + 1000);
    c.initial = config;
    c.new_incarnation = "i" + std::to_string(members.size());
    auto& m = members[key.empty() ? n : name(key)] =
        std::make_unique<Member>(Member{*this, n, nullptr, {}, {}, {}});
    m->port = c.port;
    m->agent = std::make_unique<Agent>(c, LocalState{}, now);
    m->carry_out(m->agent->start(now));
    return *m;
  }

  Member& at(std::string_view text) { return *members.at(name(text)); }

  store::TxnResult apply(const store::Txn& txn) {
    for (const store::Compare& c : txn.compares) {
      const auto it = entries.find(c.key);
      if ((it == entries.end() ? 0 : it->second.revision) != c.revision) {
        return {store::TxnOutcome::kConflict, 0, ""};
      }
    }
    ++revision;
    for (const store::Write& w : txn.writes) {
      if (w.value)
        entries[w.key] = {w.key, *w.value, revision};
      else
        entries.erase(w.key);
    }
    for (auto& [n, m] : members) {
      queue.push_back([&member = *m] { member.give(event::StoreChanged{}); });
    }
    return {store::TxnOutcome::kCommitted, revision, ""};
  }

  store::Snapshot snapshot() const {
    store::Snapshot s{identity, revision, {}};
    for (const auto& [k, e] : entries) s.entries.push_back(e);
    return s;
  }

  ClusterView view() const { return parse_cluster(Keys("test"), snapshot()); }

  void drain() {
    for (int i = 0; i < 100000 && !queue.empty(); ++i) {
      auto next = std::move(queue.front());
      queue.pop_front();
      next();
    }
    ASSERT_TRUE(queue.empty()) << "the agents never come to rest";
  }

  // Replication, sampling and timers in steps of 50 ms.
  void pass(Nanos duration) {
    for (const MonoTime end = now + duration; now < end;) {
      now += 50ms;
      if (followed.run == PgRun::kPrimary) followed.flush_lsn.value += 8;
      for (auto& [n, m] : members) stream(*m);
      for (auto& [n, m] : members) {
        if (m->exited) continue;
        m->pg.sampled_at = now;
        m->give(event::Observed{m->shows ? m->shows(m->pg) : m->pg});
        if (now >= m->agent->next_wakeup()) m->give(event::Tick{});
      }
      for (auto it = delayed.begin(); it != delayed.end() && it->first <= now;) {
        queue.push_back(std::move(it->second));
        it = delayed.erase(it);
      }
      drain();
    }
  }

  void after(Nanos delay, std::function<void()> run) {
    if (delay == Nanos{0}) {
      queue.push_back(std::move(run));
    } else {
      delayed.emplace(now + delay, std::move(run));
    }
  }

  void stream(Member& m) {
    if (m.pg.run == PgRun::kPrimary) {
      m.pg.flush_lsn.value += 8;
      m.pg.checkpoint_timeline = m.pg.timeline;
      m.pg.senders.clear();
      for (auto& [n, other] : members) {
        PgStatus& s = other->pg;
        s.receiver_streaming = s.receiver_streaming && s.upstream != m.self;
        if (s.run != PgRun::kStandby || s.upstream != m.self || !other->served) continue;
        s.timeline = m.pg.timeline;
        s.flush_lsn = s.replay_lsn = m.pg.flush_lsn;
        s.receiver_streaming = true;
        const std::string app = n.str() + "_" + other->agent->local().incarnation;
        m.pg.senders.push_back({app, true, s.flush_lsn, s.replay_lsn});
      }
    }
    if (m.pg.run == PgRun::kStandby && m.pg.upstream) {
      const PgStatus& from = server(*m.pg.upstream);
      const bool primary = m.pg.upstream == followed_cluster() && from.run == PgRun::kPrimary;
      const bool relayed = primary || (from.run == PgRun::kStandby && from.receiver_streaming &&
                                       from.upstream != m.self);
      if (primary) {
        m.pg.senders.clear();
        for (auto& [n, other] : members) {
          const PgStatus& s = other->pg;
          if (s.upstream != m.self || !s.receiver_streaming) continue;
          const std::string app = n.str() + "_" + other->agent->local().incarnation;
          m.pg.senders.push_back({app, true, s.flush_lsn, s.replay_lsn});
        }
      }
      if (relayed && m.served) {
        m.pg.timeline = from.timeline;
        m.pg.flush_lsn = m.pg.replay_lsn = from.flush_lsn;
        m.pg.receiver_streaming = true;
      } else if (from.run != PgRun::kPrimary) {
        m.pg.receiver_streaming = false;
      }
    }
  }

  std::string leader() const {
    const ClusterView v = view();
    return v.leader && v.leader->value.phase == LeaderPhase::kRunning ? v.leader->value.holder.str()
                                                                      : "";
  }
};

inline void Member::give(const Event& event) {
  if (!exited) carry_out(agent->step(event, world.now));
}

// Answers at once, or its time-out comes at once.
inline void Member::ask(const effect::AskPeer& e) {
  Member& other = *world.members.at(e.member);
  if (peers_cut || other.peers_cut || !other.power) {
    return give(event::PeerAnswered{e.id, PeerOutcome::kSilent, {}});
  }
  if (other.exited) return give(event::PeerAnswered{e.id, PeerOutcome::kRefused, {}});
  other.give(event::PeerAsked{1, e.request});
  give(event::PeerAnswered{e.id, PeerOutcome::kAnswered, other.last_reply});
}

inline void Member::carry_out(const Effects& effects) {
  for (const Effect& e : effects) {
    const bool asks = std::holds_alternative<effect::ReadStore>(e) ||
                      std::holds_alternative<effect::CommitStore>(e);
    if (asks && !world.store_answers) {
      if (const auto* txn = std::get_if<effect::CommitStore>(&e)) unanswered.push_back(txn->id);
      continue;
    }
    if (const auto* read = std::get_if<effect::ReadStore>(&e)) {
      world.after(world.store_delay / 2, [this, id = read->id] {
        world.after(world.store_delay / 2,
                    [this, id, view = std::make_shared<ClusterView>(world.view())] {
                      give(event::StoreRead{id, view});
                    });
      });
    } else if (const auto* txn = std::get_if<effect::CommitStore>(&e)) {
      world.after(world.store_delay / 2, [this, t = *txn] {
        const auto result = world.apply(t.txn);
        const bool lost = std::ranges::any_of(
            t.txn.writes, [&](const store::Write& w) { return w.key == world.lost_answer; });
        if (lost) return world.lost_answer.clear();
        world.after(world.store_delay / 2,
                    [this, id = t.id, result] { give(event::StoreCommitted{id, result}); });
      });
    } else if (const auto* op = std::get_if<effect::StartOp>(&e)) {
      world.queue.push_back([this, o = *op] {
        const auto* start = std::get_if<op::StartStandby>(&o.op);
        if (starts_hang && start && !start->upstream) {
          pg.run = PgRun::kStarting;
          return;
        }
        if (std::holds_alternative<op::Clone>(o.op) && clones_unheard > 0) {
          --clones_unheard;
          ops.push_back("clone");
          return;
        }
        const Nanos takes = std::holds_alternative<op::StopReceiver>(o.op)   ? stop_takes
                            : std::holds_alternative<op::StartPrimary>(o.op) ? start_takes
                            : std::holds_alternative<op::Rewind>(o.op)       ? rewind_takes
                                                                             : Nanos{0};
        const auto finish = [this, o] {
          auto result = perform(o.op);
          give(event::OpDone{o.id, std::move(result)});
        };
        takes > Nanos{0} ? world.after(takes, finish) : finish();
      });
    } else if (const auto* p = std::get_if<effect::Persist>(&e)) {
      disk = p->state;
      world.queue.push_back([this, id = p->id] { give(event::PersistDone{id}); });
    } else if (const auto* arm = std::get_if<effect::ArmGuard>(&e)) {
      armed = arm->deadline;
      armings.push_back(armed);
    } else if (std::holds_alternative<effect::DisarmGuard>(e)) {
      armed = MonoTime{};
    } else if (const auto* n = std::get_if<effect::Note>(&e)) {
      notes.push_back(*n);
      if (std::getenv("AGENT_TRACE")) {
        std::printf("%8ld %s %s: %s\n", static_cast<long>(to_ms(world.now.time_since_epoch())),
                    self.str().c_str(), n->what.c_str(), n->why.c_str());
      }
    } else if (const auto* question = std::get_if<effect::AskPeer>(&e)) {
      world.queue.push_back([this, q = *question] { ask(q); });
    } else if (const auto* answer = std::get_if<effect::AnswerPeer>(&e)) {
      last_reply = answer->reply;
    } else if (std::holds_alternative<effect::Exit>(e)) {
      exited = true;
    }
  }
}

inline Result<OpData> Member::perform(const Op& op) {
  OpData data;
  ops.emplace_back(op_name(op));
  if (const auto* reload = std::get_if<op::Reload>(&op)) {
    data.problem = reload_problem;
    if (reload_problem.empty()) parameters = reload->parameters;
    return data;
  }
  if (std::holds_alternative<op::Checkpoint>(op)) {
    checkpointed_in.push_back(world.view().leader->value.phase);
    return data;
  }
  if (std::holds_alternative<op::InitDb>(op)) {
    if (inits_fail) return fail(ErrorCode::kConflict, "not empty");
    pg.data = DataDir::kReady;
    pg.system_id = data.system_id = 42;
    pg.timeline = Timeline{1};
    pg.flush_lsn = Lsn{1000};
  } else if (const auto* start = std::get_if<op::StartPrimary>(&op)) {
    if (primaries_fail > 0 && primaries_fail-- > 0) return fail(ErrorCode::kUnavailable, "no");
    pg.run = PgRun::kPrimary;
    pg.sync_standbys = start->sync_standbys;
    if (primaries_seem_to_fail) return fail(ErrorCode::kTimeout, "not ready in time");
    data.position = {pg.timeline, pg.flush_lsn};
  } else if (const auto* standby = std::get_if<op::StartStandby>(&op)) {
    if (armed != MonoTime{} && world.now >= armed) {
      return fail(ErrorCode::kConflict, "guard: the deadline has passed");
    }
    if (starts_fail > 0 && starts_fail-- > 0) return fail(ErrorCode::kUnavailable, "did not start");
    pg.run = PgRun::kStandby;
    pg.upstream.reset();
    if (standby->upstream) pg.upstream = standby->upstream->member;
  } else if (const auto* set = std::get_if<op::SetUpstream>(&op)) {
    pg.upstream = set->upstream->member;
  } else if (std::holds_alternative<op::StopReceiver>(op)) {
    pg.upstream.reset();
    pg.receiver_streaming = false;
    data.position = {pg.timeline, pg.flush_lsn};
    data.origin = origin;
  } else if (const auto* promote = std::get_if<op::Promote>(&op)) {
    data.origin = {pg.flush_lsn, promote->timeline.value};
    pg.run = PgRun::kPrimary;
    pg.timeline = promote->timeline;
    pg.sync_standbys = promote->sync_standbys;
  } else if (std::holds_alternative<op::Kill>(op)) {
    pg.run = PgRun::kStopped;
  } else if (std::holds_alternative<op::CleanStop>(op)) {
    for (auto& [n, other] : world.members) {
      if (other->pg.upstream == self) other->pg.flush_lsn = pg.flush_lsn;
    }
    pg.run = PgRun::kStopped;
    data.position = {pg.timeline, pg.flush_lsn};
  } else if (const auto* verify = std::get_if<op::VerifyReceived>(&op)) {
    if (verify_fails ||
        world.members.at(verify->candidate.member)->pg.flush_lsn < verify->position.lsn) {
      return fail(ErrorCode::kTimeout, "not received");
    }
  } else if (const auto* sync = std::get_if<op::SetSync>(&op)) {
    pg.sync_standbys = sync->standbys;
    data.position = {pg.timeline, pg.flush_lsn};
  } else if (const auto* rewind = std::get_if<op::Rewind>(&op)) {
    if (rewinds_fail) {
      pg.run = PgRun::kStopped;
      return fail(ErrorCode::kUnavailable, "pg_rewind: exit 1");
    }
    const Member& source = *world.members.at(rewind->source.member);
    pg.run = PgRun::kStopped;
    pg.data = DataDir::kReady;
    if (rewinds_do_nothing) return data;
    served = true;
    pg.timeline = source.pg.timeline;
    pg.flush_lsn = source.pg.flush_lsn;
  } else if (const auto* clone = std::get_if<op::Clone>(&op)) {
    if (clones_fail > 0 && clones_fail-- > 0) return fail(ErrorCode::kUnavailable, "no answer");
    const PgStatus source = world.server(clone->source.member);
    pg = PgStatus{};
    served = true;
    pg.data = DataDir::kReady;
    pg.system_id = source.system_id;
    pg.timeline = source.timeline;
    pg.flush_lsn = source.flush_lsn;
  }
  return data;
}

class AgentTest : public ::testing::Test {
 protected:
  void start_three() {
    world.add("n1");
    world.pass(1s);
    world.add("n2");
    world.add("n3");
    world.pass(5s);
    ASSERT_EQ(world.leader(), "n1");
  }
  // `candidate`: empty for the best one.
  void ask_for(RequestKind kind, std::string_view candidate = "") {
    RequestRecord request;
    request.id = "r1";
    request.kind = kind;
    if (!candidate.empty()) request.candidate = name(candidate);
    request.by = "test";
    world.apply({{}, {{Keys("test").request(), encode(request)}}});
  }
  std::string ask(TaskRecord task) {
    if (task.id.empty()) task.id = "t1";
    task.by = "test";
    world.apply({{}, {{Keys("test").task(task.id), encode(task)}}});
    return task.id;
  }
  TaskRecord task(const std::string& id = "t1") { return world.view().tasks.at(id).value; }
  static TaskRecord task_of(TaskKind kind, std::vector<std::string_view> members) {
    TaskRecord out;
    out.kind = kind;
    for (const auto m : members) out.steps.push_back({name(m), StepState::kWaiting, ""});
    return out;
  }
  long times(const Member& m, std::string_view op) { return std::ranges::count(m.ops, op); }
  // A new agent on the same host, with what the old one has persisted.
  void restart_agent(Member& m) {
    AgentConfig c;
    c.cluster = "test";
    c.name = m.self;
    c.host = "127.0.0.1";
    c.port = m.port;
    c.new_incarnation = "again";
    m.agent = std::make_unique<Agent>(c, m.disk, world.now);
    m.carry_out(m.agent->start(world.now));
  }
  // Every process of its host is killed; its kernel answers that nobody listens.
  void kill_host(Member& m) {
    m.exited = true;
    m.pg.run = PgRun::kStopped;
  }
  std::string voter() {  // the member that commits wait for
    return world.view().sync->value.generations.back().voters.at(0).substr(0, 2);
  }
  bool noted(const Member& m, std::string_view what) {
    return std::ranges::any_of(m.notes, [&](const auto& n) { return n.what == what; });
  }
  void crash(Member& m) {
    m.pg.run = PgRun::kStopped;
    m.give(event::PgExited{"signal 9"});
    world.drain();
  }
  std::string dump(Member& m) {
    return m.self.str() + ": " + std::string(to_string(m.agent->phase())) + ": " +
           m.agent->reason();
  }
  World world;
};

}  // namespace bascule::control
