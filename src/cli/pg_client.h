// A blocking connection to PostgreSQL for commands that wait anyway (up, demo).
#pragma once

#include <libpq-fe.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/result.h"

namespace bascule::cli {

class PgClient {
 public:
  using Options = std::vector<std::pair<std::string, std::string>>;  // libpq's keywords
  static Result<PgClient> connect(const Options& options);

  // Text of all rows; NULL as "". An error's message is the server's, with its SQLSTATE in front.
  Result<std::vector<std::vector<std::string>>> query(const std::string& sql,
                                                      const std::vector<std::string>& params = {});
  bool in_transaction() const { return PQtransactionStatus(connection_.get()) != PQTRANS_IDLE; }
  // After an error: whether the connection is still good.
  bool usable() const { return PQstatus(connection_.get()) == CONNECTION_OK; }

 private:
  struct Finish {
    void operator()(PGconn* connection) const { PQfinish(connection); }
  };
  explicit PgClient(PGconn* connection) : connection_(connection) {}
  std::unique_ptr<PGconn, Finish> connection_;
};

}  // namespace bascule::cli
