// EtcdStore against members that the test plays itself: what a request's lost, late and doubled
// answers mean. Against real ones: tests/integration/etcd_store_test.cc.
#include "store/etcd_store.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "base/base64.h"
#include "posix/reactor.h"

namespace bascule::store {
namespace {

using env::HttpAnswer;
using ::testing::HasSubstr;
using ::testing::Not;

// Keeps every request until the test answers it.
class FakeHttp final : public env::HttpClient {
 public:
  struct Open {
    uint64_t id = 0;
    env::HttpRequest request;
    DataCallback data;
    DoneCallback done;
  };
  uint64_t send(env::HttpRequest request, DoneCallback done) override {
    open.push_back({next_, std::move(request), nullptr, std::move(done)});
    return next_++;
  }
  uint64_t stream(env::HttpRequest request, DataCallback data, DoneCallback done) override {
    open.push_back({next_, std::move(request), std::move(data), std::move(done)});
    return next_++;
  }
  void cancel(uint64_t id) override {
    cancelled += std::erase_if(open, [&](const Open& o) { return o.id == id; });
  }

  std::vector<Open> open;
  size_t cancelled = 0;

 private:
  uint64_t next_ = 1;
};

HttpAnswer body(std::string text) { return {200, std::move(text), HttpAnswer::Sent::kNo, ""}; }
HttpAnswer broken(HttpAnswer::Sent sent) { return {0, "", sent, "connection reset"}; }
HttpAnswer no_leader() {
  return {503, R"({"error":"etcdserver: no leader","code":14})", HttpAnswer::Sent::kNo, ""};
}
std::string identity_kv(int revision) {
  return R"({"key":")" + base64_encode("bascule-store/identity") + R"(","mod_revision":")" +
         std::to_string(revision) + R"(","value":")" + base64_encode("id-1") + "\"}";
}
HttpAnswer committed() {
  return body(R"({"header":{"cluster_id":"5","revision":"11"},"succeeded":true})");
}
HttpAnswer conflict(int identity_revision = 2) {
  return body(R"({"header":{"cluster_id":"5","revision":"11"},"responses":[{"response_range":)"
              R"({"kvs":[)" +
              identity_kv(identity_revision) + "]}}]}");
}
HttpAnswer empty_read() {
  return body(R"({"header":{"cluster_id":"5","revision":"9"},"succeeded":true,"responses":[)"
              R"({"response_range":{}},{"response_range":{"kvs":[)" +
              identity_kv(2) + "]}}]}");
}

class EtcdStoreTest : public ::testing::Test {
 protected:
  EtcdStoreTest() {
    EtcdOptions options;
    options.endpoints = {"http://a:1", "http://b:1", "http://c:1"};
    options.identity = "id";
    options.timeout = 400ms;
    options.attempt = 40ms;
    store = std::make_unique<EtcdStore>(options, loop, http);
    // So that it knows the store's identity.
    store->read("", [this](Result<Snapshot> seen) {
      EXPECT_TRUE(seen.has_value());
      loop.stop();
    });
    wait_for_requests(1);
    answer(0, empty_read());
    EXPECT_TRUE(http.open.empty());
  }

  bool await(const std::function<bool()>& done, Millis limit = 5s) {
    const MonoTime end = loop.now() + limit;
    while (!done() && loop.now() < end) {
      loop.call_after(2ms, [this] { loop.stop(); });
      loop.run();
    }
    return done();
  }
  void wait_for_requests(size_t count) {
    ASSERT_TRUE(await([&] { return http.open.size() >= count; })) << count << " requests";
  }
  void answer(size_t index, HttpAnswer with) {
    auto open = std::move(http.open[index]);
    http.open.erase(http.open.begin() + static_cast<std::ptrdiff_t>(index));
    open.done(std::move(with));
  }
  std::string host(size_t index) { return http.open[index].request.url.substr(7, 1); }
  void commit(Txn txn) {
    result.reset();
    store->commit(std::move(txn), [this](TxnResult r) { result = std::move(r); });
  }
  void renew() { commit({{{"k", 9}}, {{"k", "v"}}}); }
  TxnResult outcome() {
    EXPECT_TRUE(await([&] { return result.has_value(); }));
    return result.value_or(TxnResult{});
  }

  posix::Reactor loop;
  FakeHttp http;
  std::unique_ptr<EtcdStore> store;
  std::optional<TxnResult> result;
};

TEST_F(EtcdStoreTest, ARenewalWhoseAnswerWasLostIsSentAgainElsewhere) {
  renew();
  wait_for_requests(1);
  const std::string first = host(0);
  answer(0, broken(HttpAnswer::Sent::kPerhaps));
  wait_for_requests(1);
  EXPECT_NE(host(0), first);
  answer(0, committed());
  EXPECT_EQ(outcome().outcome, TxnOutcome::kCommitted);
}

TEST_F(EtcdStoreTest, AConflictAfterALostAnswerIsUnknownBecauseItMayBeWithOneself) {
  renew();
  wait_for_requests(1);
  answer(0, broken(HttpAnswer::Sent::kPerhaps));
  wait_for_requests(1);
  answer(0, conflict());
  EXPECT_EQ(outcome().outcome, TxnOutcome::kUnknown);
  EXPECT_THAT(result->error, HasSubstr("may have been applied"));
}

TEST_F(EtcdStoreTest, AConflictAfterAnAttemptThatWasNotSentIsAConflict) {
  renew();
  wait_for_requests(1);
  answer(0, broken(HttpAnswer::Sent::kNo));
  wait_for_requests(1);
  answer(0, no_leader());
  wait_for_requests(1);
  answer(0, conflict());
  EXPECT_EQ(outcome().outcome, TxnOutcome::kConflict);
}

TEST_F(EtcdStoreTest, OfTwoAttemptsUnderWayTheConflictWaitsForTheOther) {
  renew();
  wait_for_requests(2);  // the first was silent
  answer(1, conflict());
  EXPECT_FALSE(result.has_value());
  answer(0, committed());
  EXPECT_EQ(outcome().outcome, TxnOutcome::kCommitted);

  renew();
  wait_for_requests(2);
  answer(1, conflict());
  answer(0, conflict());
  EXPECT_EQ(outcome().outcome, TxnOutcome::kConflict);
}

TEST_F(EtcdStoreTest, ATransactionThatCouldSucceedTwiceIsSentOnce) {
  const Txn unguarded[] = {
      {{}, {{"k", "v"}}},
      {{{"k", 0}}, {{"k", "v"}}},  // absent now, and perhaps again after a deletion
      {{{"other", 9}}, {{"k", "v"}}},
  };
  for (const Txn& txn : unguarded) {
    commit(txn);
    wait_for_requests(1);
    EXPECT_FALSE(await([&] { return http.open.size() > 1; }, 150ms)) << "sent twice";
    answer(0, broken(HttpAnswer::Sent::kPerhaps));
    EXPECT_EQ(outcome().outcome, TxnOutcome::kUnknown);
    EXPECT_THAT(result->error, HasSubstr("may still be applied"));
    EXPECT_TRUE(http.open.empty());
    // Where it certainly was not carried out it may.
    commit(txn);
    wait_for_requests(1);
    answer(0, no_leader());
    wait_for_requests(1);
    answer(0, committed());
    EXPECT_EQ(outcome().outcome, TxnOutcome::kCommitted);
  }
}

TEST_F(EtcdStoreTest, SilenceEndsAtTheDeadlineAsUnknown) {
  renew();
  const MonoTime begun = loop.now();
  EXPECT_EQ(outcome().outcome, TxnOutcome::kUnknown);
  EXPECT_GE(loop.now() - begun, 390ms);
  EXPECT_LT(loop.now() - begun, 800ms);
  EXPECT_THAT(result->error, HasSubstr("may still be applied"));
  EXPECT_TRUE(http.open.empty()) << "abandoned requests are cancelled";
}

TEST_F(EtcdStoreTest, WhatNobodyTookIsSaidToBeNotApplied) {
  // Once more where the deadline came while an attempt was open: whether somebody took that one
  // is rightly not known.
  int tries = 0;
  do {
    http.cancelled = 0;
    renew();
    while (!result) {
      if (http.open.empty()) {
        await([&] { return !http.open.empty() || result; }, 1s);
      } else {
        answer(0, broken(HttpAnswer::Sent::kNo));
      }
    }
    EXPECT_EQ(result->outcome, TxnOutcome::kUnknown);
  } while (http.cancelled != 0 && ++tries < 20);
  EXPECT_EQ(http.cancelled, 0) << "every deadline came while an attempt was open";
  EXPECT_THAT(result->error, HasSubstr("not applied"));
}

TEST_F(EtcdStoreTest, NothingIsWrittenToAStoreMadeAnew) {
  renew();
  wait_for_requests(1);
  const auto sent = nlohmann::json::parse(http.open[0].request.body);
  EXPECT_EQ(sent["compare"].back()["key"], base64_encode("bascule-store/identity"));
  EXPECT_EQ(sent["compare"].back()["mod_revision"], "2");
  answer(0, conflict(/*identity_revision=*/3));
  EXPECT_EQ(outcome().outcome, TxnOutcome::kUnknown);
  EXPECT_THAT(result->error, HasSubstr("not applied"));
}

TEST_F(EtcdStoreTest, MalformedAnswersAreNeverTakenForSuccess) {
  renew();
  wait_for_requests(1);
  answer(0, body("{\"succeeded\":true}"));
  EXPECT_EQ(outcome().outcome, TxnOutcome::kUnknown);
  Result<Snapshot> seen = fail(ErrorCode::kInternal, "");
  bool called = false;
  store->read("k", [&](Result<Snapshot> r) {
    seen = std::move(r);
    called = true;
  });
  wait_for_requests(1);
  answer(0, body(R"({"header":{"cluster_id":"5","revision":"9"},"responses":[{"response_range":)"
                 R"({"kvs":[{"key":"enp6","mod_revision":"3"}]}},{"response_range":{"kvs":[)" +
                 identity_kv(2) + "]}}]}"));
  ASSERT_TRUE(called);
  EXPECT_FALSE(seen.has_value()) << "a key that was not asked for";
}

// Of the keys behind "w/", of which there are `count`.
HttpAnswer found(int revision, std::initializer_list<std::pair<std::string, int>> keys, int count,
                 int identity_revision = 2) {
  std::string kvs;
  for (const auto& [key, mod] : keys) {
    if (!kvs.empty()) kvs += ",";
    kvs += fmt::format(R"({{"key":"{}","mod_revision":"{}","value":"{}"}})", base64_encode(key),
                       mod, base64_encode(std::to_string(mod)));
  }
  return body(fmt::format(
      R"({{"header":{{"cluster_id":"5","revision":"{}"}},"succeeded":true,"responses":[)"
      R"({{"response_range":{{"kvs":[{}],"count":"{}"}}}},{{"response_range":{{"kvs":[{}]}}}}]}})",
      revision, kvs, count, identity_kv(identity_revision)));
}

class EtcdStoreCopyTest : public EtcdStoreTest {
 protected:
  EtcdStoreCopyTest() {
    store->watch("w/", [] {});
    wait_for_requests(1);  // the watch, which hears nothing
    ask();
    EXPECT_FALSE(asks_for_changes());
    answer(1, found(12, {{"w/a", 10}, {"w/b", 12}}, 2));
    EXPECT_EQ(keys(), "w/a=10 w/b=12");
  }

  void ask() {
    seen.reset();
    store->read("w/", [this](Result<Snapshot> r) { seen = std::move(r); });
    wait_for_requests(2);
  }
  bool asks_for_changes() { return http.open[1].request.body.contains("min_mod_revision"); }
  std::string keys() {
    if (!seen || !*seen) return "none";
    std::string out;
    for (const Entry& entry : (*seen)->entries) {
      out += (out.empty() ? "" : " ") + entry.key + "=" + entry.value;
    }
    return out;
  }

  std::optional<Result<Snapshot>> seen;
};

TEST_F(EtcdStoreCopyTest, AReadAsksForWhatChangedSinceTheOneBefore) {
  ask();
  EXPECT_THAT(http.open[1].request.body, HasSubstr(R"("min_mod_revision":"13")"));
  answer(1, found(15, {{"w/a", 14}, {"w/c", 15}}, 3));
  EXPECT_EQ(keys(), "w/a=14 w/b=12 w/c=15");
  EXPECT_EQ((*seen)->revision, 15u);
  ask();
  EXPECT_THAT(http.open[1].request.body, HasSubstr(R"("min_mod_revision":"16")"));
  answer(1, found(15, {}, 3));
  EXPECT_EQ(keys(), "w/a=14 w/b=12 w/c=15");
}

TEST_F(EtcdStoreCopyTest, ADeletionShowsInTheCountAndEverythingIsRead) {
  ask();
  answer(1, found(15, {{"w/c", 15}}, 2));
  wait_for_requests(2);
  EXPECT_FALSE(seen.has_value());
  EXPECT_FALSE(asks_for_changes());
  answer(1, found(15, {{"w/b", 12}, {"w/c", 15}}, 2));
  EXPECT_EQ(keys(), "w/b=12 w/c=15");
}

TEST_F(EtcdStoreCopyTest, AfterAnotherConnectionEverythingIsRead) {
  ask();
  HttpAnswer over_another = found(15, {}, 2);  // a store that was restored would say that
  over_another.connected = true;
  answer(1, std::move(over_another));
  wait_for_requests(2);
  EXPECT_FALSE(asks_for_changes());
  answer(1, found(15, {{"w/a", 11}, {"w/b", 13}}, 2));
  EXPECT_EQ(keys(), "w/a=11 w/b=13");
}

TEST_F(EtcdStoreCopyTest, AfterABrokenConnectionEverythingIsRead) {
  ask();
  answer(1, broken(HttpAnswer::Sent::kPerhaps));
  wait_for_requests(2);
  answer(1, found(15, {}, 2));
  wait_for_requests(2);
  EXPECT_FALSE(asks_for_changes());
  answer(1, found(15, {{"w/a", 11}}, 1));
  EXPECT_EQ(keys(), "w/a=11");
}

TEST_F(EtcdStoreCopyTest, OfAStoreMadeAnewEverythingIsRead) {
  ask();
  answer(1, found(15, {}, 2, /*identity_revision=*/3));
  wait_for_requests(2);
  EXPECT_FALSE(asks_for_changes());
  answer(1, found(15, {{"w/a", 11}}, 1, /*identity_revision=*/3));
  EXPECT_EQ(keys(), "w/a=11");
}

TEST_F(EtcdStoreCopyTest, ARevisionThatWentBackMakesEverythingBeRead) {
  ask();
  answer(1, found(11, {}, 2));
  wait_for_requests(2);
  EXPECT_FALSE(asks_for_changes());
  answer(1, found(11, {{"w/a", 10}}, 1));
  EXPECT_EQ(keys(), "w/a=10");
}

TEST_F(EtcdStoreCopyTest, NowAndThenEverythingIsRead) {
  await([] { return false; }, EtcdStore::kCopyAgeMax);
  ask();
  EXPECT_FALSE(asks_for_changes());
}

TEST_F(EtcdStoreCopyTest, ReadsOfOneTurnAreOneRequest) {
  int answers = 0;
  store->read("w/", [&](Result<Snapshot> r) { answers += r.has_value(); });
  store->read("w/", [&](Result<Snapshot> r) { answers += r.has_value(); });
  wait_for_requests(2);
  EXPECT_FALSE(await([&] { return http.open.size() > 2; }, 20ms));
  answer(1, found(12, {}, 2));
  EXPECT_EQ(answers, 2);
}

TEST_F(EtcdStoreTest, AWatchBrokenOffResumesBehindTheLastChangeAtAnotherMember) {
  int calls = 0;
  store->watch("w/", [&] { ++calls; });
  wait_for_requests(1);
  const std::string first = host(0);
  const auto send = [&](const char* line) { http.open[0].data(line); };
  send("{\"result\":{\"header\":{\"revision\":\"9\"},\"created\":true}}\n{\"result\":");
  ASSERT_TRUE(await([&] { return calls == 1; }));
  send("{\"header\":{\"revision\":\"12\"},\"events\":[{\"kv\":{\"mod_revision\":\"11\"}}]}}\n");
  ASSERT_TRUE(await([&] { return calls == 2; }));
  answer(0, broken(HttpAnswer::Sent::kPerhaps));
  wait_for_requests(1);
  EXPECT_NE(host(0), first);
  EXPECT_THAT(http.open[0].request.body, HasSubstr("\"start_revision\":\"12\""));

  send(
      "{\"result\":{\"header\":{\"revision\":\"30\"},\"canceled\":true,"
      "\"compact_revision\":\"20\"}}\n");
  ASSERT_TRUE(await([&] {
    return http.open.size() == 1 &&
           http.open[0].request.body.find("start_revision") == std::string::npos;
  }));
  const int before = calls;
  send("{\"result\":{\"header\":{\"revision\":\"30\"},\"created\":true}}\n");
  EXPECT_TRUE(await([&] { return calls > before; })) << "what was missed is told";
}

TEST_F(EtcdStoreTest, AWatchThatHearsNothingHasTheCallerLookAgain) {
  int calls = 0;
  store->watch("w/", [&] { ++calls; });
  EXPECT_TRUE(await([&] { return calls >= 3; }, 3500ms));
}

TEST(EtcdOptions, WrongOnesAreNamed) {
  EtcdOptions good;
  good.endpoints = {"https://10.0.0.1:2379", "https://[::1]:2379", "https://db-1.example:2379"};
  EXPECT_TRUE(validate(good).has_value());
  const auto problem = [&](auto change) {
    EtcdOptions options = good;
    change(options);
    const auto status = validate(options);
    return status ? std::string("valid") : status.error().message;
  };
  EXPECT_THAT(problem([](auto& o) { o.endpoints.clear(); }), HasSubstr("endpoints"));
  EXPECT_THAT(problem([](auto& o) { o.endpoints[1] = "http://b:1"; }), HasSubstr("all of them"));
  EXPECT_THAT(problem([](auto& o) { o.endpoints[1] = o.endpoints[0]; }), HasSubstr("twice"));
  for (const char* bad : {"10.0.0.1:2379", "https://user:pw@host:1", "https://host:1/path",
                          "https://host", "https://", "ftp://host:1", "https://host:1\r\nX: y"}) {
    EXPECT_THAT(problem([&](auto& o) { o.endpoints = {bad}; }), HasSubstr("expected")) << bad;
  }
  EXPECT_THAT(problem([](auto& o) { o.user = "u"; }), HasSubstr("password"));
  EXPECT_THAT(problem([](auto& o) { o.prefix = std::string(200, 'x'); }), HasSubstr("prefix"));
}

}  // namespace
}  // namespace bascule::store
