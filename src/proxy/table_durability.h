// `synchronous_commit` by the tables that a transaction writes: the strictest level that one of its
// statements demands. The first that demands one may lower it; after that it is only raised, which
// PostgreSQL allows up to COMMIT. Pure; a session has one if rules with tables fit it.
//
// In doubt the strictest: a rule that relaxes counts only where it is known that nothing else is
// written; one that demands more, wherever its table may be written. What may write anything
// demands the strictest of the rules and of the session's own level.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "proxy/text_cache.h"
#include "sql/analysis.h"
#include "sql/write_reach.h"
#include "sql/written_tables.h"

namespace bascule::proxy {

// In the order of what a commit waits for. kDefault: what the server itself has for the session,
// which is not known; taken for `on`, and raised to `on` where a rule says so.
enum class CommitLevel : uint8_t { kOff, kLocal, kRemoteWrite, kDefault, kOn, kRemoteApply };
std::string_view name_of(CommitLevel level);         // kDefault: empty
CommitLevel commit_level_of(std::string_view name);  // of none of them: kDefault

struct TableLevel {
  sql::TableName table;  // without schema: in any
  CommitLevel level = CommitLevel::kDefault;
};

// What is known of one database. No `reach`: nothing.
struct WriteReachSlot {
  std::unique_ptr<const sql::WriteReach> reach;
  uint64_t plans = 0;  // Workspace::plans before it was asked for: not believed after DDL
};

class TableDurability {
 public:
  // `session`: the level of transactions that no table decides about.
  TableDurability(std::vector<TableLevel> tables, CommitLevel session)
      : tables_(std::move(tables)), session_(session), server_(session), in_force_(session) {}

  CommitLevel session() const { return session_; }
  // Nothing: the statement is of no importance. Its `executes` have been merged into it. `reach`:
  // null if nothing is known.
  std::optional<CommitLevel> demand(const sql::Written& written,
                                    const sql::WriteReach* reach) const;

  // ---- The server, as of what was sent to it -------------------------------------------------
  void on_attach();
  // What its transactions begin with.
  CommitLevel server() const { return server_; }
  void set_server(CommitLevel level) {
    server_ = level;
    in_force_ = level;
  }

  // ---- The open transaction, likewise --------------------------------------------------------
  // Nothing: not known since a rollback to a savepoint.
  std::optional<CommitLevel> in_force() const { return in_force_; }
  void set_in_force(CommitLevel level) { in_force_ = level; }
  // What is to be in force for a statement that demands this.
  CommitLevel needed(CommitLevel demand) const {
    return std::max(highest_.value_or(demand), demand);
  }
  // This statement is sent next, with what it needs in force.
  void sent(const sql::Written& written, std::optional<CommitLevel> demand);
  void on_idle();  // it is over
  // The client sets the level by itself: it is left alone up to the end of the transaction.
  void leave_alone() { left_alone_ = true; }
  bool left_alone() const { return left_alone_ || always_left_alone_; }
  void always_leave_alone(bool on) { always_left_alone_ = on; }

 private:
  CommitLevel level_of(const sql::TableName& table) const;
  CommitLevel strictest() const;

  const std::vector<TableLevel> tables_;
  const CommitLevel session_;
  CommitLevel server_;
  std::optional<CommitLevel> in_force_, highest_;
  bool left_alone_ = false, always_left_alone_ = false;
};

// What texts write, remembered by text. One a worker.
class WrittenTexts {
 public:
  WrittenTexts() : texts_({}) {}
  // Valid until the next call.
  const sql::Written& of(std::string_view sql, sql::Strings strings);

 private:
  const sql::Written& read(std::string_view sql, sql::Strings strings);

  TextCache<sql::Written> texts_;
  std::string key_;
  sql::Written uncached_, setting_;
};

}  // namespace bascule::proxy
