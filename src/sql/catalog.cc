#include "sql/catalog.h"

#include <algorithm>
#include <tuple>

#include "sql/builtins.h"

namespace bascule::sql {

// Where an expression is stored (rules of views, policies, constraints of domains) its node tree
// names the functions that it calls by oid; built-in ones have no rows in pg_depend. The functions
// that count as harmless or as writing are those of builtins.cc.
const std::string_view Catalog::kQuery = R"sql(
with recursive
bad_function as (
  select p.oid from pg_catalog.pg_proc p
   where p.provolatile = 'v'
     and not (p.pronamespace = 'pg_catalog'::pg_catalog.regnamespace
              and p.proname = any ('{clock_timestamp,gen_random_uuid,pg_sleep,pg_sleep_for,pg_sleep_until,random,timeofday}'))
      or p.pronamespace = 'pg_catalog'::pg_catalog.regnamespace
     and p.proname ~ '^(txid_current|pg_current_xact_id|(table|schema|database)_to_xml)'
      or p.prokind = 'p'
  union
  select a.aggfnoid from pg_catalog.pg_aggregate a
    join pg_catalog.pg_proc s on s.provolatile = 'v' and s.oid in
         (a.aggtransfn, a.aggfinalfn, a.aggcombinefn, a.aggserialfn, a.aggdeserialfn,
          a.aggmtransfn, a.aggminvtransfn, a.aggmfinalfn)
),
expression (owner, kind, tree) as (
  select ev_class, 'r', ev_action::text from pg_catalog.pg_rewrite where ev_type = '1'
  union all
  select polrelid, 'r', polqual::text from pg_catalog.pg_policy where polqual is not null
  union all
  select contypid, 't', conbin::text from pg_catalog.pg_constraint where contypid <> 0 and conbin is not null
),
calls as (
  select distinct e.owner, e.kind, m[1]::oid as function
    from expression e,
         pg_catalog.regexp_matches(e.tree, ':(?:funcid|opfuncid|aggfnoid|winfnoid) (\d+)', 'g') m
),
reads as (
  select distinct e.owner, m[1]::oid as relation
    from expression e, pg_catalog.regexp_matches(e.tree, ':relid (\d+)', 'g') m
   where e.kind = 'r'
),
bad_relation (oid) as (
  select c.owner from calls c join bad_function f on f.oid = c.function where c.kind = 'r'
  union
  select oid from pg_catalog.pg_class where relkind = 'f'
  union
  select r.owner from reads r join bad_relation b on b.oid = r.relation
)
select kind, schema, name, flag from (
  select 'f' as kind, n.nspname as schema, p.proname as name,
         case when bool_or(b.oid is not null) then 'u' else 's' end as flag
    from pg_catalog.pg_proc p
    join pg_catalog.pg_namespace n on n.oid = p.pronamespace
    left join bad_function b on b.oid = p.oid
   where p.oid >= 16384 or n.nspname = 'information_schema'
   group by 2, 3
  union all
  select distinct 'a', n.nspname, p.proname, 'u'
    from pg_catalog.pg_proc p
    join bad_function b on b.oid = p.oid
    join pg_catalog.pg_namespace n on n.oid = p.pronamespace
    join pg_catalog.pg_type t on t.oid = p.proargtypes[0]
   where p.oid >= 16384 and p.pronargs >= 1 and p.pronargs - p.pronargdefaults <= 1
     and t.typtype in ('c', 'p', 'd')
  union all
  select distinct 'o', '', o.oprname, 'u'
    from pg_catalog.pg_operator o join bad_function b on b.oid = o.oprcode
   where o.oid >= 16384
  union all
  select distinct 't', n.nspname, t.typname, 'u'
    from pg_catalog.pg_type t join pg_catalog.pg_namespace n on n.oid = t.typnamespace
   where t.oid >= 16384
     and (t.oid in (select c.owner from calls c join bad_function f on f.oid = c.function where c.kind = 't')
          or t.typinput in (select oid from bad_function)
          or t.typoutput in (select oid from bad_function))
  union all
  select 'h', '', '', 'u'
   where exists (select from pg_catalog.pg_cast c join bad_function b on b.oid = c.castfunc where c.oid >= 16384)
      or exists (select from pg_catalog.pg_amproc a join bad_function b on b.oid = a.amproc where a.oid >= 16384)
      or exists (select from pg_catalog.pg_amop a
                   join pg_catalog.pg_operator o on o.oid = a.amopopr
                   join bad_function b on b.oid = o.oprcode where a.oid >= 16384)
  union all
  select 'r', n.nspname, c.relname,
         case when c.oid in (select oid from bad_relation) then 'u' else 's' end
    from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
   where c.relkind in ('r', 'p', 'v', 'm', 'f', 'S') and c.relpersistence <> 't'
     and n.nspname <> 'pg_toast'
  limit 200000
) all_rows
union all select 'z', '', '', ''
)sql";

namespace {

bool contains(const std::vector<std::string>& sorted, std::string_view name) {
  return std::ranges::binary_search(sorted, name, {},
                                    [](const auto& s) { return std::string_view(s); });
}

}  // namespace

Status Catalog::Builder::add(std::string_view kind, std::string_view schema, std::string_view name,
                             std::string_view flag) {
  const auto bad = [](const char* what) {
    return fail(ErrorCode::kInvalid, std::string("answer of the catalog query: ") + what);
  };
  if (kind.size() != 1 || flag.size() > 1) return bad("a column has an unknown form");
  if (schema.size() > kNameBytesMax || name.size() > kNameBytesMax)
    return bad("a name is too long");
  if (complete_) return bad("rows after its end");
  if (++rows_ > kRowsMax) return bad("too many rows");
  const bool safe = flag == "s";
  switch (kind[0]) {
    case 'f':
      functions_.push_back({std::string(name), std::string(schema), safe});
      break;
    case 'r':
      relations_.push_back({std::string(name), std::string(schema), safe});
      break;
    case 'o':
      operators_.emplace_back(name);
      break;
    case 't':
      types_.emplace_back(name);
      break;
    case 'a':
      attributes_.emplace_back(name);
      break;
    case 'h':
      hidden_ = true;
      break;
    case 'z':
      complete_ = true;
      break;
    default:
      return bad("a row of an unknown kind");
  }
  return {};
}

Result<Catalog> Catalog::Builder::build() && {
  if (!complete_) {
    return fail(ErrorCode::kInvalid, "answer of the catalog query: its end is missing");
  }
  if (rows_ >= kRowsMax) {
    return fail(ErrorCode::kInvalid,
                "the database has more relations and functions than are looked at: 200000");
  }
  Catalog catalog;
  const auto take = [](std::vector<Row>& rows, std::vector<Entry>& entries) {
    entries.reserve(rows.size());
    for (Row& row : rows) {
      entries.push_back({std::move(row.name), std::move(row.schema), row.safe});
    }
    std::ranges::sort(entries);
  };
  take(functions_, catalog.functions_);
  take(relations_, catalog.relations_);
  catalog.operators_ = std::move(operators_);
  catalog.types_ = std::move(types_);
  catalog.attributes_ = std::move(attributes_);
  for (auto* names : {&catalog.operators_, &catalog.types_, &catalog.attributes_}) {
    std::ranges::sort(*names);
  }
  catalog.hidden_ = hidden_;
  catalog.loaded_ = true;
  return catalog;
}

Safety Catalog::find(const std::vector<Entry>& entries, std::string_view schema,
                     std::string_view name) {
  auto at = std::ranges::lower_bound(entries, name, {},
                                     [](const Entry& e) { return std::string_view(e.name); });
  Safety found = Safety::kUnknown;
  for (; at != entries.end() && at->name == name; ++at) {
    if (!schema.empty() && at->schema != schema) continue;
    if (!at->safe) return Safety::kUnsafe;
    found = Safety::kSafe;
  }
  return found;
}

Safety Catalog::function(std::string_view schema, std::string_view name) const {
  const Safety own = find(functions_, schema, name);
  if (own == Safety::kUnsafe || (!schema.empty() && schema != "pg_catalog")) return own;
  switch (builtin_function(name)) {
    case Builtin::kUnknown:
      return own;
    case Builtin::kReadOnly:
      return Safety::kSafe;
    case Builtin::kVolatile:
    case Builtin::kServerState:
      return Safety::kUnsafe;
  }
  return Safety::kUnsafe;
}

Safety Catalog::relation(std::string_view schema, std::string_view name) const {
  return find(relations_, schema, name);
}

bool Catalog::unsafe_operator(std::string_view name) const { return contains(operators_, name); }
bool Catalog::unsafe_type(std::string_view name) const { return contains(types_, name); }
bool Catalog::unsafe_attribute(std::string_view name) const { return contains(attributes_, name); }

}  // namespace bascule::sql
