// What the API is told by the daemon: snapshots made of node, proxy and store, and the handler that
// turns an operator's POST into a request in the store.
#pragma once

#include "api/http_server.h"
#include "cli/platform.h"
#include "cli/store_session.h"
#include "node/node.h"
#include "proxy/proxy.h"

namespace bascule::cli {

api::LocalMember local_member(const NodeName& name, const node::NodeView& view);
// bascule_proxy_… metrics and one loop sample a worker.
void add_proxy(const proxy::ProxyStats& stats, api::Snapshot& snapshot);

// Opens the store anew for each command, on the thread that calls: no state is shared with the
// daemon's own loop. `platform` must outlive it.
// `audit_file`: commands are appended to it, too; empty: none.
// `daemon`: carries out what concerns this daemon itself: kCheckHealth, kReconnect.
api::CommandHandler command_handler(const Platform& platform, ClusterAt at, std::string audit_file,
                                    api::CommandHandler daemon);
// Commands that were refused before that: to the log and the file. Into the store, which keeps a
// limited number, only those of callers who may ask for commands.
api::RefusalHandler refusal_handler(const Platform& platform, ClusterAt at, std::string audit_file);
// kReconnect; null: the daemon has no proxy.
Result<std::string> reconnect(proxy::Proxy* proxy, const std::string& region);

}  // namespace bascule::cli
