// SessionTracker against a model of PostgreSQL's main loop (src/backend/tcop/postgres.c and
// CopyGetData() of copyfromparse.c). The input drives an arbitrary client (also one that pipelines
// blindly), what each statement does, and how late messages are met on both sides.
//   - idle() and reusable() are never true while the server has anything left to do or to say;
//   - once all is met, the tracker agrees with the model, unless it said that it is unsure;
//   - what a correct server sends is never called a violation;
//   - bytes that no server would send do no harm.
#include <fuzzer/FuzzedDataProvider.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <string>

#include "fuzz/check.h"
#include "pgwire/session_tracker.h"

using namespace bascule::pgwire;

namespace {

class ModelServer {
 public:
  explicit ModelServer(FuzzedDataProvider& choices) : choices_(choices) {}

  // Replies, 'Z' followed by its status.
  std::string output;

  void process(char type) {
    if (dead_) return;
    if (in_copy_) {
      process_in_copy(type);
      return;
    }
    const bool extended = std::string_view("PBDECH").find(type) != std::string_view::npos;
    if (type == 'S') skipping_ = false;
    if (skipping_) return;
    extended_ = extended;
    switch (type) {
      case 'Q':
        statements_ = choices_.ConsumeIntegralInRange(0, 2);
        if (statements_ == 0) {
          output += 'I';
          ready();
        } else {
          next_statement();
        }
        break;
      case 'F':
        if (fails()) break;
        output += 'V';
        ready();
        break;
      case 'S':
        if (fails()) break;  // a deferred constraint
        ready();
        break;
      case 'E':
        batch_open_ = true;
        statements_ = 1;
        next_statement();
        break;
      case 'P':
      case 'B':
      case 'C':
      case 'D':
        batch_open_ = true;
        if (!fails()) output += reply_to(type);
        break;
      default:  // Flush; CopyData, CopyDone, CopyFail outside of COPY
        break;
    }
  }

  // An error from outside while COPY data is awaited: a cancel, a time-out.
  void interrupt() {
    if (in_copy_ && !dead_) error();
  }
  // pg_terminate_backend()
  void terminate() {
    if (!dead_) output += 'E';
    dead_ = true;
  }

  bool dead() const { return dead_; }
  bool in_copy() const { return in_copy_; }
  bool quiescent() const { return !in_copy_ && !skipping_ && !batch_open_; }
  char status() const { return status_; }

 private:
  void process_in_copy(char type) {
    switch (type) {
      case 'd':
        if (choices_.ConsumeIntegralInRange(0, 7) == 0) error();
        break;
      case 'H':
      case 'S':
        break;
      case 'c':
        in_copy_ = false;
        if (fails()) break;
        output += 'C';
        end_statement();
        break;
      case 'f':
        error();
        break;
      default:  // protocol synchronization was lost
        terminate();
        break;
    }
  }

  void next_statement() {
    switch (choices_.ConsumeIntegralInRange(0, 7)) {
      case 0:
        error();
        return;
      case 1:
        in_copy_ = true;
        output += 'G';
        return;
      case 2:
        output += "HddcC";
        break;
      case 3:
        if (!extended_) {
          output += "TDDC";
        } else {
          output += "DDs";
        }
        break;
      case 4:
        output += extended_ ? "I" : "C";
        break;
      default:
        output += extended_ ? "DC" : "TDC";
        break;
    }
    end_statement();
  }

  void end_statement() {
    --statements_;
    if (extended_) return;
    if (statements_ > 0) {
      next_statement();
    } else {
      ready();
    }
  }

  std::string reply_to(char type) {
    if (type == 'D') {
      return std::string(choices_.ConsumeBool() ? "t" : "") + (choices_.ConsumeBool() ? "T" : "n");
    }
    return type == 'P' ? "1" : type == 'B' ? "2" : "3";
  }

  bool fails() {
    if (choices_.ConsumeIntegralInRange(0, 7) != 0) return false;
    error();
    return true;
  }

  void error() {
    output += 'E';
    in_copy_ = false;
    if (extended_) {
      skipping_ = true;
    } else {
      ready();
    }
  }

  void ready() {
    status_ = choices_.PickValueInArray({'I', 'I', 'T', 'E'});
    output += 'Z';
    output += status_;
    batch_open_ = false;
  }

  FuzzedDataProvider& choices_;
  int statements_ = 0;
  char status_ = 'I';
  bool extended_ = false;
  bool in_copy_ = false;
  bool skipping_ = false;
  bool batch_open_ = false;
  bool dead_ = false;
};

bool does_nothing(char type) {
  return std::string_view("dcfH").find(type) != std::string_view::npos;
}

class World {
 public:
  explicit World(FuzzedDataProvider& choices) : choices_(choices), server_(choices) {}

  void run() {
    while (choices_.remaining_bytes() > 0) {
      step();
      check_idle();
    }
    while (!to_server_.empty()) serve();
    while (has_reply()) deliver();
    check_idle();
    if (server_.dead()) BASCULE_FUZZ_CHECK(!tracker_.idle() || !tracker_.reusable());
    if (server_.dead() || !tracker_.reusable()) return;
    BASCULE_FUZZ_CHECK(tracker_.quiescent() == server_.quiescent());
    BASCULE_FUZZ_CHECK((tracker_.copy() == CopyState::kIn) == server_.in_copy());
    BASCULE_FUZZ_CHECK(tracker_.in_flight() == server_.in_copy());
    BASCULE_FUZZ_CHECK(static_cast<char>(tracker_.transaction()) == server_.status());
  }

 private:
  void step() {
    switch (choices_.ConsumeIntegralInRange(0, 11)) {
      case 0:
      case 1:
      case 2:
      case 3: {
        const char type = choices_.PickValueInArray(
            {'Q', 'F', 'P', 'B', 'D', 'E', 'E', 'C', 'H', 'S', 'S', 'd', 'c', 'f'});
        // A client that knows of the COPY keeps to the rules; a blind one may do anything.
        if (tracker_.copy() == CopyState::kIn && tracker_.reusable() && !may_follow_copy(type)) {
          break;
        }
        if (type == 'c' || type == 'f') copy_ended_ = true;
        tracker_.sent(type);
        to_server_.push_back(type);
        break;
      }
      case 4:
      case 5:
      case 6:
        serve();
        break;
      case 7:
      case 8:
      case 9:
        deliver();
        break;
      case 10:
        if (choices_.ConsumeIntegralInRange(0, 15) == 0) server_.interrupt();
        break;
      default:
        if (choices_.ConsumeIntegralInRange(0, 63) == 0) server_.terminate();
        break;
    }
  }

  bool may_follow_copy(char type) const {
    return copy_ended_ || std::string_view("dcfHS").find(type) != std::string_view::npos;
  }

  void serve() {
    if (to_server_.empty()) return;
    server_.process(to_server_.front());
    to_server_.pop_front();
  }

  bool has_reply() const { return delivered_ < server_.output.size(); }

  void deliver() {
    if (!has_reply()) return;
    const std::string_view output = server_.output;
    const char type = output[delivered_++];
    if (type == 'G') copy_ended_ = false;
    std::string_view payload;
    if (type == 'Z') payload = output.substr(delivered_++, 1);
    const auto verdict = tracker_.received(type, payload);
    BASCULE_FUZZ_CHECK(verdict == SessionTracker::Verdict::kOk);
  }

  void check_idle() const {
    if (!tracker_.idle() || !tracker_.reusable()) return;
    BASCULE_FUZZ_CHECK(server_.dead() || server_.quiescent());
    BASCULE_FUZZ_CHECK(std::all_of(to_server_.begin(), to_server_.end(), does_nothing));
    // Only the farewell of a server that was told to go may be on its way.
    BASCULE_FUZZ_CHECK(!has_reply() || server_.dead());
  }

  FuzzedDataProvider& choices_;
  ModelServer server_;
  SessionTracker tracker_;
  std::deque<char> to_server_;
  size_t delivered_ = 0;
  bool copy_ended_ = false;
};

// Any types in any order: bounded memory, consistent counts.
void feed_noise(std::string_view noise) {
  SessionTracker tracker;
  for (size_t i = 0; i + 1 < noise.size(); i += 2) {
    if (noise[i] & 1) {
      tracker.sent(noise[i + 1]);
    } else {
      tracker.received(noise[i + 1], noise.substr(i, 1 + (noise[i] >> 7 & 1)));
    }
    BASCULE_FUZZ_CHECK(tracker.ready_outstanding() <= tracker.pending());
    BASCULE_FUZZ_CHECK(tracker.pending() <= noise.size());
    BASCULE_FUZZ_CHECK(tracker.in_flight() == (tracker.pending() > 0));
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  if (data[0] == 0xff) {
    feed_noise({reinterpret_cast<const char*>(data) + 1, size - 1});
    return 0;
  }
  FuzzedDataProvider choices(data + 1, size - 1);
  World(choices).run();
  return 0;
}
