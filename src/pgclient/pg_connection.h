// One libpq connection used synchronously in the pool, with a deadline for every call: libpq's own
// connect_timeout has whole seconds and does not cover queries. One thread at a time.
//
// After any timeout the connection is broken (the answer would come later); drop it.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/result.h"
#include "env/clock.h"

struct pg_conn;

namespace bascule::pgclient {

// Rows of text; a NULL is an empty optional.
using Row = std::vector<std::optional<std::string>>;
using Rows = std::vector<Row>;

// What bounds a call: time, and somebody who changed his mind (asked some times a second).
struct Bound {
  const env::Clock& clock;
  MonoTime deadline;
  std::function<bool()> cancelled = [] { return false; };
};

class PgConnection {
 public:
  // libpq keywords and values: https://www.postgresql.org/docs/15/libpq-connect.html
  using Parameters = std::vector<std::pair<std::string, std::string>>;

  // kSqlState: an error at log-in names its SQLSTATE ("FATAL:  53300: sorry, too many clients"),
  // for those who have to tell a server that is full from one that is gone.
  enum class Errors { kPlain, kSqlState };
  static Result<PgConnection> connect(const Parameters& parameters, const Bound& bound,
                                      Errors errors = Errors::kPlain);
  ~PgConnection();
  PgConnection(PgConnection&&) noexcept;
  PgConnection& operator=(PgConnection&&) noexcept;

  // Rows of the last statement. Errors: kTimeout; kConflict with a SQLSTATE of class 42/23;
  // kUnavailable otherwise. The message carries the server's and the SQLSTATE in brackets.
  Result<Rows> query(const std::string& sql, const Bound& bound);
  // Exactly one row, one column, not NULL.
  Result<std::string> value(const std::string& sql, const Bound& bound);
  // Sends a statement and does not wait; the connection is of no other use afterwards. It is
  // carried out even if the connection is closed.
  void send(const std::string& sql);
  // A string literal of this connection's encoding.
  std::string quote(const std::string& text) const;
  std::string identifier(const std::string& text) const;
  int server_version() const;  // 150020

 private:
  struct Free {
    void operator()(pg_conn* connection) const;
  };
  explicit PgConnection(pg_conn* connection) : connection_(connection) {}
  std::unique_ptr<pg_conn, Free> connection_;
};

// The server refuses connections now but lives: starting up, shutting down, recovering (57P03).
bool says_not_yet(const Error& error);

}  // namespace bascule::pgclient
