#include "proxy/monitor.h"

#include <fmt/format.h>

#include <charconv>
#include <utility>

#include "base/log.h"
#include "proxy/catalogs.h"

namespace bascule::proxy {
namespace {

// For a role without privileges, PostgreSQL 13 and newer.
constexpr std::string_view kQuestion = R"(
select pg_is_in_recovery()::text,
       coalesce(case when pg_is_in_recovery() then pg_last_wal_replay_lsn()
                     else pg_current_wal_lsn() end::text, '0/0'),
       (select system_identifier::text from pg_control_system()),
       case when pg_is_in_recovery() then (select timeline_id::text from pg_control_checkpoint())
            else ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::int::text end)";

Result<ServerSeen> read_answer(const OwnConnection::Row& row) {
  ServerSeen seen;
  if (row.size() != 4) return fail(ErrorCode::kInvalid, "the answer has another form");
  seen.in_recovery = row[0] == "true";
  auto lsn = Lsn::parse(row[1].value_or(""));
  if (!lsn) return std::unexpected(lsn.error());
  seen.lsn = *lsn;
  seen.system_id = row[2].value_or("");
  const std::string_view timeline = row[3].value_or("");
  std::from_chars(timeline.data(), timeline.data() + timeline.size(), seen.timeline.value);
  return seen;
}

}  // namespace

Status Monitor::validate(const MonitorConfig& config) {
  if (auto status = StaticTopology::validate(config.servers); !status) return status;
  if (!config.user.empty()) return {};
  for (const ServerSpec& server : config.servers) {
    if (server.role != ServerRole::kAuto || config.servers.size() == 1) continue;
    return fail(ErrorCode::kInvalid,
                fmt::format("the role of server {} is to be found out, and there is no user to ask "
                            "with",
                            server.name),
                "Give proxy.server_check.user, or a role to each server.");
  }
  return {};
}

Monitor::Monitor(MonitorConfig config, std::unique_ptr<env::Engine> engine,
                 std::shared_ptr<const Access> access, Publish publish)
    : config_(std::move(config)),
      engine_(std::move(engine)),
      publish_(std::move(publish)),
      topology_([&] {
        std::vector<ServerSpec> servers = config_.servers;
        // The only one, and nobody may ask: what else could it be?
        if (servers.size() == 1 && config_.user.empty()) servers[0].role = ServerRole::kPrimary;
        return servers;
      }()) {
  if (config_.user.empty()) return;
  for (const ServerSpec& spec : config_.servers) {
    OwnConnection::Server server;
    server.endpoint = spec.endpoint;
    server.startup = own_startup(config_.user, config_.database);
    server.credential.password = config_.password;
    server.access = access;
    connections_.push_back(std::make_unique<OwnConnection>(engine_->loop(), engine_->net(),
                                                           engine_->entropy(), std::move(server)));
  }
}

Monitor::~Monitor() { stop(); }

void Monitor::start() {
  publish();
  if (connections_.empty()) return;
  engine_->loop().post([this] { ask_all(); });
  started_ = true;
  engine_->start();
}

void Monitor::stop() {
  if (!std::exchange(started_, false)) return;
  engine_->loop().stop();
  engine_->join();
  connections_.clear();
}

void Monitor::ask_all() {
  for (size_t i = 0; i < connections_.size(); ++i) {
    if (!connections_[i]->busy()) ask(i);
  }
  engine_->loop().call_after(config_.interval, [this] { ask_all(); });
}

void Monitor::ask(size_t server) {
  auto answer = std::make_shared<std::optional<ServerSeen>>();  // for both callbacks
  connections_[server]->query(
      kQuestion, config_.timeout,
      [answer](const OwnConnection::Row& row) -> Status {
        auto seen = read_answer(row);
        if (!seen) return std::unexpected(seen.error());
        *answer = std::move(*seen);
        return {};
      },
      [this, server, answer](Status status) {
        if (status && *answer) {
          (*answer)->round_trip = connections_[server]->round_trip();
          topology_.seen(server, **answer, engine_->loop().now());
        } else {
          topology_.failed(server, status ? "it gave no answer" : status.error().message);
        }
        publish();
      });
}

void Monitor::publish() {
  auto table = topology_.changed(engine_->loop().now());
  if (!table) return;
  log(LogLevel::kInfo, "proxy", "servers",
      {{"primary", table->primary ? table->primary->name : "none"},
       {"replicas", table->replicas.size()},
       {"epoch", table->epoch.value},
       {"reason", table->reason}});
  publish_(std::move(*table));
}

}  // namespace bascule::proxy
