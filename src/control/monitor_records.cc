#include "control/monitor_records.h"

#include <fmt/format.h>

#include "control/json_fields.h"

namespace bascule::control {
namespace {

constexpr size_t kEndpointsMax = 64;

constexpr std::pair<FailoverStep, std::string_view> kSteps[] = {
    {FailoverStep::kNone, "none"},           {FailoverStep::kDraining, "draining"},
    {FailoverStep::kClosing, "closing"},     {FailoverStep::kCatchingUp, "catching_up"},
    {FailoverStep::kPromoting, "promoting"},
};
constexpr std::pair<FailoverTrigger, std::string_view> kTriggers[] = {
    {FailoverTrigger::kAutomatic, "automatic"},
    {FailoverTrigger::kManual, "manual"},
    {FailoverTrigger::kSwitchover, "switchover"},
    {FailoverTrigger::kExternal, "external"},
};
constexpr std::pair<MonitorState, std::string_view> kStates[] = {
    {MonitorState::kUnknown, "unknown"},
    {MonitorState::kHealthy, "healthy"},
    {MonitorState::kDegraded, "degraded"},
    {MonitorState::kFailoverInProgress, "failover_in_progress"},
    {MonitorState::kFailoverComplete, "failover_complete"},
    {MonitorState::kRecoveryInProgress, "recovery_in_progress"},
};

}  // namespace

std::string_view to_string(FailoverStep step) { return name_of(kSteps, step); }
std::string_view to_string(FailoverTrigger trigger) { return name_of(kTriggers, trigger); }
std::string_view to_string(MonitorState state) { return name_of(kStates, state); }

// ---- JSON: one description of the fields for both ways --------------------------------

static void fields(auto& f, Of<MonitorLease> auto& l) {
  f.text("holder", l.holder);
  f.text("instance", l.instance);
  f.required("term", l.term);
  f.number("counter", l.counter);
  f.duration("ttlMs", l.ttl);
  f.check(!l.holder.empty(), "holder is missing");
  f.check(l.ttl >= 100ms && l.ttl <= 10min, "ttlMs is out of range");
}

static void fields(auto& f, Of<FailoverOperation> auto& o) {
  f.required_choice("step", kSteps, o.step);
  f.choice("trigger", kTriggers, o.trigger);
  f.name("from", o.from);
  f.name("to", o.to);
  f.text("reason", o.reason);
  f.text("requestId", o.request_id);
  f.boolean("force", o.force);
  f.number("epoch", o.epoch.value);
  f.lsn("finalLsn", o.final_lsn);
  f.names("failed", o.failed);
  f.names("fenced", o.fenced);
  f.wall("startedAtMs", o.started_at);
  f.check(!o.under_way() || !o.to.empty(), "to is missing");
}

static void fields(auto& f, Of<EndpointHealth> auto& e) {
  f.name("name", e.name);
  f.boolean("healthy", e.healthy);
  f.boolean("writable", e.writable);
  f.boolean("fenced", e.fenced);
  f.boolean("eligible", e.eligible);
  f.text("why", e.why);
  f.number("failures", e.failures);
  f.number("failuresTotal", e.failures_total);
  f.number("responseMs", e.response_ms);
  f.number("lagMs", e.lag_ms);
  f.number("lagBytes", e.lag_bytes);
  f.wall("lastCheckMs", e.last_check);
  f.wall("downSinceMs", e.down_since);
  f.number("version", e.version);
  f.check(!e.name.empty(), "name is missing");
}

static void fields(auto& f, Of<MonitorHealth> auto& h) {
  f.required_choice("state", kStates, h.state);
  f.text("reason", h.reason);
  f.text("monitor", h.monitor);
  f.number("failovers", h.failovers);
  f.number("recoveries", h.recoveries);
  f.number("checkFailures", h.check_failures);
  f.objects("endpoints", kEndpointsMax, h.endpoints);
}

static void fields(auto& f, Of<ObserverRecord> auto& o) {
  f.text("monitor", o.monitor);
  f.number("counter", o.counter);
  f.names("reachable", o.reachable);
  f.names("unreachable", o.unreachable);
  f.check(!o.monitor.empty(), "monitor is missing");
}

static void fields(auto& f, Of<ProxyAck> auto& p) {
  f.text("id", p.id);
  f.number("actsBy", p.acts_by);
  f.check(!p.id.empty(), "id is missing");
}

std::string encode(const MonitorLease& l) { return write_record(l); }
Result<MonitorLease> decode_monitor_lease(std::string_view text) {
  return read_record<MonitorLease>(text, "monitor lease");
}
std::string encode(const FailoverOperation& o) { return write_record(o); }
Result<FailoverOperation> decode_failover_operation(std::string_view text) {
  return read_record<FailoverOperation>(text, "operation");
}
std::string encode(const MonitorHealth& h) { return write_record(h); }
Result<MonitorHealth> decode_monitor_health(std::string_view text) {
  return read_record<MonitorHealth>(text, "monitor health");
}
std::string encode(const ObserverRecord& o) { return write_record(o); }
Result<ObserverRecord> decode_observer(std::string_view text) {
  return read_record<ObserverRecord>(text, "observer");
}
std::string encode(const ProxyAck& p) { return write_record(p); }
Result<ProxyAck> decode_proxy_ack(std::string_view text) {
  return read_record<ProxyAck>(text, "proxy");
}

Status read_monitor_entry(const MonitorKeys& keys, const store::Entry& e, MonitorView& view) {
  const auto take = [&](auto decoded, auto use) -> Status {
    if (decoded) {
      use(*std::move(decoded));
      return {};
    }
    return fail(ErrorCode::kInvalid,
                fmt::format("store key {}: {}", e.key, decoded.error().to_string()));
  };
  if (e.key == keys.lease()) {
    view.lease_revision = e.revision;
    auto status = take(decode_monitor_lease(e.value),
                       [&](MonitorLease lease) { view.lease = {std::move(lease), e.revision}; });
    view.unreadable |= !status;
    return status;
  }
  if (e.key == keys.operation()) {
    auto status = take(decode_failover_operation(e.value), [&](FailoverOperation operation) {
      view.operation = {std::move(operation), e.revision};
    });
    view.unreadable |= !status;
    return status;
  }
  if (e.key == keys.health()) {
    return take(decode_monitor_health(e.value),
                [&](MonitorHealth health) { view.health = std::move(health); });
  }
  if (e.key.starts_with(keys.observer(""))) {
    return take(decode_observer(e.value), [&](ObserverRecord observer) {
      if (e.key == keys.observer(observer.monitor)) {
        std::string name = observer.monitor;
        view.observers[name] = {std::move(observer), e.revision};
      }
    });
  }
  if (e.key.starts_with(keys.proxy(""))) {
    return take(decode_proxy_ack(e.value), [&](ProxyAck ack) {
      if (e.key == keys.proxy(ack.id)) view.proxies[ack.id] = std::move(ack);
    });
  }
  return {};
}

}  // namespace bascule::control
