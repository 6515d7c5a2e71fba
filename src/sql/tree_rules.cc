#include "sql/tree_rules.h"

#include <array>

namespace bascule::sql {
namespace {

struct Rule {
  std::string_view key;
  Step step;
};
constexpr Rule kRules[] = {
    {"A_ArrayExpr", Step::kPlain},
    {"A_Const", Step::kSkip},
    {"A_Expr", Step::kOperator},
    {"A_Indices", Step::kPlain},
    {"A_Indirection", Step::kIndirection},
    {"A_Star", Step::kPlain},
    {"Alias", Step::kPlain},
    {"BitString", Step::kSkip},
    {"BoolExpr", Step::kPlain},
    {"Boolean", Step::kSkip},
    {"BooleanTest", Step::kPlain},
    {"CaseExpr", Step::kPlain},
    {"CaseWhen", Step::kPlain},
    {"CoalesceExpr", Step::kPlain},
    {"CollateClause", Step::kPlain},
    {"ColumnDef", Step::kPlain},
    {"ColumnRef", Step::kColumn},
    {"CommonTableExpr", Step::kPlain},
    {"Float", Step::kSkip},
    {"FuncCall", Step::kFunction},
    {"GroupingFunc", Step::kPlain},
    {"GroupingSet", Step::kPlain},
    {"Integer", Step::kSkip},
    {"JoinExpr", Step::kPlain},
    {"List", Step::kPlain},
    {"LockingClause", Step::kLocking},
    {"MinMaxExpr", Step::kPlain},
    {"NamedArgExpr", Step::kPlain},
    {"NullTest", Step::kPlain},
    {"ParamRef", Step::kSkip},
    {"RangeFunction", Step::kPlain},
    {"RangeSubselect", Step::kPlain},
    {"RangeTableFunc", Step::kPlain},
    {"RangeTableFuncCol", Step::kPlain},
    {"RangeTableSample", Step::kSample},
    {"RangeVar", Step::kRelation},
    {"ResTarget", Step::kPlain},
    {"RowExpr", Step::kPlain},
    {"SQLValueFunction", Step::kPlain},
    {"SelectStmt", Step::kPlain},
    {"SortBy", Step::kOperator},
    {"String", Step::kSkip},
    {"SubLink", Step::kOperator},
    {"TypeCast", Step::kPlain},
    {"TypeName", Step::kType},
    {"WindowDef", Step::kPlain},
    {"WithClause", Step::kPlain},
    {"XmlExpr", Step::kPlain},
    {"XmlSerialize", Step::kPlain},
    {"agg_distinct", Step::kPlain},
    {"agg_filter", Step::kPlain},
    {"agg_order", Step::kPlain},
    {"agg_star", Step::kPlain},
    {"agg_within_group", Step::kPlain},
    {"alias", Step::kSkip},
    {"aliascolnames", Step::kSkip},
    {"all", Step::kPlain},
    {"arg", Step::kPlain},
    {"arg_names", Step::kPlain},
    {"argisrow", Step::kPlain},
    {"argnumber", Step::kPlain},
    {"args", Step::kPlain},
    {"arrayBounds", Step::kPlain},
    {"boolop", Step::kPlain},
    {"booltesttype", Step::kPlain},
    {"collClause", Step::kPlain},
    {"collname", Step::kSkip},
    {"colname", Step::kPlain},
    {"colnames", Step::kSkip},
    {"cols", Step::kPlain},
    {"columns", Step::kPlain},
    {"coldefexpr", Step::kPlain},
    {"coldeflist", Step::kPlain},
    {"colexpr", Step::kPlain},
    {"content", Step::kPlain},
    {"ctecolnames", Step::kSkip},
    {"ctematerialized", Step::kPlain},
    {"ctename", Step::kPlain},
    {"ctequery", Step::kPlain},
    {"cterecursive", Step::kPlain},
    {"ctes", Step::kPlain},
    {"cycle_clause", Step::kPlain},
    {"cycle_col_list", Step::kSkip},
    {"cycle_mark_column", Step::kPlain},
    {"cycle_mark_default", Step::kPlain},
    {"cycle_mark_value", Step::kPlain},
    {"cycle_path_column", Step::kPlain},
    {"defresult", Step::kPlain},
    {"distinctClause", Step::kPlain},
    {"docexpr", Step::kPlain},
    {"elements", Step::kPlain},
    {"endOffset", Step::kPlain},
    {"expr", Step::kPlain},
    {"fields", Step::kPlain},
    {"for_ordinality", Step::kPlain},
    {"frameOptions", Step::kPlain},
    {"fromClause", Step::kPlain},
    {"func_variadic", Step::kPlain},
    {"funcformat", Step::kPlain},
    {"funcname", Step::kPlain},
    {"functions", Step::kPlain},
    {"groupClause", Step::kPlain},
    {"groupDistinct", Step::kPlain},
    {"havingClause", Step::kPlain},
    {"indirection", Step::kPlain},
    {"inh", Step::kPlain},
    {"intoClause", Step::kInto},
    {"isNatural", Step::kPlain},
    {"is_local", Step::kPlain},
    {"is_not_null", Step::kPlain},
    {"is_rowsfrom", Step::kPlain},
    {"is_slice", Step::kPlain},
    {"items", Step::kPlain},
    {"join_using_alias", Step::kSkip},
    {"jointype", Step::kPlain},
    {"kind", Step::kPlain},
    {"larg", Step::kPlain},
    {"lateral", Step::kPlain},
    {"lexpr", Step::kPlain},
    {"lidx", Step::kPlain},
    {"limitCount", Step::kPlain},
    {"limitOffset", Step::kPlain},
    {"limitOption", Step::kPlain},
    {"location", Step::kPlain},
    {"lockingClause", Step::kLocking},
    {"method", Step::kPlain},
    {"name", Step::kPlain},
    {"named_args", Step::kPlain},
    {"names", Step::kPlain},
    {"namespaces", Step::kPlain},
    {"node", Step::kPlain},
    {"nulltesttype", Step::kPlain},
    {"number", Step::kPlain},
    {"op", Step::kPlain},
    {"operName", Step::kPlain},
    {"orderClause", Step::kPlain},
    {"ordinality", Step::kPlain},
    {"over", Step::kPlain},
    {"partitionClause", Step::kPlain},
    {"quals", Step::kPlain},
    {"rarg", Step::kPlain},
    {"recursive", Step::kPlain},
    {"refname", Step::kPlain},
    {"relation", Step::kPlain},
    {"relname", Step::kPlain},
    {"relpersistence", Step::kPlain},
    {"repeatable", Step::kPlain},
    {"result", Step::kPlain},
    {"rexpr", Step::kPlain},
    {"row_format", Step::kPlain},
    {"rowexpr", Step::kPlain},
    {"schemaname", Step::kPlain},
    {"search_breadth_first", Step::kPlain},
    {"search_clause", Step::kPlain},
    {"search_col_list", Step::kSkip},
    {"search_seq_column", Step::kPlain},
    {"setof", Step::kPlain},
    {"sortClause", Step::kPlain},
    {"sortby_dir", Step::kPlain},
    {"sortby_nulls", Step::kPlain},
    {"startOffset", Step::kPlain},
    {"subLinkType", Step::kPlain},
    {"subquery", Step::kPlain},
    {"subselect", Step::kPlain},
    {"targetList", Step::kPlain},
    {"testexpr", Step::kPlain},
    {"typeName", Step::kType},
    {"typemod", Step::kPlain},
    {"typmod", Step::kPlain},
    {"typmods", Step::kPlain},
    {"uidx", Step::kPlain},
    {"useOp", Step::kPlain},
    {"usingClause", Step::kSkip},
    {"val", Step::kPlain},
    {"valuesLists", Step::kPlain},
    {"whereClause", Step::kPlain},
    {"windowClause", Step::kPlain},
    {"withClause", Step::kPlain},
    {"xmloption", Step::kPlain},
};

// A small open-addressing table over kRules: this is asked for every member of every tree.
class Rules {
 public:
  Rules() {
    for (const Rule& rule : kRules) {
      size_t i = slot(rule.key);
      while (table_[i] != nullptr) i = (i + 1) % table_.size();
      table_[i] = &rule;
    }
  }
  const Rule* find(std::string_view key) const {
    for (size_t i = slot(key); table_[i] != nullptr; i = (i + 1) % table_.size()) {
      if (table_[i]->key == key) return table_[i];
    }
    return nullptr;
  }

 private:
  static size_t slot(std::string_view key) {
    size_t h = key.size();
    for (const char c : key) h = h * 31 + static_cast<uint8_t>(c);
    return h % 1021;
  }
  std::array<const Rule*, 1021> table_{};
};

}  // namespace

std::optional<Step> step_at(std::string_view key) {
  static const Rules kTable;
  const Rule* rule = kTable.find(key);
  return rule ? std::optional(rule->step) : std::nullopt;
}

}  // namespace bascule::sql
