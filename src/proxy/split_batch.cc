#include "proxy/split_batch.h"

#include <algorithm>
#include <utility>

#include "pgwire/frames.h"
#include "pgwire/messages.h"

namespace bascule::proxy {
void read_batch(std::string_view bytes, SplitBatch& batch) {
  using State = SplitBatch::State;
  batch.state = State::kUnclear;
  batch.items.clear();
  batch.size = 0;
  std::vector<std::string_view> parsed;  // names of statements that this batch makes
  size_t at = 0;
  for (;;) {
    const pgwire::Frame frame = pgwire::peek_frame(bytes.substr(at), pgwire::kMaxPayload);
    if (frame.state == pgwire::FrameState::kBad) return;
    if (frame.state == pgwire::FrameState::kIncomplete) {
      const bool fits =
          at + (frame.header_known ? frame.size() : pgwire::kFrameHeaderSize) <= kSplitBatchMax;
      if (fits) batch.state = State::kNeedMore;
      return;
    }
    const bool first = at == 0;
    at += frame.size();
    if (at > kSplitBatchMax || batch.items.size() >= kSplitItemsMax) return;
    switch (frame.type) {
      case 'Q': {
        const auto sql = pgwire::parse_query(frame.payload);
        if (!first || !sql) return;
        batch.items.push_back({*sql, {}});
        batch.size = at;
        batch.state = State::kWhole;
        return;
      }
      case 'P': {
        const auto parse = pgwire::parse_parse(frame.payload);
        if (!parse) return;
        batch.items.push_back({parse->sql, {}});
        parsed.push_back(parse->statement);
        break;
      }
      case 'B': {
        const auto bind = pgwire::parse_bind(frame.payload);
        if (!bind) return;
        if (std::ranges::find(parsed, bind->statement) == parsed.end()) {
          batch.items.push_back({{}, bind->statement});
        }
        break;
      }
      case 'D':
      case 'C':
      case 'E':
        break;
      case 'S':
        batch.size = at;
        batch.state = State::kWhole;
        return;
      default:  // Flush: what follows is not known; function calls; copy data out of place
        return;
    }
  }
}

void BatchVerdict::add(const sql::Analysis& analysis) {
  const bool first = std::exchange(first_, false);
  if (!any_server_) return;
  if (over_) {
    any_server_ = false;
    reason_ = sql::Reason::kTransaction;
    return;
  }
  switch (analysis.kind) {
    case sql::Kind::kRead:
      return;
    case sql::Kind::kBeginReadOnly:
      if (first) {
        in_transaction_ = true;
        return;
      }
      break;
    case sql::Kind::kPrimary:
      // The end of the transaction may be in the same batch; nothing after it.
      if (in_transaction_ && analysis.reason == sql::Reason::kTransaction) {
        over_ = true;
        return;
      }
      break;
    default:
      break;
  }
  any_server_ = false;
  reason_ = analysis.reason == sql::Reason::kNone ? sql::Reason::kSession : analysis.reason;
}

}  // namespace bascule::proxy
