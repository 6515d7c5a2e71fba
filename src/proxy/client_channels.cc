// LISTEN and notifications of a ClientConnection whose server is shared.
#include <algorithm>
#include <utility>

#include "pgwire/messages.h"
#include "proxy/client_connection.h"
#include "proxy/listener.h"
#include "proxy/worker.h"

namespace bascule::proxy {

// What the session is about to listen to, and what it listens to no longer.
void ClientConnection::ask_for_channels() {
  if (!session_->asks_for_channels() && !subscriptions_) return;
  std::vector<std::string> asked = session_->take_channels();
  if (!subscriptions_) subscriptions_ = std::make_unique<Subscriptions>();
  Subscriptions& s = *subscriptions_;
  for (std::string& channel : asked) {
    ++s.awaited;
    worker_.listeners().listen(self_, *pool_, channel);
    if (std::ranges::find(s.channels, channel) == s.channels.end()) {
      s.channels.push_back(std::move(channel));
    }
  }
  if (s.awaited > 0 || !session_->idle()) return;
  const std::vector<std::string>& now = session_->channels();
  std::erase_if(s.channels, [&](const std::string& channel) {
    if (std::ranges::find(now, channel) != now.end()) return false;
    worker_.listeners().unlisten(self_, *pool_, channel);
    return true;
  });
}

void ClientConnection::on_channel(const std::string& channel, Channel what) {
  if (!open() || !subscriptions_ || subscriptions_->awaited == 0) return;
  --subscriptions_->awaited;
  if (what == Channel::kRefused) std::erase(subscriptions_->channels, channel);
  session_->on_channel(what);
  if (subscriptions_->awaited == 0 && server_ != nullptr) server_->resume();
}

void ClientConnection::on_notification(std::string_view channel, std::string_view message) {
  if (!open() || !subscriptions_) return;
  const std::vector<std::string>& mine = session_->channels();
  if (!channel.empty() && std::ranges::find(mine, channel) == mine.end()) return;
  subscriptions_->notifications += message;
  deliver_notifications();
  if (open() && subscriptions_->notifications.size() > kNotificationsMax) {
    fail("53200", "too many notifications wait for the client, or for the end of its transaction");
  }
}

// As PostgreSQL does: not within a transaction.
void ClientConnection::deliver_notifications() {
  if (!subscriptions_ || subscriptions_->notifications.empty()) return;
  if (stream_ == nullptr || stream_->congested() || !session_->between_transactions()) return;
  stream_->send(std::exchange(subscriptions_->notifications, {}));
}

}  // namespace bascule::proxy
