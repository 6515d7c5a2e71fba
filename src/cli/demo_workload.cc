#include "cli/demo_workload.h"

#include <fmt/format.h>

#include <charconv>
#include <optional>

namespace bascule::cli {
namespace {

constexpr Millis kPauseBetweenWrites{4};
constexpr Millis kPauseBeforeReconnect{20};
constexpr int kTransactionEvery = 4;  // every so many writes is a transaction of two rows
constexpr char kInsert[] = "INSERT INTO demo_writes (client, seq) VALUES ($1, $2)";

template <typename Number>
Number number(const std::string& text) {
  Number value = 0;
  std::from_chars(text.data(), text.data() + text.size(), value);
  return value;
}

}  // namespace

PgClient::Options writer_options(const LocalCluster& cluster) {
  return {{"host", cluster.writer.host},
          {"port", std::to_string(cluster.writer.port)},
          {"user", cluster.app_user},
          {"dbname", cluster.database},
          {"passfile", cluster.layout().secret("pgpass")},
          {"application_name", "demo"},
          {"sslmode", "disable"},
          {"connect_timeout", "10"}};
}

class Workload::Client {
 public:
  Client(Workload& workload, int id) : workload_(workload), id_(id) {}

  void run() {
    const PgClient::Options options = writer_options(workload_.cluster_);
    std::optional<PgClient> connection;
    for (int turn = 0; !workload_.stop_.load(); ++turn) {
      if (!connection || !connection->usable()) {
        auto fresh = PgClient::connect(options);
        if (!fresh) {
          workload_.on_error(id_, "connect: " + fresh.error().message);
          workload_.platform_.process.sleep(kPauseBeforeReconnect);
          continue;
        }
        if (connection) workload_.on_error(id_, "had to reconnect");
        connection = std::move(*fresh);
      }
      if (turn % kTransactionEvery == 0) {
        write_transaction(*connection);
      } else {
        write_one(*connection);
      }
      workload_.platform_.process.sleep(kPauseBetweenWrites);
    }
  }

 private:
  Status insert(PgClient& connection, int64_t seq) {
    const auto done = connection.query(kInsert, {std::to_string(id_), std::to_string(seq)});
    if (!done) return std::unexpected(done.error());
    return {};
  }

  void write_one(PgClient& connection) {
    const int64_t seq = ++seq_;
    if (const auto done = insert(connection, seq); !done) {
      workload_.on_error(id_, done.error().message);
    } else {
      workload_.on_acknowledged(id_, {seq});
    }
  }

  void write_transaction(PgClient& connection) {
    const int64_t first = ++seq_;
    const int64_t second = ++seq_;
    auto step = connection.query("BEGIN");
    if (step) {
      auto done = insert(connection, first);
      if (done) done = insert(connection, second);
      if (!done) step = std::unexpected(done.error());
    }
    if (step) step = connection.query("COMMIT");
    if (step) return workload_.on_acknowledged(id_, {first, second});
    workload_.on_error(id_, step.error().message);
    if (connection.usable() && connection.in_transaction()) (void)connection.query("ROLLBACK");
  }

  Workload& workload_;
  const int id_;
  int64_t seq_ = 0;
};

Workload::Workload(const Platform& platform, const LocalCluster& cluster, int clients)
    : platform_(platform), cluster_(cluster), clients_(clients) {}

Workload::~Workload() { stop(); }

Status Workload::create_table(const LocalCluster& cluster) {
  auto client = PgClient::connect(writer_options(cluster));
  if (!client) return std::unexpected(client.error());
  // No unique constraint: a write that was carried out twice has to show.
  const auto made = client->query(
      "CREATE TABLE demo_writes (client int NOT NULL, seq bigint NOT NULL, "
      "at timestamptz NOT NULL DEFAULT clock_timestamp())");
  if (!made) return std::unexpected(made.error());
  return {};
}

void Workload::start() {
  pool_ = platform_.make_pool(clients_);
  for (int id = 0; id < clients_; ++id) {
    pool_->submit([this, id] { Client(*this, id).run(); });
  }
}

void Workload::stop() {
  stop_.store(true);
  pool_.reset();
}

Ledger Workload::ledger() const {
  const std::lock_guard lock(mutex_);
  return ledger_;
}

void Workload::on_acknowledged(int client, std::initializer_list<int64_t> seqs) {
  const MonoTime now = platform_.clock.now();
  const std::lock_guard lock(mutex_);
  for (const int64_t seq : seqs) ledger_.add(Acknowledged{client, seq, now});
  newest_ns_.store(now.time_since_epoch().count());
  acknowledged_.fetch_add(seqs.size());
}

void Workload::on_error(int client, const std::string& what) {
  const MonoTime now = platform_.clock.now();
  const std::lock_guard lock(mutex_);
  ledger_.add(ClientError{client, now, what});
  errors_.fetch_add(1);
}

Result<RowCounts> Workload::count_rows(const LocalCluster& cluster) {
  auto client = PgClient::connect(writer_options(cluster));
  if (!client) return std::unexpected(client.error());
  const auto recovery = client->query("SELECT pg_is_in_recovery()");
  if (!recovery) return std::unexpected(recovery.error());
  if ((*recovery)[0][0] != "f") {
    return fail(ErrorCode::kInternal, "the writer port leads to a standby: not counted");
  }
  const auto rows =
      client->query("SELECT client, seq, count(*) FROM demo_writes GROUP BY client, seq");
  if (!rows) return std::unexpected(rows.error());
  RowCounts counts;
  for (const auto& row : *rows) {
    counts[{number<int>(row[0]), number<int64_t>(row[1])}] = number<int64_t>(row[2]);
  }
  return counts;
}

}  // namespace bascule::cli
