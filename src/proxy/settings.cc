#include "proxy/settings.h"

#include <algorithm>
#include <array>
#include <optional>
#include <utility>

#include "base/hash.h"
#include "proxy/sql_tokens.h"

namespace bascule::proxy {
namespace {

template <size_t N>
bool one_of(std::string_view word, const std::array<std::string_view, N>& words) {
  return std::find(words.begin(), words.end(), word) != words.end();
}

// They decide about time, names or messages, never about what a statement means or returns.
constexpr auto kNotPlanned = std::to_array<std::string_view>(
    {"application_name", "statement_timeout", "lock_timeout", "transaction_timeout",
     "idle_in_transaction_session_timeout", "idle_session_timeout", "client_min_messages",
     "synchronous_commit", "tcp_keepalives_idle", "tcp_keepalives_interval", "tcp_keepalives_count",
     "tcp_user_timeout"});

// Built in, and their check depends on the value alone: what one server took, the next one takes.
constexpr auto kCertain = std::to_array<std::string_view>({"application_name",
                                                           "bytea_output",
                                                           "client_encoding",
                                                           "client_min_messages",
                                                           "datestyle",
                                                           "default_transaction_deferrable",
                                                           "default_transaction_isolation",
                                                           "default_transaction_read_only",
                                                           "enable_seqscan",
                                                           "extra_float_digits",
                                                           "geqo",
                                                           "idle_in_transaction_session_timeout",
                                                           "idle_session_timeout",
                                                           "intervalstyle",
                                                           "jit",
                                                           "lock_timeout",
                                                           "maintenance_work_mem",
                                                           "random_page_cost",
                                                           "row_security",
                                                           "search_path",
                                                           "session characteristics",
                                                           "standard_conforming_strings",
                                                           "statement_timeout",
                                                           "synchronous_commit",
                                                           "timezone",
                                                           "transaction_timeout",
                                                           "work_mem"});

// Lists of identifiers: SET takes a string for one identifier, set_config() for the whole list.
constexpr auto kLists = std::to_array<std::string_view>(
    {"search_path", "temp_tablespaces", "local_preload_libraries", "session_preload_libraries"});

bool changes_role(const Settings& s) {
  return s.find("role") != nullptr || s.find("session authorization") != nullptr;
}

std::string reset_sql(std::string_view name) {
  if (name == "session authorization") return "RESET SESSION AUTHORIZATION;";
  if (name == "session characteristics") {
    return "RESET default_transaction_isolation;RESET default_transaction_read_only;"
           "RESET default_transaction_deferrable;";
  }
  return "RESET " + quote_identifier(name) + ";";
}

std::string key_of(const std::vector<Setting>& list) {
  std::string key;
  for (const Setting& s : list) key.append(s.name).append(1, '\0').append(s.sql).append(1, '\0');
  return key;
}

// As pg_split_opts(): white space separates, a backslash takes the next character literally.
std::vector<std::string> split_options(std::string_view options) {
  std::vector<std::string> words;
  bool in_word = false;
  for (size_t i = 0; i < options.size(); ++i) {
    char c = options[i];
    if (c == ' ' || (c >= '\t' && c <= '\r')) {
      in_word = false;
      continue;
    }
    if (c == '\\' && i + 1 < options.size()) c = options[++i];
    if (!std::exchange(in_word, true)) words.emplace_back();
    words.back() += c;
  }
  return words;
}

// "-c name=value" and "--name=value" only.
std::optional<std::vector<Setting>> parse_options(std::string_view options) {
  std::vector<Setting> settings;
  const std::vector<std::string> words = split_options(options);
  for (size_t i = 0; i < words.size(); ++i) {
    std::string_view word = words[i];
    if (word.starts_with("--")) {
      word.remove_prefix(2);
    } else if (word.starts_with("-c")) {
      word.remove_prefix(2);
      if (word.empty()) {
        if (++i == words.size()) return std::nullopt;
        word = words[i];
      }
    } else {
      return std::nullopt;
    }
    const size_t equals = word.find('=');
    if (equals == 0 || equals == std::string_view::npos) return std::nullopt;
    std::string name(word.substr(0, equals));
    std::replace(name.begin(), name.end(), '-', '_');
    settings.push_back(make_setting(name, word.substr(equals + 1)));
  }
  return settings;
}

void put(std::vector<Setting>& list, Setting setting) {
  std::erase_if(list, [&](const Setting& s) { return s.name == setting.name; });
  list.push_back(std::move(setting));
}

}  // namespace

const Setting* Settings::find(std::string_view name) const {
  const auto it =
      std::find_if(list.begin(), list.end(), [&](const Setting& s) { return s.name == name; });
  return it == list.end() ? nullptr : &*it;
}

SettingsRef SettingsTable::settings(std::vector<Setting> list) {
  const std::string key = key_of(list);
  return settings_.get(key, [&] {
    Settings settings;
    settings.list = std::move(list);
    plan(settings);
    return settings;
  });
}

void SettingsTable::plan(Settings& settings) {
  std::string key;
  for (const Setting& s : settings.list) {
    if (one_of(s.name, kNotPlanned)) continue;
    key.append(s.name).append(1, '\0').append(s.sql).append(1, '\0');
  }
  settings.plan_hash = fnv1a(key);
  // Ids are not used again: forgetting one costs a statement parsed twice.
  if (plans_.size() >= 10'000) plans_.clear();
  const auto [it, fresh] = plans_.emplace(std::move(key), next_plan_);
  if (fresh) ++next_plan_;
  settings.plan_id = it->second;
}

ParametersRef SettingsTable::parameters(const Parameters& parameters) {
  std::string key;
  for (const auto& [name, value] : parameters) {
    key.append(name).append(1, '\0').append(value).append(1, '\0');
  }
  return parameters_.get(key, [&] { return parameters; });
}

std::string difference(const Settings& from, const Settings& to) {
  std::string sql;
  if (&from == &to) return sql;
  // What a role may set depends on the role: everything again, in order.
  const bool all = changes_role(from) || changes_role(to);
  if (all && from.find("session authorization")) sql += reset_sql("session authorization");
  if (all && from.find("role")) sql += reset_sql("role");
  for (const Setting& s : from.list) {
    if (to.find(s.name) == nullptr) sql += reset_sql(s.name);
  }
  for (const Setting& s : to.list) {
    const Setting* old = from.find(s.name);
    if (!all && old != nullptr && old->sql == s.sql) continue;
    if (old != nullptr && s.name == "datestyle") sql += reset_sql(s.name);  // may set half of it
    sql += s.sql;
    sql += ';';
  }
  return sql;
}

bool may_fail(const Settings& from, const Settings& to) {
  if (&from == &to) return false;
  if (changes_role(from) || changes_role(to)) return true;
  return std::any_of(to.list.begin(), to.list.end(), [&](const Setting& s) {
    const Setting* old = from.find(s.name);
    return (old == nullptr || old->sql != s.sql) && !one_of(s.name, kCertain);
  });
}

Setting make_setting(std::string_view name, std::string_view value) {
  std::string key = lower_case(name);
  std::string sql = one_of(key, kLists)
                        ? "SELECT pg_catalog.set_config(" + quote_literal(key) + "," +
                              quote_literal(value) + ",false)"
                        : "SET " + quote_identifier(key) + " = " + quote_literal(value);
  return {std::move(key), std::move(sql)};
}

StartupSettings split_startup(const Parameters& startup) {
  StartupSettings result;
  // As in PostgreSQL: the switches first, then the parameters of their own.
  for (const auto& [name, value] : startup) {
    if (name != "options") continue;
    if (auto settings = parse_options(value)) {
      for (Setting& s : *settings) put(result.settings, std::move(s));
    } else {
      result.rest.emplace_back(name, value);
    }
  }
  for (const auto& [name, value] : startup) {
    if (name != "options") put(result.settings, make_setting(name, value));
  }
  // The order of a message says nothing: equal sets are to be one state.
  std::sort(result.settings.begin(), result.settings.end(),
            [](const Setting& a, const Setting& b) { return a.name < b.name; });
  return result;
}

}  // namespace bascule::proxy
