#include "store/etcd_store.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <set>
#include <tuple>
#include <utility>

#include "store/bounds.h"

namespace bascule::store {
namespace {

constexpr std::string_view kTxnPath = "/v3/kv/txn";
constexpr std::string_view kOwnKeys = "bascule-store/";
constexpr size_t kEndpointsMax = 16;
constexpr size_t kPrefixBytesMax = 128;
constexpr size_t kIdentityBytesMax = 128;
// A commit with less time than this is not begun.
constexpr Millis kCommitTimeMin{5};

TxnResult unknown(std::string error) { return {TxnOutcome::kUnknown, 0, std::move(error)}; }

// At most one copy of it can succeed: afterwards the key's revision is another one, for ever. An
// absent key is no such guard, because it may be absent again later.
bool succeeds_once_at_most(const Txn& txn) {
  if (txn.writes.empty()) return true;
  return std::ranges::any_of(txn.compares, [&](const Compare& compare) {
    return compare.revision != 0 &&
           std::ranges::any_of(txn.writes, [&](const Write& w) { return w.key == compare.key; });
  });
}

Status check_endpoint(const std::string& url) {
  const size_t scheme = url.starts_with("https://") ? 8 : url.starts_with("http://") ? 7 : 0;
  const std::string_view host = std::string_view(url).substr(scheme);
  const bool plain = std::ranges::all_of(host, [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           std::string_view("-._:[]").find(c) != std::string_view::npos;
  });
  if (scheme != 0 && !host.empty() && plain && host.find(':') != std::string_view::npos) return {};
  return fail(ErrorCode::kInvalid,
              fmt::format("expected http://HOST:PORT or https://HOST:PORT, found \"{}\"", url));
}

}  // namespace

Status validate(const EtcdOptions& options) {
  const auto invalid = [](std::string what) { return fail(ErrorCode::kInvalid, std::move(what)); };
  if (options.endpoints.empty()) return invalid("endpoints: at least one is needed");
  if (options.endpoints.size() > kEndpointsMax) {
    return invalid(fmt::format("endpoints: at most {} are allowed", kEndpointsMax));
  }
  std::set<std::string_view> seen;
  for (const std::string& url : options.endpoints) {
    if (auto s = check_endpoint(url); !s) return invalid("endpoints: " + s.error().message);
    if (!seen.insert(url).second) return invalid("endpoints: " + url + " is there twice");
    if (url.starts_with("https:") != options.endpoints[0].starts_with("https:")) {
      return invalid("endpoints: all of them http, or all of them https");
    }
  }
  if (options.prefix.size() > kPrefixBytesMax) {
    return invalid(fmt::format("prefix: at most {} bytes are allowed", kPrefixBytesMax));
  }
  if (options.user.empty() != options.password.empty()) {
    return invalid("user and password_file: one needs the other");
  }
  if (options.attempt * 2 > options.timeout) {
    return invalid("timeout: there must be time for two attempts");
  }
  return {};
}

EtcdStore::EtcdStore(EtcdOptions options, env::Loop& loop, env::HttpClient& http)
    : loop_(loop), client_(std::move(options), loop, http) {}

EtcdStore::~EtcdStore() { *alive_ = false; }

std::string EtcdStore::identity_key() const {
  return client_.options().prefix + std::string(kOwnKeys) + "identity";
}

// ---- reads
// -----------------------------------------------------------------------------------------

void EtcdStore::read(std::string prefix, ReadCallback callback) {
  if (auto ok = check_prefix(prefix); !ok) {
    loop_.post([alive = alive_, error = ok.error(), callback = std::move(callback)]() mutable {
      if (*alive) callback(std::unexpected(std::move(error)));
    });
    return;
  }
  auto& callbacks = asked_[prefix];
  callbacks.push_back(std::move(callback));
  if (callbacks.size() > 1) return;
  loop_.post([this, alive = alive_, prefix = std::move(prefix)] {
    if (!*alive) return;
    auto asked = asked_.extract(prefix);
    auto since = usable_copy(asked.key());
    start_read({std::move(asked.key()), loop_.now() + client_.options().timeout,
                std::move(asked.mapped()), std::move(since)});
  });
}

std::shared_ptr<const EtcdStore::Copy> EtcdStore::usable_copy(const std::string& prefix) const {
  const auto found = copies_.find(prefix);
  if (found == copies_.end()) return nullptr;
  const bool fresh = loop_.now() - found->second->complete < kCopyAgeMax;
  return fresh && found->second->continuity == client_.continuity() ? found->second : nullptr;
}

void EtcdStore::start_read(Read read) {
  read.begun = loop_.now();
  read.continuity = client_.continuity();
  etcd::Range range = etcd::prefix_range(client_.options().prefix + read.prefix);
  if (read.since) range.changed_since = read.since->revision + 1;
  EtcdClient::Call call;
  call.path = kTxnPath;
  call.body = etcd::read_body({std::move(range), {identity_key(), ""}});
  call.deadline = read.deadline;
  call.done = [this, read = std::move(read)](EtcdClient::Reply reply) mutable {
    on_read(std::move(read), std::move(reply));
  };
  client_.call(std::move(call));
}

void EtcdStore::on_read(Read read, EtcdClient::Reply reply) {
  if (!reply.answered) return answer_read(read, std::unexpected(std::move(reply.error)));
  auto answer = etcd::parse_txn(reply.body);
  if (!answer) return answer_read(read, std::unexpected(answer.error()));
  auto identity = identity_in(*answer, 1);
  if (!identity && !client_.options().identity.empty()) return create_identity(std::move(read));
  if (!identity) {
    return answer_read(read, fail(ErrorCode::kNotFound, "this etcd has no store of Bascule's yet",
                                  "The first daemon makes it; is store.prefix right?"));
  }
  identity_ = identity;
  const auto copy = copy_of(read, *answer, *identity);
  if (!copy) {
    read.since = nullptr;
    return start_read(std::move(read));
  }
  auto result = snapshot(read.prefix, *copy);
  if (result && streams_.contains(read.prefix)) {
    auto& kept = copies_[read.prefix];
    if (!kept ||
        std::tie(kept->complete, kept->revision) <= std::tie(copy->complete, copy->revision)) {
      kept = copy;
    }
  }
  answer_read(read, result);
}

void EtcdStore::answer_read(Read& read, const Result<Snapshot>& result) {
  const auto alive = alive_;  // a callback may destroy this object
  for (ReadCallback& callback : read.callbacks) {
    if (!*alive) return;
    callback(result);
  }
}

std::shared_ptr<const EtcdStore::Copy> EtcdStore::copy_of(const Read& read, etcd::TxnAnswer& answer,
                                                          const Identity& identity) const {
  etcd::Found& found = answer.ranges[0];
  if (!read.since) {
    return std::make_shared<Copy>(identity, answer.revision, std::move(found.entries), read.begun,
                                  read.continuity);
  }
  const Copy& before = *read.since;
  if (before.identity != identity || before.continuity != client_.continuity() ||
      answer.revision < before.revision ||
      !std::ranges::is_sorted(found.entries, {}, &Entry::key)) {
    return nullptr;
  }
  Copy out{identity, answer.revision, {}, before.complete, before.continuity};
  std::ranges::set_union(found.entries, before.entries, std::back_inserter(out.entries), {},
                         &Entry::key, &Entry::key);  // of two with one key the first is taken
  return out.entries.size() == found.count ? std::make_shared<Copy>(std::move(out)) : nullptr;
}

std::optional<EtcdStore::Identity> EtcdStore::identity_in(const etcd::TxnAnswer& answer,
                                                          size_t range) {
  if (answer.ranges.size() <= range || answer.ranges[range].entries.empty()) return std::nullopt;
  const Entry& entry = answer.ranges[range].entries.front();
  if (entry.revision == 0 || entry.value.size() > kIdentityBytesMax) return std::nullopt;
  return Identity{fmt::format("{:x}-{}", answer.cluster_id, entry.value), entry.revision};
}

Result<Snapshot> EtcdStore::snapshot(const std::string& prefix, const Copy& copy) const {
  const std::string& own = client_.options().prefix;
  const std::string hidden = identity_key();
  Snapshot out{identity_->name, copy.revision, {}};
  for (const Entry& entry : copy.entries) {
    if (entry.key == hidden) continue;
    Entry item{entry.key, entry.value, entry.revision};
    const bool ours = item.key.starts_with(own + prefix) && item.revision != 0;
    item.key.erase(0, std::min(own.size(), item.key.size()));
    if (!ours || (!out.entries.empty() && item.key <= out.entries.back().key)) {
      return fail(ErrorCode::kInvalid, "etcd's answer is malformed: keys that were not asked for");
    }
    out.entries.push_back(std::move(item));
  }
  return out;
}

void EtcdStore::create_identity(Read read) {
  // Not the same again in a store that was wiped under us.
  const std::string name = fmt::format("{}-{}", client_.options().identity, ++identities_made_);
  EtcdClient::Call call;
  call.path = kTxnPath;
  call.body = etcd::txn_body({{identity_key(), 0}}, {{identity_key(), name}}, identity_key());
  call.repeat = EtcdClient::Repeat::kUnlessSent;
  call.deadline = read.deadline;
  // Whatever came of it, the next read tells.
  call.done = [this, read = std::move(read)](EtcdClient::Reply reply) mutable {
    if (!reply.answered && !reply.unclear) {
      return answer_read(read, std::unexpected(std::move(reply.error)));
    }
    start_read(std::move(read));
  };
  client_.call(std::move(call));
}

// ---- commits
// ---------------------------------------------------------------------------------------

void EtcdStore::commit(Txn txn, TxnCallback callback) {
  if (auto ok = check_bounds(txn); !ok) {
    loop_.post(
        [alive = alive_, error = ok.error().to_string(), callback = std::move(callback)]() mutable {
          if (*alive) callback(unknown("not applied: " + error));
        });
    return;
  }
  commits_.push_back(
      {std::move(txn), loop_.now() + client_.options().timeout, std::move(callback)});
  next_commit();
}

// The one under way is answered by its deadline, and those behind it have later ones.
void EtcdStore::next_commit() {
  const auto alive = alive_;  // a callback may destroy this object
  while (*alive && !committing_ && !commits_.empty()) {
    const Commit& next = commits_.front();
    if (next.deadline - loop_.now() < kCommitTimeMin) {
      committing_ = true;
      answer_commit(unknown("store etcd: no answer in time to those before it; not applied"));
      continue;
    }
    committing_ = true;
    if (identity_) return send_commit();
    Read first{std::string(kOwnKeys), next.deadline, {}, nullptr};
    first.callbacks.emplace_back([this](const Result<Snapshot>& result) {
      if (result) return send_commit();
      answer_commit(unknown(result.error().to_string() + "; not applied"));
    });
    return start_read(std::move(first));
  }
}

void EtcdStore::send_commit() {
  const Commit& commit = commits_.front();
  const std::string& own = client_.options().prefix;
  Txn txn = commit.txn;
  for (Compare& compare : txn.compares) compare.key.insert(0, own);
  for (Write& write : txn.writes) write.key.insert(0, own);
  txn.compares.push_back({identity_key(), identity_->revision});
  EtcdClient::Call call;
  call.path = kTxnPath;
  call.body = etcd::txn_body(txn.compares, txn.writes, identity_key());
  call.repeat = succeeds_once_at_most(commit.txn) ? EtcdClient::Repeat::kHarmless
                                                  : EtcdClient::Repeat::kUnlessSent;
  call.deadline = commit.deadline;
  call.judge = [](const std::string& body) {
    const auto answer = etcd::parse_txn(body);
    return answer && !answer->succeeded ? EtcdClient::Verdict::kNotYet
                                        : EtcdClient::Verdict::kFinal;
  };
  call.done = [this](EtcdClient::Reply reply) { answer_commit(outcome(reply)); };
  client_.call(std::move(call));
}

TxnResult EtcdStore::outcome(const EtcdClient::Reply& reply) {
  if (!reply.answered) {
    return unknown(reply.error.to_string() +
                   (reply.unclear ? "; it may still be applied" : "; not applied"));
  }
  const auto answer = etcd::parse_txn(reply.body);
  if (!answer) return unknown(answer.error().message + "; it may still be applied");
  if (answer->succeeded) return {TxnOutcome::kCommitted, answer->revision, {}};
  if (reply.unclear) {
    return unknown(
        "store etcd: an attempt's answer was lost, another one met a conflict; it may "
        "have been applied");
  }
  const auto identity = identity_in(*answer, 0);
  if (identity && identity->revision == identity_->revision) return {TxnOutcome::kConflict, 0, {}};
  identity_.reset();
  return unknown("not applied: the store was made anew since it was read");
}

void EtcdStore::answer_commit(TxnResult result) {
  TxnCallback callback = std::move(commits_.front().callback);
  commits_.pop_front();
  committing_ = false;
  // Posted, so that neither a chain of answers nor the callback's own wishes run inside one
  // another.
  loop_.post(
      [alive = alive_, callback = std::move(callback), result = std::move(result)]() mutable {
        if (*alive) callback(std::move(result));
      });
  next_commit();
}

// ---- watches
// ---------------------------------------------------------------------------------------

uint64_t EtcdStore::watch(std::string prefix, WatchCallback callback) {
  const uint64_t id = next_watch_++;
  Stream& stream = streams_[prefix];
  if (!stream.watch) {
    stream.watch = std::make_unique<EtcdWatch>(
        client_, loop_, etcd::prefix_range(client_.options().prefix + prefix),
        [this, prefix] { changed(prefix); });
  }
  watchers_.emplace(id, Watcher{std::move(prefix), std::move(callback)});
  return id;
}

void EtcdStore::unwatch(uint64_t id) {
  const auto found = watchers_.find(id);
  if (found == watchers_.end()) return;
  const std::string prefix = std::move(found->second.prefix);
  watchers_.erase(found);
  const bool last = std::ranges::none_of(
      watchers_, [&](const auto& watcher) { return watcher.second.prefix == prefix; });
  if (!last) return;
  streams_.erase(prefix);
  copies_.erase(prefix);
}

// Called by the stream, which a watcher may end: not from inside it.
void EtcdStore::changed(const std::string& prefix) {
  if (std::exchange(streams_[prefix].notifying, true)) return;
  loop_.post([this, alive = alive_, prefix] {
    if (*alive) notify(prefix);
  });
}

void EtcdStore::notify(const std::string& prefix) {
  if (const auto stream = streams_.find(prefix); stream != streams_.end()) {
    stream->second.notifying = false;
  }
  std::vector<uint64_t> concerned;
  for (const auto& [id, watcher] : watchers_) {
    if (watcher.prefix == prefix) concerned.push_back(id);
  }
  const auto alive = alive_;
  for (const uint64_t id : concerned) {
    const auto found = watchers_.find(id);
    if (found == watchers_.end()) continue;
    const auto callback = found->second.callback;  // it may unwatch itself
    callback();
    if (!*alive) return;
  }
}

}  // namespace bascule::store
