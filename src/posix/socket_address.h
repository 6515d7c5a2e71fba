// Sockets from endpoints.
#pragma once

#include <string>

#include "base/result.h"
#include "env/net.h"
#include "posix/unique_fd.h"

namespace bascule::posix {

// Non-blocking, close-on-exec, SO_REUSEPORT (TCP). Errors name the endpoint.
Result<UniqueFd> listen_socket(const env::Endpoint& endpoint);

// A socket whose connection is under way, or failed at once with `error` (errno). The descriptor is
// invalid if no socket could be had.
struct ConnectAttempt {
  UniqueFd fd;
  int error = 0;
};
ConnectAttempt start_connect(const env::Endpoint& endpoint);

// An address, "localhost" or a directory: nothing to ask a name server for.
bool is_address(const env::Endpoint& endpoint);

// The next client of a listening socket, and its address as peer_address() says it: that much the
// same call can tell. Invalid: errno says why.
UniqueFd accept_client(int listener, std::string& address);

void set_stream_options(int fd);     // TCP_NODELAY, keep-alive
std::string peer_name(int fd);       // "10.0.0.1:5432", "unix", or "?"
std::string peer_address(int fd);    // "10.0.0.1"; empty for a unix socket
std::string unix_peer_user(int fd);  // empty if it is no unix socket or the user has no name

}  // namespace bascule::posix
