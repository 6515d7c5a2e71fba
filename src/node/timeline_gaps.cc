#include "node/timeline_gaps.h"

#include <fmt/format.h>

#include <algorithm>
#include <string>

#include "node/server.h"

namespace bascule::node {
namespace {

constexpr uint32_t kGapsMax = 1000;
constexpr size_t kHistoryBytesMax = 1 << 20;

std::string path_of(Server& server, uint32_t id) {
  return server.data("pg_wal/" + history_file_name(Timeline{id}));
}

}  // namespace

Status fill_gaps(Server& server, Timeline current, Timeline target) {
  if (target <= current) {
    return fail(ErrorCode::kConflict,
                fmt::format("reserved timeline {} is not above the current {}", target.value,
                            current.value));
  }
  if (target.value - current.value > kGapsMax) {
    return fail(ErrorCode::kConflict, fmt::format("reserved timeline {} is too far above {}",
                                                  target.value, current.value));
  }
  if (server.disk().exists(path_of(server, target.value))) {
    return fail(ErrorCode::kConflict,
                fmt::format("timeline {} has been used already", target.value));
  }
  // Highest first: whoever looks in between sees no run of ids that begins at the current one.
  for (uint32_t id = target.value - 1; id > current.value; --id) {
    if (server.disk().exists(path_of(server, id))) continue;
    auto done = server.disk().write(path_of(server, id), kGapText, env::Durability::kFsync);
    if (!done) return done;
  }
  return {};
}

std::vector<uint32_t> stray_gaps(const std::vector<uint32_t>& real,
                                 const std::vector<uint32_t>& gaps) {
  const uint32_t newest = real.empty() ? 0 : *std::max_element(real.begin(), real.end());
  std::vector<uint32_t> out;
  for (const uint32_t id : gaps) {
    if (id > newest) out.push_back(id);
  }
  return out;
}

Status remove_stray_gaps(Server& server) {
  auto names = server.disk().list(server.data("pg_wal"));
  if (!names) return std::unexpected(names.error());
  std::vector<uint32_t> real, gaps;
  for (const std::string& name : *names) {
    if (name.size() != 16 || !name.ends_with(".history")) continue;
    const auto id = static_cast<uint32_t>(strtoul(name.substr(0, 8).c_str(), nullptr, 16));
    auto text = server.disk().read(server.data("pg_wal/" + name), kHistoryBytesMax);
    if (!text) return std::unexpected(text.error());
    (*text == kGapText ? gaps : real).push_back(id);
  }
  for (const uint32_t id : stray_gaps(real, gaps)) {
    auto done = server.disk().remove(path_of(server, id), env::Durability::kFsync);
    if (!done) return done;
  }
  return {};
}

}  // namespace bascule::node
