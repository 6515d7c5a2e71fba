#include "proxy/auth_lookup.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "base/log.h"
#include "proxy/worker.h"

namespace bascule::proxy {
namespace {

constexpr size_t kNameMax = 63;

// Members by inheritance, as pg_hba.conf means them: a superuser is not a member of everything.
constexpr std::string_view kRolesQuery =
    "WITH RECURSIVE m(oid) AS (SELECT oid FROM pg_catalog.pg_roles WHERE rolname = $1 "
    "UNION SELECT a.roleid FROM pg_catalog.pg_auth_members a JOIN m ON a.member = m.oid) "
    "SELECT r.rolname FROM m JOIN pg_catalog.pg_roles r USING (oid)";

bool covers(UserQuestion have, UserQuestion want) {
  return (have.secret || !want.secret) && (have.roles || !want.roles);
}

}  // namespace

std::optional<std::string> with_user(std::string_view query, std::string_view user) {
  if (user.size() > kNameMax || user.find('\0') != std::string_view::npos) return std::nullopt;
  // E'': the same with standard_conforming_strings on and off.
  std::string literal = " E'";
  for (const char c : user) {
    if (c == '\'' || c == '\\') literal += c;
    literal += c;
  }
  literal += '\'';
  std::string out;
  for (size_t i = 0; i < query.size(); ++i) {
    const bool digit_follows = i + 2 < query.size() && query[i + 2] >= '0' && query[i + 2] <= '9';
    if (query.substr(i, 2) == "$1" && !digit_follows) {
      out += literal;
      ++i;
    } else {
      out += query[i];
    }
  }
  return out;
}

// ---- Answers -----------------------------------------------------------------------------------

const UserAnswer* AuthLookup::remembered(const std::string& user, UserQuestion question) {
  const MonoTime now = worker_.loop().now();
  for (Cache* cache : {&known_, &unknown_}) {
    const auto it = cache->find(user);
    if (it == cache->end()) continue;
    if (it->second.until > now && covers(it->second.question, question)) return &it->second.answer;
    cache->erase(it);
  }
  return nullptr;
}

void AuthLookup::remember(const std::string& user, const Question& question, UserAnswer answer) {
  const bool exists = answer.secret || !answer.roles.empty();
  Cache& cache = exists ? known_ : unknown_;
  if (cache.size() >= (exists ? kKnownMax : kUnknownMax)) cache.clear();
  const AuthQuery& settings = worker_.access()->config.auth_query;
  const MonoTime now = worker_.loop().now();
  cache[user] = {std::move(answer), question.wants, now,
                 now + (exists ? settings.ttl : settings.ttl_unknown)};
}

void AuthLookup::doubt(const std::string& user) {
  const auto it = known_.find(user);
  // Not at once: who guesses passwords must not make a query of each guess.
  if (it != known_.end() && worker_.loop().now() - it->second.at > 1s) known_.erase(it);
}

AuthLookup::Asked AuthLookup::ask(const std::string& user, UserQuestion question, Handle client,
                                  UserAnswer& answer) {
  if (user.size() > kNameMax) {
    answer = {};
    return Asked::kKnown;
  }
  if (const UserAnswer* known = remembered(user, question)) {
    answer = *known;
    return Asked::kKnown;
  }
  const auto it = waiting_.find(user);
  if (it == waiting_.end() && queue_.size() >= kQueueMax) return Asked::kTooMany;
  if (it == waiting_.end()) queue_.push_back(user);
  Question& entry = waiting_[user];
  entry.wants.secret = entry.wants.secret || question.secret;
  entry.wants.roles = entry.wants.roles || question.roles;
  entry.clients.push_back(client);
  if (!busy_) begin_next();
  return Asked::kLater;
}

// ---- Questions ---------------------------------------------------------------------------------

void AuthLookup::begin_next() {
  while (!busy_ && !queue_.empty()) {
    Question& question = waiting_[queue_.front()];
    std::erase_if(question.clients, [&](Handle h) { return worker_.client(h) == nullptr; });
    if (question.clients.empty()) {
      waiting_.erase(queue_.front());
      queue_.pop_front();
      continue;
    }
    busy_ = true;
    answer_ = {};
    if (!connect(question.attempts)) return later("the cluster has no server to ask");
    if (question.wants.secret) return ask_secret();
    return ask_roles();
  }
}

bool AuthLookup::connect(int attempt) {
  const Route* route = worker_.route();
  if (route == nullptr) return false;
  std::vector<const RouteMember*> members;
  if (route->table.primary) members.push_back(&*route->table.primary);
  for (const RouteMember& replica : route->table.replicas) {
    if (replica.healthy) members.push_back(&replica);
  }
  if (members.empty()) return false;
  const RouteMember& member = *members[static_cast<size_t>(attempt) % members.size()];
  const std::string server = fmt::format("{}/{}", member.name, route->table.epoch.value);
  if (connection_ && server == server_ && access_ == worker_.access()) return true;
  server_ = server;
  access_ = worker_.access();
  OwnConnection::Server to;
  to.endpoint = member.endpoint;
  const AuthQuery& settings = access_->config.auth_query;
  to.startup = {{"user", settings.user},
                {"database", settings.database},
                {"application_name", "bascule auth_query"}};
  to.credential = worker_.credentials().get(*access_, settings.user);
  to.access = access_;
  connection_ = std::make_unique<OwnConnection>(worker_.loop(), worker_.net(), worker_.entropy(),
                                                std::move(to));
  return true;
}

void AuthLookup::run(const std::string& sql, OwnConnection::OnRow on_row,
                     void (AuthLookup::*next)()) {
  used_ = worker_.loop().now();
  connection_->query(sql, kTimeout, std::move(on_row), [this, next](Status status) {
    if (!status) return later(status.error().message);
    (this->*next)();
  });
}

void AuthLookup::ask_secret() {
  const auto sql = with_user(access_->config.auth_query.query, queue_.front());
  if (!sql) return finish();
  const bool roles = waiting_[queue_.front()].wants.roles;
  run(
      *sql,
      [this](const OwnConnection::Row& row) -> Status {
        if (row.size() < 2 || answer_.secret) {
          return fail(ErrorCode::kInvalid,
                      "auth_query must give one row of name and password at most");
        }
        if (!row[1] || row[1]->empty()) return {};  // no password: nobody logs in by one
        auto secret = UserSecret::parse(*row[1]);
        if (!secret) return std::unexpected(secret.error());
        answer_.secret = std::move(*secret);
        return {};
      },
      roles ? &AuthLookup::ask_roles : &AuthLookup::finish);
}

void AuthLookup::ask_roles() {
  const auto sql = with_user(kRolesQuery, queue_.front());
  if (!sql) return finish();
  run(
      *sql,
      [this](const OwnConnection::Row& row) -> Status {
        if (row.empty() || !row[0] || answer_.roles.size() >= kRolesMax) {
          return fail(ErrorCode::kInvalid, "the roles of a user can't be read");
        }
        answer_.roles.emplace_back(*row[0]);
        return {};
      },
      &AuthLookup::finish);
}

void AuthLookup::finish() {
  last_error_.clear();
  busy_ = false;
  const std::string user = std::move(queue_.front());
  queue_.pop_front();
  const Question question = std::move(waiting_.extract(user).mapped());
  const UserAnswer answer = std::move(answer_);
  remember(user, question, answer);
  for (const Handle handle : question.clients) {
    if (ClientConnection* client = worker_.client(handle)) client->on_user_answer(answer);
  }
  begin_next();
}

// Asked again, elsewhere if there is an elsewhere, as long as a client waits for it.
void AuthLookup::later(std::string error) {
  if (std::exchange(last_error_, std::move(error)) != last_error_) {
    log(LogLevel::kWarn, "proxy", "users can't be looked up", {{"error", last_error_}});
  }
  ++waiting_[queue_.front()].attempts;
  // What is wrong may be this user's answer alone: the others go first.
  std::string user = std::move(queue_.front());
  queue_.pop_front();
  queue_.push_back(std::move(user));
  worker_.loop().cancel(retry_);
  retry_ = worker_.loop().call_after(kRetry, [this] {
    retry_ = env::TimerId::kNone;
    busy_ = false;
    begin_next();
  });
}

void AuthLookup::reset() {
  known_.clear();
  unknown_.clear();
}

void AuthLookup::sweep() {
  const MonoTime now = worker_.loop().now();
  if (connection_ && !busy_ && now - used_ > kIdle) connection_.reset();
  for (Cache* cache : {&known_, &unknown_}) {
    std::erase_if(*cache, [&](const auto& entry) { return entry.second.until <= now; });
  }
}

void AuthLookup::close() {
  worker_.loop().cancel(std::exchange(retry_, env::TimerId::kNone));
  connection_.reset();
  queue_.clear();
  waiting_.clear();
}

}  // namespace bascule::proxy
