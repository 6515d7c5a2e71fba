#include "node/timeline_origin.h"

#include <fmt/format.h>

#include "base/hash.h"

namespace bascule::node {
namespace {

constexpr size_t kHistoryBytesMax = 1 << 20;

// The header ends with the checksum of a record that says when the promotion was. Byte by byte the
// same wherever this WAL went. 0: it is not there any more.
uint32_t mark_at(PgConnection& session, const Position& begin, const Bound& bound) {
  auto size = session.value("SELECT pg_size_bytes(current_setting('wal_segment_size'))", bound);
  const uint64_t segment = size ? strtoull(size->c_str(), nullptr, 10) : 0;
  if (segment == 0) return 0;
  auto header = session.value(
      fmt::format(
          "SELECT coalesce(encode(pg_read_binary_file('pg_wal/{}', {}, {}, true), 'hex'), '')",
          wal_file_name(begin, segment), begin.lsn.value % segment,
          wal_header_bytes(begin.lsn, segment)),
      bound);
  if (!header || header->empty()) return 0;
  const uint64_t hash = fnv1a(*header);
  return static_cast<uint32_t>(hash ^ (hash >> 32)) | 1;
}

}  // namespace

control::Origin origin_of(Server& server, PgConnection& session, Timeline timeline,
                          const Bound& bound) {
  auto text =
      server.disk().read(server.data("pg_wal/" + history_file_name(timeline)), kHistoryBytesMax);
  control::Origin origin;
  if (text) origin.at = begin_in_history(*text);
  if (origin.at != Lsn{}) origin.mark = mark_at(session, {timeline, origin.at}, bound);
  return origin;
}

}  // namespace bascule::node
