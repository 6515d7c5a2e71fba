#include "cli/request.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <nlohmann/json.hpp>

#include "cli/units.h"

namespace bascule::cli {
namespace {

using control::ClusterView;
using control::RequestKind;
using control::RequestRecord;

auto refuse(std::string what, std::string hint) {
  return fail(ErrorCode::kConflict, std::move(what), std::move(hint));
}

std::vector<std::string> member_names(const ClusterView& view) {
  std::vector<std::string> out;
  for (const auto& [name, member] : view.members) out.push_back(name.str());
  return out;
}

Status check_streaming(const ClusterView& view, const NodeName& candidate) {
  const control::MemberRecord* member = view.member(candidate);
  if (member == nullptr || member->state == "streaming") return {};
  return refuse(fmt::format("{} is not streaming from the leader: {}{}", candidate.str(),
                            member->state.empty() ? "state unknown" : member->state,
                            member->reason.empty() ? "" : " (" + member->reason + ")"),
                "Wait until `bascule status` shows it streaming");
}

}  // namespace

Status check_candidate(const ClusterView& view, const NodeName& candidate, Accept accept) {
  if (candidate.empty()) return {};
  const control::MemberRecord* member = view.member(candidate);
  if (member == nullptr) {
    const auto names = member_names(view);
    const std::string near = nearest(candidate.str(), names);
    return refuse(fmt::format("there is no member \"{}\"", candidate.str()),
                  near.empty() ? fmt::format("Members: {}", fmt::join(names, ", "))
                               : fmt::format("Did you mean \"{}\"?", near));
  }
  if (view.leader && view.leader->value.holder == candidate) {
    return refuse(fmt::format("{} is the leader already", candidate.str()),
                  "Name another member or none");
  }
  if (member->nofailover && accept == Accept::kEligible) {
    return refuse(fmt::format("{} is configured as nofailover", candidate.str()),
                  "Name another member or change its configuration");
  }
  return {};
}

Result<store::Txn> open_request(const ClusterView& view, const control::Keys& keys,
                                const RequestRecord& request) {
  if (!view.leader) {
    return refuse("the cluster has no leader record yet", "Wait until it is bootstrapped");
  }
  if (view.request && view.request->value.outcome.empty() &&
      !request.confirms(view.request->value)) {
    const RequestRecord& open = view.request->value;
    return refuse(fmt::format("request {} (by {}) is still being carried out: {}", open.id, open.by,
                              describe_progress(open)),
                  "`bascule status --watch` follows it");
  }
  if (view.paused) {
    return refuse("the cluster is paused", "`bascule resume` first");
  }
  const control::LeaderRecord& leader = view.leader->value;
  if (request.kind == RequestKind::kSwitchover && leader.phase != control::LeaderPhase::kRunning) {
    return refuse(
        leader.vacant()
            ? fmt::format("there is no leader to switch over from: {}", leader.why)
            : fmt::format("the leader {} is {}", leader.holder.str(), to_string(leader.phase)),
        "A switchover needs a running primary; `bascule failover` does not");
  }
  const Accept accept = request.force ? Accept::kAnyMember : Accept::kEligible;
  if (const auto good = check_candidate(view, request.candidate, accept); !good) {
    return std::unexpected(good.error());
  }
  if (request.kind == RequestKind::kSwitchover) {
    const auto good = check_streaming(view, request.candidate);
    if (!good) return std::unexpected(good.error());
  }
  store::Txn txn;
  txn.compares.push_back({keys.request(), view.request ? view.request->revision : 0});
  txn.compares.push_back({keys.pause(), 0});
  txn.writes.push_back({keys.request(), encode(request)});
  return txn;
}

Result<store::Txn> change_pause(const ClusterView& view, const control::Keys& keys,
                                PauseChange change, const std::string& by) {
  const bool pause = change == PauseChange::kPause;
  if (view.paused == pause) {
    return refuse(pause ? "the cluster is paused already" : "the cluster is not paused", "");
  }
  store::Txn txn;
  if (pause) {
    txn.compares.push_back({keys.pause(), 0});
    txn.writes.push_back({keys.pause(), nlohmann::json{{"by", by}}.dump()});
  } else {
    txn.writes.push_back({keys.pause(), std::nullopt});
  }
  return txn;
}

std::string describe_progress(const RequestRecord& request) {
  if (!request.outcome.empty()) return request.outcome;
  const std::string& step = request.progress;
  if (step.empty()) return "waiting for the leader to take it up";
  if (step == "checking") return "checking the candidate";
  if (step == "draining") return "proxies hold new transactions, running ones end";
  if (step == "stopping") return "shutting the primary down cleanly";
  if (step == "handed over") return "handed over, the candidate is being promoted";
  return step;
}

}  // namespace bascule::cli
