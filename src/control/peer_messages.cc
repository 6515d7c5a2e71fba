// JSON form of what agents say to each other.
#include "control/events.h"
#include "control/json_reader.h"

namespace bascule::control {
namespace {

constexpr std::pair<PeerRequest::Kind, std::string_view> kKinds[] = {
    {PeerRequest::Kind::kLook, "look"},
    {PeerRequest::Kind::kPledge, "pledge"},
};

}  // namespace

std::string encode(const PeerRequest& r) {
  return dump({{"kind", name_of(kKinds, r.kind)},
               {"from", r.from.str()},
               {"epoch", r.epoch.value},
               {"ttlMs", r.ttl.count()},
               {"flushLsn", r.flush_lsn.to_string()}});
}

Result<PeerRequest> decode_peer_request(std::string_view text) {
  JsonReader r(text, "peer request");
  PeerRequest out;
  r.required_choice("kind", kKinds, out.kind);
  r.name("from", out.from);
  r.number("epoch", out.epoch.value);
  r.duration("ttlMs", out.ttl);
  r.lsn("flushLsn", out.flush_lsn);
  r.check(!out.from.empty(), "from is missing");
  r.check(out.ttl >= 0ms && out.ttl <= 10min, "ttlMs is out of range");
  return r.finish(std::move(out));
}

std::string encode(const PeerReply& r) {
  return dump({{"granted", r.granted},
               {"leading", r.leading.value},
               {"syncName", r.sync_name},
               {"why", r.why}});
}

Result<PeerReply> decode_peer_reply(std::string_view text) {
  JsonReader r(text, "peer reply");
  PeerReply out;
  r.boolean("granted", out.granted);
  r.number("leading", out.leading.value);
  r.text("syncName", out.sync_name);
  r.text("why", out.why);
  return r.finish(std::move(out));
}

}  // namespace bascule::control
