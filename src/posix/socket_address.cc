#include "posix/socket_address.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pwd.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <fmt/format.h>

#include <optional>
#include <string_view>

namespace bascule::posix {
namespace {

struct Address {
  sockaddr_storage storage{};
  socklen_t size = 0;
  int family() const { return storage.ss_family; }
  const sockaddr* get() const { return reinterpret_cast<const sockaddr*>(&storage); }
  bool loopback() const {
    const auto* v4 = reinterpret_cast<const sockaddr_in*>(&storage);
    const auto* v6 = reinterpret_cast<const sockaddr_in6*>(&storage);
    if (family() == AF_INET) return ntohl(v4->sin_addr.s_addr) >> 24 == 127;
    return family() == AF_INET6 && IN6_IS_ADDR_LOOPBACK(&v6->sin6_addr);
  }
};

// Within a host there is no congestion, and what some algorithms do about it costs time: bbr sets
// timers, to pace. Reno is always there, and does least.
void spare_congestion_control(int fd, const Address& address) {
  constexpr std::string_view kLeast = "reno";
  if (!address.loopback()) return;
  ::setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, kLeast.data(), kLeast.size());
}

std::optional<Address> to_address(const env::Endpoint& endpoint) {
  Address a;
  const std::string host = endpoint.host == "localhost" ? "127.0.0.1" : endpoint.host;
  if (!host.empty() && host.front() == '/') {
    auto* un = reinterpret_cast<sockaddr_un*>(&a.storage);
    const std::string path = host + "/.s.PGSQL." + std::to_string(endpoint.port);
    if (path.size() >= sizeof un->sun_path) return std::nullopt;
    un->sun_family = AF_UNIX;
    ::memcpy(un->sun_path, path.c_str(), path.size() + 1);
    a.size = sizeof *un;
    return a;
  }
  auto* v4 = reinterpret_cast<sockaddr_in*>(&a.storage);
  if (::inet_pton(AF_INET, host.c_str(), &v4->sin_addr) == 1) {
    v4->sin_family = AF_INET;
    v4->sin_port = htons(endpoint.port);
    a.size = sizeof *v4;
    return a;
  }
  auto* v6 = reinterpret_cast<sockaddr_in6*>(&a.storage);
  if (::inet_pton(AF_INET6, host.c_str(), &v6->sin6_addr) == 1) {
    v6->sin6_family = AF_INET6;
    v6->sin6_port = htons(endpoint.port);
    a.size = sizeof *v6;
    return a;
  }
  return std::nullopt;
}

std::unexpected<Error> socket_error(const env::Endpoint& endpoint, const char* call) {
  const int error = errno;
  return fail(ErrorCode::kUnavailable,
              "can't listen on " + endpoint.to_string() + ": " + call + ": " + ::strerror(error),
              error == EADDRINUSE ? "Choose another port or stop the program that uses it" : "");
}

}  // namespace

bool is_address(const env::Endpoint& endpoint) { return to_address(endpoint).has_value(); }

Result<UniqueFd> listen_socket(const env::Endpoint& endpoint) {
  const auto address = to_address(endpoint);
  if (!address) {
    return fail(ErrorCode::kInvalid, "listen address " + endpoint.to_string() + " is not usable",
                "Give an IPv4 or IPv6 address or the directory of a unix socket");
  }
  UniqueFd fd(::socket(address->family(), SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!fd.valid()) return socket_error(endpoint, "socket");
  const int on = 1;
  if (address->family() != AF_UNIX) {
    // A client speaks first: whoever has said nothing yet need not be accepted. (Who says nothing
    // for this many seconds is, and meets the time-outs of a log-in.)
    ::setsockopt(fd.get(), IPPROTO_TCP, TCP_DEFER_ACCEPT, &on, sizeof on);
    ::setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    ::setsockopt(fd.get(), SOL_SOCKET, SO_REUSEPORT, &on, sizeof on);
  }
  // Accepted connections inherit them: no system calls for each.
  set_stream_options(fd.get());
  spare_congestion_control(fd.get(), *address);
  if (::bind(fd.get(), address->get(), address->size) != 0) return socket_error(endpoint, "bind");
  if (::listen(fd.get(), 4096) != 0) return socket_error(endpoint, "listen");
  return fd;
}

ConnectAttempt start_connect(const env::Endpoint& endpoint) {
  const auto address = to_address(endpoint);
  const int family = address ? address->family() : AF_INET;
  ConnectAttempt attempt;
  attempt.fd.reset(::socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!attempt.fd.valid()) {
    attempt.error = errno;
  } else if (!address) {
    attempt.error = EADDRNOTAVAIL;
  } else {
    set_stream_options(attempt.fd.get());
    spare_congestion_control(attempt.fd.get(), *address);
    if (::connect(attempt.fd.get(), address->get(), address->size) != 0 && errno != EINPROGRESS) {
      attempt.error = errno;
    }
  }
  return attempt;
}

void set_stream_options(int fd) {
  const int on = 1;
  ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);  // fails on unix sockets: harmless
  ::setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
}

namespace {

// Empty unless it is IPv4 or IPv6.
std::string address_text(const sockaddr_storage& storage, uint16_t& port) {
  char text[INET6_ADDRSTRLEN] = "";
  if (storage.ss_family == AF_INET) {
    const auto& v4 = reinterpret_cast<const sockaddr_in&>(storage);
    port = ntohs(v4.sin_port);
    // inet_ntop() prints it by sprintf(): a step of a log-in takes not much longer.
    const auto* byte = reinterpret_cast<const uint8_t*>(&v4.sin_addr);
    return fmt::format("{}.{}.{}.{}", byte[0], byte[1], byte[2], byte[3]);
  } else if (storage.ss_family == AF_INET6) {
    const auto& v6 = reinterpret_cast<const sockaddr_in6&>(storage);
    ::inet_ntop(AF_INET6, &v6.sin6_addr, text, sizeof text);
    port = ntohs(v6.sin6_port);
  }
  return text;
}

}  // namespace

std::string peer_name(int fd) {
  sockaddr_storage storage{};
  socklen_t size = sizeof storage;
  if (::getpeername(fd, reinterpret_cast<sockaddr*>(&storage), &size) != 0) return "?";
  uint16_t port = 0;
  const std::string address = address_text(storage, port);
  if (address.empty()) return "unix";
  const bool v6 = storage.ss_family == AF_INET6;
  return (v6 ? "[" + address + "]" : address) + ":" + std::to_string(port);
}

std::string peer_address(int fd) {
  sockaddr_storage storage{};
  socklen_t size = sizeof storage;
  if (::getpeername(fd, reinterpret_cast<sockaddr*>(&storage), &size) != 0) return {};
  uint16_t port = 0;
  return address_text(storage, port);
}

UniqueFd accept_client(int listener, std::string& address) {
  sockaddr_storage storage{};
  socklen_t size = sizeof storage;
  UniqueFd client(::accept4(listener, reinterpret_cast<sockaddr*>(&storage), &size,
                            SOCK_NONBLOCK | SOCK_CLOEXEC));
  uint16_t port = 0;
  if (client.valid()) address = address_text(storage, port);
  return client;
}

std::string unix_peer_user(int fd) {
  ucred peer{};
  socklen_t size = sizeof peer;
  int domain = 0;
  socklen_t domain_size = sizeof domain;
  if (::getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &domain_size) != 0 || domain != AF_UNIX ||
      ::getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) != 0) {
    return {};
  }
  passwd entry{};
  passwd* found = nullptr;
  char buffer[4096];
  ::getpwuid_r(peer.uid, &entry, buffer, sizeof buffer, &found);
  return found != nullptr ? found->pw_name : std::string();
}

}  // namespace bascule::posix
