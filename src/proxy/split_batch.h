// What a client on a splitting port is about to run: its unread messages up to the end of the batch
// (a Query, or everything up to Sync), looked at before any of them is sent. Pure.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "sql/analysis.h"

namespace bascule::proxy {

struct SplitBatch {
  enum class State : uint8_t {
    kNeedMore,  // its end has not arrived yet
    kWhole,
    kUnclear,  // too large, a Flush before the end, a function call: nothing can be said
  };
  struct Item {
    std::string_view sql;   // of a Query or Parse
    std::string_view name;  // of a statement prepared before, if `sql` has no data
    bool prepared_before() const { return sql.data() == nullptr; }
  };
  State state = State::kNeedMore;
  std::vector<Item> items;  // views of the bytes given
  size_t size = 0;          // kWhole: bytes of the batch
};

// More than this is not waited for: half of what a stream keeps for its handler.
constexpr size_t kSplitBatchMax = 32 * 1024;
constexpr size_t kSplitItemsMax = 64;

// `bytes` begins at a message boundary. Reuses the capacity of `batch`.
void read_batch(std::string_view bytes, SplitBatch& batch);

// What all items together are, one after the other.
class BatchVerdict {
 public:
  void add(const sql::Analysis& analysis);
  // A read, or a READ ONLY transaction from its beginning: any server that has the data may do it.
  bool any_server() const { return any_server_; }
  sql::Reason reason() const { return reason_; }  // why not; kNone if so

 private:
  bool any_server_ = true;
  bool first_ = true;
  bool in_transaction_ = false;  // READ ONLY, begun here
  bool over_ = false;            // ... and ended here
  sql::Reason reason_ = sql::Reason::kNone;
};

}  // namespace bascule::proxy
