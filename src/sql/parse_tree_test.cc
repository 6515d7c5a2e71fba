#include "sql/parse_tree.h"

#include <gtest/gtest.h>

namespace bascule::sql {
namespace {

TEST(ParseTree, NodesLieInReadingOrder) {
  ParseTree tree;
  ASSERT_EQ(tree.read(R"({"a":{"b":[1,"x"]},"c":"\"y\u003e"})"), ParseTree::Outcome::kParsed);
  const uint32_t a = tree.child(0, "a");
  const uint32_t list = tree.child(a, "b");
  EXPECT_EQ(tree.nodes()[list + 1].text, "1");
  EXPECT_EQ(tree.nodes()[list + 2].text, "x");
  EXPECT_EQ(tree.nodes()[list].end, list + 3);
  EXPECT_EQ(unescape(tree.nodes()[tree.child(0, "c")].text), "\"y>");
  EXPECT_EQ(tree.child(0, "b"), 0u);
}

TEST(ParseTree, WhatIsNotJsonIsRefused) {
  ParseTree tree;
  for (const auto* json : {"", "{", "[", "}", "{\"a\"}", "{\"a\":}", "{\"a\":[}", "{\"a\":\"x}",
                           "{\"a\\\"\":1}", "x", "\"x\"", "{\"a\":1]", "{\"\":1}", "{\"a\":\"\\"}) {
    EXPECT_EQ(tree.read(json), ParseTree::Outcome::kBroken) << json;
  }
}

TEST(ParseTree, SyntaxErrorsAreToldFromTrees) {
  ParseTree tree;
  EXPECT_EQ(tree.parse("SELEC"), ParseTree::Outcome::kSyntaxError);
  EXPECT_EQ(tree.parse("SELECT 1"), ParseTree::Outcome::kParsed);
  EXPECT_NE(tree.child(0, "stmts"), 0u);
}

}  // namespace
}  // namespace bascule::sql
