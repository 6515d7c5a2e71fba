// Monitors on a store in memory and databases of a few lines each. Time is moved by hand; nothing
// is lost or late here (that is what sim/monitor_*.cc is for).
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <deque>
#include <map>
#include <memory>

#include "monitor/monitor.h"

namespace bascule::monitor::testing {

using control::FailoverStep;
using control::LeaderPhase;
using control::MonitorState;
using ::testing::HasSubstr;

inline NodeName name(std::string_view text) { return NodeName::parse(text).value(); }

struct Database {
  bool reachable = true;
  bool refuses = false;
  bool in_recovery = true;
  bool read_only = false;
  bool fence_fails = false;
  bool promote_fails = false;
  bool streaming = true;
  std::optional<Millis> silence;
  Timeline timeline{1};
  Lsn lsn{1000};
  uint64_t system_id = 77;
  int promotions = 0, fences = 0, unfences = 0;
};

class MonitorTest : public ::testing::Test {
 protected:
  struct Instance {
    std::unique_ptr<Monitor> monitor;
    bool alive = true;
    bool store_cut = false;
    std::deque<Event> inbox;
    std::vector<effect::Note> notes;
    std::map<std::string, bool> cannot_reach;
  };

  MonitorTest() {
    config_.cluster = "db";
    config_.instance = "i1";
    for (const char* n : {"east", "north", "west"}) {
      EndpointConfig e;
      e.name = name(n);
      e.host = n;
      e.region = n == std::string("north") ? "east" : n;
      e.priority = n == std::string("east") ? 10 : n == std::string("west") ? 8 : 6;
      e.health_interval = 1s;
      config_.endpoints.push_back(e);
      databases_[n];
    }
    databases_["east"].in_recovery = false;
  }

  Instance& start(const std::string& who) {
    MonitorConfig config = config_;
    config.name = who;
    config.instance = who + std::to_string(++instances_);
    auto& instance = monitors_.emplace_back();
    instance.monitor = std::make_unique<Monitor>(config, now_);
    carry_out(instance, instance.monitor->start(now_));
    return instance;
  }

  // ---- the world
  store::Snapshot snapshot() const {
    store::Snapshot out{"s", revision_, {}};
    for (const auto& [key, value] : values_)
      out.entries.push_back({key, value.first, value.second});
    return out;
  }
  store::TxnResult apply(const store::Txn& txn) {
    for (const auto& c : txn.compares) {
      const auto found = values_.find(c.key);
      if ((found == values_.end() ? 0 : found->second.second) != c.revision) {
        return {store::TxnOutcome::kConflict, 0, ""};
      }
    }
    ++revision_;
    for (const auto& w : txn.writes) {
      if (w.value) {
        values_[w.key] = {*w.value, revision_};
      } else {
        values_.erase(w.key);
      }
    }
    on_commit();
    return {store::TxnOutcome::kCommitted, revision_, ""};
  }
  void put(const std::string& key, std::string value) { apply({{}, {{key, std::move(value)}}}); }

  void on_commit() {
    const auto view = this->view();
    if (!view.leader) return;
    const std::string state =
        fmt::format("{} {} {}", view.leader->value.holder.str(), view.leader->value.epoch.value,
                    control::to_string(view.leader->value.phase));
    if (record_.empty() || record_.back() != state) record_.push_back(state);
  }

  void carry_out(Instance& instance, Effects effects) {
    for (Effect& effect : effects) {
      std::visit([&](auto& e) { carry_out(instance, e); }, effect);
    }
  }
  void carry_out(Instance& i, effect::ReadStore&) {
    if (i.store_cut) {
      i.inbox.push_back(event::StoreRead{now_, fail(ErrorCode::kTimeout, "cut")});
    } else {
      i.inbox.push_back(
          event::StoreRead{now_, control::parse_cluster(control::Keys("db"), snapshot())});
    }
  }
  void carry_out(Instance& i, effect::CommitStore& e) {
    if (i.store_cut) {
      i.inbox.push_back(event::StoreCommitted{e.id, {store::TxnOutcome::kUnknown, 0, "cut"}});
    } else {
      i.inbox.push_back(event::StoreCommitted{e.id, apply(e.txn)});
    }
  }
  void carry_out(Instance& i, effect::Probe& e) {
    const Database& d = databases_[e.endpoint.str()];
    event::Probed out{e.id, e.endpoint, Answer::kOk, {}, "", Millis{3}};
    if (!d.reachable || i.cannot_reach[e.endpoint.str()]) {
      out.answer = Answer::kDown;
      out.error = "connection refused";
    } else if (d.refuses) {
      out.answer = Answer::kRefused;
      out.error = "too many connections";
    } else {
      out.sample.in_recovery = d.in_recovery;
      out.sample.read_only = d.read_only;
      out.sample.timeline = d.timeline;
      out.sample.written = d.in_recovery ? Lsn{} : d.lsn;
      out.sample.received = out.sample.replayed = d.in_recovery ? d.lsn : Lsn{};
      out.sample.streaming = d.in_recovery && d.streaming;
      out.sample.receiver_silence = d.silence;
      out.sample.system_id = d.system_id;
    }
    i.inbox.push_back(out);
  }
  void carry_out(Instance& i, effect::Act& e) {
    Database& d = databases_[e.endpoint.str()];
    EXPECT_GE(e.not_after, now_);
    event::ActionDone out{e.id, ActionData{d.lsn}};
    const bool reaches = d.reachable && !i.cannot_reach[e.endpoint.str()];
    if (!reaches) {
      out.result = fail(ErrorCode::kUnavailable, "connection refused");
    } else if (e.kind == ActionKind::kPromote) {
      ++d.promotions;
      if (d.promote_fails) {
        out.result = fail(ErrorCode::kUnavailable, "promotion failed");
      } else {
        if (d.in_recovery) ++d.timeline.value;
        d.in_recovery = d.read_only = false;
      }
    } else if (e.kind == ActionKind::kFence) {
      ++d.fences;
      if (d.fence_fails) {
        out.result = fail(ErrorCode::kConflict, "permission denied");
      } else {
        d.read_only = true;
      }
    } else {
      ++d.unfences;
      d.read_only = false;
    }
    i.inbox.push_back(out);
  }
  void carry_out(Instance& i, effect::Note& e) { i.notes.push_back(e); }

  // Moves time on, in steps that nobody sleeps through.
  void run(Nanos time) {
    const MonoTime end = now_ + time;
    while (now_ < end) {
      now_ += 50ms;
      for (Instance& i : monitors_) {
        if (!i.alive) continue;
        i.monitor->set_wall_time(WallTime(Millis(to_ms(now_.time_since_epoch()))));
        carry_out(i, i.monitor->step(event::Tick{}, now_));
        while (!i.inbox.empty()) {
          Event event = std::move(i.inbox.front());
          i.inbox.pop_front();
          carry_out(i, i.monitor->step(event, now_));
        }
      }
    }
  }

  control::ClusterView view() const {
    return control::parse_cluster(control::Keys("db"), snapshot());
  }
  const control::LeaderRecord leader() const { return view().leader->value; }
  std::string state() const {
    const auto v = view();
    return v.monitor && v.monitor->health ? std::string(to_string(v.monitor->health->state)) : "";
  }
  std::string reason() const { return view().monitor->health->reason; }
  void request(control::RequestKind kind, const std::string& candidate, bool force = false) {
    control::RequestRecord r;
    r.id = "r" + std::to_string(++requests_);
    r.kind = kind;
    if (!candidate.empty()) r.candidate = name(candidate);
    r.force = force;
    r.by = "test";
    put(control::Keys("db").request(), control::encode(r));
  }
  std::string outcome() const { return view().request->value.outcome; }

  MonitorConfig config_;
  MonoTime now_{1000s};
  std::map<std::string, Database> databases_;
  std::deque<Instance> monitors_;
  std::map<std::string, std::pair<std::string, store::Revision>> values_;
  store::Revision revision_ = 0;
  std::vector<std::string> record_;
  int requests_ = 0, instances_ = 0;
};

}  // namespace bascule::monitor::testing
