// The PROXY protocol, versions 1 and 2: a load balancer's header that names the client for whom it
// connects (https://www.haproxy.org/download/2.8/doc/proxy-protocol.txt). Believed only from where
// the configuration says.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include "pgwire/frames.h"

namespace bascule::proxy {

inline constexpr size_t kProxyHeaderMax = 4096;  // with its TLVs, which are passed over

struct ProxyHeader {
  pgwire::FrameState state = pgwire::FrameState::kIncomplete;
  size_t size = 0;   // kComplete: bytes to consume
  std::string host;  // the client's address; empty: the connection is the balancer's own
};

ProxyHeader parse_proxy_header(std::string_view bytes);

}  // namespace bascule::proxy
