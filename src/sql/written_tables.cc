#include "sql/written_tables.h"

#include <algorithm>
#include <string_view>
#include <utility>

#include "sql/builtins.h"
#include "sql/parse_tree.h"

namespace bascule::sql {
namespace {

template <size_t N>
bool one_of(std::string_view word, const std::string_view (&words)[N]) {
  return std::ranges::find(words, word) != std::end(words);
}

// Statements that write nothing but what their parts do.
constexpr std::string_view kTransparent[] = {
    "SelectStmt",       "InsertStmt",      "UpdateStmt",         "DeleteStmt",
    "MergeStmt",        "CopyStmt",        "TruncateStmt",       "ExplainStmt",
    "PrepareStmt",      "ExecuteStmt",     "DeallocateStmt",     "DeclareCursorStmt",
    "FetchStmt",        "ClosePortalStmt", "ListenStmt",         "UnlistenStmt",
    "NotifyStmt",       "LockStmt",        "TransactionStmt",    "VariableSetStmt",
    "VariableShowStmt", "DiscardStmt",     "ConstraintsSetStmt", "CheckPointStmt",
};
// Volatile functions of PostgreSQL that write no table.
constexpr std::string_view kSequences[] = {"nextval", "currval",    "lastval",
                                           "setval",  "set_config", "pg_notify"};
constexpr std::string_view kEnds[] = {"TRANS_STMT_COMMIT", "TRANS_STMT_ROLLBACK",
                                      "TRANS_STMT_PREPARE", "TRANS_STMT_COMMIT_PREPARED",
                                      "TRANS_STMT_ROLLBACK_PREPARED"};

class Walk {
 public:
  explicit Walk(const ParseTree& tree) : tree_(tree), nodes_(tree.nodes()) {}

  Written run() {
    const uint32_t statements = tree_.child(0, "stmts");
    for (uint32_t i = statements + 1; statements != 0 && i < nodes_[statements].end;
         i = nodes_[i].end) {
      const uint32_t raw = tree_.child(i, "stmt");
      if (raw != 0) statement(raw + 1);
    }
    return std::move(written_);
  }

 private:
  // At the member "InsertStmt" and its kin of a raw statement.
  void statement(uint32_t at) {
    if (at >= nodes_.size()) return;
    const bool transparent = one_of(nodes_[at].key, kTransparent);
    if (!transparent) written_.other = true;
    for (uint32_t i = at; i < nodes_[at].end; ++i) {
      if (!transparent && tree_.child(i, "relname") != 0) table(i);
      inside(i);
    }
  }

  void inside(uint32_t at) {
    const std::string_view key = nodes_[at].key;
    if (nodes_[at].kind != TreeNode::Kind::kObject || key.empty()) return;
    if (one_of(key, {"InsertStmt", "UpdateStmt", "DeleteStmt", "MergeStmt"})) {
      table(tree_.child(at, "relation"));
    } else if (key == "CopyStmt") {
      copy(at);
    } else if (key == "TruncateStmt") {
      tables(tree_.child(at, "relations"));
    } else if (key == "FuncCall") {
      function(at);
    } else if (key == "IntoClause" || key == "intoClause") {
      written_.other = true;
      table(tree_.child(at, "rel"));
    } else if (key == "ExecuteStmt") {
      written_.executes.push_back(tree_.value(at, "name"));
    } else if (key == "TransactionStmt") {
      transaction(at);
    } else if (key == "VariableSetStmt") {
      const std::string kind = tree_.value(at, "kind");
      written_.sets_commit |=
          tree_.value(at, "name") == "synchronous_commit" || kind == "VAR_RESET_ALL";
    } else if (key == "DiscardStmt") {
      written_.sets_commit |= tree_.value(at, "target") == "DISCARD_ALL";
    }
  }

  void copy(uint32_t at) {
    if (tree_.child(at, "is_from") != 0) table(tree_.child(at, "relation"));
    if (tree_.child(at, "is_program") != 0) written_.other = true;
  }

  void transaction(uint32_t at) {
    const std::string kind = tree_.value(at, "kind");
    // BEGIN is the first of its type, which the library leaves out where it is the default.
    written_.begins |= kind.empty() || kind == "TRANS_STMT_BEGIN" || kind == "TRANS_STMT_START";
    written_.ends |= one_of(kind, kEnds);
    written_.goes_back |= kind == "TRANS_STMT_ROLLBACK_TO";
  }

  void function(uint32_t at) {
    const std::vector<std::string> names = tree_.names(tree_.child(at, "funcname"));
    const std::string name = names.empty() ? "" : names.back();
    const std::string schema = names.size() < 2 ? "" : names[names.size() - 2];
    const Builtin builtin = builtin_function(name);
    written_.calls_set_config |= name == "set_config";
    const bool own = (schema.empty() || schema == "pg_catalog") &&
                     (builtin == Builtin::kReadOnly || one_of(name, kSequences));
    if (!own) written_.other = true;
  }

  void tables(uint32_t list) {
    for (uint32_t i = list + 1; list != 0 && i < nodes_[list].end; i = nodes_[i].end) {
      table(tree_.child(i, "RangeVar"));
    }
  }

  void table(uint32_t range) {
    if (range == 0) return;
    TableName name{tree_.value(range, "schemaname"), tree_.value(range, "relname")};
    if (std::ranges::find(written_.tables, name) == written_.tables.end()) {
      written_.tables.push_back(std::move(name));
    }
  }

  const ParseTree& tree_;
  const std::vector<TreeNode>& nodes_;
  Written written_;
};

}  // namespace

Written written_tables(const std::string& key) {
  thread_local ParseTree tree;
  if (tree.parse(key.c_str()) != ParseTree::Outcome::kParsed) {
    Written nothing;
    nothing.unreadable = true;
    return nothing;
  }
  return Walk(tree).run();
}

}  // namespace bascule::sql
