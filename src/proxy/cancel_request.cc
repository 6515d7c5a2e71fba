#include "proxy/cancel_request.h"

#include <string>
#include <utility>

#include "proxy/server_connection.h"
#include "proxy/worker.h"

namespace bascule::proxy {

CancelRequest::CancelRequest(Worker& worker, ServerConnection& server, env::Callback done)
    : worker_(worker),
      on_end_(std::move(done)),
      server_(server.self()),
      key_(server.cancel_key()),
      dial_(worker.net(), worker.access(), server.target().endpoint, *this) {
  server.cancel_begins();
  dial_.dial();
  timer_ = worker.loop().call_after(5s, [this] { end(); });
}

CancelRequest::~CancelRequest() {
  worker_.loop().cancel(timer_);
  if (stream_ != nullptr) stream_->close();
}

void CancelRequest::on_closed(int) {
  stream_ = nullptr;
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
  std::string packet;
  pgwire::append_cancel_request(packet, key_);
  stream.send(packet);
}

}  // namespace bascule::proxy
