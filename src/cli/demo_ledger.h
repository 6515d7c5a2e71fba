// What the demo's clients were told, and what it means: gaps between acknowledged writes, errors,
// and in the end which acknowledged rows are missing or there twice. Pure.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/time.h"

namespace bascule::cli {

struct Acknowledged {
  int client = 0;
  int64_t seq = 0;  // of that client, ascending, never used twice
  MonoTime at{};    // when the answer was there
};

struct ClientError {
  int client = 0;
  MonoTime at{};
  std::string what;  // "57P01: terminating connection ..."
};

// Rows of the table in the end: how often each (client, seq) is there.
using RowCounts = std::map<std::pair<int, int64_t>, int64_t>;

struct Verdict {
  uint64_t acknowledged = 0;
  uint64_t unacknowledged_present = 0;  // rows of writes that ended in an error: allowed
  std::vector<std::pair<int, int64_t>> lost;
  std::vector<std::pair<int, int64_t>> duplicated;
  bool ok() const { return lost.empty() && duplicated.empty(); }
};

class Ledger {
 public:
  void add(Acknowledged write) { writes_.push_back(write); }
  void add(ClientError error) { errors_.push_back(std::move(error)); }

  struct Window {
    MonoTime from;
    MonoTime to;
  };
  // The longest time between consecutive acknowledged writes of all clients together (of one
  // client: `client`) that touches the window: it begins with the last write before `from`, and a
  // window that ends without a write counts to its end.
  Nanos longest_gap(Window window, std::optional<int> client = std::nullopt) const;
  // The longest of the clients' own gaps.
  Nanos longest_client_gap(Window window) const;
  std::vector<ClientError> errors(Window window) const;
  std::optional<MonoTime> first_write_after(MonoTime time) const;

  Verdict verdict(const RowCounts& rows) const;
  const std::vector<Acknowledged>& writes() const { return writes_; }

 private:
  std::vector<Acknowledged> writes_;  // in the order of being added: times need not ascend
  std::vector<ClientError> errors_;
};

struct Statistics {
  double median = 0;
  double maximum = 0;
};
Statistics statistics(std::vector<double> values);

}  // namespace bascule::cli
