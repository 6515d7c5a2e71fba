#include "pgwire/session_tracker.h"

namespace bascule::pgwire {

void SessionTracker::sent(char type) {
  if (copy_ == CopyState::kIn && !copy_end_sent_) {
    sent_in_copy(type);
    return;
  }
  switch (type) {
    case 'S':
      skipping_ = false;
      push(Kind::kSync);
      break;
    case 'Q':
    case 'F':
      push(Kind::kQuery);
      break;
    case 'P':
    case 'B':
    case 'D':
    case 'E':
    case 'C':
      push(Kind::kExtended);
      break;
    case 'c':
    case 'f':
      // The server drops it unless a COPY begins before it is met, which needs something ahead.
      if (in_flight() && copy_ != CopyState::kBoth) push(Kind::kCopyEnd);
      break;
    case 'X':
      reusable_ = false;
      break;
    default:  // CopyData, Flush: no reply, no change
      break;
  }
}

// CopyGetData() of PostgreSQL: Flush and Sync are read and forgotten between CopyData messages.
void SessionTracker::sent_in_copy(char type) {
  switch (type) {
    case 'c':
    case 'f':
      copy_end_sent_ = true;
      break;
    case 'S':
      copy_syncs_lost_ = true;
      break;
    case 'd':
    case 'H':
      break;
    case 'X':
      reusable_ = false;
      break;
    default:
      // Anything else makes the server end the connection.
      push(type == 'Q' || type == 'F' ? Kind::kQuery : Kind::kExtended);
      reusable_ = false;
      break;
  }
}

SessionTracker::Verdict SessionTracker::received(char type, std::string_view payload) {
  switch (type) {
    case 'Z':
      return on_ready(payload);
    case 'E':
      on_error();
      return Verdict::kOk;
    case 'G':
    case 'H':
    case 'W':
      if (!in_flight() || front_is(Kind::kSync)) return violation();
      copy_end_sent_ = copy_syncs_lost_ = false;
      copy_ = type == 'G' ? CopyState::kIn : type == 'H' ? CopyState::kOut : CopyState::kBoth;
      if (type == 'G') begin_copy_in();
      return Verdict::kOk;
    case '1':
    case '2':
    case '3':
    case 'n':
    case 's':
    case 'T':
    case 'C':
    case 'I':
      return on_reply(type);
    case 'D':
    case 'd':
    case 'c':
    case 't':
    case 'N':
    case 'A':
    case 'S':
    case 'K':
    case 'v':
    case 'V':
      return Verdict::kOk;
    default:
      return violation();
  }
}

SessionTracker::Verdict SessionTracker::on_reply(char type) {
  if (type == 'C') copy_ = CopyState::kNone;
  if (take_extended_reply()) return Verdict::kOk;
  const bool in_simple_query = type == 'T' || type == 'C' || type == 'I';
  return in_simple_query && front_is(Kind::kQuery) ? Verdict::kOk : violation();
}

bool SessionTracker::take_extended_reply() {
  if (!front_is(Kind::kExtended)) return false;
  drop(head_, 1);
  drop_unanswered();
  batch_open_ = true;
  return true;
}

// The server reads COPY data now. What was sent ahead of CopyInResponse and follows the COPY is met
// in copy mode: Syncs are lost up to the end of the data, if the client sent that blindly.
void SessionTracker::begin_copy_in() {
  if (front_is(Kind::kExtended) && tokens_[head_].count > 1) return;  // ends in an error anyway
  size_t next = head_ + 1;
  const auto next_is = [&](Kind kind) {
    return next < tokens_.size() && tokens_[next].kind == kind;
  };
  if (next_is(Kind::kSync)) {
    copy_syncs_lost_ = true;
    ready_outstanding_ -= tokens_[next].count;
    tokens_[next].kind = Kind::kLostSync;
  }
  if (next_is(Kind::kLostSync)) ++next;
  if (next_is(Kind::kCopyEnd)) {
    drop(next, 1);
    copy_end_sent_ = true;
  }
}

void SessionTracker::on_error() {
  if (copy_ == CopyState::kIn && copy_syncs_lost_) {
    unsure_ = true;
    reusable_ = false;
  }
  copy_ = CopyState::kNone;
  if (!in_flight()) {
    reusable_ = false;
    return;
  }
  if (!front_is(Kind::kExtended)) return;  // of a Query or a Sync: ReadyForQuery follows
  batch_open_ = true;
  while (in_flight() && !front_is(Kind::kSync)) drop(head_, tokens_[head_].count);
  skipping_ = !in_flight();
}

SessionTracker::Verdict SessionTracker::on_ready(std::string_view payload) {
  const auto status = parse_ready_for_query(payload);
  if (!status) {
    reusable_ = false;
    return Verdict::kViolation;
  }
  if (front_is(Kind::kSync) || front_is(Kind::kQuery)) {
    drop(head_, 1);
  } else if (!unsure_) {
    return violation();
  }
  transaction_ = *status;
  copy_ = CopyState::kNone;
  batch_open_ = false;
  if (unsure_) skipping_ = false;
  drop_unanswered();
  return Verdict::kOk;
}

SessionTracker::Verdict SessionTracker::violation() {
  reusable_ = false;
  return unsure_ ? Verdict::kOk : Verdict::kViolation;
}

void SessionTracker::push(Kind kind) {
  if (skipping_) return;  // the server throws it away
  if (kind != Kind::kCopyEnd) {
    ++pending_;
    ++sent_;
  }
  if (kind == Kind::kSync || kind == Kind::kQuery) ++ready_outstanding_;
  if (in_flight() && tokens_.back().kind == kind) {
    ++tokens_.back().count;
  } else {
    tokens_.push_back({kind, 1});
  }
}

void SessionTracker::drop(size_t position, uint32_t count) {
  Token& token = tokens_[position];
  if (token.kind != Kind::kCopyEnd) pending_ -= count;
  if (token.kind == Kind::kSync || token.kind == Kind::kQuery) ready_outstanding_ -= count;
  token.count -= count;
  if (token.count > 0) return;
  if (position == head_) {
    ++head_;
  } else {
    tokens_.erase(tokens_.begin() + static_cast<std::ptrdiff_t>(position));
  }
  // Amortised: what was answered is let go in halves, not message by message.
  if (head_ == tokens_.size()) {
    tokens_.clear();
    head_ = 0;
  } else if (head_ >= 32 && head_ * 2 >= tokens_.size()) {
    tokens_.erase(tokens_.begin(), tokens_.begin() + static_cast<std::ptrdiff_t>(head_));
    head_ = 0;
  }
}

void SessionTracker::drop_unanswered() {
  while (front_is(Kind::kCopyEnd) || front_is(Kind::kLostSync)) drop(head_, tokens_[head_].count);
}

}  // namespace bascule::pgwire
