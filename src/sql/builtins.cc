#include "sql/builtins.h"

#include <algorithm>
#include <array>

namespace bascule::sql {
namespace {

struct Entry {
  std::string_view name;
  char volatility;
};
constexpr Entry kFunctions[] = {
#include "sql/builtin_functions.inc"
};

// Volatile only because each call has another result; a replica's is as good.
constexpr std::array<std::string_view, 7> kHarmless = {
    "clock_timestamp", "gen_random_uuid", "pg_sleep",  "pg_sleep_for",
    "pg_sleep_until",  "random",          "timeofday",
};

// Not volatile by the catalog, and yet not the same on a replica: pg_current_xact_id() writes, the
// ..._to_xml functions run any view, the rest tells about the one server or backend.
constexpr std::array<std::string_view, 33> kServerState = {
    "cursor_to_xml",
    "cursor_to_xmlschema",
    "database_to_xml",
    "database_to_xml_and_xmlschema",
    "database_to_xmlschema",
    "inet_client_addr",
    "inet_client_port",
    "inet_server_addr",
    "inet_server_port",
    "pg_backend_pid",
    "pg_conf_load_time",
    "pg_current_snapshot",
    "pg_current_xact_id",
    "pg_current_xact_id_if_assigned",
    "pg_cursor",
    "pg_get_replication_slots",
    "pg_hba_file_rules",
    "pg_is_other_temp_schema",
    "pg_listening_channels",
    "pg_my_temp_schema",
    "pg_postmaster_start_time",
    "pg_prepared_statement",
    "pg_prepared_xact",
    "pg_show_all_settings",
    "schema_to_xml",
    "schema_to_xml_and_xmlschema",
    "schema_to_xmlschema",
    "table_to_xml",
    "table_to_xml_and_xmlschema",
    "table_to_xmlschema",
    "txid_current",
    "txid_current_if_assigned",
    "txid_current_snapshot",
};
static_assert(std::ranges::is_sorted(kHarmless) && std::ranges::is_sorted(kServerState));
static_assert(std::ranges::is_sorted(kFunctions, {}, &Entry::name));

}  // namespace

Builtin builtin_function(std::string_view name) {
  const auto* const found = std::ranges::lower_bound(kFunctions, name, {}, &Entry::name);
  if (found == std::end(kFunctions) || found->name != name) return Builtin::kUnknown;
  if (name.starts_with("pg_stat_") || std::ranges::binary_search(kServerState, name)) {
    return Builtin::kServerState;
  }
  if (found->volatility != 'v' || std::ranges::binary_search(kHarmless, name)) {
    return Builtin::kReadOnly;
  }
  return Builtin::kVolatile;
}

bool server_state_relation(std::string_view name) {
  constexpr std::array<std::string_view, 12> kBeginnings = {
      "pg_stat",   "pg_locks",     "pg_cursors",     "pg_settings",
      "pg_file_",  "pg_prepared_", "pg_replication", "pg_backend_memory_",
      "pg_shmem_", "pg_hba_",      "pg_ident_",      "pg_subscription",
  };
  return std::ranges::any_of(kBeginnings, [&](auto begin) { return name.starts_with(begin); });
}

}  // namespace bascule::sql
