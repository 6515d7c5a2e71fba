// pg_rewind: https://www.postgresql.org/docs/15/app-pgrewind.html
#include <fmt/format.h>

#include "node/ops.h"

namespace bascule::node {
namespace {

using control::OpData;

constexpr Nanos kStopWithin = 60s;
constexpr Nanos kRewindWithin = 24h;
constexpr Nanos kToolWithin = 20s;

// pg_rewind wants a target that was shut down cleanly. One that crashed is started as an isolated
// standby, which recovers it, and stopped again.
Status make_cleanly_stopped(OpContext& context) {
  Server& server = context.server;
  if (auto done = server.stop_fast(context.within(kStopWithin)); !done) return done;
  auto control = server.control_data(context.within(kToolWithin));
  if (!control) return std::unexpected(control.error());
  if (control->cleanly_stopped()) return {};
  context.progress("recovering before the rewind");
  if (auto done = start_in_recovery(context, {{}, kNobody, false}); !done) return done;
  if (auto done = server.stop_fast(context.within(kStopWithin)); !done) return done;
  control = server.control_data(context.within(kToolWithin));
  if (!control) return std::unexpected(control.error());
  if (!control->cleanly_stopped()) {
    return fail(ErrorCode::kUnavailable, "pg_control says \"" + control->state + "\"");
  }
  return {};
}

Status rewind_from(OpContext& context, const control::Upstream& source) {
  Server& server = context.server;
  if (auto done = server.end_stray_tools(context.within(kToolWithin)); !done) return done;
  if (server.data_dir_state() != control::DataDir::kReady) {
    return fail(ErrorCode::kConflict, "not a complete data directory");
  }
  if (auto done = make_cleanly_stopped(context); !done) return done;
  if (auto done = server.mark(Marker::kHalfRewound); !done) return done;
  context.progress("rewinding");
  bool changing = false;
  const auto on_output = [&](std::string_view piece) {
    // Said (with --progress) once everything is planned and nothing is changed yet.
    if (piece.find("need to copy") != std::string_view::npos) changing = true;
    if (auto percent = parse_progress(piece)) {
      changing = true;
      context.progress(fmt::format("rewinding {} %", *percent));
    }
  };
  auto out = server.run_tool(
      "pg_rewind",
      {"-D", server.config().data_dir, "--source-server",
       server.remote_conninfo(source, "postgres"), "--progress", "--no-ensure-shutdown"},
      context.within(kRewindWithin), on_output);
  const bool unneeded =
      out && out->ok() && out->output.find("no rewind required") != std::string::npos;
  const bool untouched = unneeded || (out && !out->ok() && !changing);
  if (untouched) {
    // The source was not reachable, or there is no common history: the directory is as it was.
    if (auto done = server.unmark(Marker::kHalfRewound); !done) return done;
  }
  if (!out) return std::unexpected(out.error());
  if (!out->ok()) return fail(ErrorCode::kUnavailable, out->how() + ": " + out->output);
  if (unneeded) {
    return fail(ErrorCode::kConflict,
                "pg_rewind goes by the ids of timelines and sees no divergence");
  }
  // It copied the source's configuration over ours.
  if (auto done = server.write_configuration({}, nullptr); !done) return done;
  if (auto done = server.set_standby_signal(); !done) return done;
  return server.unmark(Marker::kHalfRewound);
}

}  // namespace

OpResult rewind(OpContext& context, const control::op::Rewind& o) {
  if (auto done = rewind_from(context, o.source); !done) return in_context("rewind", done.error());
  return OpData{};
}

}  // namespace bascule::node
