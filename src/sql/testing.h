// A catalog for tests: tables, views and functions of a made-up shop.
#pragma once

#include <gtest/gtest.h>

#include "sql/catalog.h"

namespace bascule::sql {

inline Catalog shop_catalog() {
  constexpr const char* kRows[][4] = {
      {"r", "public", "items", "s"},
      {"r", "public", "orders", "s"},
      {"r", "other", "orders", "s"},
      {"r", "public", "numbered", "u"},  // a view that calls nextval()
      {"r", "public", "twin", "s"},
      {"r", "other", "twin", "u"},
      {"r", "pg_catalog", "pg_class", "s"},
      {"r", "pg_catalog", "pg_stat_activity", "s"},
      {"f", "public", "price_of", "s"},
      {"f", "public", "book", "u"},
      {"f", "public", "lower", "s"},
      {"f", "other", "upper", "u"},  // a volatile overload beside a builtin
      {"a", "public", "book", "u"},
      {"o", "", "<#>", "u"},
      {"t", "public", "checked", "u"},
      {"z", "", "", ""},
  };
  Catalog::Builder builder;
  for (const auto& row : kRows) {
    EXPECT_TRUE(builder.add(row[0], row[1], row[2], row[3]).has_value());
  }
  auto catalog = std::move(builder).build();
  EXPECT_TRUE(catalog.has_value());
  return std::move(*catalog);
}

}  // namespace bascule::sql
