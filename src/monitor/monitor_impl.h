// The inside of Monitor. Files: monitor.cc events, store and lease; monitor_decide.cc when to begin
// an operation; monitor_operation.cc its steps; monitor_publish.cc what is told.
#pragma once

#include <deque>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "control/records.h"
#include "monitor/endpoint.h"
#include "monitor/monitor.h"
#include "monitor/selection.h"

namespace bascule::monitor {

using control::ClusterView;
using control::FailoverOperation;
using control::FailoverStep;
using control::FailoverTrigger;
using control::HistoryRecord;
using control::LeaderPhase;
using control::LeaderRecord;
using control::MonitorHealth;
using control::MonitorLease;
using control::MonitorState;
using control::RequestRecord;

// What one transaction of the holder of the lease writes, besides renewing it.
struct Change {
  std::optional<LeaderRecord> leader;
  std::optional<FailoverOperation> operation;
  std::optional<HistoryRecord> history;
  std::optional<RequestRecord> request;
  std::optional<control::InitRecord> init;
  bool unrequested = false;  // must not happen if somebody asked for something, or paused
  bool empty() const { return !leader && !operation && !history && !request && !init; }
};

class Monitor::Impl {
 public:
  Impl(MonitorConfig config, MonoTime now, UnsafeMutations unsafe);

  Effects start(MonoTime now);
  Effects step(const Event& event, MonoTime now);

  MonitorConfig config_;
  UnsafeMutations unsafe_;
  control::Keys keys_;
  control::MonitorKeys monitor_keys_;
  WallTime wall_{};
  MonoTime now_;
  MonoTime wake_{};
  ClusterView view_;
  MonitorHealth health_;

  bool leading() const;
  bool leading_at(MonoTime when) const { return mine_ && when < lead_until_; }

 private:
  // ---- monitor.cc
  void on(const event::Tick&) {}
  void on(const event::StoreRead& e);
  void on(const event::StoreCommitted& e);
  void on(const event::StoreChanged&) { next_read_ = now_; }
  void on(const event::Probed& e);
  void on(const event::ActionDone& e);
  void on(const event::CheckNow&);
  void think();
  void resume(Millis away);
  bool looked_again();
  void note_position(const Endpoint& primary);
  void read_if_due();
  void schedule_probes();
  void time_out_probes();
  void elect();
  void commit(store::Txn txn, std::function<void(store::Revision)> applied);
  void write(Change change);
  void apply(const Change& change, store::Revision revision);
  void renew_if_due();
  void note_record();  // watches the leader record for its closing, opening, epochs
  void wake_at(MonoTime when) { wake_ = std::min(wake_, when); }
  void note(LogLevel level, std::string what, std::string why,
            std::vector<std::pair<std::string, std::string>> fields = {});
  // Once for each new reason.
  void decline(std::string why);
  uint64_t act(ActionKind kind, const NodeName& endpoint);

  // ---- monitor_decide.cc
  void decide();
  void bootstrap();
  void discover();
  void begin_requested(const RequestRecord& request);
  void refuse(const RequestRecord& request, const std::string& why);
  void assess();
  std::optional<std::string> trouble_of_primary(const Endpoint& primary) const;
  std::string why_not_automatic(const Endpoint& primary) const;
  std::string dissent(const NodeName& primary) const;
  std::string still_streams_from_it(const Endpoint& primary) const;
  const Endpoint* promoted_from_outside(const Endpoint* primary) const;
  void begin(FailoverTrigger trigger, const NodeName& to, const std::string& reason,
             const RequestRecord* request);
  void guard_strays();
  void lift_own_fence();

  // ---- monitor_operation.cc
  void advance();
  void drain();
  void close();
  bool closed() const;
  bool proxies_act_by_it() const;
  void fence_old_primary();
  // Empty: the old primary is out of the way. Else why not (yet).
  std::string obstacle() const;
  bool answers_again() const;
  // Why a request without force does not go on. The primary lives and does not let us in.
  std::string cant_be_fenced(const NodeName& primary) const;
  bool awaits_last_wal() const;
  bool has_last_wal(const Endpoint& to) const;
  void catch_up();
  void begin_promotion();
  void promote();
  void try_promotion();
  void open(const Endpoint& endpoint);
  bool back_to_old_primary();
  void next_candidate(const std::string& why);
  void give_up(const std::string& why);
  std::string target_problem() const;
  NodeName choose(Lag lag, const std::vector<NodeName>& except) const;

  // ---- monitor_publish.cc
  void publish(store::Txn& txn);
  void observe();
  control::MemberRecord member_record(const Endpoint& endpoint) const;
  control::EndpointHealth endpoint_health(const Endpoint& endpoint) const;
  void refresh_health();
  Millis publish_every() const;

  const LeaderRecord* leader() const { return view_.leader ? &view_.leader->value : nullptr; }
  const FailoverOperation& operation() const;
  Endpoint* endpoint(const NodeName& name);
  const Endpoint* endpoint(const NodeName& name) const;
  NodeName holder() const { return leader() ? leader()->holder : NodeName(); }
  Choice choice(const NodeName& primary) const;
  bool fenced_by_us(const NodeName& name) const;
  bool routed() const;  // the record sends clients somewhere
  Millis interval_of(const Endpoint& endpoint) const;

  Effects effects_;
  std::map<NodeName, Endpoint> endpoints_;

  // Store.
  bool reading_ = false;
  bool have_view_ = false;
  MonoTime next_read_{};
  MonoTime view_begun_{};    // of the newest read that was taken
  MonoTime committed_at_{};  // a read begun before may show less than we know
  uint64_t next_id_ = 1;
  uint64_t pending_ = 0;  // transaction under way; 0: none
  MonoTime pending_sent_{};
  std::function<void(store::Revision)> pending_applied_;
  bool pending_is_lease_ = false;

  // Lease.
  store::Revision lease_seen_ = 0;
  MonoTime lease_seen_at_{};
  bool mine_ = false;
  MonoTime lead_until_{};
  MonoTime next_renew_{};

  // The leader record over time.
  store::Revision record_seen_ = 0;
  std::optional<MonoTime> closed_since_;  // the record is seen not to send clients anywhere
  MonoTime step_since_{};                 // of the operation, as this monitor saw it
  FailoverStep step_seen_ = FailoverStep::kNone;
  Epoch epoch_seen_;
  bool took_part_ = false;  // saw the present epoch begin
  MonoTime opened_at_{};    // then: when it was opened
  // As Choice has it, of the epoch's primary. Empty: how far it has got is not known.
  std::deque<std::pair<MonoTime, Lsn>> written_;

  // This process was not run for a while. Nothing is decided by what it saw before.
  std::optional<MonoTime> resumed_at_;  // until the store and every endpoint were looked at again
  Millis away_{0};                      // so long; 0: never

  // Actions.
  struct Action {
    uint64_t id = 0;
    ActionKind kind = ActionKind::kFence;
    NodeName endpoint;
    MonoTime begun{};
  };
  std::optional<Action> action_;  // one at a time
  std::map<NodeName, MonoTime> next_action_;
  std::optional<MonoTime> fenced_at_;  // the operation's old primary: fence confirmed, begun then
  Lsn fenced_lsn_;
  int fence_failures_ = 0;
  std::string action_error_;

  // Observers.
  struct ObserverSeen {
    store::Revision revision = 0;
    MonoTime at{};
  };
  std::map<std::string, ObserverSeen> observers_;
  uint64_t observer_counter_ = 0;
  MonoTime next_observation_{};

  // What is told.
  std::string declined_;
  std::map<std::string, std::string> published_;  // by key
  uint64_t recoveries_ = 0;
  std::map<NodeName, bool> was_lost_;
};

}  // namespace bascule::monitor
