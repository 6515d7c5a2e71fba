#include "api/config_changes.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

namespace bascule::api {
namespace {

using nlohmann::json;

constexpr size_t kChangesMax = 500;

// Where the record's name (GET /config) is another than the key's in snake case.
constexpr std::pair<std::string_view, std::string_view> kOtherNames[] = {
    {"syncMode", "sync"},
};

std::unexpected<Error> invalid(std::string what) {
  return fail(ErrorCode::kInvalid, std::move(what));
}

struct Key {
  std::string name;
  std::string_view unit;  // of the number in the record; empty: none
};

// "ballotWindowMs": {"ballot_window", "ms"}. A key of the configuration stays what it is.
Key key_of(std::string_view name) {
  for (const auto& [record, key] : kOtherNames) {
    if (record == name) return {std::string(key), ""};
  }
  Key out;
  for (const auto& [suffix, unit] : {std::pair("Ms", "ms"), std::pair("Bytes", "B")}) {
    if (!name.ends_with(suffix)) continue;
    name.remove_suffix(std::string_view(suffix).size());
    out.unit = unit;
  }
  for (const char c : name) {
    const bool upper = c >= 'A' && c <= 'Z';
    if (upper) out.name += '_';
    out.name += upper ? static_cast<char>(c - 'A' + 'a') : c;
  }
  return out;
}

std::string plain(const json& value) {
  return value.is_null() ? "" : value.is_string() ? value.get<std::string>() : value.dump();
}

bool is_plain(const json& value) { return value.is_primitive() && !value.is_binary(); }

// {"plugin": "pgoutput", "database": "app"}; both empty: physical.
Result<std::string> slot_of(const json& value) {
  std::string plugin, database;
  for (const auto& [name, v] : value.items()) {
    if ((name != "plugin" && name != "database") || !v.is_string()) {
      return invalid("expected {\"plugin\": text, \"database\": text}");
    }
    (name == "plugin" ? plugin : database) = v.get<std::string>();
  }
  if (plugin.empty() && database.empty()) return std::string("physical");
  return fmt::format("logical:{}:{}", database, plugin);
}

class Changes {
 public:
  Status add(const std::string& key, std::string value) {
    if (out.emplace(key, std::move(value)).second) return {};
    return invalid(fmt::format("{}: is there twice, under two names", key));
  }

  // The names of parameters and slots are somebody's own.
  Status add_map(const std::string& name, const json& value) {
    const bool named = name == "parameters" || name == "slots";
    for (const auto& [inner, v] : value.items()) {
      const std::string key = name + "." + (named ? inner : key_of(inner).name);
      std::string text;
      if (name == "slots" && v.is_object()) {
        auto slot = slot_of(v);
        if (!slot) return invalid(fmt::format("{}: {}", key, slot.error().message));
        text = std::move(*slot);
      } else if (is_plain(v)) {
        text = plain(v);
      } else {
        return invalid(fmt::format("{}: not a text, number or true/false", key));
      }
      if (auto ok = add(key, std::move(text)); !ok) return ok;
    }
    return {};
  }

  std::map<std::string, std::string> out;
};

}  // namespace

Result<std::map<std::string, std::string>> config_changes(const json& body) {
  Changes changes;
  for (const auto& [name, value] : body.items()) {
    const Key key = key_of(name);
    Status ok;
    const bool a_map =
        key.name == "parameters" || key.name == "slots" || key.name == "standby_cluster";
    if (value.is_object() && a_map) {
      ok = changes.add_map(key.name, value);
    } else if (is_plain(value)) {
      const bool with_unit = !key.unit.empty() && value.is_number();
      ok = changes.add(key.name, with_unit ? value.dump() + std::string(key.unit) : plain(value));
    } else {
      ok = invalid(fmt::format("{}: not a text, number or true/false", name));
    }
    if (!ok) return std::unexpected(ok.error());
  }
  if (changes.out.empty() || changes.out.size() > kChangesMax) {
    return invalid(fmt::format("expected 1 to {} settings", kChangesMax));
  }
  return std::move(changes.out);
}

}  // namespace bascule::api
