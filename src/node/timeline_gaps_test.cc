#include "node/timeline_gaps.h"

#include <gtest/gtest.h>

namespace bascule::node {
namespace {

using Ids = std::vector<uint32_t>;

TEST(StrayGaps, AreThoseAboveTheNewestRealHistory) {
  EXPECT_EQ(stray_gaps({}, {2, 3}), (Ids{2, 3}));  // a promotion that never came
  EXPECT_EQ(stray_gaps({5}, {2, 3, 4}), Ids{});    // one that did
  EXPECT_EQ(stray_gaps({5}, {2, 3, 4, 6, 7}), (Ids{6, 7}));
}

}  // namespace
}  // namespace bascule::node
