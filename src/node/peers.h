// Agent to agent: POST <api_url>/peer. Requests and answers are sealed with a key made of the
// replication password, which all members share: whoever does not know it can neither pledge nor
// be pledged to. Sealed, not encrypted: nothing in them is secret.
//
//   request {"cluster", "to", "run", "n", "message": "<json>", "mac"}
//   answer  {"message": "<json>", "mac"}       whose mac covers run and n of the request
//
// `run` is random for each life of an agent and `n` ascends: a request that was recorded is not
// taken twice.
//
// Loop's thread only.
#pragma once

#include <deque>
#include <functional>
#include <map>
#include <string>

#include "base/result.h"
#include "base/types.h"
#include "control/events.h"
#include "env/entropy.h"
#include "env/http.h"

namespace bascule::node {

class Peers {
 public:
  struct Identity {
    std::string cluster;
    NodeName me;
    std::string secret;
  };
  // http: nullptr: nobody can be asked (every outcome is kSilent); must outlive this.
  Peers(Identity identity, env::HttpClient* http, env::Entropy& entropy);

  using Answered = std::function<void(control::PeerOutcome, control::PeerReply)>;
  // `done` is called once, within half a second, possibly inside the call.
  void ask(const NodeName& member, const std::string& url, const control::PeerRequest& request,
           Answered done);

  struct Opened {
    control::PeerRequest request;
    std::string run;
    uint64_t n = 0;
  };
  // kInvalid: not sealed by a member of this cluster for this member, or seen before.
  Result<Opened> open(const std::string& sealed);
  std::string seal(const Opened& question, const control::PeerReply& reply) const;

 private:
  struct Seen {
    std::string run;
    uint64_t n = 0;
    std::deque<std::string> retired;  // runs before, as many as are likely to have been recorded
  };
  std::string mac(const std::string& text) const;
  std::string seal(const NodeName& to, uint64_t n, const control::PeerRequest& request) const;
  Result<control::PeerReply> open_reply(const std::string& sealed, uint64_t n) const;

  const Identity identity_;
  env::HttpClient* const http_;
  const std::string run_;
  uint64_t next_ = 1;
  std::map<NodeName, Seen> seen_;  // of each member's newest life
};

}  // namespace bascule::node
