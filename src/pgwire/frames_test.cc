#include "pgwire/frames.h"

#include <gtest/gtest.h>

#include "pgwire/messages.h"
#include "pgwire/testing.h"

namespace bascule::pgwire {
namespace {

using testing::From;
using testing::Pump;

// What a relay gets to know of a stream, however it was cut.
struct Seen {
  std::string bytes;                              // all pieces one after the other
  std::vector<testing::Message> reported;         // with what kStart and kContinue gave
  std::vector<std::pair<char, size_t>> at_start;  // type and least payload at kStart
  uint32_t relayed = 0;
  size_t kept_max = 0;
};

// `authenticated`: the message after which the second policy holds.
Seen scan(std::string_view stream, size_t chunk, const FramePolicy& first,
          const FramePolicy& second, const std::function<bool(const Scan&)>& authenticated) {
  Seen seen;
  Pump pump(first);
  const auto sink = [&](const Scan& s) {
    seen.bytes += s.bytes;
    if (s.kind == ScanKind::kRun) {
      seen.relayed += s.messages;
      return;
    }
    if (s.kind == ScanKind::kStart) {
      seen.reported.push_back({s.type, {}});
      EXPECT_EQ(s.bytes[0], s.type);
    }
    EXPECT_EQ(seen.reported.back().type, s.type);
    seen.reported.back().payload += s.payload();
    if (s.ends) {
      EXPECT_EQ(seen.reported.back().payload.size(), s.payload_length);
    }
    if (authenticated(s)) pump.scanner().set_policy(second);
  };
  for (size_t at = 0; at < stream.size(); at += chunk) {
    EXPECT_TRUE(pump.feed(stream.substr(at, chunk), sink));
    seen.kept_max = std::max(seen.kept_max, pump.unread().size());
  }
  EXPECT_TRUE(pump.scanner().at_boundary());
  EXPECT_TRUE(pump.unread().empty());
  return seen;
}

class FramesOfEverySession : public ::testing::TestWithParam<std::string> {};
INSTANTIATE_TEST_SUITE_P(Captured, FramesOfEverySession, ::testing::ValuesIn(testing::sessions()),
                         [](const auto& tested) { return tested.param; });

TEST_P(FramesOfEverySession, ServerStreamGivesTheSameMessagesHoweverItIsCut) {
  const auto capture = testing::load(GetParam());
  const std::string stream = testing::stream(capture, From::kServer);
  const auto ready = [](const Scan& s) { return s.type == 'Z' && s.ends; };
  std::vector<testing::Message> expected;
  uint32_t relayed = 0;
  bool started = false;
  for (const auto& m : testing::messages(capture, From::kServer)) {
    const bool relay =
        started && kBackendPolicy[static_cast<size_t>(m.type)].action == FrameAction::kRelay;
    if (relay) {
      ++relayed;
    } else {
      expected.push_back(m);
    }
    started = started || m.type == 'Z';
  }
  for (size_t chunk = 1; chunk <= stream.size(); chunk += chunk < 40 ? 1 : 97) {
    const Seen seen = scan(stream, chunk, kBackendStartupPolicy, kBackendPolicy, ready);
    EXPECT_EQ(seen.bytes, stream);
    EXPECT_EQ(seen.reported, expected) << "chunks of " << chunk;
    EXPECT_EQ(seen.relayed, relayed) << "chunks of " << chunk;
  }
}

TEST_P(FramesOfEverySession, ClientStreamGivesTheSameMessagesHoweverItIsCut) {
  const auto capture = testing::load(GetParam());
  std::string stream = testing::stream(capture, From::kClient);
  stream.erase(0, peek_startup(stream).size);
  const auto messages = testing::messages(capture, From::kClient);
  const size_t answers = testing::of_type(messages, 'p').size();
  std::vector<testing::Message> expected;
  uint32_t relayed = 0;
  for (const auto& m : messages) {
    if (m.type == 'd') {
      ++relayed;
    } else {
      expected.push_back(m);
    }
  }
  for (size_t chunk = 1; chunk <= stream.size(); chunk += chunk < 40 ? 1 : 97) {
    size_t answered = 0;
    const auto last_answer = [&](const Scan& s) { return s.type == 'p' && ++answered == answers; };
    const Seen seen = scan(stream, chunk, kFrontendAuthPolicy, kFrontendPolicy, last_answer);
    EXPECT_EQ(seen.bytes, stream);
    EXPECT_EQ(seen.reported, expected) << "chunks of " << chunk;
    EXPECT_EQ(seen.relayed, relayed) << "chunks of " << chunk;
    // Only the beginnings of headers are kept back after authentication.
    if (chunk == 1 && answers == 0) {
      EXPECT_LT(seen.kept_max, kFrameHeaderSize);
    }
  }
}

TEST(PeekFrame, IsIncompleteUntilTheLastByteIsThere) {
  std::string bytes;
  append_query(bytes, "select 1");
  for (size_t n = 0; n < bytes.size(); ++n) {
    const Frame frame = peek_frame(std::string_view(bytes).substr(0, n), kMaxPayload);
    EXPECT_EQ(frame.state, FrameState::kIncomplete);
    EXPECT_EQ(frame.header_known, n >= kFrameHeaderSize);
  }
  const size_t size = bytes.size();
  bytes += "rest";
  const Frame frame = peek_frame(bytes, kMaxPayload);
  EXPECT_EQ(frame.state, FrameState::kComplete);
  EXPECT_EQ(frame.type, 'Q');
  EXPECT_EQ(frame.payload, std::string_view("select 1\0", 9));
  EXPECT_EQ(frame.size(), size);
}

TEST(PeekFrame, RefusesImpossibleLengthsByTheHeaderAlone) {
  EXPECT_EQ(peek_frame(std::string_view("Q\0\0\0\3", 5), 100).state, FrameState::kBad);
  EXPECT_EQ(peek_frame("Q\xff\xff\xff\xff", kMaxPayload).state, FrameState::kBad);
  EXPECT_EQ(peek_frame("Q\xff\xff\xff\xff", 0xffffffff).state, FrameState::kBad);
  EXPECT_EQ(peek_frame(std::string_view("Q\0\0\0\x69", 5), 100).state, FrameState::kBad);
  EXPECT_EQ(peek_frame(std::string_view("Q\0\0\0\x68", 5), 100).state, FrameState::kIncomplete);
}

TEST(FrameScanner, StreamsALargeMessageInThePiecesInWhichItComes) {
  std::string bytes;
  append_query(bytes, std::string(1000, 'x'));
  FrameScanner scanner(kFrontendPolicy);
  const std::string_view all = bytes;
  Scan s = scanner.next(all.substr(0, 105));
  EXPECT_EQ(s.kind, ScanKind::kStart);
  EXPECT_EQ(s.payload_length, 1001U);
  EXPECT_EQ(s.payload().size(), 100U);
  EXPECT_FALSE(s.ends);
  EXPECT_FALSE(scanner.at_boundary());
  EXPECT_EQ(scanner.remaining(), 901U);
  EXPECT_EQ(scanner.next("").kind, ScanKind::kNeedMore);
  s = scanner.next(std::string(all.substr(105)) + "next");
  EXPECT_EQ(s.kind, ScanKind::kContinue);
  EXPECT_EQ(s.bytes.size(), 901U);
  EXPECT_TRUE(s.ends);
  EXPECT_TRUE(scanner.at_boundary());
}

TEST(FrameScanner, WaitsForThePrefixThatTheRuleAsksFor) {
  std::string bytes;
  append_error_response(bytes, {.severity = "ERROR",
                                .sqlstate = "22012",
                                .message = std::string(5000, 'm'),
                                .detail = {},
                                .hint = {}});
  FrameScanner scanner(kBackendPolicy);
  const std::string_view all = bytes;
  Scan s = scanner.next(all.substr(0, 100));
  ASSERT_EQ(s.kind, ScanKind::kNeedMore);
  EXPECT_EQ(s.needed, kFrameHeaderSize + 1024);
  s = scanner.next(all.substr(0, s.needed));
  ASSERT_EQ(s.kind, ScanKind::kStart);
  EXPECT_EQ(parse_error_prefix(s.payload()).sqlstate, "22012");
  EXPECT_EQ(scanner.next(all.substr(s.bytes.size())).kind, ScanKind::kContinue);
  EXPECT_TRUE(scanner.at_boundary());
}

TEST(FrameScanner, RelayedNeighboursLeaveInOnePieceThatEndsBeforeAReportedMessage) {
  std::string rows;
  for (int i = 0; i < 100; ++i) append_data_row(rows, {});
  std::string bytes = rows;
  append_command_complete(bytes, "SELECT 100");
  FrameScanner scanner(kBackendPolicy);
  const Scan run = scanner.next(bytes);
  EXPECT_EQ(run.kind, ScanKind::kRun);
  EXPECT_EQ(run.messages, 100U);
  EXPECT_EQ(run.bytes, rows);
  const Scan complete = scanner.next(std::string_view(bytes).substr(rows.size()));
  EXPECT_EQ(complete.kind, ScanKind::kStart);
  EXPECT_EQ(complete.type, 'C');
}

TEST(FrameScanner, RefusesWhatThePhaseDoesNotAllowAndStaysBad) {
  const auto verdict = [](const FramePolicy& policy, std::string_view bytes) {
    FrameScanner scanner(policy);
    const Scan s = scanner.next(bytes);
    EXPECT_EQ(scanner.next("").kind == ScanKind::kBad, s.kind == ScanKind::kBad);
    EXPECT_EQ(scanner.at_boundary(), s.kind != ScanKind::kBad);
    return s.kind;
  };
  std::string query;
  append_query(query, "x");
  EXPECT_EQ(verdict(kFrontendAuthPolicy, query), ScanKind::kBad);
  EXPECT_EQ(verdict(kFrontendPolicy, std::string_view("S\0\0\0\5x", 6)), ScanKind::kBad);
  EXPECT_EQ(verdict(kFrontendPolicy, std::string_view("p\0\0\0\4", 5)), ScanKind::kBad);
  EXPECT_EQ(verdict(kFrontendPolicy, std::string_view("\xd1\0\0\0\4", 5)), ScanKind::kBad);
  EXPECT_EQ(verdict(kFrontendPolicy, std::string_view("d\0\0\0\3", 5)), ScanKind::kBad);
  EXPECT_EQ(verdict(kFrontendAuthPolicy, std::string_view("p\0\1\0\4", 5)), ScanKind::kBad);
  EXPECT_EQ(verdict(kBackendPolicy, std::string_view("Z\0\0\0\6II", 7)), ScanKind::kBad);
  EXPECT_EQ(verdict(kBackendPolicy, std::string_view("D\x40\0\0\0", 5)), ScanKind::kBad);
}

TEST(FrameScanner, ABadMessageAfterARunDoesNotTakeTheRunWithIt) {
  std::string bytes;
  append_data_row(bytes, {});
  const size_t good = bytes.size();
  bytes += std::string_view("D\0\0\0\0", 5);
  FrameScanner scanner(kBackendPolicy);
  const Scan run = scanner.next(bytes);
  EXPECT_EQ(run.kind, ScanKind::kRun);
  EXPECT_EQ(run.bytes.size(), good);
  EXPECT_EQ(scanner.next(std::string_view(bytes).substr(good)).kind, ScanKind::kBad);
}

}  // namespace
}  // namespace bascule::pgwire
