#include "cli/cluster_access.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>

#include "api/http_server.h"
#include "cli/request.h"
#include "cli/secrets.h"
#include "cli/task.h"

namespace bascule::cli {
namespace {

using nlohmann::json;

Result<std::string> committed(const store::TxnResult& result, std::string id) {
  switch (result.outcome) {
    case store::TxnOutcome::kCommitted:
      return id;
    case store::TxnOutcome::kConflict:
      return fail(ErrorCode::kConflict, "somebody else changed it in the same moment",
                  "Look at `bascule status` and try again");
    case store::TxnOutcome::kUnknown:
      break;
  }
  return fail(ErrorCode::kUnknown,
              fmt::format("it is not known whether it was written: {}", result.error),
              "`bascule status` shows it");
}

class StoreAccess final : public ClusterAccess {
 public:
  StoreAccess(const Platform& platform, ClusterAt at, std::unique_ptr<StoreSession> session)
      : platform_(platform), at_(std::move(at)), session_(std::move(session)) {}

  const std::string& cluster() const override { return at_.cluster; }
  Result<control::ClusterView> view() override { return session_->view(); }
  Result<std::string> ask(const api::Command& command) override {
    return carry_out(platform_, *session_, at_.cluster, command);
  }
  Result<std::vector<ConfigChange>> config_history() override {
    const auto entries = session_->read(config_history_prefix(at_.cluster));
    if (!entries) return std::unexpected(entries.error());
    return parse_config_history(entries->entries);
  }
  Result<std::vector<AuditEntry>> audit() override {
    const auto entries = session_->read(audit_prefix(at_.cluster));
    if (!entries) return std::unexpected(entries.error());
    return parse_audit(entries->entries);
  }
  bool follow(Millis limit, const Done& done) override { return session_->follow(limit, done); }

 private:
  const Platform& platform_;
  const ClusterAt at_;
  const std::unique_ptr<StoreSession> session_;
};

constexpr Millis kAnswerTimeout{10'000};
constexpr Millis kFollowEvery{200};
constexpr size_t kAnswerBytesMax = 16 << 20;

class ApiAccess final : public ClusterAccess {
 public:
  ApiAccess(const Platform& platform, ApiAt at, std::string token)
      : platform_(platform),
        at_(std::move(at)),
        token_(std::move(token)),
        loop_(platform.make_loop()),
        http_(platform.make_http(*loop_, {at_.ca_file, at_.cert_file, at_.key_file})) {}
  ~ApiAccess() override { http_.reset(); }

  const std::string& cluster() const override { return cluster_; }
  Result<control::ClusterView> view() override;
  Result<std::string> ask(const api::Command& command) override;
  Result<std::vector<ConfigChange>> config_history() override;
  Result<std::vector<AuditEntry>> audit() override;
  bool follow(Millis limit, const Done& done) override;

 private:
  Result<json> call(std::string method, const std::string& path, std::string body);
  Error error_of(const env::HttpAnswer& answer, const json& body, const std::string& path) const;

  const Platform& platform_;
  const ApiAt at_;
  const std::string token_;
  std::unique_ptr<env::Loop> loop_;
  std::unique_ptr<env::HttpClient> http_;
  std::string cluster_;
};

Result<json> ApiAccess::call(std::string method, const std::string& path, std::string body) {
  env::HttpRequest request;
  request.method = std::move(method);
  request.url = at_.url + path;
  request.body = std::move(body);
  request.timeout = kAnswerTimeout;
  request.answer_bytes_max = kAnswerBytesMax;
  if (!token_.empty()) request.headers.push_back("Authorization: Bearer " + token_);
  std::optional<env::HttpAnswer> answer;
  http_->send(std::move(request), [&](env::HttpAnswer got) {
    answer = std::move(got);
    loop_->stop();
  });
  while (!answer) loop_->run();
  const json document = json::parse(answer->body, nullptr, /*allow_exceptions=*/false);
  if (answer->status >= 200 && answer->status < 300 && !document.is_discarded()) return document;
  return std::unexpected(error_of(*answer, document, path));
}

Error ApiAccess::error_of(const env::HttpAnswer& answer, const json& body,
                          const std::string& path) const {
  if (answer.status == 0) {
    const bool sent = answer.sent == env::HttpAnswer::Sent::kPerhaps;
    return {sent ? ErrorCode::kUnknown : ErrorCode::kUnavailable,
            fmt::format("{}{}: {}", at_.url, path, answer.error),
            sent ? "It may have been carried out all the same" : "Does a daemon listen there?"};
  }
  const auto text = [&](const char* key) -> std::string {
    if (!body.is_object() || !body.contains("error") || !body["error"].is_object()) return "";
    const auto found = body["error"].find(key);
    return found != body["error"].end() && found->is_string() ? found->get<std::string>() : "";
  };
  ErrorCode code = ErrorCode::kInternal;
  if (answer.status == 400 || answer.status == 401 || answer.status == 403) {
    code = ErrorCode::kInvalid;
  } else if (answer.status == 404) {
    code = ErrorCode::kNotFound;
  } else if (answer.status == 409 || answer.status == 412) {
    code = ErrorCode::kConflict;
  } else if (answer.status == 503) {
    code = ErrorCode::kUnavailable;
  } else if (answer.status == 504) {
    code = ErrorCode::kUnknown;
  }
  const std::string message = text("message");
  return {code,
          message.empty() ? fmt::format("{}{}: status {}", at_.url, path, answer.status) : message,
          text("hint")};
}

Result<control::ClusterView> ApiAccess::view() {
  const auto document = call("GET", "/records", "");
  if (!document) return std::unexpected(document.error());
  const auto malformed = [&] {
    return fail(ErrorCode::kInvalid, fmt::format("{}/records is not that of Bascule", at_.url));
  };
  if (!document->is_object() || !document->contains("records")) return malformed();
  const json& all = *document;
  if (!all.value("cluster", json()).is_string() || !all["records"].is_object()) return malformed();
  if (!all.contains("ageMs") || all["ageMs"].is_null()) {
    return fail(ErrorCode::kUnavailable, fmt::format("{} has not read the store yet", at_.url),
                "Ask another daemon, or look at this one's log");
  }
  cluster_ = all["cluster"].get<std::string>();
  const control::Keys keys(cluster_);
  store::Snapshot snapshot;
  const auto number = [](const json& value) {
    return value.is_number_unsigned() ? value.get<uint64_t>() : 0;
  };
  if (all.value("identity", json()).is_string()) snapshot.identity = all["identity"];
  snapshot.revision = number(all.value("revision", json()));
  for (const auto& [key, record] : all["records"].items()) {
    if (!record.is_object() || !record.contains("value")) return malformed();
    snapshot.entries.push_back(
        {keys.prefix + key, record["value"].dump(), number(record.value("revision", json()))});
  }
  return control::parse_cluster(keys, snapshot);
}

// What restart, reload and reinitialize take.
json task_body(const api::Command& command) {
  json body = json::object();
  body["members"] = "all";
  if (!command.members.empty()) body["members"] = json::array();
  for (const NodeName& name : command.members) body["members"].push_back(name.str());
  if (command.at != WallTime{}) body["scheduled_at"] = to_iso8601(command.at);
  if (command.only_pending) body["restart_pending"] = true;
  if (command.by_switchover) body["by_switchover"] = true;
  if (command.timeout > Millis(0)) body["timeout"] = to_ms(command.timeout) / 1000;
  return body;
}

Result<std::string> ApiAccess::ask(const api::Command& command) {
  using Kind = api::Command::Kind;
  json body = json::object();
  std::string path;
  std::string method = "POST";
  switch (command.kind) {
    case Kind::kSwitchover:
    case Kind::kFailover:
      path = command.kind == Kind::kSwitchover ? "/switchover" : "/failover";
      if (!command.candidate.empty()) body["candidate"] = command.candidate.str();
      if (command.force) body["force"] = true;
      if (command.old_primary_dead) body["old_primary_is_dead"] = true;
      if (!command.region.empty()) body["region"] = command.region;
      if (command.at != WallTime{}) body["scheduled_at"] = to_iso8601(command.at);
      break;
    case Kind::kRestart:
      path = "/restart";
      body = task_body(command);
      break;
    case Kind::kReload:
      path = "/reload";
      body = task_body(command);
      break;
    case Kind::kReinit:
      path = "/reinitialize";
      body = task_body(command);
      break;
    case Kind::kRemove:
      if (command.members.size() != 1) return fail(ErrorCode::kInternal, "not one member");
      path = "/members/" + command.members.front().str();
      method = "DELETE";
      break;
    case Kind::kCancel:
      path = !command.id.empty()                 ? "/operations/" + command.id
             : command.cancels == Kind::kRestart ? "/restart"
                                                 : "/switchover";
      method = "DELETE";
      break;
    case Kind::kPause:
      path = "/pause";
      break;
    case Kind::kResume:
      path = "/resume";
      break;
    case Kind::kConfig:
      path = "/config";
      method = command.replace ? "PUT" : "PATCH";
      for (const auto& [key, value] : command.changes) body[key] = value;
      break;
    case Kind::kCheckHealth:
      path = "/failover/check-health";
      break;
    case Kind::kReconnect:
      path = command.region.empty() ? "/api/database/connections/refresh"
                                    : "/api/database/reconnect/" + command.region;
      break;
    case Kind::kConfigHistory:
    case Kind::kAudit:
    case Kind::kAnalyzeQuery:
      return fail(ErrorCode::kInternal, "not a command");
  }
  const auto answer = call(method, path, method == "DELETE" ? "" : body.dump());
  if (!answer) return std::unexpected(answer.error());
  const char* what = command.kind == Kind::kReconnect ? "message" : "operation";
  const json id = answer->is_object() ? answer->value(what, json()) : json();
  return id.is_string() ? id.get<std::string>() : std::string();
}

Result<std::vector<ConfigChange>> ApiAccess::config_history() {
  const auto document = call("GET", "/config/history", "");
  if (!document) return std::unexpected(document.error());
  std::vector<store::Entry> entries;
  if (document->is_array()) {
    for (const json& change : *document) entries.push_back({"", change.dump(), 0});
  }
  return parse_config_history(entries);
}

Result<std::vector<AuditEntry>> ApiAccess::audit() {
  const auto document = call("GET", "/audit", "");
  if (!document) return std::unexpected(document.error());
  std::vector<store::Entry> entries;
  if (document->is_array()) {
    for (const json& entry : *document) entries.push_back({"", entry.dump(), 0});
  }
  return parse_audit(entries);
}

bool ApiAccess::follow(Millis limit, const Done& done) {
  const MonoTime end = platform_.clock.now() + limit;
  for (;;) {
    const auto seen = view();
    if (seen && done(*seen)) return true;
    if (platform_.clock.now() >= end) return false;
    platform_.process.sleep(kFollowEvery);
  }
}

Result<std::unique_ptr<ClusterAccess>> open_api(const Platform& platform, ApiAt at) {
  while (at.url.ends_with('/')) at.url.pop_back();
  const bool tls = at.url.starts_with("https://");
  const size_t scheme = tls ? 8 : 7;
  const std::string_view rest =
      at.url.size() > scheme ? std::string_view(at.url).substr(scheme) : "";
  if ((!tls && !at.url.starts_with("http://")) || rest.empty() ||
      rest.find_first_of("/@?# ") != std::string_view::npos) {
    return fail(ErrorCode::kInvalid, fmt::format("--api: \"{}\" is not a URL of an API", at.url),
                "Give it as https://HOST:PORT");
  }
  std::string token;
  if (!at.token_file.empty()) {
    const std::string host(rest.substr(0, rest.rfind(':')));
    if (!tls && !api::is_loopback(host)) {
      return fail(ErrorCode::kInvalid, "--api: the token would travel in clear text",
                  "Use https (api.tls of the daemon)");
    }
    auto read = read_secret(platform.disk, at.token_file);
    if (!read) return std::unexpected(read.error());
    token = std::move(*read);
    const bool plain = std::ranges::all_of(token, [](char c) { return c > ' ' && c < 0x7f; });
    if (!plain) {
      return fail(ErrorCode::kInvalid, fmt::format("{} holds no token", at.token_file));
    }
  }
  return std::make_unique<ApiAccess>(platform, std::move(at), std::move(token));
}

}  // namespace

Result<std::unique_ptr<ClusterAccess>> ClusterAccess::open(const Platform& platform,
                                                           const ClusterWhere& where) {
  ApiAt at = where.api;
  const bool named = !where.dir.empty() || !where.config_file.empty();
  if (at.url.empty() && !named) {
    at.url = platform.environment("BASCULE_API").value_or("");
    if (at.token_file.empty()) {
      at.token_file = platform.environment("BASCULE_TOKEN_FILE").value_or("");
    }
  }
  if (!at.url.empty()) return open_api(platform, std::move(at));
  const std::pair<const char*, const std::string&> of_an_api[] = {
      {"--token-file", where.api.token_file},
      {"--ca-file", at.ca_file},
      {"--cert", at.cert_file},
      {"--key", at.key_file}};
  for (const auto& [option, value] : of_an_api) {
    if (value.empty()) continue;
    return fail(ErrorCode::kInvalid, fmt::format("{} is for an API, and none is named", option),
                "Give --api URL, or BASCULE_API in place of --dir and --config");
  }
  auto found = find_cluster(platform, where.dir, where.config_file);
  if (!found) return std::unexpected(found.error());
  auto session = StoreSession::open(platform, *found);
  if (!session) return std::unexpected(session.error());
  return std::make_unique<StoreAccess>(platform, std::move(*found), std::move(*session));
}

namespace {

// What the leader gives the members turns for, or what has to wait for its time.
bool is_task(const api::Command& command) {
  using Kind = api::Command::Kind;
  return command.kind == Kind::kRestart || command.kind == Kind::kReload ||
         command.kind == Kind::kReinit || command.kind == Kind::kRemove ||
         (command.kind == Kind::kSwitchover && command.at != WallTime{});
}

// The swap of regions outlasts the switchover: the next election prefers the new one too.
void prefer_region(const control::ClusterView& view, const control::Keys& keys,
                   const std::string& region, store::Txn& txn) {
  if (!view.config) return;
  control::ClusterConfig config = view.config->value;
  config.primary_region = region;
  txn.compares.push_back({keys.config(), view.config->revision});
  txn.writes.push_back({keys.config(), encode(config)});
}

std::string audit_document(const std::vector<store::Entry>& entries) {
  std::string out;
  for (const AuditEntry& entry : parse_audit(entries)) {
    out += (out.empty() ? "[" : ",") + audit_line(entry);
  }
  return out.empty() ? "[]" : out + "]";
}

Result<std::string> decide_and_commit(const Platform& platform, StoreSession& session,
                                      const std::string& cluster, const api::Command& command) {
  using Kind = api::Command::Kind;
  if (command.kind == Kind::kAudit) {
    const auto entries = session.read(audit_prefix(cluster));
    if (!entries) return std::unexpected(entries.error());
    return audit_document(entries->entries);
  }
  const auto view = session.view();
  if (!view) return std::unexpected(view.error());
  const control::Keys& keys = session.keys();
  const std::string id = platform.entropy.hex(4);
  Result<store::Txn> txn;
  if (command.kind == Kind::kPause || command.kind == Kind::kResume) {
    const bool pause = command.kind == Kind::kPause;
    txn = change_pause(*view, keys, pause ? PauseChange::kPause : PauseChange::kResume, command.by);
  } else if (command.kind == Kind::kConfig || command.kind == Kind::kConfigHistory) {
    const auto history = session.read(config_history_prefix(cluster));
    if (!history) return std::unexpected(history.error());
    if (command.kind == Kind::kConfigHistory) {
      return config_history_json(parse_config_history(history->entries)).dump();
    }
    txn = change_config(
        *view, {cluster, command.changes, command.by, platform.clock.wall_now(), command.replace},
        history->entries);
  } else if (command.kind == Kind::kCancel) {
    auto cancelled = cancel_tasks(*view, keys, command);
    if (!cancelled) return std::unexpected(cancelled.error());
    return committed(session.commit(std::move(cancelled->txn)), cancelled->ids);
  } else if (is_task(command)) {
    txn = open_task(*view, keys, command, id, platform.clock.wall_now());
  } else {
    control::RequestRecord request;
    request.id = id;
    request.kind = command.kind == Kind::kFailover ? control::RequestKind::kFailover
                                                   : control::RequestKind::kSwitchover;
    request.candidate = command.candidate;
    request.force = command.force;
    request.old_primary_dead = command.old_primary_dead;
    request.by = command.by;
    if (!command.region.empty()) {
      const auto candidate = candidate_of_region(*view, command.region);
      if (!candidate) return std::unexpected(candidate.error());
      request.candidate = *candidate;
    }
    txn = open_request(*view, keys, request);
    if (txn && !command.region.empty()) prefer_region(*view, keys, command.region, *txn);
  }
  if (!txn) return std::unexpected(txn.error());
  return committed(session.commit(std::move(*txn)), id);
}

}  // namespace

std::string outcome_of(const Result<std::string>& done) {
  return done ? "asked for " + *done : done.error().to_string();
}

void record_audit(const Platform& platform, StoreSession& session, const std::string& cluster,
                  const api::Command& command, const std::string& outcome) {
  const auto present = session.read(audit_prefix(cluster));
  if (!present) return;
  const WallTime now = platform.clock.wall_now();
  (void)session.commit(audit_txn(cluster, {to_iso8601(now), command.by, describe(command), outcome},
                                 now, platform.entropy.hex(4), present->entries));
}

Result<std::string> carry_out(const Platform& platform, StoreSession& session,
                              const std::string& cluster, const api::Command& command,
                              const api::CommandHandler& daemon) {
  using Kind = api::Command::Kind;
  const bool of_daemon = command.kind == Kind::kReconnect || command.kind == Kind::kCheckHealth;
  auto done = !of_daemon ? decide_and_commit(platform, session, cluster, command)
              : daemon
                  ? daemon(command)
                  : fail(ErrorCode::kInvalid,
                         command.kind == Kind::kReconnect ? "that is for a daemon with a proxy"
                                                          : "that is for a daemon with a monitor",
                         "Name its API: --api URL");
  if (is_audited(command)) record_audit(platform, session, cluster, command, outcome_of(done));
  return done;
}

nlohmann::ordered_json config_history_json(const std::vector<ConfigChange>& history) {
  auto out = nlohmann::ordered_json::array();
  for (const ConfigChange& change : history) {
    auto changes = nlohmann::ordered_json::object();
    for (const auto& [key, pair] : change.changes) changes[key] = {pair.first, pair.second};
    out.push_back({{"at", change.at}, {"by", change.by}, {"changes", std::move(changes)}});
  }
  return out;
}

}  // namespace bascule::cli
