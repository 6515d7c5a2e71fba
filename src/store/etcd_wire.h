// etcd's v3 API as its JSON gateway speaks it (etcd 3.4 and later; grpc-gateway: 64-bit numbers are
// strings, bytes are base64, zeros are left out): requests as text, answers as values. Pure.
// Answers are treated as hostile: what is malformed is an Error, and every size is bounded by the
// caller's bound on the text. Source: etcd's api/etcdserverpb/rpc.proto.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "store/store.h"

namespace bascule::store::etcd {

// The keys from `key` on, below `end`. End "\0": all that follow; empty: that key alone.
struct Range {
  std::string key;
  std::string end;
  Revision changed_since = 0;  // keys written at it or later only; all are counted
};
// Every key that begins with `prefix`.
Range prefix_range(std::string_view prefix);

// ---- requests: bodies of POST

// A read-only transaction: the ranges as of one instant, linearizable.
std::string read_body(const std::vector<Range>& ranges);
// Commits if all compares hold. Otherwise, and when there is nothing to write, it reads `fence`,
// linearizably: without a range in it etcd answers such a transaction from what one member knows.
std::string txn_body(const std::vector<Compare>& compares, const std::vector<Write>& writes,
                     const std::string& fence);
// Changes of the range, deletions included, from the revision on; 0: from now on.
std::string watch_body(const Range& range, Revision from);
std::string authenticate_body(std::string_view user, std::string_view password);

// ---- answers

// Of a range request.
struct Found {
  std::vector<Entry> entries;
  uint64_t count = 0;  // keys of the range, whether they are among the entries or not
};
struct TxnAnswer {
  uint64_t cluster_id = 0;
  Revision revision = 0;
  bool succeeded = false;
  std::vector<Found> ranges;  // of the range requests, in order
};
Result<TxnAnswer> parse_txn(std::string_view json);

struct WatchAnswer {
  Revision revision = 0;  // of the store when it was sent
  bool created = false;
  bool canceled = false;
  Revision compacted = 0;    // canceled: everything before this is gone
  Revision last_change = 0;  // newest of its events; 0: it has none
  std::string reason;        // canceled
};
// One line of the stream.
Result<WatchAnswer> parse_watch(std::string_view json);

Result<std::string> parse_token(std::string_view json);

// ---- errors

enum class Refusal {
  kElsewhere,  // not carried out; another member may
  kToken,      // not carried out: log in again
  kFinal,      // not carried out, nor will it be anywhere
  kUnclear,    // may have been carried out
};
struct Failure {
  Refusal refusal = Refusal::kUnclear;
  std::string message;
};
// Of an answer with a status other than 200.
Failure parse_failure(int status, std::string_view body);

}  // namespace bascule::store::etcd
