#include "proxy/topology.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <utility>

namespace bascule::proxy {

Status StaticTopology::validate(const std::vector<ServerSpec>& servers) {
  if (servers.empty()) return fail(ErrorCode::kInvalid, "there is no server");
  int primaries = 0;
  for (size_t i = 0; i < servers.size(); ++i) {
    if (servers[i].role == ServerRole::kPrimary) ++primaries;
    for (size_t k = 0; k < i; ++k) {
      if (servers[k].name == servers[i].name) {
        return fail(ErrorCode::kInvalid,
                    fmt::format("two servers have the name {}", servers[i].name));
      }
      if (servers[k].endpoint == servers[i].endpoint) {
        return fail(ErrorCode::kInvalid, fmt::format("{} and {} have the same address",
                                                     servers[k].name, servers[i].name));
      }
    }
  }
  if (primaries > 1) return fail(ErrorCode::kInvalid, "more than one server has the role primary");
  return {};
}

StaticTopology::StaticTopology(std::vector<ServerSpec> servers)
    : servers_(std::move(servers)), states_(servers_.size()) {}

void StaticTopology::seen(size_t server, const ServerSeen& answer, MonoTime now) {
  State& state = states_[server];
  state.last = answer;
  state.failures = 0;
  state.error.clear();
  state.asked = true;
  if (primary_ == server && !answer.in_recovery) lag_clock_.primary_at(answer.lsn, now);
}

void StaticTopology::failed(size_t server, std::string why) {
  State& state = states_[server];
  state.asked = true;
  state.error = std::move(why);
  if (++state.failures >= kFailuresMax) state.last.reset();
}

std::string StaticTopology::describe_all() const {
  std::string out;
  for (size_t i = 0; i < servers_.size(); ++i) {
    const State& state = states_[i];
    const std::string what = !state.asked ? "not asked yet"
                             : state.last ? (state.last->in_recovery ? "a standby" : "a primary")
                             : state.error.empty() ? "unknown"
                                                   : state.error;
    out += fmt::format("{}{} is {}", out.empty() ? "" : ", ", servers_[i].name, what);
  }
  return out;
}

std::optional<size_t> StaticTopology::find_primary(std::string& reason) const {
  std::optional<size_t> best;
  bool tie = false;
  for (size_t i = 0; i < servers_.size(); ++i) {
    if (servers_[i].role == ServerRole::kPrimary) return i;
    if (servers_[i].role == ServerRole::kReplica) continue;
    const auto& last = states_[i].last;
    if (!last || last->in_recovery) continue;
    if (!best) {
      best = i;
      continue;
    }
    const Timeline other = states_[*best].last->timeline;
    if (last->timeline == other) tie = true;
    if (last->timeline > other) {
      best = i;
      tie = false;
    }
  }
  if (tie) {
    reason = fmt::format("two servers are primary on one timeline: {}", describe_all());
    return std::nullopt;
  }
  if (!best) reason = fmt::format("no server is a primary: {}", describe_all());
  return best;
}

RouteMember StaticTopology::member(size_t server) const {
  const ServerSpec& spec = servers_[server];
  RouteMember member;
  member.name = spec.name;
  member.endpoint = spec.endpoint;
  member.region = spec.region;
  member.weight = spec.weight;
  member.tags = spec.tags;
  if (states_[server].last) member.latency = states_[server].last->round_trip;
  return member;
}

RouteTable StaticTopology::make(MonoTime now) {
  RouteTable table;
  table.sync_strict = false;  // there is no cluster that could demand it
  std::string reason;
  const std::optional<size_t> primary = find_primary(reason);
  if (primary && primary_ && *primary != *primary_) {
    ++epoch_;
    lag_clock_.reset();
  }
  if (primary) {
    const bool fresh = primary_ != primary;
    primary_ = primary;
    table.primary = member(*primary);
    const auto& last = states_[*primary].last;
    if (fresh && last) lag_clock_.primary_at(last->lsn, now);
  }
  table.reason = reason;
  table.epoch = Epoch{epoch_};
  const auto& leader = primary ? states_[*primary].last : std::nullopt;
  for (size_t i = 0; i < servers_.size(); ++i) {
    if (primary == i) continue;
    const State& state = states_[i];
    const bool believed = servers_[i].role == ServerRole::kReplica && !state.asked;
    if (!believed && (!state.last || !state.last->in_recovery)) continue;
    RouteMember replica = member(i);
    if (state.last) {
      if (leader && state.last->system_id != leader->system_id) continue;
      replica.replayed = state.last->lsn;
      replica.lag_time = lag_clock_.lag(state.last->lsn, now);
      if (leader && leader->lsn > state.last->lsn) {
        replica.lag_bytes = leader->lsn.value - state.last->lsn.value;
      }
    }
    table.replicas.push_back(std::move(replica));
  }
  return table;
}

bool worth_publishing(const RouteTable& before, const RouteTable& now) {
  const auto bytes = [](uint64_t lag) { return std::bit_width(lag >> 20); };
  const auto time = [](Nanos lag) {
    return std::bit_width(static_cast<uint64_t>(std::max<int64_t>(to_ms(lag), 0)) / 2'000);
  };
  // A factor of two, beyond what is noise.
  const auto latency = [](Nanos n) {
    return std::bit_width(static_cast<uint64_t>(std::max<int64_t>(n.count(), 0)) / 500'000);
  };
  const auto same = [&](const RouteMember& a, const RouteMember& b) {
    return a.name == b.name && a.endpoint == b.endpoint && a.healthy == b.healthy &&
           a.region == b.region && a.weight == b.weight && a.tags == b.tags &&
           bytes(a.lag_bytes) == bytes(b.lag_bytes) && time(a.lag_time) == time(b.lag_time) &&
           latency(a.latency) == latency(b.latency);
  };
  const bool same_primary = before.primary.has_value() == now.primary.has_value() &&
                            (!now.primary || (before.primary->name == now.primary->name &&
                                              before.primary->endpoint == now.primary->endpoint));
  return before.epoch != now.epoch || !same_primary || before.state != now.state ||
         before.reason != now.reason || !std::ranges::equal(before.replicas, now.replicas, same);
}

std::optional<RouteTable> StaticTopology::changed(MonoTime now) {
  RouteTable table = make(now);
  if (published_ && !worth_publishing(*published_, table)) return std::nullopt;
  published_ = table;
  return table;
}

}  // namespace bascule::proxy
