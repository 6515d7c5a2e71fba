#include "pgclient/pg_connection.h"

#include <libpq-fe.h>
#include <poll.h>

#include <algorithm>
#include <utility>

namespace bascule::pgclient {
namespace {

constexpr int64_t kSliceMs = 20;  // how late a cancellation is noticed

std::string one_line(const char* text) {
  std::string out = text == nullptr ? "" : text;
  std::replace(out.begin(), out.end(), '\n', ' ');
  while (!out.empty() && out.back() == ' ') out.pop_back();
  return out;
}

Status wait_for(int fd, short events, const Bound& bound, const char* what) {
  for (;;) {
    if (bound.cancelled()) return fail(ErrorCode::kUnavailable, std::string(what) + ": cancelled");
    const Nanos left = bound.deadline - bound.clock.now();
    if (left <= Nanos::zero()) {
      return fail(ErrorCode::kTimeout, std::string(what) + ": no answer in time");
    }
    pollfd waiting{fd, events, 0};
    if (poll(&waiting, 1, static_cast<int>(std::min(kSliceMs, to_ms(left) + 1))) > 0) return {};
  }
}

struct ClearResult {
  void operator()(PGresult* result) const { PQclear(result); }
};
using ResultPtr = std::unique_ptr<PGresult, ClearResult>;

std::unexpected<Error> result_error(const PGresult* result) {
  const char* state = PQresultErrorField(result, PG_DIAG_SQLSTATE);
  const char* message = PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY);
  const std::string code = state == nullptr ? "" : state;
  return fail(
      code.starts_with("42") || code.starts_with("23") ? ErrorCode::kConflict
                                                       : ErrorCode::kUnavailable,
      one_line(message != nullptr ? message : PQresultErrorMessage(result)) + " [" + code + "]");
}

Rows rows_of(const PGresult* result) {
  Rows rows(static_cast<size_t>(PQntuples(result)));
  for (int r = 0; r < PQntuples(result); ++r) {
    for (int c = 0; c < PQnfields(result); ++c) {
      Row& row = rows[static_cast<size_t>(r)];
      if (PQgetisnull(result, r, c) != 0) {
        row.emplace_back();
      } else {
        row.emplace_back(
            std::string(PQgetvalue(result, r, c), static_cast<size_t>(PQgetlength(result, r, c))));
      }
    }
  }
  return rows;
}

}  // namespace

bool says_not_yet(const Error& error) {
  return error.message.find("starting up") != std::string::npos ||
         error.message.find("shutting down") != std::string::npos ||
         error.message.find("in recovery mode") != std::string::npos ||
         error.message.find("not yet accepting connections") != std::string::npos ||
         error.message.find("not accepting connections") != std::string::npos;
}

void PgConnection::Free::operator()(pg_conn* connection) const { PQfinish(connection); }
PgConnection::~PgConnection() = default;
PgConnection::PgConnection(PgConnection&&) noexcept = default;
PgConnection& PgConnection::operator=(PgConnection&&) noexcept = default;

Result<PgConnection> PgConnection::connect(const Parameters& parameters, const Bound& bound,
                                           Errors errors) {
  std::vector<const char*> keys, values;
  for (const auto& [key, value] : parameters) {
    keys.push_back(key.c_str());
    values.push_back(value.c_str());
  }
  keys.push_back(nullptr);
  values.push_back(nullptr);
  PgConnection out(PQconnectStartParams(keys.data(), values.data(), 0));
  pg_conn* connection = out.connection_.get();
  if (connection == nullptr) return fail(ErrorCode::kInternal, "libpq: out of memory");
  if (errors == Errors::kSqlState) PQsetErrorVerbosity(connection, PQERRORS_VERBOSE);
  PostgresPollingStatusType state = PGRES_POLLING_WRITING;
  if (PQstatus(connection) == CONNECTION_BAD) state = PGRES_POLLING_FAILED;
  while (state != PGRES_POLLING_OK) {
    if (state == PGRES_POLLING_FAILED) {
      return fail(ErrorCode::kUnavailable, one_line(PQerrorMessage(connection)));
    }
    const short events = state == PGRES_POLLING_READING ? POLLIN : POLLOUT;
    if (auto ready = wait_for(PQsocket(connection), events, bound, "connect"); !ready) {
      return std::unexpected(ready.error());
    }
    state = PQconnectPoll(connection);
  }
  PQsetnonblocking(connection, 1);
  return out;
}

Result<Rows> PgConnection::query(const std::string& sql, const Bound& bound) {
  pg_conn* connection = connection_.get();
  if (PQsendQuery(connection, sql.c_str()) == 0) {
    return fail(ErrorCode::kUnavailable, one_line(PQerrorMessage(connection)));
  }
  while (PQflush(connection) == 1) {
    if (auto ready = wait_for(PQsocket(connection), POLLOUT, bound, "query"); !ready) {
      return std::unexpected(ready.error());
    }
  }
  Result<Rows> out = Rows{};
  for (;;) {
    while (PQisBusy(connection) != 0) {
      if (auto ready = wait_for(PQsocket(connection), POLLIN, bound, "query"); !ready) {
        return std::unexpected(ready.error());
      }
      if (PQconsumeInput(connection) == 0) {
        return fail(ErrorCode::kUnavailable, one_line(PQerrorMessage(connection)));
      }
    }
    const ResultPtr result(PQgetResult(connection));
    if (!result) return out;
    const ExecStatusType status = PQresultStatus(result.get());
    if (status == PGRES_TUPLES_OK) {
      if (out) out = rows_of(result.get());
    } else if (status != PGRES_COMMAND_OK && status != PGRES_EMPTY_QUERY) {
      if (out) out = result_error(result.get());
      if (PQstatus(connection) == CONNECTION_BAD) return out;
    }
  }
}

Result<std::string> PgConnection::value(const std::string& sql, const Bound& bound) {
  auto rows = query(sql, bound);
  if (!rows) return std::unexpected(rows.error());
  if (rows->size() != 1 || (*rows)[0].empty() || !(*rows)[0][0]) {
    return fail(ErrorCode::kUnavailable, "no value for: " + sql);
  }
  return *(*rows)[0][0];
}

void PgConnection::send(const std::string& sql) {
  // A few bytes into a local socket's buffer: read by the backend before it sees the end.
  if (PQsendQuery(connection_.get(), sql.c_str()) == 1) PQflush(connection_.get());
}

std::string PgConnection::quote(const std::string& text) const {
  char* quoted = PQescapeLiteral(connection_.get(), text.c_str(), text.size());
  std::string out = quoted == nullptr ? "NULL" : quoted;
  PQfreemem(quoted);
  return out;
}

std::string PgConnection::identifier(const std::string& text) const {
  char* quoted = PQescapeIdentifier(connection_.get(), text.c_str(), text.size());
  std::string out = quoted == nullptr ? "\"\"" : quoted;
  PQfreemem(quoted);
  return out;
}

int PgConnection::server_version() const { return PQserverVersion(connection_.get()); }

}  // namespace bascule::pgclient
