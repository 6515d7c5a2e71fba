#include "proxy/server_dial.h"

#include <errno.h>
#include <string.h>

#include <utility>

#include "pgwire/startup.h"

namespace bascule::proxy {

ServerDial::ServerDial(env::Net& net, std::shared_ptr<const Access> access, env::Endpoint endpoint,
                       Owner& owner)
    : net_(net), access_(std::move(access)), endpoint_(std::move(endpoint)), owner_(owner) {}

ServerDial::~ServerDial() {
  if (stream_ != nullptr) stream_->close();
}

ServerDial::Wish ServerDial::first_wish() const {
  if (endpoint_.host.starts_with('/')) return Wish::kPlain;
  switch (access_->config.server_tls) {
    case SslMode::kDisable:
    case SslMode::kAllow:
      return Wish::kPlain;
    case SslMode::kPrefer:
      return Wish::kTry;
    default:
      return Wish::kDemand;
  }
}

void ServerDial::dial() { begin(first_wish()); }

void ServerDial::begin(Wish wish) {
  wish_ = wish;
  used_tls_ = false;
  stream_ = &net_.connect(endpoint_, *this);
}

bool ServerDial::dial_otherwise() {
  if (endpoint_.host.starts_with('/') || std::exchange(second_, true)) return false;
  const SslMode mode = access_->config.server_tls;
  if (mode == SslMode::kAllow && !used_tls_) {
    begin(Wish::kDemand);
    return true;
  }
  if (mode == SslMode::kPrefer && used_tls_) {
    begin(Wish::kPlain);
    return true;
  }
  return false;
}

void ServerDial::hand_over() { owner_.on_dialed(*std::exchange(stream_, nullptr)); }

void ServerDial::fail(std::string sqlstate, std::string message) {
  if (stream_ != nullptr) std::exchange(stream_, nullptr)->close();
  owner_.on_dial_failed({std::move(sqlstate), std::move(message)});
}

void ServerDial::on_connected() {
  if (wish_ == Wish::kPlain) return hand_over();
  std::string request;
  pgwire::append_ssl_request(request);
  stream_->send(request);
}

size_t ServerDial::on_data(std::string_view bytes) {
  const size_t all = bytes.size();
  // One byte, and nothing behind it: CVE-2021-23222, see ClientLogin::on_ssl_request().
  if (all != 1) {
    fail("28000", "the server sent clear text behind its answer to the request for TLS");
  } else if (bytes[0] == 'S') {
    used_tls_ = true;
    stream_->start_tls(*access_->server_tls, env::Stream::TlsSide::kClient, endpoint_.host);
  } else if (bytes[0] != 'N') {
    fail("08006", "the server did not understand the request for TLS");
  } else if (wish_ == Wish::kDemand) {
    fail("28000", "the server does not offer TLS, and server_tls demands it");
  } else {
    hand_over();
  }
  return all;
}

void ServerDial::on_secured() { hand_over(); }

void ServerDial::on_closed(int error) {
  const std::string reason = stream_ != nullptr ? stream_->tls_error() : "";
  stream_ = nullptr;
  if (error == EPROTO && used_tls_) {
    if (dial_otherwise()) return;
    return fail("28000", "TLS: " + reason);
  }
  fail("08006", error == 0 ? "it closed the connection" : ::strerror(error));
}

pgwire::ChannelBinding channel_binding(const env::Stream& stream) {
  pgwire::ChannelBinding binding;
  if (stream.secured()) binding.data = stream.tls_info().server_end_point;
  return binding;
}

}  // namespace bascule::proxy
