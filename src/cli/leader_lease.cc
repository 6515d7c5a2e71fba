#include "cli/leader_lease.h"

#include <nlohmann/json.hpp>
#include <utility>

namespace bascule::cli {
namespace {

constexpr Millis kLeaseMax{600000};                    // no ttl is longer
constexpr Millis kClockMax = std::chrono::years{100};  // of a host that runs
constexpr size_t kAnswerBytesMax = 64 << 10;

}  // namespace

std::optional<control::LeaseWord> lease_in(const std::string& body, Epoch epoch) {
  const auto document = nlohmann::json::parse(body, nullptr, /*allow_exceptions=*/false);
  if (!document.is_object() || !document.contains("lease")) return std::nullopt;
  const nlohmann::json& lease = document["lease"];
  const auto number = [&](const char* key) -> int64_t {
    const auto found = lease.is_object() ? lease.find(key) : lease.end();
    const bool there = lease.is_object() && found != lease.end() && found->is_number_integer();
    const int64_t value = there ? found->get<int64_t>() : -1;
    return value <= kClockMax.count() ? value : -1;
  };
  const int64_t clock = number("clockMs");
  const int64_t proved = number("provedMs");
  const int64_t deadline = number("deadlineMs");
  if (number("epoch") != static_cast<int64_t>(epoch.value) || clock < 0 || proved < 0 ||
      proved > clock || deadline <= clock || deadline - proved > kLeaseMax.count()) {
    return std::nullopt;
  }
  return control::LeaseWord{epoch, MonoTime(Millis{clock}), MonoTime(Millis{proved}),
                            MonoTime(Millis{deadline})};
}

LeaderLease::LeaderLease(env::Loop& loop, env::HttpClient& http, Extended extended)
    : loop_(loop), http_(http), extended_(std::move(extended)) {}

LeaderLease::~LeaderLease() {
  loop_.cancel(timer_);
  if (asked_ != 0) http_.cancel(asked_);
}

void LeaderLease::on_view(const control::ClusterView& view, MonoTime begun) {
  url_.clear();
  if (view.leader && view.leader->value.phase == control::LeaderPhase::kRunning) {
    epoch_ = view.leader->value.epoch;
    ttl_ = view.leader->value.ttl;
    const auto* member = view.member(view.leader->value.holder);
    if (member != nullptr) url_ = member->api_url;
  }
  // Put off by every renewal, not by every read: a store that answers us does not mean that the
  // leader reaches it.
  if (view.leader_revision == renewed_ && timer_ != env::TimerId::kNone) return;
  renewed_ = view.leader_revision;
  schedule(begun + ttl_ / 4);
}

void LeaderLease::schedule(MonoTime when) {
  loop_.cancel(timer_);
  timer_ = loop_.call_at(when, [this] { ask(); });
}

void LeaderLease::ask() {
  schedule(loop_.now() + ttl_ / 10);
  if (url_.empty() || asked_ != 0) return;
  env::HttpRequest request;
  request.method = "GET";
  request.url = url_ + "/primary";
  request.connect_timeout = request.timeout = ttl_ / 5;
  request.answer_bytes_max = kAnswerBytesMax;
  const MonoTime begun = loop_.now();
  asked_ = http_.send(std::move(request), [this, begun, epoch = epoch_](env::HttpAnswer answer) {
    asked_ = 0;
    if (answer.status != 200) return;
    const auto word = lease_in(answer.body, epoch);
    const auto until = word ? reader_.heard(begun, *word) : std::nullopt;
    if (until) extended_(epoch, *until);
  });
}

}  // namespace bascule::cli
