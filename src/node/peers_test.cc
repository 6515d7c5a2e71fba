#include "node/peers.h"

#include <gtest/gtest.h>

#include <deque>

namespace bascule::node {
namespace {

using control::PeerOutcome;
using control::PeerReply;
using control::PeerRequest;

NodeName name(std::string_view text) { return *NodeName::parse(text); }

class CountingEntropy : public env::Entropy {
 public:
  void fill(std::span<uint8_t> out) override {
    for (uint8_t& byte : out) byte = next_++;
  }

 private:
  uint8_t next_ = 1;
};

class FakeHttp : public env::HttpClient {
 public:
  uint64_t send(env::HttpRequest request, DoneCallback done) override {
    requests.push_back(std::move(request));
    answers.push_back(std::move(done));
    return requests.size();
  }
  uint64_t stream(env::HttpRequest, DataCallback, DoneCallback) override { return 0; }
  void cancel(uint64_t) override {}
  std::vector<env::HttpRequest> requests;
  std::vector<DoneCallback> answers;
};

class PeersTest : public ::testing::Test {
 protected:
  // What n1 sends to n2 with this request.
  std::string sent_by(Peers& peers, const PeerRequest& request) {
    peers.ask(name("n2"), "http://10.0.0.2:8008", request,
              [this](PeerOutcome outcome, PeerReply reply) {
                outcomes.push_back(outcome);
                replies.push_back(std::move(reply));
              });
    return http.requests.back().body;
  }
  void answer(int status, std::string body, bool refused = false) {
    env::HttpAnswer out;
    out.status = status;
    out.body = std::move(body);
    out.refused = refused;
    http.answers.back()(std::move(out));
  }
  FakeHttp http;
  CountingEntropy entropy;
  Peers n1{{"main", name("n1"), "secret"}, &http, entropy};
  Peers n2{{"main", name("n2"), "secret"}, nullptr, entropy};
  PeerRequest pledge{PeerRequest::Kind::kPledge, name("n1"), Epoch{7}, Millis{5000}, Lsn{42}};
  std::vector<PeerOutcome> outcomes;
  std::vector<PeerReply> replies;
};

TEST_F(PeersTest, ARequestArrivesAndItsAnswerIsBelieved) {
  const auto opened = n2.open(sent_by(n1, pledge));
  ASSERT_TRUE(opened) << opened.error().message;
  EXPECT_EQ(opened->request, pledge);
  EXPECT_EQ(http.requests[0].url, "http://10.0.0.2:8008/peer");
  const PeerReply granted{.granted = true, .leading = {}, .sync_name = "n2_a", .why = ""};
  answer(200, n2.seal(*opened, granted));
  ASSERT_EQ(outcomes, std::vector{PeerOutcome::kAnswered});
  EXPECT_EQ(replies[0], granted);
}

TEST_F(PeersTest, WhoDoesNotKnowTheSecretIsNotListenedTo) {
  Peers stranger({"main", name("n1"), "guess"}, &http, entropy);
  EXPECT_FALSE(n2.open(sent_by(stranger, pledge)));
  Peers other_cluster({"test", name("n1"), "secret"}, &http, entropy);
  EXPECT_FALSE(n2.open(sent_by(other_cluster, pledge)));
  Peers nobody({"main", name("n1"), ""}, &http, entropy);
  EXPECT_FALSE(n2.open(sent_by(nobody, pledge)));
}

TEST_F(PeersTest, ARequestForSomebodyElseIsRefused) {
  Peers n3({"main", name("n3"), "secret"}, nullptr, entropy);
  EXPECT_FALSE(n3.open(sent_by(n1, pledge)));
}

TEST_F(PeersTest, ARecordedRequestIsTakenOnce) {
  const std::string first = sent_by(n1, pledge);
  const std::string second = sent_by(n1, pledge);
  EXPECT_TRUE(n2.open(first));
  EXPECT_TRUE(n2.open(second));
  EXPECT_FALSE(n2.open(first));
  EXPECT_FALSE(n2.open(second));
  Peers again({"main", name("n1"), "secret"}, &http, entropy);  // its agent was restarted
  EXPECT_TRUE(n2.open(sent_by(again, pledge)));
  EXPECT_FALSE(n2.open(second)) << "of a life that is over";
}

TEST_F(PeersTest, AnAnswerToAnotherRequestIsNone) {
  const auto first = n2.open(sent_by(n1, pledge));
  const std::string granted =
      n2.seal(*first, {.granted = true, .leading = {}, .sync_name = "", .why = ""});
  sent_by(n1, pledge);
  answer(200, granted);
  EXPECT_EQ(outcomes.back(), PeerOutcome::kSilent);
}

TEST_F(PeersTest, RefusedAndSilentAreToldApart) {
  sent_by(n1, pledge);
  answer(0, "", /*refused=*/true);
  sent_by(n1, pledge);
  answer(0, "");
  sent_by(n1, pledge);
  answer(403, "{}");
  EXPECT_EQ(outcomes,
            (std::vector{PeerOutcome::kRefused, PeerOutcome::kSilent, PeerOutcome::kSilent}));
}

TEST_F(PeersTest, WhatIsNoMessageIsRefused) {
  for (const char* text : {"", "[]", "{}", "{\"n\": -1}", "{\"message\": 3, \"mac\": \"00\"}"}) {
    EXPECT_FALSE(n2.open(text)) << text;
  }
  EXPECT_FALSE(n2.open(std::string(100000, '{')));
}

}  // namespace
}  // namespace bascule::node
