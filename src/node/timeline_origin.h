// How a timeline began, as a server's own files say it.
#pragma once

#include "control/records.h"
#include "node/pg_connection.h"
#include "node/server.h"

namespace bascule::node {

// What can't be read is not known, and no error: the first timeline has no history, and old WAL is
// recycled. `session` is a superuser's.
control::Origin origin_of(Server& server, PgConnection& session, Timeline timeline,
                          const Bound& bound);

}  // namespace bascule::node
