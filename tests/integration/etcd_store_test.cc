// EtcdStore against real etcd clusters of three members: the store's contract, then what only
// several members can do to it.
#include "store/etcd_store.h"

#include <fmt/format.h>
#include <unistd.h>

#include "posix/http_curl.h"
#include "store/contract_shared_test.h"
#include "store/contract_test.h"
#include "tests/integration/etcd_cluster.h"

namespace bascule::store::contract {
namespace {

using bascule::testing::EtcdCluster;
using bascule::testing::EtcdClusterOptions;
using ::testing::AnyOf;
using ::testing::HasSubstr;
using ::testing::Not;

// A store with the client that it needs.
class EtcdStoreWithClient final : public Store {
 public:
  EtcdStoreWithClient(EtcdOptions options, env::HttpTls tls, env::Loop& loop)
      : http_(loop, std::move(tls)), store_(std::move(options), loop, http_) {}
  void read(std::string prefix, ReadCallback callback) override {
    store_.read(std::move(prefix), std::move(callback));
  }
  void commit(Txn txn, TxnCallback callback) override {
    store_.commit(std::move(txn), std::move(callback));
  }
  uint64_t watch(std::string prefix, WatchCallback callback) override {
    return store_.watch(std::move(prefix), std::move(callback));
  }
  void unwatch(uint64_t id) override { store_.unwatch(id); }

 private:
  posix::CurlHttp http_;
  EtcdStore store_;
};

// One cluster for all tests of the contract; each has a prefix of its own.
EtcdCluster& shared_cluster() {
  static EtcdCluster cluster;
  return cluster;
}

EtcdOptions options_for(const EtcdCluster& cluster, std::string prefix) {
  static int created = 0;
  EtcdOptions options;
  options.endpoints = cluster.endpoints();
  options.prefix = std::move(prefix);
  options.identity = fmt::format("id-{}-{}", ++created, ::getpid());
  options.timeout = 15s;  // the contract is not about a loaded machine
  options.attempt = 3s;
  return options;
}

class Etcd {
 public:
  Etcd() : prefix_(fmt::format("/test-{}/", ++counter_)) { shared_cluster(); }
  std::unique_ptr<Store> open(Harness& h) {
    return std::make_unique<EtcdStoreWithClient>(options_for(shared_cluster(), prefix_),
                                                 env::HttpTls{}, h.loop);
  }
  void wipe() { shared_cluster().ctl("del --prefix " + prefix_); }

 private:
  static inline int counter_ = 0;
  std::string prefix_;
};

INSTANTIATE_TYPED_TEST_SUITE_P(Etcd, StoreContract, Etcd);
INSTANTIATE_TYPED_TEST_SUITE_P(Etcd, SharedStoreContract, Etcd);

// The loop of a test and a cluster of its own.
class EtcdFaults : public ::testing::Test {
 protected:
  std::unique_ptr<Store> open(EtcdOptions options, env::HttpTls tls = {}) {
    return std::make_unique<EtcdStoreWithClient>(std::move(options), std::move(tls), h.loop);
  }
  std::unique_ptr<Store> open() { return open(options()); }
  EtcdOptions options() {
    EtcdOptions options = options_for(*cluster, "");
    options.timeout = 4s;
    options.attempt = 250ms;
    return options;
  }
  void make(EtcdClusterOptions how = {}) { cluster = std::make_unique<EtcdCluster>(how); }

  std::unique_ptr<EtcdCluster> cluster;
  Harness h;
};

TEST_F(EtcdFaults, RenewalsSurviveTheLossOfAnyOneMember) {
  make();
  auto store = open();
  const auto first = h.commit(*store, put("leader", "0"));
  ASSERT_EQ(first.outcome, TxnOutcome::kCommitted) << first.error;
  Revision revision = first.revision;
  for (int member = 0; member < cluster->size(); ++member) {
    cluster->kill(member);
    for (int i = 0; i < 3; ++i) {
      const auto begun = h.loop.now();
      const auto renewed = h.commit(*store, compare_and_put("leader", revision, "x"));
      ASSERT_EQ(renewed.outcome, TxnOutcome::kCommitted) << renewed.error;
      EXPECT_LT(h.loop.now() - begun, 3s);
      revision = renewed.revision;
    }
    cluster->start(member);
    ASSERT_TRUE(cluster->wait_healthy());
  }
}

TEST_F(EtcdFaults, ASuspendedMemberIsPassedBy) {
  make();
  auto store = open();
  auto last = h.commit(*store, put("k", "0"));
  ASSERT_EQ(last.outcome, TxnOutcome::kCommitted) << last.error;
  const int leader = cluster->leader();
  for (int member = 0; member < cluster->size(); ++member) {
    if (member == leader) continue;  // the loss of the leader is another test
    cluster->suspend(member);
    const std::string value = std::to_string(member + 1);
    last = h.commit(*store, compare_and_put("k", last.revision, value));
    // Unclear where the first attempt reached the others before its member stopped.
    EXPECT_NE(last.outcome, TxnOutcome::kConflict) << last.error;
    const auto seen = h.read(*store, "k");
    ASSERT_TRUE(seen.has_value());
    ASSERT_EQ(seen->entries.size(), 1u);
    EXPECT_EQ(seen->entries[0].value, value);
    last.revision = seen->entries[0].revision;
    cluster->resume(member);
    ASSERT_TRUE(cluster->wait_healthy());
  }
}

TEST_F(EtcdFaults, LeaderChangesLoseNoIncrement) {
  make();
  auto store = open();
  Revision revision = h.commit(*store, put("n", "0")).revision;
  int value = 0, unclear = 0;
  for (int round = 0; round < 6; ++round) {
    cluster->move_leader_to(round % 3);
    for (int i = 0; i < 20; ++i) {
      const auto result =
          h.commit(*store, compare_and_put("n", revision, std::to_string(value + 1)));
      if (result.outcome == TxnOutcome::kCommitted) {
        revision = result.revision;
        ++value;
        continue;
      }
      // Only one's own lost answers may be in the way, and then the value says which.
      ASSERT_EQ(result.outcome, TxnOutcome::kUnknown);
      ++unclear;
      const auto seen = h.read(*store, "n");
      ASSERT_TRUE(seen.has_value()) << seen.error().to_string();
      revision = seen->entries[0].revision;
      ASSERT_THAT(seen->entries[0].value, AnyOf(std::to_string(value), std::to_string(value + 1)));
      value = std::stoi(seen->entries[0].value);
    }
  }
  EXPECT_LE(unclear, 6);
  EXPECT_EQ(h.read(*store, "n")->entries[0].value, std::to_string(value));
}

TEST_F(EtcdFaults, WithoutAMajorityEveryRequestEndsWithinItsTime) {
  make();
  auto with = options();
  with.timeout = 1s;
  auto store = open(with);
  const auto before = h.commit(*store, put("k", "v"));
  ASSERT_EQ(before.outcome, TxnOutcome::kCommitted) << before.error;
  cluster->kill(0);
  cluster->kill(1);
  for (int i = 0; i < 3; ++i) {
    auto begun = h.loop.now();
    const auto read = h.read(*store, "");
    EXPECT_FALSE(read.has_value());
    EXPECT_LT(h.loop.now() - begun, 1200ms);
    begun = h.loop.now();
    const auto result = h.commit(*store, compare_and_put("k", before.revision, "w"));
    EXPECT_EQ(result.outcome, TxnOutcome::kUnknown);
    EXPECT_FALSE(result.error.empty());
    EXPECT_LT(h.loop.now() - begun, 1200ms);
    // Without a range in it etcd would answer this from what one member remembers.
    const auto look = h.commit(*store, {{{"k", before.revision}}, {}});
    EXPECT_EQ(look.outcome, TxnOutcome::kUnknown);
  }
  cluster->start(0);
  cluster->start(1);
  ASSERT_TRUE(cluster->wait_healthy());
  const auto after = h.read(*store, "k");
  ASSERT_TRUE(after.has_value()) << after.error().to_string();
  EXPECT_THAT(after->entries[0].value, AnyOf("v", "w"));
}

TEST_F(EtcdFaults, WatchGoesOnAtAnotherMember) {
  make();
  auto store = open();
  int calls = 0;
  store->watch("w/", [&] {
    ++calls;
    h.loop.stop();
  });
  ASSERT_TRUE(h.await([&] { return calls > 0; }, 2s));
  for (int member = 0; member < cluster->size(); ++member) {
    cluster->kill(member);
    auto result = TxnResult{};
    // An unguarded write is not repeated by itself once it may have been sent.
    for (int i = 0; i < 5 && result.outcome != TxnOutcome::kCommitted; ++i) {
      result = h.commit(*store, put("w/k", std::to_string(member)));
    }
    ASSERT_EQ(result.outcome, TxnOutcome::kCommitted) << result.error;
    const int before = calls;
    ASSERT_TRUE(h.await([&] { return calls > before; }, 1s));
    cluster->start(member);
    ASSERT_TRUE(cluster->wait_healthy());
  }
}

TEST_F(EtcdFaults, WatchResumesAfterWhatItMissedWasCompacted) {
  make({.members = 1});
  auto with = options();
  auto store = open(with);
  int calls = 0;
  store->watch("w/", [&] {
    ++calls;
    h.loop.stop();
  });
  ASSERT_TRUE(h.await([&] { return calls > 0; }, 2s));
  for (int round = 0; round < 3; ++round) {
    // While it runs its stream is cut, changes happen and are compacted away.
    cluster->kill(0);
    cluster->start(0);
    ASSERT_TRUE(cluster->wait_healthy());
    for (int i = 0; i < 5; ++i) cluster->ctl(fmt::format("put w/k {}", i));
    const auto now = h.read(*store, "w/");
    ASSERT_TRUE(now.has_value()) << now.error().to_string();
    cluster->ctl(fmt::format("compaction {}", now->revision));
    int before = calls;
    ASSERT_TRUE(h.await([&] { return calls > before; }, 1500ms));
    // And it is alive: the next changes come promptly, not by the slow look.
    int prompt = 0;
    for (int i = 0; i < 5; ++i) {
      h.await([] { return false; }, 100ms);
      before = calls;
      const auto begun = h.loop.now();
      ASSERT_EQ(h.commit(*store, put("w/k", "x")).outcome, TxnOutcome::kCommitted);
      ASSERT_TRUE(h.await([&] { return calls > before; }, 1s));
      prompt += h.loop.now() - begun < 250ms;
    }
    EXPECT_GE(prompt, 3);
  }
}

TEST_F(EtcdFaults, AnEtcdSetUpAgainUnderTheSameNamesIsAnotherStore) {
  make();
  auto store = open();
  const auto old = h.commit(*store, put("k", "v"));
  const auto before = h.read(*store, "");
  ASSERT_TRUE(before.has_value());
  cluster->wipe();
  // What was compared belongs to a store that is gone: nothing may be written by it.
  const auto late = h.commit(*store, {{{"k", 0}}, {{"k", "late"}}});
  EXPECT_EQ(late.outcome, TxnOutcome::kUnknown);
  EXPECT_THAT(late.error, HasSubstr("not applied"));
  const auto after = h.read(*store, "");
  ASSERT_TRUE(after.has_value()) << after.error().to_string();
  EXPECT_TRUE(after->entries.empty());
  EXPECT_NE(after->identity, before->identity);
  EXPECT_EQ(h.commit(*store, compare_and_put("k", old.revision, "x")).outcome,
            TxnOutcome::kConflict);
}

TEST_F(EtcdFaults, AReaderMakesNoStore) {
  make({.members = 1});
  auto with = options();
  with.identity.clear();
  auto store = open(with);
  const auto read = h.read(*store, "");
  ASSERT_FALSE(read.has_value());
  EXPECT_EQ(read.error().code, ErrorCode::kNotFound);
  EXPECT_THAT(cluster->ctl("get --prefix '' --keys-only"), Not(HasSubstr("bascule")));
}

TEST_F(EtcdFaults, TokensAreRenewedAndPasswordsAreNotShown) {
  make({.members = 3, .token_ttl_s = 1});
  cluster->ctl("user add root:rootpw");
  cluster->ctl("user add app:Secret-Word");
  cluster->ctl("role add app");
  cluster->ctl("role grant-permission app --prefix=true readwrite app/");
  cluster->ctl("user grant-role root root");
  cluster->ctl("user grant-role app app");
  cluster->ctl("auth enable");
  auto with = options();
  with.prefix = "app/";
  with.user = "app";
  with.password = "Secret-Word";
  auto store = open(with);
  int calls = 0;
  store->watch("", [&] { ++calls; });
  const auto first = h.commit(*store, put("k", "1"));
  ASSERT_EQ(first.outcome, TxnOutcome::kCommitted) << first.error;
  h.await([] { return false; }, 3500ms);  // beyond the life of the token
  const auto second = h.commit(*store, compare_and_put("k", first.revision, "2"));
  EXPECT_EQ(second.outcome, TxnOutcome::kCommitted) << second.error;
  const int before = calls;
  EXPECT_TRUE(h.await([&] { return calls > before; }, 1500ms));

  auto elsewhere = with;
  elsewhere.prefix = "other/";
  auto denied = open(elsewhere);
  const auto refused = h.read(*denied, "");
  ASSERT_FALSE(refused.has_value());
  EXPECT_THAT(refused.error().to_string(), HasSubstr("permission denied"));

  auto wrong = with;
  wrong.password = "Wrong-Word";
  auto stranger = open(wrong);
  const auto failed = h.read(*stranger, "");
  ASSERT_FALSE(failed.has_value());
  EXPECT_EQ(failed.error().code, ErrorCode::kInvalid);
  EXPECT_THAT(failed.error().to_string(), Not(HasSubstr("Wrong-Word")));

  auto nobody = with;
  nobody.user = nobody.password = "";
  auto anonymous = open(nobody);
  const auto without = h.read(*anonymous, "");
  ASSERT_FALSE(without.has_value());
  EXPECT_EQ(without.error().code, ErrorCode::kInvalid) << without.error().to_string();
}

TEST_F(EtcdFaults, TlsWithClientCertificatesIsRequiredAndWorks) {
  make({.members = 3, .tls = true});
  const auto& files = cluster->tls();
  auto store = open(options(), {files.ca, files.client_cert, files.client_key});
  ASSERT_EQ(h.commit(*store, put("k", "v")).outcome, TxnOutcome::kCommitted);
  EXPECT_EQ(h.keys(*store, ""), (std::vector<std::string>{"k"}));
  int calls = 0;
  store->watch("", [&] {
    ++calls;
    h.loop.stop();
  });
  EXPECT_TRUE(h.await([&] { return calls > 0; }, 2s));

  auto with = options();
  with.timeout = 1s;
  auto unsigned_client = open(with, {files.ca, "", ""});
  EXPECT_FALSE(h.read(*unsigned_client, "").has_value());
  auto trusting_nobody = open(with, {});
  const auto untrusted = h.read(*trusting_nobody, "");
  ASSERT_FALSE(untrusted.has_value());
  EXPECT_THAT(untrusted.error().to_string(), HasSubstr("certificate"));
}

}  // namespace
}  // namespace bascule::store::contract
