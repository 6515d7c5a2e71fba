#include "sql/write_reach.h"

#include <algorithm>
#include <utility>

namespace bascule::sql {

// Triggers whose functions are PostgreSQL's own (tsvector_update_trigger and the like) change the
// row that is written, and nothing else.
const std::string_view WriteReach::kQuery = R"sql(
with relation as (
  select c.oid, n.nspname as schema, c.relname as name, c.relkind as kind
    from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
   where c.relkind in ('r', 'p', 'v', 'm', 'f') and c.relpersistence <> 't'
     and n.nspname not in ('pg_catalog', 'pg_toast', 'information_schema')
),
expression (relation, class, object) as (
  select adrelid, 'pg_catalog.pg_attrdef'::pg_catalog.regclass, oid from pg_catalog.pg_attrdef
  union all
  select conrelid, 'pg_catalog.pg_constraint'::pg_catalog.regclass, oid from pg_catalog.pg_constraint
   where contype = 'c'
  union all
  select polrelid, 'pg_catalog.pg_policy'::pg_catalog.regclass, oid from pg_catalog.pg_policy
),
anywhere (oid) as (
  select oid from relation where kind not in ('r', 'p')
  union
  select t.tgrelid from pg_catalog.pg_trigger t
    join pg_catalog.pg_proc p on p.oid = t.tgfoid
   where not t.tgisinternal and t.tgenabled <> 'D'
     and p.pronamespace <> 'pg_catalog'::pg_catalog.regnamespace
  union
  select ev_class from pg_catalog.pg_rewrite where ev_type <> '1'
  union
  select e.relation from expression e
    join pg_catalog.pg_depend d on d.classid = e.class and d.objid = e.object
     and d.refclassid = 'pg_catalog.pg_proc'::pg_catalog.regclass
    join pg_catalog.pg_proc p on p.oid = d.refobjid and p.provolatile = 'v'
),
edge (source, target) as (
  select inhparent, inhrelid from pg_catalog.pg_inherits
  union
  select confrelid, conrelid from pg_catalog.pg_constraint
   where contype = 'f' and (confupdtype in ('c', 'n', 'd') or confdeltype in ('c', 'n', 'd'))
)
select kind, schema, name, target_schema, target_name from (
  select 'r' as kind, schema, name, '' as target_schema, '' as target_name from relation
  union all
  select 'a', schema, name, '', '' from relation where oid in (select oid from anywhere)
  union all
  select 'e', a.schema, a.name, b.schema, b.name
    from edge e join relation a on a.oid = e.source join relation b on b.oid = e.target
   where e.source <> e.target
  limit 200000
) all_rows
union all select 'z', '', '', '', ''
)sql";

Status WriteReach::add(std::string_view kind, TableName relation, TableName to) {
  const auto bad = [](const char* what) {
    return fail(ErrorCode::kInvalid, std::string("answer about what tables lead to: ") + what);
  };
  if (complete_) return bad("rows after its end");
  if (++rows_ > kRowsMax) return bad("too many rows");
  for (const TableName* table : {&relation, &to}) {
    if (table->schema.size() > kNameBytesMax || table->name.size() > kNameBytesMax) {
      return bad("a name is too long");
    }
  }
  if (kind == "z") {
    if (rows_ >= kRowsMax) return bad("more than 200000 rows");
    complete_ = true;
    return {};
  }
  Relation& entry = relations_[relation.name][relation.schema];
  if (kind == "r") {
    entry.exists = true;
  } else if (kind == "a") {
    entry.anywhere = true;
  } else if (kind == "e") {
    entry.leads_to.push_back(std::move(to));
  } else {
    return bad("a row of an unknown kind");
  }
  return {};
}

std::optional<std::vector<TableName>> WriteReach::of(const TableName& table) const {
  if (!complete_) return std::nullopt;
  std::vector<TableName> reached = {table};
  for (size_t i = 0; i < reached.size(); ++i) {
    const TableName at = reached[i];
    const auto named = relations_.find(at.name);
    if (named == relations_.end()) return std::nullopt;
    bool known = false;
    for (const auto& [schema, relation] : named->second) {
      if (!at.schema.empty() && schema != at.schema) continue;
      if (!relation.exists || relation.anywhere) return std::nullopt;
      known = true;
      for (const TableName& next : relation.leads_to) {
        if (std::ranges::find(reached, next) == reached.end()) reached.push_back(next);
      }
    }
    if (!known) return std::nullopt;
  }
  return reached;
}

}  // namespace bascule::sql
