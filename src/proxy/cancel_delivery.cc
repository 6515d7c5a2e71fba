#include "proxy/cancel_delivery.h"

#include <string>
#include <utility>

#include "proxy/worker.h"

namespace bascule::proxy {

CancelDelivery::CancelDelivery(Worker& worker, env::Endpoint endpoint, pgwire::CancelKey key,
                               std::function<bool()> wanted, std::function<void(Outcome)> done)
    : worker_(worker),
      key_(std::move(key)),
      wanted_(std::move(wanted)),
      done_(std::move(done)),
      dial_(worker.net(), worker.access(), std::move(endpoint), *this) {}

CancelDelivery::~CancelDelivery() {
  worker_.loop().cancel(timer_);
  if (stream_ != nullptr) stream_->close();
}

void CancelDelivery::dial() {
  timer_ = worker_.loop().call_after(kPatience, [this] {
    timer_ = env::TimerId::kNone;
    end(stream_ != nullptr ? Outcome::kUnknown : Outcome::kNotSent);
  });
  dial_.dial();
}

void CancelDelivery::on_dialed(env::Stream& stream) {
  stream_ = &stream;
  stream.set_handler(*this);
  if (wanted_ && !wanted_()) return end(Outcome::kNotSent);
  std::string packet;
  pgwire::append_cancel_request(packet, key_);
  stream.send(packet);
}

void CancelDelivery::on_closed(int error) {
  stream_ = nullptr;
  end(error == 0 ? Outcome::kDelivered : Outcome::kUnknown);
}

void CancelDelivery::end(Outcome outcome) {
  if (std::exchange(over_, true)) return;
  worker_.loop().cancel(std::exchange(timer_, env::TimerId::kNone));
  if (stream_ != nullptr) std::exchange(stream_, nullptr)->close();
  done_(outcome);
}

}  // namespace bascule::proxy
