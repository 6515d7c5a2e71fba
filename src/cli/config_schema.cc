#include "cli/config_schema.h"

#include <map>
#include <nlohmann/json.hpp>

namespace bascule::cli {
namespace {

using Json = nlohmann::ordered_json;

Json number_of(const std::string& text) { return Json::parse(text, nullptr, false); }

void bounds(const KeyFact& fact, Json& out) {
  const bool text = fact.kind == KeyKind::kDuration || fact.kind == KeyKind::kSize;
  const auto set = [&](const char* key, const std::string& value) {
    if (!value.empty()) out[key] = text ? Json(value) : number_of(value);
  };
  set(text ? "x-minimum" : "minimum", fact.min);
  set(text ? "x-maximum" : "maximum", fact.max);
}

bool within(const KeyFact& fact) {
  if (fact.kind != KeyKind::kInteger || fact.fallback.empty()) return true;
  const int64_t value = std::stoll(fact.fallback);
  return value >= std::stoll(fact.min) && (fact.max.empty() || value <= std::stoll(fact.max));
}

// A default outside of the bounds stands for "none": nobody could write it.
void fallback(const KeyFact& fact, Json& out) {
  if (fact.fallback.empty() || !within(fact)) return;
  const bool plain = fact.kind == KeyKind::kInteger || fact.kind == KeyKind::kNumber ||
                     fact.kind == KeyKind::kFlag;
  out["default"] = plain ? number_of(fact.fallback) : Json(fact.fallback);
}

Json value_schema(const KeyFact& fact) {
  const Json text = {{"type", {"string", "number", "boolean"}}};
  switch (fact.kind) {
    case KeyKind::kText:
      return text;
    case KeyKind::kInteger:
      return {{"type", "integer"}};
    case KeyKind::kNumber:
      return {{"type", "number"}};
    case KeyKind::kFlag:
      // yaml-cpp and YAML 1.1 take on/off and yes/no; a validator of YAML 1.2 sees texts.
      return {{"enum", {true, false, "on", "off", "yes", "no"}}};
    case KeyKind::kDuration:
      return {{"type", {"string", "integer"}},
              {"pattern", "^([0-9.]+ ?(ms|s|min|m|h|d)|0)$"},
              {"x-kind", "duration"}};
    case KeyKind::kSize:
      return {{"type", {"string", "integer"}},
              {"pattern", "^([0-9.]+ ?(B|kB|KB|MB|GB|TB)|0)$"},
              {"x-kind", "size"}};
    case KeyKind::kAddress:
      return {{"type", "string"}, {"pattern", "^.+:[0-9]+$"}, {"x-kind", "address"}};
    case KeyKind::kChoice: {
      Json words = fact.words;
      // Unquoted, those two are no texts for a YAML parser.
      for (const std::string& word : fact.words) {
        if (word == "true" || word == "false") words.push_back(word == "true");
      }
      return {{"enum", std::move(words)}};
    }
    case KeyKind::kTextMap:
      return {{"type", "object"}, {"additionalProperties", text}};
    case KeyKind::kTextList:
      return {{"type", "array"}, {"items", text}};
    case KeyKind::kMap:
    case KeyKind::kList:
      break;
  }
  return Json::object();
}

class Builder {
 public:
  explicit Builder(const std::vector<KeyFact>& keys) {
    for (const KeyFact& key : keys) {
      const size_t dot = key.path.rfind('.');
      const std::string parent = dot == std::string::npos ? "" : key.path.substr(0, dot);
      children_[parent].push_back(&key);
    }
  }

  Json mapping(const std::string& path) const {
    Json out = {
        {"type", "object"}, {"additionalProperties", false}, {"properties", Json::object()}};
    Json required = Json::array();
    for (const KeyFact* key : children_.at(path)) {
      const std::string name = path.empty() ? key->path : key->path.substr(path.size() + 1);
      Json schema = schema_of(*key);
      Json& at = out["properties"][name];
      // Asked for as a text and as a mapping: either will do (`store`).
      at = at.is_null() ? std::move(schema) : Json{{"anyOf", {at, std::move(schema)}}};
      if (key->required) required.push_back(name);
    }
    if (!required.empty()) out["required"] = std::move(required);
    return out;
  }

 private:
  Json schema_of(const KeyFact& key) const {
    const bool parent = children_.contains(key.path);
    if (key.kind == KeyKind::kMap && parent) return mapping(key.path);
    if (key.kind == KeyKind::kList) {
      return {{"type", "array"}, {"items", parent ? mapping(key.path) : Json::object()}};
    }
    Json out = value_schema(key);
    bounds(key, out);
    fallback(key, out);
    return out;
  }

  std::map<std::string, std::vector<const KeyFact*>> children_;
};

}  // namespace

std::string config_schema(const std::vector<KeyFact>& keys) {
  Json out = {{"$schema", "https://json-schema.org/draft/2020-12/schema"},
              {"title", "bascule.yaml"}};
  out.update(Builder(keys).mapping(""));
  return out.dump(2);
}

}  // namespace bascule::cli
