#include "base/json_tape.h"

#include <gtest/gtest.h>

namespace bascule {
namespace {

using Kind = JsonValue::Kind;

TEST(JsonTapeTest, ValuesAreReadAsTheyAreWritten) {
  const JsonTape tape(R"( {"a": 18446744073709551615, "b": [-1, 0, 1.5, true, null, {}],
                           "c": {"x": "\u00e4\n\"", "y": []}, "d": "last"} )");
  const JsonValue& root = tape.root();
  ASSERT_EQ(root.kind, Kind::kObject);
  EXPECT_EQ(root.count, 4u);
  EXPECT_EQ(root.find("a")->natural, UINT64_MAX);
  const JsonValue* b = root.find("b");
  ASSERT_EQ(b->count, 6u);
  std::vector<Kind> kinds;
  for (const JsonValue* item = b->begin(); item != b->end(); item = item->next()) {
    kinds.push_back(item->kind);
  }
  EXPECT_EQ(kinds, (std::vector{Kind::kNegative, Kind::kUnsigned, Kind::kReal, Kind::kBool,
                                Kind::kNull, Kind::kObject}));
  EXPECT_EQ(b->begin()->negative, -1);
  EXPECT_EQ(root.find("c")->find("x")->string, "\xc3\xa4\n\"");
  EXPECT_EQ(root.find("c")->find("y")->count, 0u);
  EXPECT_EQ(root.find("d")->string, "last");
  EXPECT_EQ(root.find("x"), nullptr) << "of an inner object";
  EXPECT_EQ(root.find("d")->find("a"), nullptr) << "no object";
}

TEST(JsonTapeTest, WhatIsNotJsonIsNull) {
  using namespace std::string_view_literals;
  for (const std::string_view text :
       {""sv, "{"sv, "{}x"sv, "{} {}"sv, "{}\0"sv, "{\"a\":1\0}"sv, "{'a':1}"sv, "{\"a\":01}"sv,
        "{\"a\":1,}"sv, "[1 2]"sv, "{\"a\":\"\xff\"}"sv, "\"\n\""sv, "NaN"sv, "1e999"sv}) {
    EXPECT_EQ(JsonTape(text).root().kind, Kind::kNull) << text;
    EXPECT_EQ(JsonTape(text).root().extent, 1u) << text;
  }
}

TEST(JsonTapeTest, DepthIsNoMatterOfTheStack) {
  constexpr size_t kDeep = 1'000'000;
  const std::string open(kDeep, '[');
  EXPECT_EQ(JsonTape(open).root().kind, Kind::kNull);
  const JsonTape tape(open + std::string(kDeep, ']'));
  EXPECT_EQ(tape.root().kind, Kind::kArray);
  EXPECT_EQ(tape.root().extent, kDeep);
}

}  // namespace
}  // namespace bascule
