// Documents about databases: below /failover and /api/database (spec/api.md). Pure. Where a monitor
// leads, they show its health checks; where agents lead, what members publish.
#pragma once

#include <optional>
#include <string_view>

#include "api/documents.h"
#include "api/health.h"

namespace bascule::api {

// What the monitor that holds the lease says; nullopt: agents lead, or no monitor is heard.
std::optional<ClusterHealth> monitored_health(const Snapshot& snapshot, MonoTime now);
// Monitors led, and none has renewed the lease for three times its ttl: their last word is old.
bool monitors_are_silent(const Snapshot& snapshot, MonoTime now);
// Its numbers into the answer of /failover/status (requirement D2).
void add_health_checks(const Snapshot& snapshot, Json& status, MonoTime now);

Json failover_metrics_json(const Snapshot& snapshot, MonoTime now);
Json failover_health_json(const Snapshot& snapshot, MonoTime now);
Json database_status_json(const Snapshot& snapshot, MonoTime now);
Json database_health_json(const Snapshot& snapshot, MonoTime now);
Json database_connections_json(const Snapshot& snapshot);
Json database_dashboard_json(const Snapshot& snapshot, MonoTime now);
Json database_export_json(const Snapshot& snapshot, MonoTime now);

// Active and recent ones (alerts.h).
Json database_alerts_json(const Snapshot& snapshot, size_t limit);
// Samples in time, of one endpoint or of all ("").
Json database_metrics_json(const Snapshot& snapshot, std::string_view endpoint, size_t limit);
// What the samples say about each endpoint.
Json database_performance_json(const Snapshot& snapshot);

// What the monitor last found out about an endpoint; null: no monitor leads.
const control::EndpointHealth* check_of(const Snapshot& snapshot, const NodeName& name);

// The endpoint of a region that would take over (rather_leads); empty: none may.
NodeName candidate_in_region(const Snapshot& snapshot, std::string_view region);
// Whether any member is in it.
bool has_region(const Snapshot& snapshot, std::string_view region);

}  // namespace bascule::api
