// Prepared statements where clients share servers: what a client calls "s1" is a text, its
// parameter types and the settings that it was prepared under; each server connection has it under
// a name of its own, or gets it when it is needed. One table a worker; a set for each server
// connection.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "proxy/intern.h"
#include "proxy/session_memory.h"
#include "proxy/statement_scanner.h"

namespace bascule::proxy {

// ServerStatements::columns() that could not be looked at.
inline constexpr uint64_t kUnseenColumns = UINT64_MAX;

// As the types of a statement that PREPARE made: its text is what follows the name.
inline constexpr std::string_view kPreparedBySql = "by SQL";

struct SharedStatement {
  uint32_t id = 0;       // never used again
  uint32_t plan_id = 0;  // of Settings
  uint64_t text = 0;     // ParsedTexts::key()
  std::string sql;
  std::string types;  // the rest of the Parse: count and Oids, as sent
  Effects effects;
  std::vector<StateChange> changes;
  bool by_sql() const { return types == kPreparedBySql; }
};
using StatementRef = std::shared_ptr<const SharedStatement>;

class StatementTable {
 public:
  StatementRef get(const Settings& plan, std::string_view sql, std::string_view types,
                   const Effects& effects, const std::vector<StateChange>& changes);
  // The same text under other settings.
  StatementRef rebind(const SharedStatement& statement, const Settings& plan);
  size_t size() const { return table_.size(); }

 private:
  InternTable<SharedStatement> table_;
  std::string key_;
  uint32_t next_id_ = 0;
};

// Which statements a server connection has, least recently used first to go. A statement is known
// there by a serial number that is not used again, so that a mistake about what the server still
// has costs a little of its memory and never runs another text.
class ServerStatements {
 public:
  // 0: the server lacks it. Counts as a use.
  uint32_t find(uint32_t id);
  // `evicted`: the serial of what must be closed for it; 0: nothing. What it had for `id` counts
  // again if the new one turns out not to exist (remove_serial()).
  uint32_t add(uint32_t id, uint32_t& evicted, size_t max);
  uint32_t id_of(uint32_t serial) const;  // 0: unknown
  // What the server said that it returns, as a hash; 0: not known.
  uint64_t columns(uint32_t id) const;
  void set_columns(uint32_t id, uint64_t columns);  // ignored if unknown
  // Forgets everything; the serials are to be closed.
  void drain(std::vector<uint32_t>& serials);
  void remove_serial(uint32_t serial);  // ignored if unknown
  void remove(uint32_t id);
  // The server has `id` under this serial now. Returns the one before, to be closed; 0: none.
  uint32_t rename(uint32_t serial, uint32_t id);
  // A DEALLOCATE ALL is on its way: what is there is not found any more, until that is known to
  // have failed (believe()) or succeeded. `closing`: serials of what has been made anew meanwhile.
  void doubt();
  void believe(std::vector<uint32_t>& closing);
  void disbelieve() { doubted_.clear(); }
  void clear();
  size_t size() const { return by_id_.size(); }

 private:
  static constexpr uint32_t kNone = UINT32_MAX;
  struct Node {
    uint32_t id = 0, serial = 0;
    uint32_t before = 0;  // the serial until this one is known to exist
    uint32_t older = kNone, newer = kNone;
    uint64_t columns = 0;
  };
  uint32_t make_node(uint32_t id, uint32_t serial);
  void forget_nodes();
  void unlink(uint32_t at);
  void link_newest(uint32_t at);
  void free_node(uint32_t at);

  std::unordered_map<uint32_t, uint32_t> by_id_, by_serial_;
  std::vector<Node> nodes_;
  std::vector<uint32_t> free_;
  std::vector<Node> doubted_;
  uint32_t oldest_ = kNone, newest_ = kNone;
  uint32_t next_serial_ = 0;
};

// Names on servers. No client's statement can have one: see is_server_name().
inline constexpr std::string_view kServerNamePrefix = "_bascule_";
std::string server_name(uint32_t serial);
// Made anew for each use: what a translated text of an extended query is parsed as.
inline constexpr std::string_view kTemporaryName = "_bascule_t";
// Never prepared: closing it succeeds and does nothing.
inline constexpr std::string_view kNoStatement = "_bascule_";
bool is_server_name(std::string_view name);

}  // namespace bascule::proxy
