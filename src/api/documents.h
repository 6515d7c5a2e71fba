// The JSON documents of the API, from a snapshot. Pure. Shapes: spec/api.md, and Patroni's REST API
// where a route is Patroni's (https://patroni.readthedocs.io/en/latest/rest_api.html).
#pragma once

#include <nlohmann/json.hpp>

#include "api/snapshot.h"

namespace bascule::api {

using Json = nlohmann::ordered_json;

Json patroni_json(const Snapshot& snapshot, MonoTime now);  // GET /patroni and the health routes
Json health_json(const Snapshot& snapshot, MonoTime now);   // status, db_primary, db_replica
Json cluster_json(const Snapshot& snapshot, MonoTime now);
Json history_json(const Snapshot& snapshot);  // Patroni: [[timeline, lsn, why, when, who]]
Json failover_status_json(const Snapshot& snapshot, MonoTime now);
Json failover_history_json(const Snapshot& snapshot, size_t limit);  // newest first
// Of a change of the leader, as far as its parts were measured; -1: not.
int64_t duration_ms(const control::HistoryRecord& record);
// The records as they are in the store: what `bascule --api` works from.
Json records_json(const Snapshot& snapshot, MonoTime now);
Json operation_json(const control::RequestRecord& request);
Json task_json(const control::TaskRecord& task);
// Requests and tasks, newest first.
Json operations_json(const Snapshot& snapshot);
// What a forced failover would lose, member by member.
Json failover_preview_json(const Snapshot& snapshot);

}  // namespace bascule::api
