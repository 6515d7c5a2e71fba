#include "pgwire/session_tracker.h"

#include <gtest/gtest.h>

#include "pgwire/testing.h"

namespace bascule::pgwire {
namespace {

using testing::From;
using testing::Pump;
using Verdict = SessionTracker::Verdict;

constexpr auto kInTransaction = TransactionStatus::kInTransaction;

// A proxy's view of a captured session: two scanners and the tracker.
class Follower {
 public:
  void feed(From from, std::string_view bytes) {
    if (from == From::kServer) {
      EXPECT_TRUE(server_.feed(bytes, [this](const Scan& s) { on_server(s); }));
      return;
    }
    if (!startup_done_) {
      startup_ += bytes;
      const StartupFrame frame = peek_startup(startup_);
      if (frame.state != FrameState::kComplete) return;
      startup_done_ = true;
      const std::string rest = startup_.substr(frame.size);
      feed(From::kClient, rest);
      return;
    }
    EXPECT_TRUE(client_.feed(bytes, [this](const Scan& s) { on_client(s); }));
  }
  void authentication_is_over() { client_.scanner().set_policy(kFrontendPolicy); }

  const SessionTracker& tracker() const { return tracker_; }
  bool terminated = false;
  bool idle_before_terminate = false;
  int ready = 0;
  bool started = false;

 private:
  void on_server(const Scan& s) {
    if (s.kind != ScanKind::kStart) return;
    if (started) {
      ASSERT_EQ(tracker_.received(s.type, s.payload()), Verdict::kOk) << s.type;
    }
    if (s.type == 'Z') {
      ++ready;
      if (!started) server_.scanner().set_policy(kBackendPolicy);
      started = true;
    }
  }
  void on_client(const Scan& s) {
    if (s.kind != ScanKind::kStart || s.type == 'p') return;
    if (s.type == 'X') {
      terminated = true;
      idle_before_terminate = tracker_.idle() && tracker_.reusable();
    }
    tracker_.sent(s.type);
  }

  Pump server_{kBackendStartupPolicy};
  Pump client_{kFrontendAuthPolicy};
  SessionTracker tracker_;
  std::string startup_;
  bool startup_done_ = false;
};

// What one side sends before the session is open is not the tracker's: false while it is.
bool open_after(const testing::Capture& capture, size_t index) {
  std::string server;
  for (size_t i = 0; i <= index; ++i) {
    if (capture[i].from == From::kServer) server += capture[i].bytes;
  }
  std::string_view rest = server;
  for (Frame f = peek_frame(rest, kMaxPayload); f.state == FrameState::kComplete;
       f = peek_frame(rest, kMaxPayload)) {
    if (f.type == 'Z') return true;
    rest.remove_prefix(f.size());
  }
  return false;
}

bool stays_reusable(const std::string& session) {
  return session != "terminated_while_idle" && session != "copy_in_extended_error";
}

class FlowOfEverySession : public ::testing::TestWithParam<std::string> {};
INSTANTIATE_TEST_SUITE_P(Captured, FlowOfEverySession,
                         ::testing::ValuesIn(testing::open_sessions()),
                         [](const auto& tested) { return tested.param; });

TEST_P(FlowOfEverySession, IsIdleAtItsEndHoweverTheBytesAreCut) {
  const auto capture = testing::load(GetParam());
  for (const size_t chunk : {1, 2, 3, 5, 7, 16, 64, 100'000}) {
    Follower follower;
    for (size_t i = 0; i < capture.size(); ++i) {
      const std::string_view bytes = capture[i].bytes;
      for (size_t at = 0; at < bytes.size(); at += chunk) {
        follower.feed(capture[i].from, bytes.substr(at, chunk));
      }
      if (open_after(capture, i)) follower.authentication_is_over();
    }
    EXPECT_TRUE(follower.started);
    EXPECT_TRUE(follower.tracker().idle());
    EXPECT_EQ(follower.tracker().ready_outstanding(), 0U);
    EXPECT_EQ(follower.tracker().pending(), 0U);
    if (follower.terminated) {
      EXPECT_EQ(follower.idle_before_terminate, stays_reusable(GetParam()));
    }
    EXPECT_FALSE(follower.tracker().reusable()) << "ended by Terminate or by the server";
  }
}

// The server meets messages in the order of the stream, so what it answers must not depend on how
// early the client sent them: as if it had been blind to the answers.
TEST_P(FlowOfEverySession, IsIdleAtItsEndIfTheClientHadSentEverythingAtOnce) {
  const auto capture = testing::load(GetParam());
  SessionTracker tracker;
  for (const auto& m : testing::messages(capture, From::kClient)) {
    if (m.type != 'p' && m.type != 'X') tracker.sent(m.type);
  }
  bool started = false;
  for (const auto& m : testing::messages(capture, From::kServer)) {
    if (started) {
      ASSERT_EQ(tracker.received(m.type, m.payload), Verdict::kOk) << m.type;
    }
    started = started || m.type == 'Z';
  }
  EXPECT_TRUE(tracker.idle());
  EXPECT_EQ(tracker.ready_outstanding(), 0U);
  EXPECT_EQ(tracker.reusable(), stays_reusable(GetParam()));
}

// "PBE>12" and so on: to the server until '>', from the server after it, and back at '<'. 'Z' takes
// its status from the next character.
void play(SessionTracker& tracker, std::string_view script) {
  bool from_server = false;
  for (size_t i = 0; i < script.size(); ++i) {
    const char c = script[i];
    if (c == '>' || c == '<') {
      from_server = c == '>';
    } else if (!from_server) {
      tracker.sent(c);
    } else if (c == 'Z') {
      ASSERT_EQ(tracker.received('Z', script.substr(++i, 1)), Verdict::kOk) << script;
    } else {
      ASSERT_EQ(tracker.received(c, ""), Verdict::kOk) << script << " at " << i;
    }
  }
}

TEST(SessionTracker, AStatementIsInFlightUntilReadyForQuery) {
  SessionTracker t;
  EXPECT_TRUE(t.idle());
  play(t, "Q");
  EXPECT_TRUE(t.in_flight());
  EXPECT_FALSE(t.idle());
  play(t, ">TDC");
  EXPECT_TRUE(t.in_flight());
  play(t, ">ZI");
  EXPECT_TRUE(t.idle());
}

TEST(SessionTracker, AnOpenTransactionIsQuiescentButNotIdle) {
  SessionTracker t;
  play(t, "Q>CZT");
  EXPECT_TRUE(t.quiescent());
  EXPECT_FALSE(t.idle());
  EXPECT_EQ(t.transaction(), kInTransaction);
  play(t, "Q>EZE");
  EXPECT_EQ(t.transaction(), TransactionStatus::kFailed);
  play(t, "Q>CZI");
  EXPECT_TRUE(t.idle());
}

TEST(SessionTracker, EveryPipelinedSyncEarnsAReadyForQuery) {
  SessionTracker t;
  play(t, "PBESPBESSQ");
  EXPECT_EQ(t.ready_outstanding(), 4U);
  EXPECT_EQ(t.pending(), 10U);
  play(t, ">12CZI12CZIZI");
  EXPECT_EQ(t.ready_outstanding(), 1U);
  EXPECT_FALSE(t.idle());
  play(t, ">CZI");
  EXPECT_TRUE(t.idle());
}

TEST(SessionTracker, AnsweredMessagesWithoutSyncAreNotIdle) {
  SessionTracker t;
  play(t, "PH>1");
  EXPECT_FALSE(t.in_flight());
  EXPECT_FALSE(t.quiescent()) << "the server is inside an implicit transaction";
  play(t, "<S>ZI");
  EXPECT_TRUE(t.idle());
}

TEST(SessionTracker, AfterAnErrorEverythingUpToSyncIsForgotten) {
  SessionTracker t;
  play(t, "PBE>1E");
  EXPECT_TRUE(t.skipping_until_sync());
  EXPECT_FALSE(t.quiescent());
  play(t, "<PBEQ");
  EXPECT_FALSE(t.in_flight()) << "the server throws these away, the Query too";
  play(t, "<S");
  EXPECT_EQ(t.ready_outstanding(), 1U);
  play(t, ">ZI");
  EXPECT_TRUE(t.idle());
}

TEST(SessionTracker, AnErrorSkipsToTheFirstSyncOnly) {
  SessionTracker t;
  play(t, "PBEQPSPBES>E");
  EXPECT_EQ(t.ready_outstanding(), 2U);
  EXPECT_FALSE(t.skipping_until_sync());
  play(t, ">ZI12CZI");
  EXPECT_TRUE(t.idle());
}

TEST(SessionTracker, KnowsCopyInOutAndBoth) {
  SessionTracker t;
  play(t, "Q>G");
  EXPECT_EQ(t.copy(), CopyState::kIn);
  play(t, "<ddc>CZI");
  EXPECT_EQ(t.copy(), CopyState::kNone);
  play(t, "Q>Hd");
  EXPECT_EQ(t.copy(), CopyState::kOut);
  play(t, ">dcCZI");
  EXPECT_TRUE(t.idle());
  play(t, "Q>W");
  EXPECT_EQ(t.copy(), CopyState::kBoth);
  play(t, "<dc>cCZI");
  EXPECT_TRUE(t.idle());
}

TEST(SessionTracker, StatementsAreTakenUnlessTheServerReadsCopyDataOrSkips) {
  SessionTracker t;
  EXPECT_TRUE(t.takes_statements());
  play(t, "Q>G");
  EXPECT_FALSE(t.takes_statements());
  play(t, "<dc");
  EXPECT_TRUE(t.takes_statements()) << "the data is over, though not answered";
  play(t, ">CZI<Q>H");
  EXPECT_TRUE(t.takes_statements()) << "later";
  play(t, ">cCZI<P>E");
  EXPECT_FALSE(t.takes_statements());
  play(t, "<S");
  EXPECT_TRUE(t.takes_statements());
  play(t, ">ZI<Q>W");
  EXPECT_FALSE(t.takes_statements());
}

TEST(SessionTracker, SyncSentAheadOfCopyDataIsLost) {
  SessionTracker t;
  play(t, "PBES>12G");
  EXPECT_EQ(t.ready_outstanding(), 0U);
  EXPECT_TRUE(t.in_flight());
  play(t, "<dcS");
  EXPECT_EQ(t.ready_outstanding(), 1U);
  play(t, ">CZI");
  EXPECT_TRUE(t.idle());
  EXPECT_TRUE(t.reusable());
}

TEST(SessionTracker, NumbersBehindABlindCopyStayTrue) {
  SessionTracker simple;
  play(simple, "Qc");
  EXPECT_EQ(simple.sent_count(), 1U) << "the number of the next message";
  play(simple, "PS>GCZI");
  EXPECT_EQ(simple.answered_count(), 1U);
  SessionTracker extended;
  play(extended, "PBESc");
  EXPECT_EQ(extended.sent_count(), 4U);
  play(extended, "PS>12GC");
  EXPECT_EQ(extended.answered_count(), 4U) << "the Sync is lost";
  play(extended, ">1ZI");
  EXPECT_TRUE(extended.quiescent());
}

TEST(SessionTracker, SyncAmidCopyDataIsLost) {
  SessionTracker t;
  play(t, "PBE>12G<SddSc>C<S>ZI");
  EXPECT_TRUE(t.idle());
  EXPECT_TRUE(t.reusable());
}

TEST(SessionTracker, AFailedCopyWithASyncAheadOfItsEndMakesTheConnectionUnsure) {
  for (const char* script : {"PBES>12G<dc>E", "PBE>12G<dSdc>E"}) {
    SessionTracker t;
    play(t, script);
    EXPECT_FALSE(t.reusable());
    // Whether the server met the Sync before or after it gave up: no violation either way.
    SessionTracker other = t;
    play(t, "<S>ZI");
    EXPECT_TRUE(t.quiescent());
    play(other, ">ZI<S>ZI");
    EXPECT_TRUE(other.quiescent());
    EXPECT_FALSE(other.reusable());
    EXPECT_EQ(other.received('Z', "X"), Verdict::kViolation);
  }
}

TEST(SessionTracker, CopyEndOutsideOfCopyIsIgnored) {
  SessionTracker t;
  play(t, "cf");
  EXPECT_TRUE(t.idle());
  play(t, "QcQ>G");  // the first COPY takes the CopyDone
  EXPECT_EQ(t.ready_outstanding(), 2U);
  play(t, ">CZI");
  play(t, ">CZI");
  EXPECT_TRUE(t.idle());
}

TEST(SessionTracker, AnErrorNobodyAskedForMeansTheServerIsLeaving) {
  SessionTracker t;
  play(t, ">E");
  EXPECT_FALSE(t.reusable());
}

TEST(SessionTracker, TerminateEndsReuse) {
  SessionTracker t;
  play(t, "X");
  EXPECT_FALSE(t.reusable());
}

TEST(SessionTracker, AnythingUnearnedIsAViolation) {
  for (const char type : {'Z', '1', '2', '3', 'C', 'I', 's', 'n', 'T', 'G', 'H', 'W', 'R', '?'}) {
    SessionTracker t;
    EXPECT_EQ(t.received(type, "I"), Verdict::kViolation) << type;
    EXPECT_FALSE(t.reusable());
  }
  SessionTracker extended;
  play(extended, "PBS>1");
  EXPECT_EQ(extended.received('Z', "I"), Verdict::kViolation) << "Bind has no answer yet";
  SessionTracker simple;
  play(simple, "Q");
  EXPECT_EQ(simple.received('1', ""), Verdict::kViolation);
  EXPECT_EQ(simple.received('Z', "X"), Verdict::kViolation);
  EXPECT_EQ(simple.received('Z', ""), Verdict::kViolation);
}

TEST(SessionTracker, ALongPipelineIsAnsweredInOrder) {
  SessionTracker t;
  for (int i = 0; i < 10'000; ++i) play(t, "PBES");
  EXPECT_EQ(t.ready_outstanding(), 10'000U);
  EXPECT_EQ(t.pending(), 40'000U);
  for (int i = 0; i < 10'000; ++i) play(t, i % 3 == 0 ? ">1EZI" : ">12CZI");
  EXPECT_TRUE(t.idle());
  EXPECT_EQ(t.pending(), 0U);
}

}  // namespace
}  // namespace bascule::pgwire
