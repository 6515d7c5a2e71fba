#include "sql/query_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>
#include <utility>

#include "sql/builtins.h"
#include "sql/parse_tree.h"
#include "sql/text_scan.h"
#include "sql/written_tables.h"

namespace bascule::sql {
namespace {

using Complexity = QueryReport::Complexity;

std::string name_of(const TableName& table) {
  return table.schema.empty() ? table.name : table.schema + "." + table.name;
}

void add(std::vector<std::string>& names, std::string name) {
  if (std::ranges::find(names, name) == names.end()) names.push_back(std::move(name));
}

class Reader {
 public:
  explicit Reader(const ParseTree& tree) : tree_(tree), nodes_(tree.nodes()) {}

  QueryReport run() {
    const uint32_t statements = tree_.child(0, "stmts");
    uint32_t count = 0;
    for (uint32_t i = statements + 1; statements != 0 && i < nodes_[statements].end;
         i = nodes_[i].end) {
      if (const uint32_t raw = tree_.child(i, "stmt"); raw != 0) top(raw + 1);
      ++count;
    }
    if (count > 1) report_.reasons.push_back(fmt::format("it is {} statements", count));
    for (uint32_t i = 0; i < nodes_.size(); ++i) {
      if (nodes_[i].key == "ctename") ctes_.insert(tree_.value(i));
    }
    for (uint32_t i = 0; i < nodes_.size(); ++i) look(i);
    weight_ += report_.tables.empty() ? 0 : static_cast<int>(report_.tables.size()) - 1;
    constexpr int kSimpleMax = 1, kModerateMax = 5;
    report_.complexity = weight_ <= kSimpleMax     ? Complexity::kSimple
                         : weight_ <= kModerateMax ? Complexity::kModerate
                                                   : Complexity::kComplex;
    return std::move(report_);
  }

 private:
  void top(uint32_t at) {
    if (at >= nodes_.size()) return;
    constexpr std::string_view kReads[] = {"SelectStmt", "ExplainStmt", "VariableShowStmt",
                                           "FetchStmt", "DeclareCursorStmt"};
    const std::string_view key = nodes_[at].key;
    const bool copy_out = key == "CopyStmt" && tree_.child(at, "is_from") == 0;
    report_.is_read |= copy_out || std::ranges::find(kReads, key) != std::end(kReads);
    if (key == "SelectStmt" && tree_.child(at, "lockingClause") != 0) {
      report_.reasons.emplace_back("it locks rows");
    }
  }

  void look(uint32_t at) {
    const std::string_view key = nodes_[at].key;
    if (nodes_[at].kind == TreeNode::Kind::kObject && tree_.child(at, "relname") != 0) {
      const std::string name = tree_.value(at, "relname");
      if (!ctes_.contains(name)) {
        const std::string schema = tree_.value(at, "schemaname");
        add(report_.tables, name_of({schema, name}));
      }
    }
    if (key == "FuncCall") function(at);
    if (key == "SubLink" || key == "RangeSubselect" || key == "CommonTableExpr") weight_ += 2;
    if (key == "larg" || key == "groupClause" || key == "WindowDef" || key == "over") ++weight_;
  }

  void function(uint32_t at) {
    const std::vector<std::string> names = tree_.names(tree_.child(at, "funcname"));
    const std::string name = names.empty() ? "" : names.back();
    std::string schema = names.size() < 2 ? "" : names[names.size() - 2];
    if (schema == "pg_catalog") schema.clear();
    const std::string full = name_of({schema, name});
    add(report_.functions, full);
    const Builtin builtin = schema.empty() ? builtin_function(name) : Builtin::kUnknown;
    if (builtin == Builtin::kUnknown) {
      add(report_.reasons,
          fmt::format("it calls {}, which is not PostgreSQL's: what that does is not known", full));
    } else if (builtin == Builtin::kVolatile) {
      add(report_.reasons, fmt::format("it calls {}, which is volatile", full));
    } else if (builtin == Builtin::kServerState) {
      add(report_.reasons, fmt::format("it asks about the server itself by {}", full));
    }
  }

  const ParseTree& tree_;
  const std::vector<TreeNode>& nodes_;
  QueryReport report_;
  std::set<std::string> ctes_;
  int weight_ = 0;
};

}  // namespace

Result<QueryReport> report_query(std::string_view sql) {
  std::string key;
  if (scan_text(sql, key).problem != ScanProblem::kNone) {
    return fail(ErrorCode::kInvalid, "the text is too long, too deep or broken");
  }
  ParseTree tree;
  if (tree.parse(key.c_str()) != ParseTree::Outcome::kParsed) {
    return fail(ErrorCode::kInvalid, "PostgreSQL 15's parser does not understand it");
  }
  QueryReport report = Reader(tree).run();
  const Written written = written_tables(key);
  for (const TableName& table : written.tables) {
    report.reasons.push_back("it writes " + name_of(table));
  }
  // Of a read: by its functions, which have been named.
  const bool changes = written.other && !report.is_read;
  if (changes && written.tables.empty()) {
    report.reasons.emplace_back("it changes the schema, or runs code");
  }
  report.is_write = !written.tables.empty() || changes;
  if (report.is_write) report.is_read = false;
  return report;
}

}  // namespace bascule::sql
