#include "sql/analysis.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <vector>

#include "sql/builtins.h"
#include "sql/parse_tree.h"
#include "sql/tree_rules.h"

namespace bascule::sql {
namespace {

constexpr size_t kSubjectBytesMax = 64;

Analysis primary(Reason reason, std::string_view subject = {}) {
  // Whole characters: it ends up in logs and documents.
  size_t size = std::min(subject.size(), kSubjectBytesMax);
  while (size < subject.size() && size > 0 && (subject[size] & 0xc0) == 0x80) --size;
  return {Kind::kPrimary, reason, std::string(subject.substr(0, size))};
}

bool one_of(std::string_view word, std::initializer_list<std::string_view> words) {
  return std::ranges::find(words, word) != words.end();
}

class Walk {
 public:
  Walk(const ParseTree& tree, const Catalog& catalog)
      : tree_(tree), nodes_(tree.nodes()), catalog_(catalog) {}

  Analysis run() {
    const uint32_t list = tree_.child(0, "stmts");
    if (list == 0 || nodes_[list].kind != TreeNode::Kind::kList) return {Kind::kRead, {}, {}};
    const uint32_t first = list + 1;
    if (first >= nodes_[list].end) return {Kind::kRead, {}, {}};  // an empty query
    if (nodes_[first].end != nodes_[list].end) return primary(Reason::kSeveral);
    const uint32_t stmt = tree_.child(first, "stmt");
    if (stmt == 0 || stmt + 1 >= nodes_[stmt].end) return primary(Reason::kConstruct);
    return statement(stmt + 1);
  }

 private:
  using Name = std::vector<std::string>;

  Analysis statement(uint32_t at) {
    const std::string_view type = nodes_[at].key;
    if (type == "SelectStmt") return select(at);
    if (type == "ExplainStmt") return explain(at);
    if (type == "TransactionStmt") return transaction(at);
    if (type == "VariableSetStmt") return set(at);
    if (one_of(type, {"VariableShowStmt", "PrepareStmt", "ExecuteStmt", "DeallocateStmt",
                      "DiscardStmt", "ListenStmt", "UnlistenStmt", "NotifyStmt", "LockStmt",
                      "DeclareCursorStmt", "FetchStmt", "ClosePortalStmt", "ConstraintsSetStmt",
                      "LoadStmt", "CheckPointStmt"})) {
      return primary(Reason::kSession, type);
    }
    return primary(Reason::kWrites, type);
  }

  Analysis explain(uint32_t at) {
    // With or without ANALYZE: what a proven read may do, its plan and execution may.
    const uint32_t query = tree_.child(at, "query");
    if (query == 0 || query + 1 >= nodes_[query].end) return primary(Reason::kConstruct);
    if (nodes_[query + 1].key != "SelectStmt") return primary(Reason::kWrites, "ExplainStmt");
    return select(query + 1);
  }

  std::string_view text(uint32_t parent, std::string_view key) const {
    const uint32_t at = tree_.child(parent, key);
    return at == 0 ? std::string_view() : nodes_[at].text;
  }

  Analysis transaction(uint32_t at) {
    const std::string_view kind = text(at, "kind");
    if (kind != "TRANS_STMT_BEGIN" && kind != "TRANS_STMT_START") {
      return primary(Reason::kTransaction, kind);
    }
    bool read_only = false, serializable = false;
    const uint32_t options = tree_.child(at, "options");
    for (uint32_t i = options == 0 ? nodes_[at].end : options + 1;
         options != 0 && i < nodes_[options].end; i = nodes_[i].end) {
      const uint32_t element = tree_.child(i, "DefElem");
      const uint32_t arg = element == 0 ? 0 : tree_.child(element, "arg");
      const uint32_t constant = arg == 0 ? 0 : tree_.child(arg, "A_Const");
      if (constant == 0) return {Kind::kBegin, Reason::kTransaction, {}};
      const std::string_view name = text(element, "defname");
      if (name == "transaction_read_only") {
        // The last one counts, as in PostgreSQL. 0 is left out of the object.
        const uint32_t value = tree_.child(constant, "ival");
        read_only = value != 0 && text(value, "ival") == "1";
      } else if (name == "transaction_isolation") {
        const uint32_t value = tree_.child(constant, "sval");
        serializable = value == 0 || text(value, "sval") == "serializable";
      }
    }
    // A hot standby refuses SERIALIZABLE.
    if (read_only && !serializable) return {Kind::kBeginReadOnly, {}, {}};
    return {Kind::kBegin, Reason::kTransaction, {}};
  }

  Analysis set(uint32_t at) {
    if (text(at, "name") != "bascule.affinity") return primary(Reason::kSession, "VariableSetStmt");
    const uint32_t local = tree_.child(at, "is_local");
    if (local != 0) return primary(Reason::kSession, "SET LOCAL");
    const std::string_view kind = text(at, "kind");
    if (kind == "VAR_RESET" || kind == "VAR_SET_DEFAULT") return {Kind::kSetAffinity, {}, {}};
    const uint32_t args = tree_.child(at, "args");
    if (args == 0 || nodes_[args + 1].end != nodes_[args].end) return primary(Reason::kSession);
    for (uint32_t i = args; i < nodes_[args].end; ++i) {
      const TreeNode& node = nodes_[i];
      if (node.kind != TreeNode::Kind::kText || !one_of(node.key, {"sval", "fval"})) continue;
      const std::string value = unescape(node.text);
      if (value.size() > kAffinityBytesMax) break;
      return {Kind::kSetAffinity, {}, value};
    }
    const uint32_t constant = tree_.child(args + 1, "A_Const");
    const uint32_t number = constant == 0 ? 0 : tree_.child(constant, "ival");
    if (number == 0) return primary(Reason::kSession, "VariableSetStmt");
    const std::string_view value = text(number, "ival");
    return {Kind::kSetAffinity, {}, std::string(value.empty() ? "0" : value)};
  }

  Analysis select(uint32_t at) {
    if (!catalog_.loaded()) return primary(Reason::kNoCatalog);
    if (catalog_.hidden_volatile()) return primary(Reason::kHidden);
    collect_ctes(at);
    for (uint32_t i = at; i < nodes_[at].end;) {
      const TreeNode& node = nodes_[i];
      if (node.key.empty()) {
        ++i;
        continue;
      }
      const std::optional<Step> step = step_at(node.key);
      if (!step) return unknown(node.key);
      if (!take(*step, i)) return result_;
      i = *step == Step::kSkip ? node.end : i + 1;
    }
    return {Kind::kRead, {}, {}};
  }

  static Analysis unknown(std::string_view key) {
    if (one_of(key, {"InsertStmt", "UpdateStmt", "DeleteStmt", "MergeStmt"})) {
      return primary(Reason::kWritingCte, key);
    }
    return primary(Reason::kConstruct, key);
  }

  void collect_ctes(uint32_t at) {
    for (uint32_t i = at; i < nodes_[at].end; ++i) {
      if (nodes_[i].key == "ctename") ctes_.push_back(tree_.value(i));
    }
  }

  bool refuse(Reason reason, std::string_view subject = {}) {
    result_ = primary(reason, subject);
    return false;
  }

  bool take(Step step, uint32_t at) {
    switch (step) {
      case Step::kPlain:
      case Step::kSkip:
        return true;
      case Step::kFunction:
        return function(at);
      case Step::kColumn:
        return column(at);
      case Step::kIndirection:
        return attribute(tree_.names(tree_.child(at, "indirection")));
      case Step::kType:
        return type(at);
      case Step::kRelation:
        return relation(at);
      case Step::kOperator:
        return operators(at);
      case Step::kSample:
        return sample(at);
      case Step::kLocking:
        return refuse(Reason::kLocking);
      case Step::kInto:
        return refuse(Reason::kInto);
    }
    return false;
  }

  bool function(uint32_t at) {
    const Name name = tree_.names(tree_.child(at, "funcname"));
    if (name.empty() || name.size() > 2) return refuse(Reason::kUnknownFunction);
    const std::string schema = name.size() == 2 ? name[0] : "";
    switch (catalog_.function(schema, name.back())) {
      case Safety::kSafe:
        return true;
      case Safety::kUnknown:
        return refuse(Reason::kUnknownFunction, name.back());
      case Safety::kUnsafe:
        break;
    }
    const bool state = builtin_function(name.back()) == Builtin::kServerState;
    return refuse(state ? Reason::kServerState : Reason::kVolatile, name.back());
  }

  // t.f may be the function f of the row t, and so may the last of several names.
  bool attribute(const Name& name) {
    for (const std::string& part : name) {
      if (catalog_.unsafe_attribute(part)) return refuse(Reason::kAttribute, part);
    }
    return true;
  }

  bool column(uint32_t at) {
    const Name name = tree_.names(tree_.child(at, "fields"));
    return name.size() < 2 || attribute(name);
  }

  bool type(uint32_t at) {
    const Name name = tree_.names(tree_.child(at, "names"));
    if (!name.empty() && catalog_.unsafe_type(name.back())) {
      return refuse(Reason::kType, name.back());
    }
    return true;
  }

  bool relation(uint32_t at) {
    if (tree_.child(at, "catalogname") != 0) return refuse(Reason::kUnknownRelation);
    const uint32_t relname = tree_.child(at, "relname");
    const uint32_t schemaname = tree_.child(at, "schemaname");
    if (relname == 0) return refuse(Reason::kUnknownRelation);
    const std::string name = tree_.value(relname);
    const std::string schema = schemaname == 0 ? "" : tree_.value(schemaname);
    if ((schema.empty() || schema == "pg_catalog") && server_state_relation(name)) {
      return refuse(Reason::kServerState, name);
    }
    switch (catalog_.relation(schema, name)) {
      case Safety::kSafe:
        return true;
      case Safety::kUnsafe:
        return refuse(Reason::kUnsafeRelation, name);
      case Safety::kUnknown:
        break;
    }
    if (schema.empty() && std::ranges::find(ctes_, name) != ctes_.end()) return true;
    return refuse(Reason::kUnknownRelation, name);
  }

  bool operators(uint32_t at) {
    for (const std::string_view field : {"name", "operName", "useOp"}) {
      const Name name = tree_.names(tree_.child(at, field));
      if (!name.empty() && catalog_.unsafe_operator(name.back())) {
        return refuse(Reason::kOperator, name.back());
      }
    }
    return true;
  }

  bool sample(uint32_t at) {
    const Name method = tree_.names(tree_.child(at, "method"));
    if (!method.empty() && one_of(method.back(), {"system", "bernoulli"})) return true;
    return refuse(Reason::kConstruct, "TABLESAMPLE");
  }

  const ParseTree& tree_;
  const std::vector<TreeNode>& nodes_;
  const Catalog& catalog_;
  std::vector<std::string> ctes_;
  Analysis result_;
};

}  // namespace

std::string_view describe(Reason reason) {
  switch (reason) {
    case Reason::kNone:
      return "proven read-only";
    case Reason::kTooLong:
      return "its text is too long to be looked at";
    case Reason::kTooDeep:
      return "it could be nested too deeply";
    case Reason::kNotText:
      return "its text is broken";
    case Reason::kSyntax:
      return "PostgreSQL 15's parser does not understand it";
    case Reason::kStrings:
      return "a literal has a backslash, and standard_conforming_strings is off";
    case Reason::kSeveral:
      return "it is several statements";
    case Reason::kWrites:
      return "it is not a SELECT";
    case Reason::kWritingCte:
      return "a WITH query writes";
    case Reason::kSession:
      return "it is about the session";
    case Reason::kTransaction:
      return "it is about the transaction";
    case Reason::kLocking:
      return "it locks rows";
    case Reason::kInto:
      return "it makes a table";
    case Reason::kVolatile:
      return "it calls a volatile function";
    case Reason::kUnknownFunction:
      return "it calls a function that is not known";
    case Reason::kUnsafeRelation:
      return "it reads a foreign table, or a view or policy that calls a volatile function";
    case Reason::kUnknownRelation:
      return "it reads a relation that is not known";
    case Reason::kServerState:
      return "it asks about the server itself";
    case Reason::kOperator:
      return "an operator calls a volatile function";
    case Reason::kType:
      return "a type calls a volatile function";
    case Reason::kHidden:
      return "a cast or comparison of this database calls a volatile function";
    case Reason::kAttribute:
      return "a column may be a call of a volatile function";
    case Reason::kNoCatalog:
      return "the database's functions are not known yet";
    case Reason::kHint:
      return "its comment asks for the primary";
    case Reason::kConstruct:
      return "it uses a construct that is not known";
  }
  return "?";
}

std::string Analysis::to_string() const {
  constexpr std::string_view kKinds[] = {"primary", "read", "begin read only", "begin",
                                         "set affinity"};
  std::string out(kKinds[static_cast<size_t>(kind)]);
  if (reason != Reason::kNone) out += fmt::format(": {}", describe(reason));
  if (!subject.empty()) out += fmt::format(" ({})", subject);
  return out;
}

Analysis analyse_scan(const TextScan& scan, Strings strings) {
  switch (scan.problem) {
    case ScanProblem::kNone:
      break;
    case ScanProblem::kTooLong:
      return primary(Reason::kTooLong);
    case ScanProblem::kTooDeep:
      return primary(Reason::kTooDeep);
    case ScanProblem::kNul:
    case ScanProblem::kUnterminated:
      return primary(Reason::kNotText);
  }
  if (scan.hints.primary) return primary(Reason::kHint);
  if (scan.plain_backslash && strings == Strings::kNonstandard) return primary(Reason::kStrings);
  return {Kind::kRead, {}, {}};
}

Analysis analyse_key(const std::string& key, const Catalog& catalog) {
  // One for each thread: its buffers are reused.
  thread_local ParseTree tree;
  switch (tree.parse(key.c_str())) {
    case ParseTree::Outcome::kParsed:
      return Walk(tree, catalog).run();
    case ParseTree::Outcome::kSyntaxError:
      return primary(Reason::kSyntax);
    case ParseTree::Outcome::kTooLarge:
      return primary(Reason::kTooDeep);
    case ParseTree::Outcome::kBroken:
      break;
  }
  return primary(Reason::kConstruct);
}

Analysis analyse(std::string_view sql, const Catalog& catalog, Strings strings) {
  std::string key;
  Analysis scanned = analyse_scan(scan_text(sql, key), strings);
  return scanned.kind == Kind::kRead ? analyse_key(key, catalog) : scanned;
}

}  // namespace bascule::sql
