// What agents say to each other (POST /peer): envelopes of whoever can reach the port, and answers
// of whoever listens where an agent should. Whatever the bytes, they are read or refused, and what
// is taken is taken once. The seeds (node_peers_seeds.py) have right seals, so that what is behind
// them is reached.
#include <cstddef>
#include <cstdint>
#include <string>

#include "fuzz/check.h"
#include "node/peers.h"

namespace {

using namespace bascule;

class NoEntropy : public env::Entropy {
 public:
  void fill(std::span<uint8_t> out) override {
    for (uint8_t& byte : out) byte = 1;
  }
};

class OneAnswer : public env::HttpClient {
 public:
  explicit OneAnswer(std::string answer) : answer_(std::move(answer)) {}
  uint64_t send(env::HttpRequest, DoneCallback done) override {
    env::HttpAnswer answer;
    answer.status = 200;
    answer.body = answer_;
    done(std::move(answer));
    return 1;
  }
  uint64_t stream(env::HttpRequest, DataCallback, DoneCallback) override { return 0; }
  void cancel(uint64_t) override {}

 private:
  const std::string answer_;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string text(reinterpret_cast<const char*>(data), size);
  const NodeName n1 = *NodeName::parse("n1"), n2 = *NodeName::parse("n2");
  NoEntropy entropy;
  OneAnswer http(text);
  node::Peers asks({"main", n1, "secret"}, &http, entropy);
  node::Peers asked({"main", n2, "secret"}, nullptr, entropy);
  if (const auto opened = asked.open(text)) {
    BASCULE_FUZZ_CHECK(!asked.open(text));
    BASCULE_FUZZ_CHECK(!asked.seal(*opened, {}).empty());
  }
  int answers = 0;
  asks.ask(n2, "http://n2", {control::PeerRequest::Kind::kLook, n1, {}, {}, {}},
           [&](control::PeerOutcome, const control::PeerReply&) { ++answers; });
  BASCULE_FUZZ_CHECK(answers == 1);
  return 0;
}
