#include "node/write_probe.h"

#include <algorithm>

namespace bascule::node {
namespace {

constexpr Nanos kEvery = 1s;
constexpr Nanos kWithin = 10s;  // then on a new connection; the time waited goes on counting

}  // namespace

bool WriteProbe::due(bool primary) {
  const std::lock_guard lock(mutex_);
  if (!primary && !running_) waiting_since_ = {};
  const MonoTime now = server_.clock().now();
  if (!primary || running_ || now < begun_ + kEvery) return false;
  running_ = true;
  begun_ = now;
  if (waiting_since_ == MonoTime{}) waiting_since_ = now;
  return true;
}

void WriteProbe::run() {
  const Status done = flush();
  if (!done) session_.reset();
  const std::lock_guard lock(mutex_);
  running_ = false;
  // Only a flush that hangs counts: a server that is gone or refuses is found in other ways.
  if (done || done.error().code != ErrorCode::kTimeout) waiting_since_ = {};
}

Status WriteProbe::flush() {
  const auto bound = server_.within(kWithin);
  if (!session_) {
    auto session = server_.replication_session(bound);
    if (!session) return fail(ErrorCode::kUnavailable, session.error().message);
    session_ = std::move(*session);
    if (auto set = session_->query("SET synchronous_commit = local", bound); !set) {
      return std::unexpected(set.error());
    }
  }
  auto flushed = session_->query("SELECT pg_logical_emit_message(true, 'bascule', 'probe')", bound);
  if (!flushed) return std::unexpected(flushed.error());
  return {};
}

Nanos WriteProbe::waits() const {
  const std::lock_guard lock(mutex_);
  return waiting_since_ == MonoTime{} ? Nanos{0} : server_.clock().now() - waiting_since_;
}

}  // namespace bascule::node
