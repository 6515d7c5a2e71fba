// What of a client has taken too long.
#include "proxy/client_connection.h"
#include "proxy/worker.h"

namespace bascule::proxy {

void ClientConnection::sweep(MonoTime now) {
  if (phase_ != Phase::kSession || !open() || hold_.ticket != 0) return;
  const ProxyConfig& config = worker_.config();
  const Doing doing = session_->in_flight() ? Doing::kStatement
                      : session_->active()  ? Doing::kIdleInTransaction
                                            : Doing::kNothing;
  const bool same = doing == doing_ && session_->readies() == readies_seen_;
  if (!same) {
    doing_ = doing;
    readies_seen_ = session_->readies();
    doing_since_ = now;
  }
  const bool inside = doing != Doing::kNothing;
  if (!inside || !in_transaction_ || session_->transactions() != transactions_swept_) {
    in_transaction_ = inside;
    transactions_swept_ = session_->transactions();
    transaction_since_ = now;
  }
  const auto over = [now](Nanos limit, MonoTime since) {
    return limit > 0s && now - since >= limit;
  };
  if (doing == Doing::kStatement && over(config.query_timeout, doing_since_)) {
    return time_out("57014", "the statement took longer than query_timeout");
  }
  if (inside && over(config.transaction_timeout, transaction_since_)) {
    return time_out("25P04", "terminating connection due to transaction timeout");
  }
  if (doing == Doing::kIdleInTransaction && over(config.idle_transaction_timeout, doing_since_)) {
    return time_out("25P03", "terminating connection due to idle-in-transaction timeout");
  }
  if (doing == Doing::kNothing && over(config.client_idle_timeout, doing_since_)) {
    return time_out("57P05", "terminating connection due to idle-session timeout");
  }
}

void ClientConnection::time_out(std::string_view sqlstate, std::string_view message) {
  if (stream_ == nullptr || (session_ && session_->mid_message())) return close();
  fail(sqlstate, message);
}

}  // namespace bascule::proxy
