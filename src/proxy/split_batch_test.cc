#include "proxy/split_batch.h"

#include <gtest/gtest.h>

#include <string>

#include "pgwire/messages.h"

namespace bascule::proxy {
namespace {

using State = SplitBatch::State;
using sql::Analysis;
using sql::Kind;
using sql::Reason;

SplitBatch read(std::string_view bytes) {
  SplitBatch batch;
  read_batch(bytes, batch);
  return batch;
}

TEST(SplitBatch, AQueryIsABatch) {
  std::string bytes;
  pgwire::append_query(bytes, "SELECT 1");
  const size_t size = bytes.size();
  pgwire::append_query(bytes, "DELETE FROM t");
  const SplitBatch batch = read(bytes);
  EXPECT_EQ(batch.state, State::kWhole);
  ASSERT_EQ(batch.items.size(), 1u);
  EXPECT_EQ(batch.items[0].sql, "SELECT 1");
  EXPECT_EQ(batch.size, size);
}

TEST(SplitBatch, EverythingUpToSyncIsABatch) {
  std::string bytes;
  pgwire::append_parse(bytes, "s1", "SELECT 1");
  pgwire::append_bind(bytes, "", "s1", {});
  pgwire::append_execute(bytes, "");
  pgwire::append_bind(bytes, "", "s2", {});
  pgwire::append_bind(bytes, "", "", {});
  const std::string without_end = bytes;
  pgwire::append_sync(bytes);
  const SplitBatch batch = read(bytes);
  EXPECT_EQ(batch.state, State::kWhole);
  ASSERT_EQ(batch.items.size(), 3u);
  EXPECT_EQ(batch.items[0].sql, "SELECT 1");
  EXPECT_TRUE(batch.items[1].prepared_before());
  EXPECT_EQ(batch.items[1].name, "s2");
  EXPECT_EQ(batch.items[2].name, "");
  for (size_t cut = 0; cut <= without_end.size(); ++cut) {
    EXPECT_EQ(read(without_end.substr(0, cut)).state, State::kNeedMore) << cut;
  }
}

TEST(SplitBatch, WhatCannotBeSeenWholeIsUnclear) {
  std::string flush;
  pgwire::append_parse(flush, "", "SELECT 1");
  pgwire::append_flush(flush);
  EXPECT_EQ(read(flush).state, State::kUnclear);
  std::string large;
  pgwire::append_query(large, std::string(kSplitBatchMax, 'x'));
  EXPECT_EQ(read(large.substr(0, 10)).state, State::kUnclear);
  EXPECT_EQ(read(std::string("F\0\0\0\4", 5)).state, State::kUnclear);
  EXPECT_EQ(read(std::string("Q\0\0\0\1", 5)).state, State::kUnclear);
  std::string many;
  for (size_t i = 0; i <= kSplitItemsMax; ++i) pgwire::append_bind(many, "", "s", {});
  EXPECT_EQ(read(many).state, State::kUnclear);
  std::string mixed;
  pgwire::append_parse(mixed, "", "SELECT 1");
  pgwire::append_query(mixed, "SELECT 1");
  EXPECT_EQ(read(mixed).state, State::kUnclear);
}

bool any_server(std::initializer_list<Analysis> items) {
  BatchVerdict verdict;
  for (const Analysis& item : items) verdict.add(item);
  EXPECT_EQ(verdict.any_server(), verdict.reason() == Reason::kNone);
  return verdict.any_server();
}

TEST(BatchVerdict, OneWriteTakesAllToThePrimary) {
  const Analysis read{Kind::kRead, {}, {}};
  const Analysis write{Kind::kPrimary, Reason::kWrites, {}};
  EXPECT_TRUE(any_server({}));
  EXPECT_TRUE(any_server({read, read}));
  EXPECT_FALSE(any_server({read, write}));
  EXPECT_FALSE(any_server({write, read}));
  EXPECT_FALSE(any_server({{Kind::kBegin, Reason::kTransaction, {}}, read}));
  EXPECT_FALSE(any_server({{Kind::kSetAffinity, {}, "x"}}));
}

TEST(BatchVerdict, AReadOnlyTransactionMayBeginAndEndInOneBatch) {
  const Analysis read{Kind::kRead, {}, {}};
  const Analysis write{Kind::kPrimary, Reason::kWrites, {}};
  const Analysis begin{Kind::kBeginReadOnly, {}, {}};
  const Analysis commit{Kind::kPrimary, Reason::kTransaction, {}};
  EXPECT_TRUE(any_server({begin}));
  EXPECT_TRUE(any_server({begin, read, commit}));
  EXPECT_FALSE(any_server({begin, commit, read}));
  EXPECT_FALSE(any_server({begin, commit, begin}));
  EXPECT_FALSE(any_server({begin, write}));
  EXPECT_FALSE(any_server({read, begin}));
  EXPECT_FALSE(any_server({commit}));
}

}  // namespace
}  // namespace bascule::proxy
