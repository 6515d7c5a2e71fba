#include "store/etcd_client.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "base/log.h"

namespace bascule::store {
namespace {

using env::HttpAnswer;

// A member that failed is asked last for so long.
constexpr Millis kBlame{2000};
// Between two rounds over all members: an election takes its time.
constexpr Millis kRoundPause{25};
constexpr int kTokensRefusedMax = 3;
constexpr size_t kRunningMax = 12;  // attempts of one call
// Of a read: the key-value pairs of a cluster are some kilobytes.
constexpr size_t kAnswerBytesMax = 64 << 20;
constexpr size_t kStreamBytesMax = 16 << 20;
constexpr std::string_view kLoginPath = "/v3/auth/authenticate";

}  // namespace

EtcdClient::EtcdClient(EtcdOptions options, env::Loop& loop, env::HttpClient& http)
    : options_(std::move(options)),
      loop_(loop),
      http_(http),
      blamed_until_(options_.endpoints.size()) {}

EtcdClient::~EtcdClient() {
  *alive_ = false;
  for (auto& [id, pending] : pending_) {
    loop_.cancel(pending.timer);
    loop_.cancel(pending.deadline);
    for (const Attempt& attempt : pending.running) http_.cancel(attempt.http_id);
  }
}

void EtcdClient::call(Call call) { add(std::move(call), Login::kNeeded); }

void EtcdClient::add(Call call, Login login) {
  const Id id = next_id_++;
  Pending& pending = pending_[id];
  pending.call = std::move(call);
  pending.login = login;
  pending.deadline = loop_.call_at(pending.call.deadline, [this, id] { expire(id); });
  attempt(id);
}

void EtcdClient::attempt(Id id) {
  const auto found = pending_.find(id);
  if (found == pending_.end()) return;
  Pending& pending = found->second;
  loop_.cancel(std::exchange(pending.timer, env::TimerId::kNone));
  if (pending.login == Login::kNeeded && !options_.user.empty() && token_.empty()) {
    waiting_for_token_.push_back(id);
    return log_in();
  }
  auto endpoint = choose(pending);
  if (!endpoint && pending.running.size() < kRunningMax) {
    // Everybody is silent: members drop what they were asked while they elect a leader.
    pending.tried.clear();
    endpoint = choose(pending);
  }
  if (endpoint) send(id, pending, *endpoint);
}

void EtcdClient::send(Id id, Pending& pending, size_t endpoint) {
  auto http = request(endpoint, pending.call.path, pending.call.body);
  const Nanos left = pending.call.deadline - loop_.now();
  // The member gives up with us: nobody waits for what it would do later.
  http.headers.push_back(fmt::format("Grpc-Timeout: {}m", std::max<int64_t>(to_ms(left), 1)));
  const uint64_t number = next_id_++;
  const uint64_t http_id = http_.send(std::move(http), [this, id, number](HttpAnswer answer) {
    on_answer(id, number, std::move(answer));
  });
  pending.tried.push_back(endpoint);
  pending.running.push_back({number, endpoint, http_id, token_number_});
  if (pending.call.repeat == Repeat::kHarmless) {
    pending.timer = loop_.call_after(options_.attempt, [this, id] { attempt(id); });
  }
}

// nullopt: every member has been asked in this round.
std::optional<size_t> EtcdClient::choose(const Pending& pending) const {
  const MonoTime now = loop_.now();
  std::optional<size_t> best;
  for (size_t i = 0; i < options_.endpoints.size(); ++i) {
    const size_t at = (preferred_ + i) % options_.endpoints.size();
    if (std::ranges::find(pending.tried, at) != pending.tried.end()) continue;
    if (blamed_until_[at] <= now) return at;
    if (!best || blamed_until_[at] < blamed_until_[*best]) best = at;
  }
  return best;
}

void EtcdClient::blame(size_t endpoint) { blamed_until_[endpoint] = loop_.now() + kBlame; }

void EtcdClient::praise(size_t endpoint) {
  blamed_until_[endpoint] = {};
  preferred_ = endpoint;
}

env::HttpRequest EtcdClient::request(size_t endpoint, const std::string& path,
                                     const std::string& body) const {
  env::HttpRequest out;
  out.url = options_.endpoints[endpoint] + path;
  out.body = body;
  out.connect_timeout = options_.timeout;
  out.timeout = options_.timeout;
  out.answer_bytes_max = kAnswerBytesMax;
  // A member that is cut off says so at once, instead of waiting for a leader.
  out.headers.emplace_back("Grpc-Metadata-hasleader: true");
  if (!token_.empty() && path != kLoginPath) out.headers.push_back("Authorization: " + token_);
  return out;
}

void EtcdClient::on_answer(Id id, uint64_t number, HttpAnswer answer) {
  const auto found = pending_.find(id);
  if (found == pending_.end()) return;
  Pending& pending = found->second;
  const auto at = std::ranges::find(pending.running, number, &Attempt::number);
  const Attempt attempt = *at;
  pending.running.erase(at);
  if (answer.status == 0 || answer.connected) ++continuity_;
  if (answer.status == 200) {
    praise(attempt.endpoint);
    return on_success(id, pending, std::move(answer.body));
  }
  on_failure(id, pending, attempt, answer);
}

void EtcdClient::on_success(Id id, Pending& pending, std::string body) {
  const bool all_clear = !pending.unclear && pending.running.empty();
  const bool final = !pending.call.judge || pending.call.judge(body) == Verdict::kFinal;
  if (final || pending.running.empty()) return finish(id, {true, std::move(body), !all_clear, {}});
  pending.kept = std::move(body);
  loop_.cancel(std::exchange(pending.timer, env::TimerId::kNone));
}

void EtcdClient::on_failure(Id id, Pending& pending, const Attempt& attempt,
                            const HttpAnswer& answer) {
  const std::string& where = options_.endpoints[attempt.endpoint];
  if (answer.status == 0) {
    blame(attempt.endpoint);
    pending.last_problem = where + ": " + answer.error;
    pending.unclear |= answer.sent == HttpAnswer::Sent::kPerhaps;
    return go_on(id, pending);
  }
  const auto failure = etcd::parse_failure(answer.status, answer.body);
  pending.last_problem = where + ": " + failure.message;
  const bool others = pending.unclear || !pending.running.empty();
  switch (failure.refusal) {
    case etcd::Refusal::kToken:
      if (options_.user.empty() || ++pending.tokens_refused > kTokensRefusedMax) {
        return finish(id, {false,
                           "",
                           others,
                           {ErrorCode::kInvalid, "store etcd: " + pending.last_problem,
                            "It wants a user: store.user and store.password_file"}});
      }
      drop_token(attempt.token_number);
      std::erase(pending.tried, attempt.endpoint);
      return go_on(id, pending);
    case etcd::Refusal::kFinal:
      return finish(
          id,
          {false, "", others, {ErrorCode::kInvalid, "store etcd: " + pending.last_problem, ""}});
    case etcd::Refusal::kUnclear:
      pending.unclear = true;
      [[fallthrough]];
    case etcd::Refusal::kElsewhere:
      blame(attempt.endpoint);
      return go_on(id, pending);
  }
}

// After an attempt that brought nothing.
void EtcdClient::go_on(Id id, Pending& pending) {
  if (pending.kept) {
    if (pending.running.empty()) finish(id, {true, *std::move(pending.kept), pending.unclear, {}});
    return;
  }
  if (pending.unclear && pending.call.repeat == Repeat::kUnlessSent) {
    return finish(
        id, {false, "", true, {ErrorCode::kUnknown, "store etcd: " + pending.last_problem, ""}});
  }
  if (choose(pending)) return attempt(id);
  if (!pending.running.empty()) return;  // one of them answers, or the deadline comes
  pending.tried.clear();
  loop_.cancel(pending.timer);
  pending.timer = loop_.call_after(kRoundPause, [this, id] { attempt(id); });
}

void EtcdClient::expire(Id id) {
  const auto found = pending_.find(id);
  if (found == pending_.end()) return;
  Pending& pending = found->second;
  pending.deadline = env::TimerId::kNone;
  if (pending.kept) return finish(id, {true, *std::move(pending.kept), true, {}});
  const bool unclear = pending.unclear || !pending.running.empty();
  for (const Attempt& attempt : pending.running) blame(attempt.endpoint);
  std::string what = fmt::format("store etcd: no answer within {} ms", options_.timeout.count());
  if (!pending.last_problem.empty()) what += " (" + pending.last_problem + ")";
  finish(id, {false,
              "",
              unclear,
              {ErrorCode::kTimeout, std::move(what), "Has it a majority of its members?"}});
}

void EtcdClient::finish(Id id, Reply reply) {
  auto node = pending_.extract(id);
  Pending& pending = node.mapped();
  loop_.cancel(pending.timer);
  loop_.cancel(pending.deadline);
  if (!pending.running.empty()) ++continuity_;  // nobody will tell whether they made a connection
  for (const Attempt& attempt : pending.running) http_.cancel(attempt.http_id);
  pending.call.done(std::move(reply));
}

// ---- log-in
// ----------------------------------------------------------------------------------------

void EtcdClient::log_in() {
  if (std::exchange(logging_in_, true)) return;
  Call call;
  call.path = kLoginPath;
  call.body = etcd::authenticate_body(options_.user, options_.password);
  call.deadline = loop_.now() + options_.timeout;
  call.done = [this](Reply reply) { on_login(std::move(reply)); };
  add(std::move(call), Login::kIsOne);
}

void EtcdClient::on_login(Reply reply) {
  logging_in_ = false;
  auto waiting = std::exchange(waiting_for_token_, {});
  auto token = reply.answered ? etcd::parse_token(reply.body) : std::unexpected(reply.error);
  if (token) {
    token_ = std::move(*token);
    ++token_number_;
    log(LogLevel::kDebug, "store", "logged in to etcd", {{"user", options_.user}});
  }
  const auto alive = alive_;  // a callback may destroy this object
  for (const Id id : waiting) {
    const auto found = pending_.find(id);
    if (found == pending_.end()) continue;
    if (token) {
      attempt(id);
    } else if (token.error().code == ErrorCode::kInvalid) {
      const bool unclear = found->second.unclear;
      finish(id, {false,
                  "",
                  unclear,
                  {ErrorCode::kInvalid, token.error().message,
                   fmt::format("Is the password of user {} right?", options_.user)}});
    } else {
      found->second.last_problem = token.error().message;
      found->second.timer = loop_.call_after(kRoundPause, [this, id] { attempt(id); });
    }
    if (!*alive) return;
  }
}

void EtcdClient::drop_token(uint64_t number) {
  if (number == token_number_) token_.clear();
}

// ---- streams
// ---------------------------------------------------------------------------------------

std::optional<EtcdClient::Line> EtcdClient::open_stream(const std::string& path,
                                                        const std::string& body,
                                                        env::HttpClient::DataCallback data,
                                                        env::HttpClient::DoneCallback ended) {
  if (!options_.user.empty() && token_.empty()) {
    log_in();
    return std::nullopt;
  }
  const size_t endpoint = *choose({});
  auto http = request(endpoint, path, body);
  http.timeout = Millis{0};
  http.answer_bytes_max = kStreamBytesMax;
  ++continuity_;
  Line line{endpoint, token_number_, 0};
  line.http_id = http_.stream(std::move(http), std::move(data), std::move(ended));
  return line;
}

}  // namespace bascule::store
