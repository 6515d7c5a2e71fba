#include "cli/pg_client.h"

#include <fmt/format.h>

namespace bascule::cli {
namespace {

std::string one_line(std::string text) {
  while (!text.empty() && text.back() == '\n') text.pop_back();
  for (char& c : text) {
    if (c == '\n' || c == '\t') c = ' ';
  }
  return text;
}

}  // namespace

Result<PgClient> PgClient::connect(const Options& options) {
  std::vector<const char*> keys, values;
  for (const auto& [key, value] : options) {
    keys.push_back(key.c_str());
    values.push_back(value.c_str());
  }
  keys.push_back(nullptr);
  values.push_back(nullptr);
  PgClient client(PQconnectdbParams(keys.data(), values.data(), 0));
  // Notices are for people at a terminal, not for a program's standard error.
  PQsetNoticeProcessor(client.connection_.get(), [](void*, const char*) {}, nullptr);
  if (!client.usable()) {
    return fail(ErrorCode::kUnavailable, one_line(PQerrorMessage(client.connection_.get())));
  }
  return client;
}

Result<std::vector<std::vector<std::string>>> PgClient::query(
    const std::string& sql, const std::vector<std::string>& params) {
  std::vector<const char*> values;
  for (const std::string& param : params) values.push_back(param.c_str());
  const std::unique_ptr<PGresult, decltype(&PQclear)> result(
      PQexecParams(connection_.get(), sql.c_str(), static_cast<int>(values.size()), nullptr,
                   values.data(), nullptr, nullptr, 0),
      PQclear);
  const ExecStatusType status = PQresultStatus(result.get());
  if (status != PGRES_COMMAND_OK && status != PGRES_TUPLES_OK) {
    const char* state = PQresultErrorField(result.get(), PG_DIAG_SQLSTATE);
    return fail(ErrorCode::kUnavailable, fmt::format("{}: {}", state != nullptr ? state : "08006",
                                                     one_line(PQerrorMessage(connection_.get()))));
  }
  std::vector<std::vector<std::string>> rows(static_cast<size_t>(PQntuples(result.get())));
  for (int row = 0; row < PQntuples(result.get()); ++row) {
    for (int column = 0; column < PQnfields(result.get()); ++column) {
      rows[static_cast<size_t>(row)].emplace_back(PQgetvalue(result.get(), row, column));
    }
  }
  return rows;
}

}  // namespace bascule::cli
