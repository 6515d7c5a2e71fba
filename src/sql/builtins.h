// What PostgreSQL's own functions do, from a table made from pg_proc of version 15.
#pragma once

#include <cstdint>
#include <string_view>

namespace bascule::sql {

enum class Builtin : uint8_t {
  kUnknown,      // no function of pg_catalog has this name
  kReadOnly,     // every overload is immutable or stable, or volatile in a way that writes nothing
  kVolatile,     // some overload is volatile
  kServerState,  // reads what differs from server to server: backends, statistics, transaction ids
};

// `name` as PostgreSQL's catalog has it (folded to lower case by the parser).
Builtin builtin_function(std::string_view name);

// Views and tables of pg_catalog whose content is about the server that answers.
bool server_state_relation(std::string_view name);

}  // namespace bascule::sql
