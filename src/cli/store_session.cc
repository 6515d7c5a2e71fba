#include "cli/store_session.h"

#include <fmt/format.h>

#include <filesystem>
#include <optional>

#include "cli/config.h"
#include "cli/layout.h"
#include "cli/user.h"

namespace bascule::cli {
namespace {

constexpr Millis kRequestTimeout{3000};
constexpr Millis kRereadEvery{1000};

}  // namespace

Result<std::unique_ptr<StoreSession>> StoreSession::open(const Platform& platform,
                                                         const ClusterAt& at) {
  if (!at.store.etcd && !platform.disk.exists(at.store.path)) {
    return fail(ErrorCode::kNotFound,
                fmt::format("there is no cluster here: {} does not exist", at.store.path),
                "Start one with `bascule up`, or say where it is with --dir or -c");
  }
  std::unique_ptr<StoreSession> session(new StoreSession(at.cluster));
  session->loop_ = platform.make_loop();
  OpenStore::Options options;
  options.timeout = kRequestTimeout;
  auto open = OpenStore::open(platform, at.store, *session->loop_, options);
  if (!open) return std::unexpected(open.error());
  session->open_ = std::move(*open);
  return session;
}

Result<control::ClusterView> StoreSession::view() {
  const auto snapshot = read(keys_.prefix);
  if (!snapshot) return std::unexpected(snapshot.error());
  return control::parse_cluster(keys_, *snapshot);
}

Result<store::Snapshot> StoreSession::read(const std::string& prefix) {
  std::optional<Result<store::Snapshot>> answer;
  store().read(prefix, [&](Result<store::Snapshot> result) {
    answer = std::move(result);
    loop_->stop();
  });
  // A watch may stop the loop too; every request is answered, at the latest with a timeout.
  while (!answer) loop_->run();
  return *std::move(answer);
}

store::TxnResult StoreSession::commit(store::Txn txn) {
  std::optional<store::TxnResult> answer;
  store().commit(std::move(txn), [&](store::TxnResult result) {
    answer = std::move(result);
    loop_->stop();
  });
  while (!answer) loop_->run();
  return *std::move(answer);
}

bool StoreSession::follow(Millis limit,
                          const std::function<bool(const control::ClusterView&)>& done) {
  bool changed = false;
  const MonoTime end = loop_->now() + limit;
  const uint64_t watch = store().watch(keys_.prefix, [&] {
    changed = true;
    loop_->stop();
  });
  bool satisfied = false;
  while (!satisfied) {
    changed = false;
    const auto seen = view();
    satisfied = seen && done(*seen);
    if (satisfied || loop_->now() >= end) break;
    if (changed) continue;
    const env::TimerId timer =
        loop_->call_at(std::min(end, loop_->now() + kRereadEvery), [&] { loop_->stop(); });
    loop_->run();
    loop_->cancel(timer);
  }
  store().unwatch(watch);
  return satisfied;
}

Result<ClusterAt> find_cluster(const Platform& platform, const std::string& dir,
                               const std::string& config_file) {
  ClusterAt at;
  if (!config_file.empty()) {
    const auto config = load_config(config_file);
    if (!config) return std::unexpected(config.error());
    at = {config->cluster, config->store, ""};
  } else {
    at.dir = dir;
    if (at.dir.empty()) at.dir = platform.environment("BASCULE_DIR").value_or("bascule-data");
    at.dir = std::filesystem::absolute(at.dir).lexically_normal().string();
    const Layout layout{at.dir};
    const auto text = platform.disk.read(layout.cluster_file(), 1 << 20);
    if (!text) {
      return fail(ErrorCode::kNotFound, fmt::format("there is no cluster in {}", at.dir),
                  "Start one with `bascule up`, or say where it is with --dir or -c");
    }
    const auto cluster = decode_local_cluster(*text);
    if (!cluster) return std::unexpected(cluster.error());
    at.cluster = cluster->cluster;
    at.store = cluster->store();
  }
  const std::string owned = at.dir.empty() ? at.store.path : Layout{at.dir}.cluster_file();
  if (running_as_root() && !owned.empty()) {
    if (const auto owner = owner_of(owned)) {
      if (const auto became = become(platform, *owner); !became)
        return std::unexpected(became.error());
    }
  }
  return at;
}

}  // namespace bascule::cli
