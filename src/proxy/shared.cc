#include "proxy/shared.h"

#include <algorithm>

namespace bascule::proxy {

bool ServerLimit::acquire(int worker, MonoTime since) {
  const std::lock_guard lock(mutex_);
  if (const auto it = std::find(granted_.begin(), granted_.end(), worker); it != granted_.end()) {
    granted_.erase(it);
    return true;
  }
  if (used_ < max_ && waiting_.empty()) {
    ++used_;
    return true;
  }
  insert(worker, since);
  return false;
}

bool ServerLimit::try_acquire() {
  const std::lock_guard lock(mutex_);
  if (used_ >= max_ || !waiting_.empty()) return false;
  ++used_;
  return true;
}

std::vector<int> ServerLimit::set_max(int max) {
  const std::lock_guard lock(mutex_);
  max_ = max;
  std::vector<int> woken;
  while (const auto next = grant_next()) woken.push_back(*next);
  return woken;
}

int ServerLimit::used() {
  const std::lock_guard lock(mutex_);
  return used_;
}

void ServerLimit::claim(int worker, MonoTime since) {
  const std::lock_guard lock(mutex_);
  insert(worker, since);
}

void ServerLimit::insert(int worker, MonoTime since) {
  std::erase_if(waiting_, [&](const Entry& e) { return e.worker == worker; });
  if (since != MonoTime::max()) {
    const auto at = std::upper_bound(waiting_.begin(), waiting_.end(), since,
                                     [](MonoTime t, const Entry& e) { return t < e.since; });
    waiting_.insert(at, {since, worker});
  }
  publish_front();
}

void ServerLimit::publish_front() {
  const MonoTime front = waiting_.empty() ? MonoTime::max() : waiting_.front().since;
  waiting_since_.store(front.time_since_epoch().count(), std::memory_order_relaxed);
}

std::optional<int> ServerLimit::release() {
  const std::lock_guard lock(mutex_);
  --used_;
  return grant_next();
}

std::optional<int> ServerLimit::decline(int worker) {
  const std::lock_guard lock(mutex_);
  const auto it = std::find(granted_.begin(), granted_.end(), worker);
  if (it == granted_.end()) return std::nullopt;
  granted_.erase(it);
  --used_;
  return grant_next();
}

void ReportedParameters::store(const Key& key, const Parameters& parameters) {
  const std::lock_guard lock(mutex_);
  if (known_.size() >= kMax && !known_.contains(key)) known_.clear();
  Parameters& known = known_[key];
  if (known == parameters) return;
  known = parameters;
  version_.fetch_add(1, std::memory_order_release);
}

std::optional<Parameters> ReportedParameters::find(const Key& key) {
  const std::lock_guard lock(mutex_);
  const auto it = known_.find(key);
  if (it == known_.end()) return std::nullopt;
  return it->second;
}

namespace {

constexpr int kUnlimited = 1'000'000;

bool fits(const PoolRule& rule, const std::string& user, const std::string& database) {
  return (rule.user.empty() || rule.user == user) &&
         (rule.database.empty() || rule.database == database);
}

}  // namespace

PoolMode pool_mode(const ProxyConfig& config, const std::string& user,
                   const std::string& database) {
  for (const PoolRule& rule : config.pools) {
    if (rule.mode && fits(rule, user, database)) return *rule.mode;
  }
  const DatabaseRule* known = find_database(config.databases, database);
  return known != nullptr && known->mode ? *known->mode : config.pool_mode;
}

int min_pool_size(const ProxyConfig& config, const DatabaseRule* rule) {
  return rule != nullptr && rule->min_pool_size ? *rule->min_pool_size : config.min_pool_size;
}

int max_db_clients(const ProxyConfig& config, const std::string& database) {
  const DatabaseRule* known = find_database(config.databases, database);
  return known != nullptr && known->max_clients ? *known->max_clients
                                                : config.max_db_client_connections;
}

int max_user_clients(const ProxyConfig& config, const std::string& user,
                     const std::string& database) {
  for (const PoolRule& rule : config.pools) {
    if (rule.max_clients && fits(rule, user, database)) return *rule.max_clients;
  }
  return config.max_user_client_connections;
}

std::vector<Cap*> Caps::of(const ProxyConfig& config, const std::string& user,
                           const std::string& database) {
  const std::lock_guard lock(mutex_);
  const DatabaseRule* known = find_database(config.databases, database);
  int size = config.default_pool_size, reserve = config.reserve_pool_size;
  int of_database = config.max_db_connections, of_user = config.max_user_connections;
  if (known != nullptr) {
    size = known->pool_size.value_or(size);
    reserve = known->reserve_pool_size.value_or(reserve);
    of_database = known->max_connections.value_or(of_database);
  }
  const auto first = [&](std::optional<int> PoolRule::* value, int& out) {
    for (const PoolRule& rule : config.pools) {
      if (!(rule.*value) || !fits(rule, user, database)) continue;
      out = *(rule.*value);
      return;
    }
  };
  first(&PoolRule::pool_size, size);
  first(&PoolRule::reserve_pool_size, reserve);
  first(&PoolRule::max_connections, of_user);
  std::vector<Cap*> caps;
  // Counted also where only a minimum is asked for.
  if (size > 0 || min_pool_size(config, known) > 0) {
    caps.push_back(get("pool \"" + user + "\"/\"" + database + "\"", size > 0 ? size : kUnlimited,
                       size > 0 ? reserve : 0));
  }
  if (of_database > 0) caps.push_back(get("database \"" + database + "\"", of_database, 0));
  if (of_user > 0) caps.push_back(get("user \"" + user + "\"", of_user, 0));
  return caps;
}

Cap* Caps::get(const std::string& what, int max, int reserve) {
  auto& cap = caps_[what];
  if (!cap) {
    cap = std::make_unique<Cap>();
    cap->what = what;
  }
  cap->max = max;
  cap->reserve = reserve;
  return cap.get();
}

Cap* Caps::take(const std::vector<Cap*>& caps, Reserve reserve, int worker) {
  for (size_t i = 0; i < caps.size(); ++i) {
    const int max = caps[i]->max.load() + (reserve == Reserve::kUse ? caps[i]->reserve.load() : 0);
    if (caps[i]->used.fetch_add(1) < max) continue;
    caps[i]->wanted.fetch_or(bit(worker));
    for (size_t j = 0; j <= i; ++j) caps[j]->used.fetch_sub(1);
    // A place that was given back before the flag was set would be missed.
    if (caps[i]->used.load() < max) return take(caps, reserve, worker);
    return caps[i];
  }
  return nullptr;
}

uint64_t Caps::give(const std::vector<Cap*>& caps) {
  uint64_t wanted = 0;
  for (Cap* cap : caps) {
    cap->used.fetch_sub(1);
    wanted |= cap->wanted.exchange(0);
  }
  return wanted;
}

std::optional<int> ServerLimit::grant_next() {
  if (waiting_.empty() || used_ >= max_) return std::nullopt;
  const int worker = waiting_.front().worker;
  waiting_.pop_front();
  publish_front();
  granted_.push_back(worker);
  ++used_;
  return worker;
}

}  // namespace bascule::proxy
