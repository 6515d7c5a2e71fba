#include "node/node.h"

#include <fmt/format.h>

#include <algorithm>
#include <mutex>
#include <optional>
#include <set>
#include <utility>

#include "node/hooks.h"
#include "node/shell.h"

namespace bascule::node {
namespace {

constexpr size_t kIncarnationBytes = 4;
constexpr Nanos kLeaveWithin = 5s;

// Another agent may begin here: it finds everything in the store and in PostgreSQL.
bool settled(control::Phase phase) {
  using enum control::Phase;
  return phase == kLeading || phase == kStandbyLeading || phase == kFollowing ||
         phase == kStopped || phase == kWaitingInit || phase == kRefused;
}

}  // namespace

class Node::Impl {
 public:
  Impl(NodeConfig config, NodeDeps deps) : config_(std::move(config)), deps_(deps) {}
  ~Impl() {
    deps_.loop.cancel(wake_timer_);
    deps_.loop.cancel(leave_timer_);
    deps_.loop.cancel(hooks_timer_);
    if (watch_ != 0) deps_.store.unwatch(watch_);
    *alive_ = false;
  }

  Status start() {
    if (config_.agent.new_incarnation.empty()) {
      config_.agent.new_incarnation = deps_.entropy.hex(kIncarnationBytes);
    }
    auto opened = Shell::open(config_, {deps_.loop, deps_.pool, deps_.process, deps_.disk,
                                        deps_.store, deps_.entropy, deps_.http});
    if (!opened) return std::unexpected(opened.error());
    shell_ = std::move(opened->shell);
    shell_->on_exit([this] { finish_after_hooks(); });
    hooks_.emplace(config_.hooks, deps_.pool, deps_.process, deps_.loop,
                   [this, a = alive_](NoteRecord note) {
                     deps_.loop.post([this, a, note = std::move(note)]() mutable {
                       if (*a) shell_->note(std::move(note));
                     });
                   });
    shell_->start(
        opened->state, [this](control::Event event) { step(std::move(event)); },
        [this, state = opened->state](Status ready) {
          if (!ready) return finish(std::move(ready));
          begin(state);
        });
    return {};
  }

  void begin(const control::LocalState& state) {
    agent_.emplace(tagged(), state, deps_.loop.now());
    watch_for(config_.agent.initial.ttl);
    watch_ = deps_.store.watch(control::Keys(config_.agent.cluster).prefix, [this, a = alive_] {
      if (*a) step(control::event::StoreChanged{});
    });
    agent_->set_wall_time(deps_.loop.wall_now());
    carry_out(agent_->start(deps_.loop.now()));
    if (shutdown_requested_) step(control::event::ShutdownRequested{});
  }

  void step(control::Event event) {
    if (!agent_) {
      // Samples taken before the agent was made: it asks for one of its own.
      return;
    }
    if (const auto* seen = std::get_if<control::event::Observed>(&event)) postgres_ = seen->status;
    const auto* done = std::get_if<control::event::OpDone>(&event);
    // No sample may come between an orderly stop and the end of the daemon, whose hooks go by it.
    if (done && done->id == clean_stop_ && done->result) postgres_.run = control::PgRun::kStopped;
    const bool reloaded =
        done && done->id == reload_ && done->result && done->result->problem.empty();
    const auto* answer = std::get_if<control::event::StoreCommitted>(&event);
    const bool committed =
        answer != nullptr && answer->result.outcome == store::TxnOutcome::kCommitted;
    const MonoTime proved = agent_->proved_at();
    agent_->set_wall_time(deps_.loop.wall_now());
    carry_out(agent_->step(std::move(event), deps_.loop.now()));
    if (reloaded) {
      hooks_->fire("reload", facts(RoleWatch::Change{roles_.role(), roles_.role()}));
    }
    if (leave_) leave_if_possible(committed && agent_->proved_at() != proved);
  }

  void leave(std::function<void(Result<MonoTime>)> done) {
    leave_ = std::move(done);
    shell_->leave();
    leave_timer_ = deps_.loop.call_after(kLeaveWithin, [this] {
      shell_->stay();
      const std::string why = !agent_ ? "the agent has not begun"
                              : settled(agent_->phase())
                                  ? agent_->reason()
                                  : fmt::format("the agent is {}", to_string(agent_->phase()));
      std::exchange(
          leave_, {})(fail(ErrorCode::kConflict,
                           "an operation is running, or the store is silent: " + why, "try again"));
    });
  }

  // A leader goes when its record has just been renewed, in the store and not by pledges: whoever
  // comes has most of the time to the guard's deadline, and can resume.
  void leave_if_possible(bool renewed) {
    const bool leads = agent_->leading_epoch() != Epoch{};
    if (!settled(agent_->phase()) || !shell_->at_rest() || (leads && !renewed)) return;
    const MonoTime until = leads ? agent_->deadline() : MonoTime::max();
    NoteRecord note;
    note.what = "left to another process";
    note.why = "somebody takes over this daemon";
    shell_->note(std::move(note));
    deps_.loop.cancel(std::exchange(wake_timer_, env::TimerId::kNone));
    deps_.loop.cancel(std::exchange(leave_timer_, env::TimerId::kNone));
    agent_.reset();
    deps_.loop.post([done = std::exchange(leave_, {}), until] { done(until); });
  }

  void carry_out(control::Effects effects) {
    for (const control::Effect& effect : effects) {
      const auto* start = std::get_if<control::effect::StartOp>(&effect);
      if (start == nullptr) continue;
      if (std::holds_alternative<control::op::Reload>(start->op)) reload_ = start->id;
      if (std::holds_alternative<control::op::CleanStop>(start->op)) clean_stop_ = start->id;
    }
    const bool news = cluster_is_new();
    if (const auto& seen = agent_->cluster().config; news && seen) {
      shell_->want_parameters(seen->value.parameters);
    }
    shell_->perform(std::move(effects));
    if (news) {
      prepare_slots();
      if (const auto& seen = agent_->cluster().config) watch_for(seen->value.ttl);
    }
    publish(news);
    tell_hooks();
    deps_.loop.cancel(wake_timer_);
    const MonoTime when = agent_->next_wakeup();
    wake_timer_ = when == MonoTime::max()
                      ? env::TimerId::kNone
                      : deps_.loop.call_at(when, [this] { step(control::event::Tick{}); });
  }

  // Most steps are samples of PostgreSQL.
  bool cluster_is_new() {
    const control::ClusterView& cluster = agent_->cluster();
    std::pair seen{cluster.identity, cluster.revision};
    return std::exchange(cluster_seen_, seen) != seen;
  }

  void prepare_slots() {
    const control::ClusterView& cluster = agent_->cluster();
    if (!cluster.roster || !cluster.config) return;
    std::set<NodeName> names(cluster.roster->value.members.begin(),
                             cluster.roster->value.members.end());
    for (const auto& [name, member] : cluster.members) names.insert(name);  // may stream from here
    names.erase(config_.agent.name);
    std::vector<std::string> slots;
    for (const NodeName& name : names) slots.push_back(control::slot_name(name));
    shell_->prepare_slots(std::move(slots), cluster.config->value.slots, primary_of(cluster));
  }

  // Another one that accepts writes now.
  std::optional<control::Upstream> primary_of(const control::ClusterView& cluster) const {
    if (!cluster.leader || cluster.leader->value.phase != control::LeaderPhase::kRunning) return {};
    const NodeName& holder = cluster.leader->value.holder;
    const control::MemberRecord* member = cluster.member(holder);
    if (member == nullptr || member->host.empty() || holder == config_.agent.name) return {};
    return control::Upstream{holder, member->host, member->port};
  }

  // Who has to have a watchdog and has none is not elected.
  control::AgentConfig tagged() const {
    control::AgentConfig out = config_.agent;
    if (config_.watchdog.mode == WatchdogConfig::Mode::kRequired && !watchdog_usable_) {
      out.nofailover = true;
    }
    return out;
  }

  void watch_for(Millis ttl) {
    if (config_.watchdog.mode == WatchdogConfig::Mode::kOff) return;
    if (std::exchange(watchdog_ttl_, ttl) == ttl) return;
    shell_->watchdog(ttl, [this](bool usable) {
      deps_.loop.post([this, a = alive_, usable] {
        if (*a && std::exchange(watchdog_usable_, usable) != usable) retag();
      });
    });
  }

  HookFacts facts(const RoleWatch::Change& change) const {
    const control::ClusterView& cluster = agent_->cluster();
    const control::LeaderRecord none;
    const auto& leader = cluster.leader ? cluster.leader->value : none;
    return {{"cluster", config_.agent.cluster},
            {"member", config_.agent.name.str()},
            {"role", std::string(to_string(change.to))},
            {"old_role", std::string(to_string(change.from))},
            {"epoch", std::to_string(leader.epoch.value)},
            {"leader", leader.holder.str()},
            {"host", config_.agent.host},
            {"port", std::to_string(config_.agent.port)},
            {"data_dir", config_.data_dir},
            {"timeline", std::to_string(postgres_.timeline.value)},
            {"reason", agent_->reason()}};
  }

  void tell_hooks() {
    if (postgres_.sampled_at == MonoTime{}) return;
    const auto change = roles_.observe(agent_->phase(), postgres_);
    if (change.started) hooks_->fire("start", facts(change));
    if (change.restarted) hooks_->fire("restart", facts(change));
    if (change.to != change.from && change.to != RoleWatch::Role::kUnknown) {
      hooks_->fire("role_change", facts(change));
    }
    if (change.stopped) hooks_->fire("stop", facts(change));
  }

  void publish(bool cluster_is_new) {
    const std::lock_guard lock(mutex_);
    view_.phase = agent_->phase();
    view_.reason = agent_->reason();
    view_.leading_epoch = agent_->leading_epoch();
    view_.deadline = agent_->deadline();
    view_.proved_at = agent_->proved_at();
    view_.taken_at = deps_.loop.now();
    view_.postgres = postgres_;
    if (cluster_is_new) view_.cluster = agent_->cluster();
    view_.local = agent_->local();
    view_.guard = shell_->guard_description();
  }

  void retag(const control::AgentConfig& agent, HookConfig hooks) {
    config_.agent.priority = agent.priority;
    config_.agent.nofailover = agent.nofailover;
    config_.agent.tags = agent.tags;
    if (hooks_) hooks_->configure(std::move(hooks));
    retag();
  }

  void retag() {
    const control::AgentConfig now = tagged();
    step(control::event::Retagged{now.priority, now.nofailover, now.tags});
  }

  void request_shutdown() {
    deps_.loop.post([this, a = alive_] {
      if (!*a) return;
      shutdown_requested_ = true;
      if (agent_) step(control::event::ShutdownRequested{});
    });
  }

  void peer_asks(std::string sealed, std::function<void(Result<std::string>)> done) {
    deps_.loop.post([this, a = alive_, sealed = std::move(sealed), done = std::move(done)] {
      if (*a && agent_) shell_->peer_asks(sealed, done);
    });
  }

  // What an orderly stop has fired still runs, for so long as one command may.
  void finish_after_hooks() {
    tell_hooks();
    hooks_timer_ = deps_.loop.call_after(hooks_->timeout(), [this] {
      NoteRecord note;
      note.level = LogLevel::kWarn;
      note.what = "hook";
      note.why = "the daemon ends: what still waits is left out";
      shell_->note(std::move(note));
      finish({});
    });
    hooks_->when_idle([this, a = alive_] {
      deps_.loop.post([this, a] {
        if (!*a) return;
        deps_.loop.cancel(hooks_timer_);
        finish({});
      });
    });
  }

  void finish(Status status) {
    if (on_exit_) std::exchange(on_exit_, {})(std::move(status));
  }

  NodeView view() const {
    NodeView out;
    {
      const std::lock_guard lock(mutex_);
      out = view_;
    }
    if (shell_) out.notes = shell_->notes();
    return out;
  }

  std::function<void(Status)> on_exit_;

 private:
  NodeConfig config_;
  NodeDeps deps_;
  std::unique_ptr<Shell> shell_;
  std::optional<control::Agent> agent_;
  std::optional<Hooks> hooks_;
  RoleWatch roles_;
  control::OpId reload_ = 0;      // the last one
  control::OpId clean_stop_ = 0;  // the last one
  control::PgStatus postgres_;
  Millis watchdog_ttl_{};  // that it was asked for
  bool watchdog_usable_ = false;
  std::pair<std::string, store::Revision> cluster_seen_;
  bool shutdown_requested_ = false;
  env::TimerId wake_timer_ = env::TimerId::kNone;
  env::TimerId leave_timer_ = env::TimerId::kNone;
  env::TimerId hooks_timer_ = env::TimerId::kNone;
  std::function<void(Result<MonoTime>)> leave_;  // asked for
  uint64_t watch_ = 0;
  // Callbacks that are under way when we go find it false; shared with them, hence shared_ptr.
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
  mutable std::mutex mutex_;
  NodeView view_;  // guarded by mutex_
};

Node::Node(NodeConfig config, NodeDeps deps)
    : impl_(std::make_unique<Impl>(std::move(config), deps)) {}
Node::~Node() = default;
void Node::on_exit(std::function<void(Status)> callback) { impl_->on_exit_ = std::move(callback); }
Status Node::start() { return impl_->start(); }
void Node::retag(const control::AgentConfig& agent, HookConfig hooks) {
  impl_->retag(agent, std::move(hooks));
}
void Node::leave(std::function<void(Result<MonoTime>)> done) { impl_->leave(std::move(done)); }
void Node::request_shutdown() { impl_->request_shutdown(); }
void Node::peer_asks(std::string sealed, std::function<void(Result<std::string>)> done) {
  impl_->peer_asks(std::move(sealed), std::move(done));
}
NodeView Node::view() const { return impl_->view(); }

}  // namespace bascule::node
