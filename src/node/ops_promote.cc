// Promotion to exactly the reserved timeline.
//
// PostgreSQL takes the lowest id above its own for which pg_wal has no history file
// (findNewestTimeLine in src/backend/access/transam/timeline.c). To skip ids, files that hold only
// a comment are placed for them. Followers fetch and keep them like any other history file, so the
// new primary keeps them too; one that is left without a real history above it would be taken for
// the newest timeline at the next start, hence remove_stray_gaps().
#include <fmt/format.h>

#include "node/ops.h"
#include "node/slot_keeper.h"
#include "node/timeline_gaps.h"
#include "node/timeline_origin.h"

namespace bascule::node {
namespace {

using control::OpData;

constexpr Nanos kPrepareWithin = 5s;
constexpr Nanos kPromoteWithin = 60s;  // the agent's promote_timeout ends it earlier, by Kill
constexpr Millis kPoll = 2ms;

Status await_writable(OpContext& context, PgConnection& session, const Bound& bound) {
  for (;;) {
    auto recovering = session.value("SELECT pg_is_in_recovery()", bound);
    if (!recovering) return std::unexpected(recovering.error());
    if (*recovering == "f") return {};
    if (context.server.clock().now() >= bound.deadline) {
      return fail(ErrorCode::kTimeout, "still in recovery");
    }
    context.server.process().sleep(kPoll);
  }
}

Result<OpData> promote_to(OpContext& context, const control::op::Promote& o) {
  Server& server = context.server;
  const Bound prepare = context.within(kPrepareWithin);
  // As StopReceiver has left it, so that there is mostly nothing to reload.
  auto session = reconfigure(context, {{}, o.sync_standbys, true, o.sync_count}, prepare);
  if (!session) return std::unexpected(session.error());
  auto found = identify_system(*session, prepare);
  if (!found) return std::unexpected(found.error());
  if (context.slots != nullptr) {
    const Timeline timeline = found->position.timeline;
    if (auto done = context.slots->before_promotion(context, *session, timeline); !done) {
      return std::unexpected(done.error());
    }
  }
  if (auto done = fill_gaps(server, found->position.timeline, o.timeline); !done) {
    return std::unexpected(done.error());
  }
  const Bound bound = context.within(kPromoteWithin);
  if (auto done = session->query("SELECT pg_promote(false)", bound); !done) {
    return std::unexpected(done.error());
  }
  // While the startup process is at it: both take some fsyncs.
  auto slots = create_slots(*session, o.slots, Reserve::kNow, bound);
  if (!slots) return std::unexpected(slots.error());
  if (auto done = await_writable(context, *session, bound); !done) {
    return std::unexpected(done.error());
  }
  auto file = session->value("SELECT pg_walfile_name(pg_current_wal_insert_lsn())", bound);
  if (!file) return std::unexpected(file.error());
  const auto reached = static_cast<uint32_t>(strtoul(file->substr(0, 8).c_str(), nullptr, 16));
  if (reached != o.timeline.value) {
    return fail(ErrorCode::kInternal,
                fmt::format("came out on timeline {}, reserved was {}", reached, o.timeline.value));
  }
  if (auto done = server.set_standby_signal(); !done) return std::unexpected(done.error());
  const control::Origin origin = origin_of(server, *session, o.timeline, bound);
  server.checkpoint_soon(std::move(*session));
  return OpData{.origin = origin};
}

}  // namespace

OpResult promote(OpContext& context, const control::op::Promote& o) {
  auto done = promote_to(context, o);
  if (!done) return in_context("promote", done.error());
  return *std::move(done);
}

}  // namespace bascule::node
