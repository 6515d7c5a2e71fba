// A healthy cluster of three as the API's tests see it: n1 leads epoch 2 on timeline 2, n2 is its
// synchronous standby, n3 streams. Tests change what they are about.
#pragma once

#include "api/snapshot.h"

namespace bascule::api::testing {

inline NodeName name(std::string_view text) { return NodeName::parse(text).value(); }

inline constexpr MonoTime kNow{std::chrono::seconds(1000)};

inline control::MemberRecord member(std::string_view who, std::string_view role, Lsn flush) {
  control::MemberRecord m;
  m.name = name(who);
  m.role = role;
  m.state = role == "primary" ? "running" : "streaming";
  m.epoch = Epoch{2};
  m.timeline = Timeline{2};
  m.flush_lsn = m.replay_lsn = flush;
  m.host = "127.0.0.1";
  m.port = 5430 + (who.back() - '0');
  m.region = "eu";
  m.sync_name = std::string(who) + "_a1";
  return m;
}

inline control::ClusterView healthy_view() {
  control::ClusterView view;
  view.identity = "store-1";
  view.revision = 99;
  control::LeaderRecord leader;
  leader.holder = name("n1");
  leader.epoch = Epoch{2};
  leader.counter = 17;
  leader.phase = control::LeaderPhase::kRunning;
  leader.timeline = Timeline{2};
  view.leader = {leader, 98};
  view.config = {control::ClusterConfig{}, 3};
  view.roster = {control::RosterRecord{{name("n1"), name("n2"), name("n3")}}, 4};
  control::Generation generation;
  generation.epoch = Epoch{2};
  generation.leader = name("n1");
  generation.voters = {"n2_a1"};
  generation.quorum = 1;
  view.sync = {control::SyncRecord{{generation}}, 5};
  view.members[name("n1")] = member("n1", "primary", Lsn{0x5000});
  view.members[name("n2")] = member("n2", "replica", Lsn{0x5000});
  view.members[name("n3")] = member("n3", "replica", Lsn{0x4000});
  auto& first = view.history[Epoch{1}];
  first.epoch = Epoch{1};
  first.leader = name("n3");
  first.timeline = Timeline{1};
  first.reason = "first start";
  first.trigger = "bootstrap";
  first.at = WallTime{Millis(1000)};
  auto& second = view.history[Epoch{2}];
  second.epoch = Epoch{2};
  second.leader = name("n1");
  second.parent_epoch = Epoch{1};
  second.timeline = Timeline{2};
  second.fork = {Timeline{1}, Lsn{0x3000}};
  second.reason = "record expired";
  second.trigger = "expired";
  second.at = WallTime{Millis(61000)};
  second.gap_ms = 420;
  return view;
}

inline LocalMember leading_member() {
  LocalMember local;
  local.name = name("n1");
  local.phase = control::Phase::kLeading;
  local.leading_epoch = Epoch{2};
  local.deadline = kNow + 3s;
  local.taken_at = kNow;
  auto& postgres = local.postgres;
  postgres.run = control::PgRun::kPrimary;
  postgres.timeline = Timeline{2};
  postgres.flush_lsn = Lsn{0x5000};
  postgres.senders = {{"n2_a1", true, Lsn{0x5000}, Lsn{0x5000}},
                      {"n3_a1", true, Lsn{0x4000}, Lsn{0x4000}}};
  postgres.sync_standbys = {"n2_a1"};
  return local;
}

inline LocalMember following_member(std::string_view who) {
  LocalMember local;
  local.name = name(who);
  local.phase = control::Phase::kFollowing;
  local.taken_at = kNow;
  auto& postgres = local.postgres;
  postgres.run = control::PgRun::kStandby;
  postgres.timeline = Timeline{2};
  postgres.flush_lsn = postgres.replay_lsn = Lsn{0x5000};
  postgres.receiver_streaming = true;
  return local;
}

inline Snapshot snapshot_of(std::optional<LocalMember> local) {
  Snapshot snapshot;
  snapshot.cluster = "demo";
  snapshot.version = "0.1.0";
  snapshot.instance = "n1";
  snapshot.wall = WallTime{Millis(10'000'000)};
  snapshot.taken_at = kNow;
  snapshot.local = std::move(local);
  snapshot.view = healthy_view();
  snapshot.store_seen_at = kNow;
  return snapshot;
}

}  // namespace bascule::api::testing
