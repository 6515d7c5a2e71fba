// JSON form of what agents say to each other.
#include "control/events.h"
#include "control/json_fields.h"

namespace bascule::control {
namespace {

constexpr std::pair<PeerRequest::Kind, std::string_view> kKinds[] = {
    {PeerRequest::Kind::kLook, "look"},
    {PeerRequest::Kind::kPledge, "pledge"},
};

}  // namespace

static void fields(auto& f, Of<PeerRequest> auto& request) {
  f.required_choice("kind", kKinds, request.kind);
  f.name("from", request.from);
  f.number("epoch", request.epoch.value);
  f.duration("ttlMs", request.ttl);
  f.lsn("flushLsn", request.flush_lsn);
  f.check(!request.from.empty(), "from is missing");
  f.check(request.ttl >= 0ms && request.ttl <= 10min, "ttlMs is out of range");
}

static void fields(auto& f, Of<PeerReply> auto& reply) {
  f.boolean("granted", reply.granted);
  f.number("leading", reply.leading.value);
  f.text("syncName", reply.sync_name);
  f.text("why", reply.why);
}

std::string encode(const PeerRequest& r) { return write_record(r); }
Result<PeerRequest> decode_peer_request(std::string_view text) {
  return read_record<PeerRequest>(text, "peer request");
}
std::string encode(const PeerReply& r) { return write_record(r); }
Result<PeerReply> decode_peer_reply(std::string_view text) {
  return read_record<PeerReply>(text, "peer reply");
}

}  // namespace bascule::control
