// `bascule status` and `bascule history`: a ClusterView as people and machines read it. Pure.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "base/time.h"
#include "control/records.h"

namespace bascule::cli {

struct RenderOptions {
  WallTime now{};        // for "3 s ago"
  size_t width_max = 0;  // of the terminal; 0: no limit
};

std::string render_status(const control::ClusterView& view, const std::string& cluster,
                          const RenderOptions& options);
nlohmann::ordered_json status_json(const control::ClusterView& view, const std::string& cluster);

std::string render_history(const control::ClusterView& view, const RenderOptions& options);
nlohmann::ordered_json history_json(const control::ClusterView& view);

// Bytes of WAL that `member` is behind the leader; -1: not known (no leader, no position).
int64_t lag_bytes(const control::ClusterView& view, const control::MemberRecord& member);

}  // namespace bascule::cli
