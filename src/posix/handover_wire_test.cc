#include "posix/handover_wire.h"

#include <gtest/gtest.h>

namespace bascule::posix {
namespace {

using Kind = HandOverMessage::Kind;

TEST(HandOverWire, EveryMessageIsReadAsItWasWritten) {
  for (const HandOverMessage& m :
       {HandOverMessage{.kind = Kind::kTake}, HandOverMessage{.kind = Kind::kEnd},
        HandOverMessage{.kind = Kind::kSocket, .port = 6432, .text = "/run/a b"},
        HandOverMessage{.kind = Kind::kBusy, .text = "the agent is rewinding"},
        HandOverMessage{.kind = Kind::kAccepting}, HandOverMessage{.kind = Kind::kTaken},
        HandOverMessage{.kind = Kind::kLate},
        HandOverMessage{.kind = Kind::kCancel, .number = 3, .pid = 7, .text = {"\0\xff ", 3}},
        HandOverMessage{.kind = Kind::kCancelled, .number = UINT64_MAX}}) {
    EXPECT_EQ(parse_hand_over(encode(m)), m) << encode(m);
  }
}

TEST(HandOverWire, AnythingElseIsNothing) {
  for (const char* text :
       {"", " ", "take", "take 1", "take 2 ", "socket 65536 h", "socket x h", "end 1",
        "cancel 1 2 0", "cancel 1 2 zz", "cancel -1 2 00", "cancelled 1 2", "cancelled", "Taken"}) {
    EXPECT_EQ(parse_hand_over(text), std::nullopt) << text;
  }
}

}  // namespace
}  // namespace bascule::posix
