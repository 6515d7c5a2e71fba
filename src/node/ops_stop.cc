// The two halves of a planned hand-over: a clean stop, and the proof that the candidate has it all.
#include <fmt/format.h>

#include "node/ops.h"

namespace bascule::node {
namespace {

using control::OpData;

constexpr Nanos kToolWithin = 20s;
constexpr Nanos kAskWithin = 1s;
constexpr Millis kAskPause = 10ms;

// pg_control names the start of the shutdown checkpoint; a candidate needs its whole record.
Result<Position> end_of_shutdown_checkpoint(OpContext& context, const ControlData& control) {
  Server& server = context.server;
  // The segment is named: left to itself pg_waldump learns the segment size from whichever file of
  // the directory it meets first, and one that is kept for later use begins with zeros.
  auto out = server.run_tool(
      "pg_waldump",
      {"-p", server.data("pg_wal"), "-s", control.checkpoint.to_string(), "-n", "1",
       wal_file_name({control.checkpoint_timeline, control.checkpoint}, control.segment_bytes)},
      context.within(kToolWithin));
  if (!out) return std::unexpected(out.error());
  auto record = parse_waldump_line(out->output);
  if (!record) return in_context(out->output.c_str(), record.error());
  if (record->manager != "XLOG" || !record->description.starts_with("CHECKPOINT_SHUTDOWN")) {
    return fail(ErrorCode::kInternal, "the last checkpoint's record is " + record->description);
  }
  return Position{control.checkpoint_timeline,
                  wal_record_end(control.checkpoint, record->total_bytes, control.segment_bytes)};
}

}  // namespace

OpResult clean_stop(OpContext& context, const control::op::CleanStop& o) {
  Server& server = context.server;
  if (auto done = server.stop_fast(context.within(o.limit)); !done) {
    server.stopped_on_purpose = 0;  // when it ends after all, that is news
    return in_context("clean stop", done.error());
  }
  auto control = server.control_data(context.within(kToolWithin));
  if (!control) return in_context("clean stop", control.error());
  // A standby stops cleanly too, but its last checkpoint is not the end of anything.
  if (control->state == "shut down in recovery") return OpData{};
  if (control->state != "shut down") {
    return fail(ErrorCode::kUnavailable, "clean stop: pg_control says \"" + control->state + "\"");
  }
  auto position = end_of_shutdown_checkpoint(context, *control);
  if (!position) return in_context("clean stop", position.error());
  return OpData{*position, 0};
}

OpResult verify_received(OpContext& context, const control::op::VerifyReceived& o) {
  if (!o.position.known()) return fail(ErrorCode::kInvalid, "verify received: position unknown");
  const MonoTime until = context.server.clock().now() + o.limit;
  Error last{ErrorCode::kTimeout, "not asked", {}};
  for (;;) {
    const Bound bound = context.within(kAskWithin);
    auto session = context.server.remote_session(o.candidate, bound);
    while (session) {
      auto found = identify_system(*session, bound);
      if (!found) {
        last = found.error();
        break;
      }
      if (found->position.timeline == o.position.timeline &&
          found->position.lsn >= o.position.lsn) {
        return OpData{found->position, found->system_id};
      }
      last.message = fmt::format("{} is at {}, not yet at {}", o.candidate.member.str(),
                                 found->position.to_string(), o.position.to_string());
      if (context.server.clock().now() >= until || context.control.cancelled) break;
      context.server.process().sleep(kAskPause);
    }
    if (!session) last = session.error();
    if (context.server.clock().now() >= until || context.control.cancelled) {
      return in_context("verify received", last);
    }
    context.server.process().sleep(kAskPause);
  }
}

}  // namespace bascule::node
