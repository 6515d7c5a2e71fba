// libpq connections of the pool: shared with monitor/, see there.
#pragma once

#include "pgclient/pg_connection.h"

namespace bascule::node {

using pgclient::Bound;
using pgclient::PgConnection;
using pgclient::Row;
using pgclient::Rows;
using pgclient::says_not_yet;

}  // namespace bascule::node
