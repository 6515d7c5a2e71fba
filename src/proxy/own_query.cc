#include "proxy/own_query.h"

#include <fmt/format.h>
#include <string.h>

#include <utility>

#include "pgwire/messages.h"
#include "proxy/server_dial.h"
#include "proxy/users.h"

namespace bascule::proxy {
namespace {

using pgwire::FrameAction;
using pgwire::ScanKind;

// Whole messages, and no larger ones than a stream keeps for its handler.
constexpr uint32_t kMessageMax = 60 * 1024;

constexpr pgwire::FramePolicy make_policy() {
  pgwire::FramePolicy policy{};
  for (const char type : {'T', 'D', 'C', 'E', 'N', 'Z', 'S', 'I', 'A'}) {
    policy[static_cast<size_t>(type)] = {FrameAction::kReport, kMessageMax, kMessageMax};
  }
  return policy;
}
constexpr pgwire::FramePolicy kOwnPolicy = make_policy();

}  // namespace

OwnConnection::OwnConnection(env::Loop& loop, env::Net& net, env::Entropy& entropy, Server server)
    : loop_(loop), net_(net), entropy_(entropy), server_(std::move(server)), scanner_(kOwnPolicy) {}

OwnConnection::~OwnConnection() { close(); }

void OwnConnection::close() {
  loop_.cancel(std::exchange(deadline_, env::TimerId::kNone));
  if (stream_ != nullptr) {
    if (phase_ == Phase::kIdle) {
      std::string bye;
      pgwire::append_terminate(bye);
      stream_->send(bye);
    }
    std::exchange(stream_, nullptr)->close();
  }
  dial_.reset();
  login_.reset();
  phase_ = Phase::kClosed;
}

void OwnConnection::finish(Status status) {
  loop_.cancel(std::exchange(deadline_, env::TimerId::kNone));
  on_row_ = nullptr;
  if (auto done = std::exchange(on_done_, nullptr)) done(std::move(status));
}

void OwnConnection::query(std::string_view sql, Nanos timeout, OnRow on_row, OnDone on_done) {
  sql_ = sql;
  on_row_ = std::move(on_row);
  on_done_ = std::move(on_done);
  error_.reset();
  deadline_ = loop_.call_after(timeout, [this] {
    deadline_ = env::TimerId::kNone;
    close();
    finish(fail(ErrorCode::kTimeout,
                fmt::format("{}: no answer in time", server_.endpoint.to_string())));
  });
  if (phase_ == Phase::kIdle) return send_query();
  scanner_ = pgwire::FrameScanner(kOwnPolicy);
  phase_ = Phase::kConnecting;
  login_ = std::make_unique<ServerLogin>(
      server_.startup, server_.credential,
      pgwire::make_nonce(random_bytes(entropy_, pgwire::kScramNonceBytes)));
  dial_ = std::make_unique<ServerDial>(net_, server_.access, server_.endpoint,
                                       static_cast<ServerDial::Owner&>(*this));
  dial_->dial();
}

void OwnConnection::on_dialed(env::Stream& stream) {
  stream_ = &stream;
  stream.set_handler(*this);
  phase_ = Phase::kLogin;
  const bool hidden = stream.secured() || server_.endpoint.host.starts_with('/');
  stream.send(login_->first(channel_binding(stream),
                            hidden ? ServerLogin::Privacy::kPrivate : ServerLogin::Privacy::kNone));
}

void OwnConnection::on_dial_failed(const ServerDial::Failure& failure) {
  const std::string message = failure.message;
  close();
  finish(
      fail(ErrorCode::kUnavailable, fmt::format("{}: {}", server_.endpoint.to_string(), message)));
}

size_t OwnConnection::on_login_data(std::string_view bytes) {
  std::string reply;
  const size_t done = login_->on_bytes(bytes, reply);
  if (!reply.empty()) stream_->send(reply);
  if (login_->state() == ServerLogin::State::kFailed) {
    const ServerLogin::Failure failure = login_->failure();
    if (failure.sqlstate == "28000" && dial_->dial_otherwise()) {
      std::exchange(stream_, nullptr)->close();
      login_->restart(pgwire::make_nonce(random_bytes(entropy_, pgwire::kScramNonceBytes)));
      phase_ = Phase::kConnecting;
      return bytes.size();
    }
    close();
    finish(fail(ErrorCode::kUnavailable,
                fmt::format("{}: {}", server_.endpoint.to_string(), failure.message)));
    return bytes.size();
  }
  if (login_->state() == ServerLogin::State::kReady) {
    login_.reset();
    dial_.reset();
    send_query();
  }
  return done;
}

void OwnConnection::send_query() {
  phase_ = Phase::kRunning;
  sent_ = loop_.now();
  std::string message;
  pgwire::append_query(message, sql_);
  stream_->send(message);
}

size_t OwnConnection::on_data(std::string_view bytes) {
  if (phase_ == Phase::kLogin) return on_login_data(bytes);
  if (phase_ != Phase::kIdle && phase_ != Phase::kRunning) return 0;
  size_t done = 0;
  while (done < bytes.size()) {
    const pgwire::Scan message = scanner_.next(bytes.substr(done));
    if (message.kind == ScanKind::kNeedMore) break;
    if (message.kind != ScanKind::kStart || !message.ends) {
      close();
      finish(fail(ErrorCode::kInvalid, fmt::format("{}: an answer that can't be understood",
                                                   server_.endpoint.to_string())));
      return bytes.size();
    }
    done += message.bytes.size();
    if (!on_message(message)) return bytes.size();
  }
  return done;
}

bool OwnConnection::on_message(const pgwire::Scan& message) {
  switch (message.type) {
    case 'D': {
      if (phase_ != Phase::kRunning || error_) return true;
      const auto row = pgwire::parse_data_row(message.payload());
      Status status = row ? on_row_(*row) : Status(std::unexpected(row.error()));
      if (!status) {
        close();
        finish(std::move(status));
        return false;
      }
      return true;
    }
    case 'E': {
      const auto error = pgwire::parse_error(message.payload());
      error_ = Error{ErrorCode::kInvalid,
                     fmt::format("{}: {}", server_.endpoint.to_string(),
                                 error ? error->message : std::string_view("an error")),
                     ""};
      if (error && error->fatal()) {
        close();
        if (!busy() && on_lost_) on_lost_();
        error_->code = ErrorCode::kUnavailable;
        finish(std::unexpected(*std::exchange(error_, std::nullopt)));
        return false;
      }
      return true;
    }
    case 'Z': {
      if (phase_ != Phase::kRunning) return true;
      phase_ = Phase::kIdle;
      round_trip_ = loop_.now() - sent_;
      auto error = std::exchange(error_, std::nullopt);
      finish(error ? Status(std::unexpected(std::move(*error))) : Status());
      // The next query has begun, or `this` is gone: nothing of this one follows either way.
      return false;
    }
    case 'A':
      if (on_notification_) on_notification_(message.bytes);
      return true;
    default:
      return true;
  }
}

void OwnConnection::on_closed(int error) {
  stream_ = nullptr;
  if (!busy() && on_lost_) on_lost_();
  close();
  finish(fail(ErrorCode::kUnavailable,
              fmt::format("{}: {}", server_.endpoint.to_string(),
                          error == 0 ? "the server closed the connection" : strerror(error))));
}

}  // namespace bascule::proxy
