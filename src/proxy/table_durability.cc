#include "proxy/table_durability.h"

#include <algorithm>
#include <array>
#include <utility>

namespace bascule::proxy {
namespace {

constexpr std::array<std::string_view, 6> kNames = {"off", "local", "remote_write",
                                                    "",    "on",    "remote_apply"};

bool names_commit_setting(std::string_view sql) {
  constexpr std::string_view kName = "synchronous_commit";
  const auto same = [](char a, char b) { return (a >= 'A' && a <= 'Z' ? a | 32 : a) == b; };
  return std::search(sql.begin(), sql.end(), kName.begin(), kName.end(), same) != sql.end();
}

}  // namespace

std::string_view name_of(CommitLevel level) { return kNames[static_cast<size_t>(level)]; }

CommitLevel commit_level_of(std::string_view name) {
  const auto* const found = std::ranges::find(kNames, name);
  return found == kNames.end() ? CommitLevel::kDefault
                               : static_cast<CommitLevel>(found - kNames.begin());
}

// A name without a schema may be that of a rule with one: then it counts as the stricter.
CommitLevel TableDurability::level_of(const sql::TableName& table) const {
  std::optional<CommitLevel> possible;
  for (const TableLevel& rule : tables_) {
    if (rule.table.name != table.name) continue;
    const bool sure = rule.table.schema.empty() || rule.table.schema == table.schema;
    if (sure) return std::max(possible.value_or(rule.level), rule.level);
    if (table.schema.empty()) possible = std::max(possible.value_or(rule.level), rule.level);
  }
  return std::max(possible.value_or(session_), session_);
}

CommitLevel TableDurability::strictest() const {
  CommitLevel level = session_;
  for (const TableLevel& rule : tables_) level = std::max(level, rule.level);
  return level;
}

std::optional<CommitLevel> TableDurability::demand(const sql::Written& written,
                                                   const sql::WriteReach* reach) const {
  if (written.other || written.unreadable) return strictest();
  std::optional<CommitLevel> level;
  for (const sql::TableName& named : written.tables) {
    const auto reached = reach != nullptr ? reach->of(named) : std::nullopt;
    if (!reached) return strictest();
    for (const sql::TableName& table : *reached) {
      const CommitLevel demanded = level_of(table);
      level = std::max(level.value_or(demanded), demanded);
    }
  }
  return level;
}

void TableDurability::on_attach() {
  server_ = session_;
  on_idle();
}

void TableDurability::on_idle() {
  in_force_ = server_;
  highest_.reset();
  left_alone_ = false;
}

void TableDurability::sent(const sql::Written& written, std::optional<CommitLevel> demand) {
  if (demand) highest_ = needed(*demand);
  // What was set since the savepoint is undone.
  if (written.goes_back) in_force_.reset();
  if (!written.ends) return;
  in_force_ = server_;
  // Of a text with further statements it is not known which of them come after the end.
  if (!written.begins) highest_.reset();
}

// The text that is remembered has no literals.
const sql::Written& WrittenTexts::of(std::string_view sql, sql::Strings strings) {
  const sql::Written& written = read(sql, strings);
  if (!written.calls_set_config || !names_commit_setting(sql)) return written;
  setting_ = written;
  setting_.sets_commit = true;
  return setting_;
}

const sql::Written& WrittenTexts::read(std::string_view sql, sql::Strings strings) {
  const sql::TextScan scan = sql::scan_text(sql, key_);
  const bool readable = scan.problem == sql::ScanProblem::kNone &&
                        !(scan.plain_backslash && strings == sql::Strings::kNonstandard);
  if (!readable) {
    uncached_ = {};
    uncached_.unreadable = true;
    return uncached_;
  }
  if (const sql::Written* known = texts_.find(key_)) return *known;
  uncached_ = sql::written_tables(key_);
  const sql::Written* kept = texts_.insert(key_, sql::Written(uncached_));
  return kept == nullptr ? uncached_ : *kept;
}

}  // namespace bascule::proxy
