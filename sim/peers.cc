// What agents say to each other, over the simulated network: one request, one answer or none.
#include <utility>

#include "sim/member.h"

namespace bascule::sim {

using namespace control;

namespace {
constexpr Nanos kSilentAfter = millis(400);  // as node::Peers
}

void Member::carry_out_one(effect::AskPeer& e) {
  // Each request ends once: by its answer, by a refusal, or by its time.
  auto open = std::make_shared<bool>(true);
  const auto end = [this, open, id = e.id](PeerOutcome outcome, PeerReply reply) {
    if (std::exchange(*open, false)) {
      deliver(event::PeerAnswered{id, outcome, std::move(reply)});
    }
  };
  world_.count(e.request.kind == PeerRequest::Kind::kLook ? "peer.look" : "peer.pledge");
  world_.after(kSilentAfter, agent_process_, [end] { end(PeerOutcome::kSilent, {}); });
  Member* target = find_peer ? find_peer(e.member) : nullptr;
  if (target == nullptr || !target->up_ || target->faults_.api_silent) return;
  // The kernel of the host answers for a process that is gone.
  const auto arrived = [this, target, end, request = e.request] {
    if (target->agent_ == nullptr) {
      world_.send(target->host_, host_, agent_process_, [end] { end(PeerOutcome::kRefused, {}); });
      return;
    }
    target->asked(
        [this, target, end](PeerReply reply) {
          world_.send(target->host_, host_, agent_process_,
                      [end, reply = std::move(reply)] { end(PeerOutcome::kAnswered, reply); });
        },
        request);
  };
  const ProcessId receiver = target->agent_ ? target->agent_process_ : target->service_manager_;
  world_.send(host_, target->host_, receiver, arrived);
}

void Member::asked(std::function<void(PeerReply)> answer, const PeerRequest& request) {
  const uint64_t token = ++peer_token_;
  answers_[token] = {std::move(answer), request};
  deliver(event::PeerAsked{token, request});
}

void Member::carry_out_one(effect::AnswerPeer& e) {
  const auto found = answers_.find(e.token);
  if (found == answers_.end()) return;
  const auto [answer, request] = std::move(found->second);
  answers_.erase(found);
  if (e.reply.granted) {
    world_.count("peer.pledged");
    observer_.pledged(*this, request, world_.local(host_) + request.ttl);
  }
  answer(std::move(e.reply));
}

}  // namespace bascule::sim
