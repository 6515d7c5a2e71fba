#include "cli/config_schema.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "cli/config.h"

namespace bascule::cli {
namespace {

using Json = nlohmann::json;

TEST(ConfigSchema, SaysWhatTheReadersAccept) {
  const Json schema = Json::parse(config_schema(config_keys()));
  const Json node = schema["properties"]["node"];
  EXPECT_FALSE(node["additionalProperties"]);
  const Json port = node["properties"]["port"];
  EXPECT_EQ(port["type"], "integer");
  EXPECT_EQ(port["minimum"], 1);
  EXPECT_EQ(port["maximum"], 65535);
  EXPECT_EQ(port["default"], 5432);
  EXPECT_EQ(schema["properties"]["proxy"]["properties"]["pool_mode"]["enum"],
            (Json{"session", "transaction", "statement"}));
  EXPECT_EQ(schema["properties"]["defaults"]["properties"]["ttl"]["x-minimum"], "1s");
}

TEST(ConfigSchema, EntriesOfAListHaveTheirOwnKeys) {
  const Json schema = Json::parse(config_schema(config_keys()));
  const Json servers = schema["properties"]["proxy"]["properties"]["servers"];
  EXPECT_EQ(servers["type"], "array");
  EXPECT_EQ(servers["items"]["required"], Json{"host"});
  EXPECT_TRUE(servers["items"]["properties"].contains("weight"));
}

TEST(ConfigSchema, TheStoreIsATextOrAMapping) {
  const Json schema = Json::parse(config_schema(config_keys()));
  EXPECT_EQ(schema["properties"]["store"]["anyOf"].size(), 2u);
}

TEST(ConfigSchema, WhatNobodyCouldWriteIsNoDefault) {
  const Json schema = Json::parse(config_schema(config_keys()));
  // 0 stands for the newest PostgreSQL that is installed.
  const Json version =
      schema["properties"]["node"]["properties"]["postgresql"]["properties"]["version"];
  EXPECT_EQ(version["minimum"], 13);
  EXPECT_FALSE(version.contains("default"));
}

}  // namespace
}  // namespace bascule::cli
