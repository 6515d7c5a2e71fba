#include "cli/cluster_watch.h"

#include <algorithm>

#include "base/log.h"

namespace bascule::cli {
namespace {

// The watch tells of every renewal: a look is for one that is silent, and not in between.
Millis look_every(Millis ttl) {
  return std::max(control::ClusterConfig::renew_every(ttl) * 3 / 2, Millis{50});
}

}  // namespace

ClusterWatch::ClusterWatch(env::Loop& loop, store::Store& store, control::Keys keys,
                           Callback callback)
    : loop_(loop),
      store_(store),
      prefix_(keys.prefix),
      parser_(std::move(keys)),
      callback_(std::move(callback)) {}

ClusterWatch::~ClusterWatch() {
  *alive_ = false;
  store_.unwatch(watch_);
  loop_.cancel(timer_);
}

void ClusterWatch::start() {
  watch_ = store_.watch(prefix_, [this] { read(); });
  read();
}

void ClusterWatch::read() {
  if (reading_) {
    again_ = true;
    return;
  }
  reading_ = true;
  loop_.cancel(timer_);
  const MonoTime begun = loop_.now();
  store_.read(prefix_, [this, begun, alive = alive_](Result<store::Snapshot> result) {
    if (*alive) on_read(std::move(result), begun);
  });
}

void ClusterWatch::on_read(Result<store::Snapshot> result, MonoTime begun) {
  reading_ = false;
  if (result) {
    const control::ClusterView view = parser_.parse(*result);
    if (view.config) every_ = look_every(view.config->value.ttl);
    if (failing_) log(LogLevel::kInfo, "watch", "store answers again");
    failing_ = false;
    callback_(view, begun);
  } else if (!failing_) {
    failing_ = true;
    log(LogLevel::kWarn, "watch", "cannot read the store",
        {{"reason", result.error().to_string()}});
  }
  if (std::exchange(again_, false)) {
    read();
  } else {
    timer_ = loop_.call_after(every_, [this] { read(); });
  }
}

}  // namespace bascule::cli
