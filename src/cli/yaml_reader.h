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
#include <optional>
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

enum class KeyKind {
  kText,
  kInteger,
  kNumber,
  kFlag,
  kDuration,
  kSize,
  kAddress,
  kChoice,
  kTextMap,
  kTextList,
  kMap,   // keys of its own: their paths begin with this one's
  kList,  // of such mappings, or of what only the reader of this list knows
};

// What a reader asked for: the ground of the JSON schema and of the reference (config_schema.h).
struct KeyFact {
  std::string path = {};  // "proxy.pools.user", also for the entries of a list
  KeyKind kind = KeyKind::kText;
  bool required = false;
  std::string fallback = {};       // the default as one would write it; empty: none
  std::string min = {}, max = {};  // as one would write them; empty: no bound
  std::vector<std::string> words = {};
};

struct Problems {
  std::vector<Problem> list;
  std::vector<KeyFact>* facts = nullptr;  // when there: every key that is asked for is noted
  void add(const YAML::Node& at, std::string key, std::string what);
};

struct IntRange {
  int64_t min = 0;
  int64_t max = INT64_MAX;
};
struct NumberRange {
  double min = 0, max = 0;
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
  enum class Empty { kRefused, kAllowed };
  bool text(const std::string& key, std::string& out, Need need = Need::kOptional,
            Empty empty = Empty::kRefused);
  bool integer(const std::string& key, int64_t& out, IntRange range, Need need = Need::kOptional);
  bool integer(const std::string& key, int& out, IntRange range, Need need = Need::kOptional);
  bool number(const std::string& key, double& out, NumberRange range);
  bool flag(const std::string& key, bool& out);
  bool duration(const std::string& key, Millis& out, DurationRange range);
  // For keys without a default.
  bool integer(const std::string& key, std::optional<int>& out, IntRange range);
  bool duration(const std::string& key, std::optional<Millis>& out, DurationRange range);
  bool choice(const std::string& key, std::optional<int>& out,
              const std::vector<std::string>& words);
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
  YAML::Node take(const std::string& key, Need need, KeyFact fact);
  void forget_fallback();
  std::string path_of(const std::string& key) const;

  Problems& problems_;
  YAML::Node node_;
  std::string path_;
  std::map<std::string, YAML::Node> values_;
  std::map<std::string, YAML::Node> keys_;  // for their lines
  std::vector<std::string> asked_;
};

}  // namespace bascule::cli
