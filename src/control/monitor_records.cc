#include "control/monitor_records.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "control/json_reader.h"

namespace bascule::control {
namespace {

using nlohmann::json;

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

int64_t ms_of(WallTime time) { return time.time_since_epoch().count(); }

void wall(JsonReader& reader, std::string_view key, WallTime& out) {
  int64_t ms = ms_of(out);
  reader.number(key, ms);
  // to_iso8601 must be able to print it: up to the year 9999.
  constexpr int64_t kLatest = 253402300799999;
  reader.check(ms >= 0 && ms <= kLatest, "a time is out of range");
  out = WallTime(Millis(ms >= 0 && ms <= kLatest ? ms : 0));
}

}  // namespace

std::string_view to_string(FailoverStep step) { return name_of(kSteps, step); }
std::string_view to_string(FailoverTrigger trigger) { return name_of(kTriggers, trigger); }
std::string_view to_string(MonitorState state) { return name_of(kStates, state); }

std::string encode(const MonitorLease& l) {
  return dump(json{{"holder", l.holder},
                   {"instance", l.instance},
                   {"term", l.term},
                   {"counter", l.counter},
                   {"ttlMs", l.ttl.count()}});
}

Result<MonitorLease> decode_monitor_lease(std::string_view text) {
  JsonReader r(text, "monitor lease");
  MonitorLease l;
  r.text("holder", l.holder);
  r.text("instance", l.instance);
  r.required("term", l.term);
  r.number("counter", l.counter);
  r.duration("ttlMs", l.ttl);
  r.check(!l.holder.empty(), "holder is missing");
  r.check(l.ttl >= 100ms && l.ttl <= 10min, "ttlMs is out of range");
  return r.finish(std::move(l));
}

std::string encode(const FailoverOperation& o) {
  return dump(json{{"step", to_string(o.step)},
                   {"trigger", to_string(o.trigger)},
                   {"from", o.from.str()},
                   {"to", o.to.str()},
                   {"reason", o.reason},
                   {"requestId", o.request_id},
                   {"force", o.force},
                   {"epoch", o.epoch.value},
                   {"finalLsn", o.final_lsn.to_string()},
                   {"failed", names_to_json(o.failed)},
                   {"fenced", names_to_json(o.fenced)},
                   {"startedAtMs", ms_of(o.started_at)}});
}

Result<FailoverOperation> decode_failover_operation(std::string_view text) {
  JsonReader r(text, "operation");
  FailoverOperation o;
  r.required_choice("step", kSteps, o.step);
  r.choice("trigger", kTriggers, o.trigger);
  r.name("from", o.from);
  r.name("to", o.to);
  r.text("reason", o.reason);
  r.text("requestId", o.request_id);
  r.boolean("force", o.force);
  r.number("epoch", o.epoch.value);
  r.lsn("finalLsn", o.final_lsn);
  r.names("failed", o.failed);
  r.names("fenced", o.fenced);
  wall(r, "startedAtMs", o.started_at);
  r.check(!o.under_way() || !o.to.empty(), "to is missing");
  return r.finish(std::move(o));
}

std::string encode(const MonitorHealth& h) {
  json endpoints = json::array();
  for (const EndpointHealth& e : h.endpoints) {
    endpoints.push_back({{"name", e.name.str()},
                         {"healthy", e.healthy},
                         {"writable", e.writable},
                         {"fenced", e.fenced},
                         {"eligible", e.eligible},
                         {"why", e.why},
                         {"failures", e.failures},
                         {"failuresTotal", e.failures_total},
                         {"responseMs", e.response_ms},
                         {"lagMs", e.lag_ms},
                         {"lagBytes", e.lag_bytes},
                         {"lastCheckMs", ms_of(e.last_check)},
                         {"downSinceMs", ms_of(e.down_since)},
                         {"version", e.version}});
  }
  return dump(json{{"state", to_string(h.state)},
                   {"reason", h.reason},
                   {"monitor", h.monitor},
                   {"failovers", h.failovers},
                   {"recoveries", h.recoveries},
                   {"checkFailures", h.check_failures},
                   {"endpoints", std::move(endpoints)}});
}

Result<MonitorHealth> decode_monitor_health(std::string_view text) {
  JsonReader r(text, "monitor health");
  MonitorHealth h;
  r.required_choice("state", kStates, h.state);
  r.text("reason", h.reason);
  r.text("monitor", h.monitor);
  r.number("failovers", h.failovers);
  r.number("recoveries", h.recoveries);
  r.number("checkFailures", h.check_failures);
  r.objects("endpoints", kEndpointsMax, [&](JsonReader& item) {
    EndpointHealth e;
    item.name("name", e.name);
    item.boolean("healthy", e.healthy);
    item.boolean("writable", e.writable);
    item.boolean("fenced", e.fenced);
    item.boolean("eligible", e.eligible);
    item.text("why", e.why);
    item.number("failures", e.failures);
    item.number("failuresTotal", e.failures_total);
    item.number("responseMs", e.response_ms);
    item.number("lagMs", e.lag_ms);
    item.number("lagBytes", e.lag_bytes);
    wall(item, "lastCheckMs", e.last_check);
    wall(item, "downSinceMs", e.down_since);
    item.number("version", e.version);
    item.check(!e.name.empty(), "name is missing");
    h.endpoints.push_back(std::move(e));
  });
  return r.finish(std::move(h));
}

std::string encode(const ObserverRecord& o) {
  return dump(json{{"monitor", o.monitor},
                   {"counter", o.counter},
                   {"reachable", names_to_json(o.reachable)},
                   {"unreachable", names_to_json(o.unreachable)}});
}

Result<ObserverRecord> decode_observer(std::string_view text) {
  JsonReader r(text, "observer");
  ObserverRecord o;
  r.text("monitor", o.monitor);
  r.number("counter", o.counter);
  r.names("reachable", o.reachable);
  r.names("unreachable", o.unreachable);
  r.check(!o.monitor.empty(), "monitor is missing");
  return r.finish(std::move(o));
}

std::string encode(const ProxyAck& p) { return dump(json{{"id", p.id}, {"actsBy", p.acts_by}}); }

Result<ProxyAck> decode_proxy_ack(std::string_view text) {
  JsonReader r(text, "proxy");
  ProxyAck p;
  r.text("id", p.id);
  r.number("actsBy", p.acts_by);
  r.check(!p.id.empty(), "id is missing");
  return r.finish(std::move(p));
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
