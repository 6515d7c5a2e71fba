#include "api/http_server.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <httplib.h>
#include <sched.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <utility>

#include "api/certificates.h"

namespace bascule::api {
namespace {

constexpr size_t kBodyBytesMax = 64 << 10;
constexpr int kIoTimeoutSeconds = 2;
constexpr size_t kQueryItemsMax = 32;

// The library's default adds SO_REUSEPORT: a second daemon would share the port instead of failing.
void set_socket_options(socket_t socket) {
  const int yes = 1;
  ::setsockopt(socket, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
  // A postmaster that inherited it would keep the port taken after our death.
  ::fcntl(socket, F_SETFD, FD_CLOEXEC);
}

// "CN=ops,O=firm"; empty: there is none. What is not printable comes as \\xx.
std::string subject_of(const SSL* ssl) {
  constexpr size_t kSubjectBytesMax = 200;
  const std::unique_ptr<X509, decltype(&X509_free)> shown(
      ssl == nullptr ? nullptr : SSL_get_peer_certificate(ssl), &X509_free);
  const std::unique_ptr<BIO, decltype(&BIO_free)> text(BIO_new(BIO_s_mem()), &BIO_free);
  if (!shown || !text) return "";
  X509_NAME_print_ex(text.get(), X509_get_subject_name(shown.get()), 0, XN_FLAG_RFC2253);
  char* bytes = nullptr;
  const long size = BIO_get_mem_data(text.get(), &bytes);
  if (size <= 0) return "";
  return std::string(bytes, std::min(static_cast<size_t>(size), kSubjectBytesMax));
}

Request convert(const httplib::Request& from) {
  Request to;
  to.method = from.method;
  to.path = from.path;
  for (const auto& [name, value] : from.params) {
    if (to.query.size() < kQueryItemsMax) to.query.emplace(name, value);
  }
  to.body = from.body;
  to.remote = from.remote_addr;
  to.origin = from.get_header_value("Origin");
  to.authorization = from.get_header_value("Authorization");
  to.certificate = subject_of(from.ssl);
  return to;
}

void write(const Response& from, httplib::Response& to) {
  to.status = from.status;
  for (const auto& [name, value] : from.headers) to.set_header(name, value);
  to.set_header("Cache-Control", "no-store");
  to.set_header("X-Content-Type-Options", "nosniff");
  to.set_content(from.body, from.content_type);
}

// What the library refused by itself (malformed, too long) has no body yet.
void explain(const httplib::Request&, httplib::Response& response) {
  if (!response.body.empty()) return;
  write(error_response(response.status, "http_error", "The request was refused",
                       response.status == 413 ? "The body may have 64 KiB" : ""),
        response);
}

AccessRules access_rules(const HttpOptions& options) {
  AccessRules rules;
  rules.tokens = options.tokens;
  rules.loopback = is_loopback(options.host);
  rules.client_certificates = options.tls && !options.tls->client_ca_file.empty();
  rules.anonymous =
      options.anonymous.value_or(rules.loopback ? Anonymous::kRead : Anonymous::kHealth);
  return rules;
}

std::unique_ptr<httplib::Server> make_server(const HttpOptions& options) {
  if (!options.tls) return std::make_unique<httplib::Server>();
  const HttpTls& tls = *options.tls;
  return std::make_unique<httplib::SSLServer>(
      tls.cert_file.c_str(), tls.key_file.c_str(),
      tls.client_ca_file.empty() ? nullptr : tls.client_ca_file.c_str());
}

bool is_peer(const httplib::Request& request) {
  return request.method == "POST" && request.path == "/peer";
}

}  // namespace

bool is_loopback(std::string_view host) {
  const std::string text(host);
  in_addr v4{};
  if (::inet_pton(AF_INET, text.c_str(), &v4) == 1) return (ntohl(v4.s_addr) >> 24) == 127;
  in6_addr v6{};
  if (::inet_pton(AF_INET6, text.c_str(), &v6) == 1) return IN6_IS_ADDR_LOOPBACK(&v6);
  return text == "localhost";
}

struct HttpServer::Listener {
  enum State { kQueued, kRunning, kDone };
  std::unique_ptr<Certificates> certificates;
  std::unique_ptr<httplib::Server> owned;
  httplib::Server& server = *owned;
  std::atomic<int> state{kQueued};

  explicit Listener(std::unique_ptr<httplib::Server> s) : owned(std::move(s)) {}

  void run() {
    int queued = kQueued;
    if (!state.compare_exchange_strong(queued, kRunning)) return;
    server.listen_after_bind();
    state = kDone;
    state.notify_all();
  }

  void stop() {
    int queued = kQueued;
    if (state.compare_exchange_strong(queued, kDone)) return;
    // stop() before the accept loop has begun would be forgotten by it.
    while (state == kRunning && !server.is_running()) ::sched_yield();
    server.stop();
    state.wait(kRunning);
  }
};

HttpServer::HttpServer(HttpOptions options, const env::Clock& clock, env::BlockingPool& pool,
                       CommandHandler handler)
    : options_(std::move(options)),
      clock_(clock),
      pool_(pool),
      routes_(std::move(handler), access_rules(options_), options_.refused),
      rate_(options_.requests_per_second) {}

HttpServer::~HttpServer() {
  if (listener_) listener_->stop();
}

Result<int> HttpServer::start() {
  auto listener = std::make_shared<Listener>(make_server(options_));
  auto& server = listener->server;
  if (options_.tls) {
    auto* context = static_cast<httplib::SSLServer&>(server).ssl_context();
    listener->certificates = std::make_unique<Certificates>(*options_.tls);
    if (auto usable = listener->certificates->serve(context); !usable) {
      return std::unexpected(usable.error());
    }
    SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION);
  }
  server.set_socket_options(set_socket_options);
  server.set_payload_max_length(kBodyBytesMax);
  server.set_read_timeout(kIoTimeoutSeconds);
  server.set_write_timeout(kIoTimeoutSeconds);
  server.set_keep_alive_max_count(1);
  server.set_keep_alive_timeout(kIoTimeoutSeconds);  // also of the first request
  server.new_task_queue = [threads = options_.threads] {
    return new httplib::ThreadPool(static_cast<size_t>(threads));
  };
  // Before the library's own routing, which would run a std::regex over what the client sent. Only
  // the few paths that take a body go through it, for its reading of bodies.
  server.set_pre_routing_handler(
      [this](const httplib::Request& request, httplib::Response& response) {
        if (is_peer(request)) return httplib::Server::HandlerResponse::Unhandled;
        if (!is_allowed(request)) {
          write(error_response(403, "address_refused", "Not from this address",
                               "api.allow lists the networks that may ask"),
                response);
          return httplib::Server::HandlerResponse::Handled;
        }
        if (!within_rate(request)) {
          auto refused = error_response(429, "too_many_requests", "Too many requests",
                                        "api.requests_per_second is the limit of one address");
          refused.headers.emplace_back("Retry-After", "1");
          write(refused, response);
          return httplib::Server::HandlerResponse::Handled;
        }
        if (Routes::takes_body(request.method, request.path)) {
          return httplib::Server::HandlerResponse::Unhandled;
        }
        serve(request, response);
        return httplib::Server::HandlerResponse::Handled;
      });
  const auto with_body = [this](const httplib::Request& request, httplib::Response& response) {
    serve(request, response);
  };
  server.Post("/.{1,200}", with_body);  // may end in a region's name, which is free text
  server.Patch("/[a-z/]{1,32}", with_body);
  server.Put("/[a-z/]{1,32}", with_body);
  server.set_error_handler(explain);
  server.set_exception_handler([](const httplib::Request&, httplib::Response& response, auto) {
    write(error_response({ErrorCode::kInternal, "The request failed unexpectedly", {}}), response);
  });
  int port = options_.port;
  errno = 0;
  const bool bound = port == 0 ? (port = server.bind_to_any_port(options_.host)) > 0
                               : server.bind_to_port(options_.host, port);
  if (!bound) {
    return fail(ErrorCode::kUnavailable,
                fmt::format("api.listen: {}:{}: {}", options_.host, options_.port,
                            errno ? std::strerror(errno) : "cannot be bound"),
                "Choose another port, or stop what uses it");
  }
  listener_ = listener;
  pool_.submit([listener] { listener->run(); });
  return port;
}

void HttpServer::publish(Snapshot snapshot) {
  const std::lock_guard lock(mutex_);
  tally_.observe(snapshot, snapshot.taken_at);
  snapshot_ = std::make_shared<const Snapshot>(std::move(snapshot));
}

std::shared_ptr<const Snapshot> HttpServer::current() const {
  const std::lock_guard lock(mutex_);
  return snapshot_;
}

bool HttpServer::is_allowed(const httplib::Request& request) const {
  if (options_.allow.empty()) return true;
  const std::string_view text = request.remote_addr;
  const auto from = parse_address(text.substr(0, text.find('%')));  // without the interface
  return from && std::ranges::any_of(options_.allow,
                                     [&](const Network& each) { return each.contains(*from); });
}

bool HttpServer::within_rate(const httplib::Request& request) const {
  const std::lock_guard lock(mutex_);
  return rate_.allow(request.remote_addr, clock_.now());
}

Response HttpServer::answer(const httplib::Request& request) const {
  const auto snapshot = current();
  if (!snapshot) {
    return error_response(503, "starting", "The daemon has not looked at the cluster yet",
                          "Try again in a second");
  }
  return routes_.handle(convert(request), *snapshot, clock_.now());
}

void HttpServer::serve(const httplib::Request& request, httplib::Response& response) const {
  if (!options_.peers || !is_peer(request)) return write(answer(request), response);
  const auto reply = options_.peers(request.body);
  write(reply ? Response{200, "application/json", *reply, {}} : error_response(reply.error()),
        response);
}

}  // namespace bascule::api
