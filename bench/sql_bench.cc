// What the analysis of statements costs: a remembered verdict and one that is made anew.
#include <benchmark/benchmark.h>

#include <string>
#include <vector>

#include "proxy/verdict_cache.h"

namespace bascule {
namespace {

constexpr const char* kTexts[] = {
    "SELECT abalance FROM pgbench_accounts WHERE aid = 1234567;",
    "SELECT abalance FROM pgbench_accounts WHERE aid = $1",
    "SELECT u.id, u.name, count(*) AS n, max(o.created_at) FROM users u JOIN orders o ON o.user_id "
    "= "
    "u.id LEFT JOIN items i ON i.order_id = o.id WHERE u.region = 'eu' AND o.total > 10 AND i.kind "
    "IN "
    "('a', 'b', 'c') GROUP BY u.id, u.name HAVING count(*) > 3 ORDER BY n DESC LIMIT 50 OFFSET 10",
    "UPDATE pgbench_accounts SET abalance = abalance + 5 WHERE aid = 1234567;",
};

std::shared_ptr<const sql::Catalog> catalog() {
  sql::Catalog::Builder builder;
  for (const char* name : {"pgbench_accounts", "users", "orders", "items"}) {
    (void)builder.add("r", "public", name, "s");
  }
  (void)builder.add("z", "", "", "");
  return std::make_shared<const sql::Catalog>(*std::move(builder).build());
}

void remembered(benchmark::State& state) {
  proxy::VerdictCache cache({});
  cache.set_catalog(catalog());
  const std::string_view sql = kTexts[state.range(0)];
  for (int i = 0; i < 1'000; ++i) {
    (void)cache.verdict("SELECT c" + std::to_string(i) + " FROM users", sql::Strings::kStandard);
  }
  for (auto _ : state) {
    benchmark::DoNotOptimize(cache.verdict(sql, sql::Strings::kStandard).analysis.kind);
  }
}
BENCHMARK(remembered)->DenseRange(0, 3);

// The long one, each time with another literal.
void remembered_with_new_literals(benchmark::State& state) {
  proxy::VerdictCache cache({});
  cache.set_catalog(catalog());
  const std::string_view sql = kTexts[2];
  const size_t literal = sql.find("10");
  std::vector<std::string> texts(1'000, std::string(sql));
  for (size_t i = 0; i < texts.size(); ++i) texts[i].replace(literal, 2, std::to_string(i));
  size_t at = 0;
  for (auto _ : state) {
    benchmark::DoNotOptimize(cache.verdict(texts[at], sql::Strings::kStandard).analysis.kind);
    at = (at + 1) % texts.size();
  }
}
BENCHMARK(remembered_with_new_literals);

void made_anew(benchmark::State& state) {
  const auto known = catalog();
  const std::string_view sql = kTexts[state.range(0)];
  for (auto _ : state) benchmark::DoNotOptimize(sql::analyse(sql, *known).kind);
}
BENCHMARK(made_anew)->DenseRange(0, 3);

}  // namespace
}  // namespace bascule

BENCHMARK_MAIN();
