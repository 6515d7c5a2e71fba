// Reads one mapping of a YAML file strictly: every key must be asked for, every value must have the
// type and range asked for. Problems are collected with their line, so that a person sees all of
// them at once and not one a run.
//
//   MapReader node(problems, yaml["node"], "node");
//   node.integer("port", port, {.min = 1, .max = 65535});
//   node.finish();  // reports keys that nobody asked for: `unknown key "prot"; did you mean
//   "port"?`
#pragma once

#include <yaml-cpp/yaml.h>

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "base/time.h"
#include "cli/units.h"

namespace bascule::cli {

struct Problem {
  int line = 0;      // from 1; 0: the file as a whole
  std::string key;   // "node.port"
  std::string what;  // what is wrong and what is expected
};

struct Problems {
  std::vector<Problem> list;
  void add(const YAML::Node& at, std::string key, std::string what);
};

struct IntRange {
  int64_t min = 0;
  int64_t max = INT64_MAX;
};
struct DurationRange {
  Millis min{0};
  Millis max{Millis::max()};
};
enum class Need { kOptional, kRequired };

class MapReader {
 public:
  // `node` may be undefined or null: then it is an empty mapping.
  MapReader(Problems& problems, const YAML::Node& node, std::string path);

  // Each leaves `out` alone when the key is absent or wrong; false: absent.
  bool text(const std::string& key, std::string& out, Need need = Need::kOptional);
  bool integer(const std::string& key, int64_t& out, IntRange range, Need need = Need::kOptional);
  bool integer(const std::string& key, int& out, IntRange range, Need need = Need::kOptional);
  bool flag(const std::string& key, bool& out);
  bool duration(const std::string& key, Millis& out, DurationRange range);
  bool size(const std::string& key, uint64_t& out, uint64_t min);
  bool address(const std::string& key, HostPort& out, Need need = Need::kOptional);
  // One of the words; `out` is its index.
  bool choice(const std::string& key, int& out, const std::vector<std::string>& words);
  bool text_map(const std::string& key, std::map<std::string, std::string>& out);
  bool text_list(const std::string& key, std::vector<std::string>& out);
  MapReader map(const std::string& key);
  bool has(const std::string& key) const { return values_.contains(key); }
  // The value as it stands, for what no other function reads; counts as asked for.
  YAML::Node raw(const std::string& key);
  void problem(const std::string& key, std::string what);
  void finish();

 private:
  YAML::Node take(const std::string& key, Need need);
  std::string path_of(const std::string& key) const;

  Problems& problems_;
  YAML::Node node_;
  std::string path_;
  std::map<std::string, YAML::Node> values_;
  std::map<std::string, YAML::Node> keys_;  // for their lines
  std::vector<std::string> asked_;
};

}  // namespace bascule::cli
