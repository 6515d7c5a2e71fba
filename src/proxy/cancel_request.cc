#include "proxy/cancel_request.h"

#include <utility>

#include "proxy/client_connection.h"
#include "proxy/server_connection.h"
#include "proxy/worker.h"

namespace bascule::proxy {

CancelRequest::CancelRequest(Worker& worker, ServerConnection& server, Aim aim, env::Callback done)
    : worker_(worker),
      on_end_(std::move(done)),
      server_(server.self()),
      delivery_(
          worker, server.target().endpoint, server.cancel_key(), [this] { return !answered(); },
          [this](CancelDelivery::Outcome outcome) {
            if (outcome == CancelDelivery::Outcome::kUnknown) {
              worker_.dispatcher().retire(server_);
            }
            end();
          }) {
  server.cancel_begins();
  if (aim == Aim::kSent) aim_ = server.client()->session().sent_count();
}

bool CancelRequest::answered() const {
  if (!aim_) return false;
  const ServerConnection* server = worker_.dispatcher().server(server_);
  return server == nullptr || server->client() == nullptr ||
         server->client()->session().answered(*aim_);
}

void CancelRequest::look() {
  if (done_ || dialed_) return;
  if (answered()) return end();
  if (aim_ && worker_.dispatcher().server(server_)->client()->session().setting_up()) return;
  dialed_ = true;
  delivery_.dial();
}

void CancelRequest::end() {
  done_ = true;
  worker_.dispatcher().cancel_ended(server_);
  if (on_end_) std::exchange(on_end_, {})();
}

}  // namespace bascule::proxy
