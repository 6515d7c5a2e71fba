#include "proxy/peer_proxies.h"

#include <utility>

#include "proxy/worker.h"

namespace bascule::proxy {
namespace {

// Longer than a client's secret, and chosen by nobody at random.
constexpr std::string_view kMark = "bascule: for a client of yours? ";

}  // namespace

std::optional<std::string> PeerProxies::passed_on(const pgwire::CancelKey& key) {
  if (!key.secret.starts_with(kMark)) return std::nullopt;
  return key.secret.substr(kMark.size());
}

void PeerProxies::pass(const pgwire::CancelKey& key, env::Callback done) {
  const std::vector<env::Endpoint>& peers = worker_.config().peers;
  const bool fits = kMark.size() + key.secret.size() <= pgwire::kMaxCancelSecret;
  if (peers.empty() || rounds_.size() >= kRoundsMax || !fits) return done();
  Round& round = *rounds_.emplace_back(std::make_unique<Round>());
  round.left = peers.size();
  round.done = std::move(done);
  for (const env::Endpoint& peer : peers) {
    round.deliveries.push_back(std::make_unique<CancelDelivery>(
        worker_, peer, pgwire::CancelKey{key.pid, std::string(kMark) + key.secret},
        std::function<bool()>(), [this, &round](CancelDelivery::Outcome) { on_outcome(round); }));
  }
  for (const auto& delivery : round.deliveries) delivery->dial();
}

void PeerProxies::on_outcome(Round& round) {
  if (--round.left > 0) return;
  std::exchange(round.done, {})();
  // One of its deliveries is on the stack.
  worker_.loop().post(
      [this] { std::erase_if(rounds_, [](const auto& r) { return r->left == 0; }); });
}

}  // namespace bascule::proxy
