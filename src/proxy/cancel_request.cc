#include "proxy/cancel_request.h"

#include <string>
#include <utility>

#include "proxy/client_connection.h"
#include "proxy/server_connection.h"
#include "proxy/worker.h"

namespace bascule::proxy {

CancelRequest::CancelRequest(Worker& worker, ServerConnection& server, Aim aim, env::Callback done)
    : worker_(worker),
      on_end_(std::move(done)),
      server_(server.self()),
      key_(server.cancel_key()),
      dial_(worker.net(), worker.access(), server.target().endpoint, *this) {
  server.cancel_begins();
  if (aim == Aim::kSent) aim_ = server.client()->session().sent_count();
  timer_ = worker.loop().call_after(kPatience, [this] { time_out(); });
}

CancelRequest::~CancelRequest() {
  worker_.loop().cancel(timer_);
  if (stream_ != nullptr) stream_->close();
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
  dial_.dial();
}

void CancelRequest::on_closed(int error) {
  stream_ = nullptr;
  if (error != 0) worker_.dispatcher().retire(server_);
  end();
}

void CancelRequest::time_out() {
  timer_ = env::TimerId::kNone;
  if (stream_ != nullptr) worker_.dispatcher().retire(server_);
  end();
}

void CancelRequest::end() {
  if (std::exchange(done_, true)) return;
  worker_.loop().cancel(timer_);
  if (stream_ != nullptr) std::exchange(stream_, nullptr)->close();
  worker_.dispatcher().cancel_ended(server_);
  if (on_end_) std::exchange(on_end_, {})();
}

void CancelRequest::on_dialed(env::Stream& stream) {
  stream_ = &stream;
  stream.set_handler(*this);
  if (answered()) return end();
  std::string packet;
  pgwire::append_cancel_request(packet, key_);
  stream.send(packet);
}

}  // namespace bascule::proxy
