#include "store/etcd_watch.h"

#include <algorithm>
#include <utility>

#include "base/log.h"

namespace bascule::store {
namespace {

constexpr Millis kPauseMin{20};
constexpr Millis kPauseMax{500};
constexpr Millis kCreateTimeout{1000};
constexpr Millis kLookEvery{300};
constexpr std::string_view kPath = "/v3/watch";

}  // namespace

EtcdWatch::EtcdWatch(EtcdClient& client, env::Loop& loop, etcd::Range range,
                     std::function<void()> changed)
    : client_(client), loop_(loop), range_(std::move(range)), changed_(std::move(changed)) {
  heard_ = told_ = loop_.now();
  open();
  look_timer_ = loop_.call_after(kLookEvery, [this] { look(); });
}

EtcdWatch::~EtcdWatch() {
  loop_.cancel(open_timer_);
  loop_.cancel(look_timer_);
  if (line_) client_.close_stream(*line_);
}

void EtcdWatch::open() {
  open_timer_ = env::TimerId::kNone;
  buffer_.clear();
  created_ = false;
  opened_ = loop_.now();
  line_ = client_.open_stream(
      std::string(kPath), etcd::watch_body(range_, from_),
      [this](std::string_view bytes) { on_data(bytes); },
      [this](const env::HttpAnswer& answer) { on_ended(answer); });
  if (!line_) reopen("not logged in yet");
}

void EtcdWatch::reopen(std::string_view why) {
  if (line_) {
    log(LogLevel::kDebug, "store", "etcd watch begins again",
        {{"endpoint", client_.name(*line_)}, {"reason", why}});
    client_.close_stream(*std::exchange(line_, std::nullopt));
  }
  if (open_timer_ != env::TimerId::kNone) return;
  pause_ = std::clamp(pause_ * 2, kPauseMin, kPauseMax);
  open_timer_ = loop_.call_after(pause_, [this] { open(); });
}

void EtcdWatch::on_data(std::string_view bytes) {
  while (line_ && !bytes.empty()) {
    const size_t end = bytes.find('\n');
    const size_t take = end == std::string_view::npos ? bytes.size() : end;
    if (buffer_.size() + take > kLineBytesMax) {
      from_ = 0;
      return reopen("a line is too long");
    }
    buffer_.append(bytes.substr(0, take));
    if (end == std::string_view::npos) return;
    bytes.remove_prefix(end + 1);
    const std::string line = std::exchange(buffer_, {});
    if (!line.empty()) on_line(line);
  }
}

void EtcdWatch::on_line(std::string_view line) {
  const auto answer = etcd::parse_watch(line);
  if (!answer) {
    from_ = 0;
    client_.avoid(*line_);
    return reopen(answer.error().message);
  }
  if (answer->canceled) {
    if (answer->compacted != 0) {
      from_ = 0;
    } else if (answer->reason.find("auth") != std::string::npos ||
               answer->reason.find("permission denied") != std::string::npos) {
      client_.refuse_token(*line_);
    } else {
      client_.avoid(*line_);
    }
    return reopen(answer->reason.empty() ? "canceled" : answer->reason);
  }
  pause_ = Millis{0};
  if (answer->created && !std::exchange(created_, true)) {
    heard_ = loop_.now();
    if (from_ == 0) {
      from_ = answer->revision + 1;
      heard(0);
    }
  }
  if (answer->last_change != 0) heard(answer->last_change);
}

void EtcdWatch::heard(Revision last_change) {
  from_ = std::max(from_, last_change + 1);
  heard_ = told_ = loop_.now();
  changed_();
}

void EtcdWatch::on_ended(const env::HttpAnswer& answer) {
  if (answer.status == 0 || answer.status == 200) {
    client_.avoid(*line_);
  } else {
    const auto failure = etcd::parse_failure(answer.status, answer.body);
    if (failure.refusal == etcd::Refusal::kToken) {
      client_.refuse_token(*line_);
    } else {
      client_.avoid(*line_);
    }
  }
  const std::string why = answer.status == 0 ? answer.error : "ended";
  reopen(why);
}

void EtcdWatch::look() {
  look_timer_ = loop_.call_after(kLookEvery, [this] { look(); });
  const MonoTime now = loop_.now();
  if (line_ && ((!created_ && now - opened_ >= kCreateTimeout) || now - heard_ >= kSilenceMax)) {
    client_.avoid(*line_);
    heard_ = now;
    reopen("silent");
  }
  if (now - told_ < kSilence - kLookEvery) return;
  told_ = now;
  changed_();
}

}  // namespace bascule::store
