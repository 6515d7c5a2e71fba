#include "proxy/listener.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "base/log.h"
#include "pgwire/messages.h"
#include "proxy/client_connection.h"
#include "proxy/sql_tokens.h"
#include "proxy/worker.h"

namespace bascule::proxy {
namespace {

// NAMEDATALEN: the server would cut a longer name, and its notifications bear another one.
constexpr size_t kNameMax = 63;

}  // namespace

Listeners::~Listeners() { close(); }

void Listeners::listen(Handle client, const Pool& pool, const std::string& channel) {
  Feed& feed = feeds_[{pool.user, pool.database}];
  feed.user = pool.user;
  feed.database = pool.database;
  feed.server_database = pool.server_database();
  const bool known = feed.channels.contains(channel);
  // Servers and passwords of a database's own: its clients' servers listen themselves.
  if (pool.elsewhere() || pool.own_secret() || channel.size() > kNameMax ||
      (!known && feed.channels.size() >= kChannelsMax)) {
    worker_.loop().post([this, client, channel] {
      if (ClientConnection* c = worker_.client(client)) {
        c->on_channel(channel, ClientConnection::Channel::kRefused);
      }
    });
    return;
  }
  Channel& entry = feed.channels[channel];
  if (std::ranges::find(entry.clients, client) == entry.clients.end()) {
    entry.clients.push_back(client);
  }
  entry.waiting.push_back(client);
  if (entry.live) {
    worker_.loop().post([this, key = Key(pool.user, pool.database), channel] {
      if (const auto it = feeds_.find(key); it != feeds_.end()) tell(it->second, channel);
    });
    return;
  }
  if (!known) feed.tasks.push_back(channel);
  work(feed);
}

void Listeners::unlisten(Handle client, const Pool& pool, const std::string& channel) {
  const auto it = feeds_.find({pool.user, pool.database});
  if (it == feeds_.end()) return;
  Feed& feed = it->second;
  const auto entry = feed.channels.find(channel);
  if (entry == feed.channels.end()) return;
  std::erase(entry->second.clients, client);
  std::erase(entry->second.waiting, client);
  if (!entry->second.clients.empty()) return;
  feed.channels.erase(entry);
  feed.tasks.push_back(channel);
  work(feed);
}

void Listeners::leave(Handle client, const Pool& pool) {
  const auto it = feeds_.find({pool.user, pool.database});
  if (it == feeds_.end()) return;
  std::vector<std::string> channels;
  for (const auto& [name, channel] : it->second.channels) {
    if (std::ranges::find(channel.clients, client) != channel.clients.end()) {
      channels.push_back(name);
    }
  }
  for (const std::string& name : channels) unlisten(client, pool, name);
}

void Listeners::on_route() {
  const Route* route = worker_.route();
  if (route == nullptr || !route->table.primary) return;
  for (auto& [key, feed] : feeds_) {
    if (feed.connection && feed.server != name_of(*route)) restart(feed);
  }
}

void Listeners::close() {
  for (auto& [key, feed] : feeds_) worker_.loop().cancel(feed.retry);
  feeds_.clear();
}

// ---- The connection
// ------------------------------------------------------------------------------

std::string Listeners::name_of(const Route& route) {
  return fmt::format("{}/{}", route.table.primary->name, route.table.epoch.value);
}

bool Listeners::connect(Feed& feed) {
  const Route* route = worker_.route();
  if (route == nullptr || !route->table.primary) return false;
  const std::string server = name_of(*route);
  if (feed.connection && feed.server == server) return true;
  feed.server = server;
  feed.access = worker_.access();
  OwnConnection::Server to;
  to.endpoint = route->table.primary->endpoint;
  to.startup = {{"user", feed.user},
                {"database", feed.server_database},
                {"application_name", "bascule listener"}};
  to.credential = worker_.credentials().get(*feed.access, feed.user);
  to.access = feed.access;
  feed.connection = std::make_unique<OwnConnection>(worker_.loop(), worker_.net(),
                                                    worker_.entropy(), std::move(to));
  const Key key(feed.user, feed.database);
  feed.connection->watch(
      [this, key](std::string_view message) {
        if (const auto it = feeds_.find(key); it != feeds_.end()) {
          on_notification(it->second, message);
        }
      },
      [this, key] {
        worker_.loop().post([this, key] {
          if (const auto it = feeds_.find(key); it != feeds_.end()) restart(it->second);
        });
      });
  return true;
}

// One statement at a time. `feed` may be gone afterwards.
void Listeners::work(Feed& feed) {
  if (feed.retry != env::TimerId::kNone || (feed.connection && feed.connection->busy())) return;
  const Key key(feed.user, feed.database);
  if (feed.channels.empty() && (feed.tasks.empty() || !feed.connection)) {
    feeds_.erase(key);
    return;
  }
  if (feed.tasks.empty()) return;
  if (!connect(feed)) return failed(feed, "there is no primary");
  const std::string channel = feed.tasks.front();
  const auto entry = feed.channels.find(channel);
  const bool wanted = entry != feed.channels.end();
  const std::string sql = (wanted ? "LISTEN " : "UNLISTEN ") + quote_identifier(channel);
  feed.connection->query(
      sql, kTimeout, [](const OwnConnection::Row&) -> Status { return {}; },
      [this, key](Status status) {
        // Not from inside of the connection's own call.
        worker_.loop().post([this, key, status = std::move(status)] {
          if (const auto it = feeds_.find(key); it != feeds_.end()) done(it->second, status);
        });
      });
}

void Listeners::done(Feed& feed, const Status& status) {
  if (!status) return failed(feed, status.error().message);
  if (feed.tasks.empty()) return work(feed);  // restarted meanwhile
  const std::string channel = std::move(feed.tasks.front());
  feed.tasks.pop_front();
  feed.failures = 0;
  if (const auto entry = feed.channels.find(channel); entry != feed.channels.end()) {
    entry->second.live = true;
    tell(feed, channel);
  }
  if (feed.tasks.empty() && std::exchange(feed.lost, false)) warn(feed);
  work(feed);
}

// Everything again, on another connection.
void Listeners::restart(Feed& feed) {
  feed.connection.reset();
  feed.tasks.clear();
  for (auto& [name, channel] : feed.channels) {
    feed.lost |= std::exchange(channel.live, false);
    feed.tasks.push_back(name);
  }
  work(feed);
}

void Listeners::failed(Feed& feed, const std::string& why) {
  log(LogLevel::kWarn, "proxy", "the listening connection is lost or can't be made",
      {{"user", feed.user}, {"database", feed.database}, {"error", why}});
  if (++feed.failures >= kAttempts) refuse_waiting(feed);
  feed.connection.reset();
  const Nanos pause = std::min<Nanos>(kRetry * (1 << std::min(feed.failures - 1, 6)), kRetryMax);
  feed.retry = worker_.loop().call_after(pause, [this, key = Key(feed.user, feed.database)] {
    const auto it = feeds_.find(key);
    if (it == feeds_.end()) return;
    it->second.retry = env::TimerId::kNone;
    restart(it->second);
  });
}

// ---- Clients
// -------------------------------------------------------------------------------------

void Listeners::tell(Feed& feed, const std::string& name) {
  const auto entry = feed.channels.find(name);
  if (entry == feed.channels.end() || !entry->second.live) return;
  for (const Handle handle : std::exchange(entry->second.waiting, {})) {
    if (ClientConnection* c = worker_.client(handle)) {
      c->on_channel(name, ClientConnection::Channel::kLive);
    }
  }
}

void Listeners::refuse_waiting(Feed& feed) {
  std::vector<std::pair<Handle, std::string>> refused;
  for (auto& [name, channel] : feed.channels) {
    for (const Handle handle : std::exchange(channel.waiting, {})) {
      std::erase(channel.clients, handle);
      refused.emplace_back(handle, name);
    }
  }
  std::erase_if(feed.channels, [](const auto& entry) { return entry.second.clients.empty(); });
  for (const auto& [handle, name] : refused) {
    if (ClientConnection* c = worker_.client(handle)) {
      c->on_channel(name, ClientConnection::Channel::kRefused);
    }
  }
}

void Listeners::warn(Feed& feed) {
  std::string notice;
  pgwire::append_notice_response(
      notice, {.severity = "WARNING",
               .sqlstate = "01000",
               .message = "notifications may have been lost: the connection that listens for this "
                          "session was lost and has been made again"});
  std::vector<Handle> told;
  for (const auto& [name, channel] : feed.channels) {
    for (const Handle handle : channel.clients) {
      if (std::ranges::find(told, handle) != told.end()) continue;
      told.push_back(handle);
      if (ClientConnection* c = worker_.client(handle)) c->on_notification({}, notice);
    }
  }
}

void Listeners::on_notification(Feed& feed, std::string_view message) {
  // Process id, channel, payload.
  std::string_view name = message.substr(std::min<size_t>(message.size(), 9));
  name = name.substr(0, name.find('\0'));
  const auto entry = feed.channels.find(std::string(name));
  if (entry == feed.channels.end()) return;
  const std::vector<Handle> clients = entry->second.clients;
  for (const Handle handle : clients) {
    if (ClientConnection* c = worker_.client(handle)) c->on_notification(name, message);
  }
}

}  // namespace bascule::proxy
