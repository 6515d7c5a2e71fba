#include "cli/yaml_reader.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>

namespace bascule::cli {
namespace {

std::string describe(const YAML::Node& node) {
  if (node.IsScalar()) return fmt::format("\"{}\"", node.Scalar());
  if (node.IsSequence()) return "a list";
  if (node.IsMap()) return "a mapping";
  return "nothing";
}

template <typename T>
std::optional<T> number_within(const YAML::Node& node, T min, T max) {
  if (!node.IsScalar()) return {};
  const std::string& text = node.Scalar();
  T number{};
  const auto [stop, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  const bool whole = error == std::errc() && stop == text.data() + text.size();
  // So that NaN is not within.
  if (!whole || !(number >= min && number <= max)) return {};
  return number;
}

}  // namespace

void Problems::add(const YAML::Node& at, std::string key, std::string what) {
  const YAML::Mark mark = at ? at.Mark() : YAML::Mark::null_mark();
  list.push_back({mark.is_null() ? 0 : mark.line + 1, std::move(key), std::move(what)});
}

MapReader::MapReader(Problems& problems, const YAML::Node& node, std::string path)
    : problems_(problems), node_(node), path_(std::move(path)) {
  if (!node || node.IsNull()) return;
  if (!node.IsMap()) {
    problems_.add(node, path_, fmt::format("expected keys and values, found {}", describe(node)));
    return;
  }
  for (const auto& entry : node) {
    if (!entry.first.IsScalar()) {
      problems_.add(entry.first, path_, "a key must be a word");
      continue;
    }
    const std::string& key = entry.first.Scalar();
    if (!values_.emplace(key, entry.second).second) {
      problems_.add(entry.first, path_of(key), "is there twice");
    }
    keys_.emplace(key, entry.first);
  }
}

std::string MapReader::path_of(const std::string& key) const {
  return path_.empty() ? key : path_ + "." + key;
}

YAML::Node MapReader::take(const std::string& key, Need need, KeyFact fact) {
  asked_.push_back(key);
  if (problems_.facts) {
    fact.path = path_of(key);
    fact.required = need == Need::kRequired;
    problems_.facts->push_back(std::move(fact));
  }
  const auto found = values_.find(key);
  if (found != values_.end() && !found->second.IsNull()) return found->second;
  if (need == Need::kRequired) problems_.add(node_, path_of(key), "is missing");
  return YAML::Node(YAML::NodeType::Undefined);
}

YAML::Node MapReader::raw(const std::string& key) {
  return take(key, Need::kOptional, {.kind = KeyKind::kList});
}

void MapReader::problem(const std::string& key, std::string what) {
  const auto found = values_.find(key);
  problems_.add(found == values_.end() ? node_ : found->second, path_of(key), std::move(what));
}

bool MapReader::text(const std::string& key, std::string& out, Need need, Empty empty) {
  const YAML::Node value = take(key, need, {.kind = KeyKind::kText, .fallback = out});
  if (!value) return false;
  if (!value.IsScalar() || (value.Scalar().empty() && empty == Empty::kRefused)) {
    problem(key, fmt::format("expected a text, found {}", describe(value)));
    return true;
  }
  out = value.Scalar();
  return true;
}

bool MapReader::integer(const std::string& key, int64_t& out, IntRange range, Need need) {
  const YAML::Node value = take(key, need,
                                {.kind = KeyKind::kInteger,
                                 .fallback = std::to_string(out),
                                 .min = std::to_string(range.min),
                                 .max = range.max == INT64_MAX ? "" : std::to_string(range.max)});
  if (!value) return false;
  const auto number = number_within<int64_t>(value, range.min, range.max);
  if (!number) {
    const std::string expected =
        range.max == INT64_MAX ? fmt::format("a whole number of at least {}", range.min)
                               : fmt::format("a whole number from {} to {}", range.min, range.max);
    problem(key, fmt::format("expected {}, found {}", expected, describe(value)));
    return true;
  }
  out = *number;
  return true;
}

bool MapReader::integer(const std::string& key, int& out, IntRange range, Need need) {
  int64_t number = out;
  range.max = std::min<int64_t>(range.max, INT32_MAX);
  const bool present = integer(key, number, range, need);
  out = static_cast<int>(number);
  return present;
}

bool MapReader::number(const std::string& key, double& out, NumberRange range) {
  const YAML::Node value = take(key, Need::kOptional,
                                {.kind = KeyKind::kNumber,
                                 .fallback = fmt::format("{}", out),
                                 .min = fmt::format("{}", range.min),
                                 .max = fmt::format("{}", range.max)});
  if (!value) return false;
  const auto number = number_within<double>(value, range.min, range.max);
  if (!number) {
    problem(key, fmt::format("expected a number from {} to {}, found {}", range.min, range.max,
                             describe(value)));
    return true;
  }
  out = *number;
  return true;
}

bool MapReader::integer(const std::string& key, std::optional<int>& out, IntRange range) {
  int value = 0;
  const bool there = integer(key, value, range);
  forget_fallback();
  if (there) out = value;
  return there;
}

bool MapReader::duration(const std::string& key, std::optional<Millis>& out, DurationRange range) {
  Millis value{0};
  const bool there = duration(key, value, range);
  forget_fallback();
  if (there) out = value;
  return there;
}

bool MapReader::choice(const std::string& key, std::optional<int>& out,
                       const std::vector<std::string>& words) {
  int value = 0;
  const bool there = choice(key, value, words);
  forget_fallback();
  if (there) out = value;
  return there;
}

// The variable that was read into was made for the reading: what it held is nobody's default.
void MapReader::forget_fallback() {
  if (problems_.facts) problems_.facts->back().fallback.clear();
}

bool MapReader::flag(const std::string& key, bool& out) {
  const YAML::Node value =
      take(key, Need::kOptional, {.kind = KeyKind::kFlag, .fallback = out ? "true" : "false"});
  if (!value) return false;
  bool flag = false;
  if (!value.IsScalar() || !YAML::convert<bool>::decode(value, flag)) {
    problem(key, fmt::format("expected true or false, found {}", describe(value)));
    return true;
  }
  out = flag;
  return true;
}

bool MapReader::duration(const std::string& key, Millis& out, DurationRange range) {
  const YAML::Node value =
      take(key, Need::kOptional,
           {.kind = KeyKind::kDuration,
            .fallback = format_duration(out),
            .min = format_duration(range.min),
            .max = range.max == Millis::max() ? "" : format_duration(range.max)});
  if (!value) return false;
  if (!value.IsScalar()) {
    problem(key, fmt::format("expected a duration like 5s, found {}", describe(value)));
    return true;
  }
  const auto parsed = parse_duration(value.Scalar());
  if (!parsed) {
    problem(key, parsed.error().to_string());
  } else if (*parsed < range.min || *parsed > range.max) {
    problem(key, range.max == Millis::max()
                     ? fmt::format("must be at least {}", format_duration(range.min))
                     : fmt::format("must be from {} to {}", format_duration(range.min),
                                   format_duration(range.max)));
  } else {
    out = *parsed;
  }
  return true;
}

bool MapReader::size(const std::string& key, uint64_t& out, uint64_t min) {
  const YAML::Node value =
      take(key, Need::kOptional,
           {.kind = KeyKind::kSize, .fallback = format_size(out), .min = format_size(min)});
  if (!value) return false;
  if (!value.IsScalar()) {
    problem(key, fmt::format("expected a size like 16MB, found {}", describe(value)));
    return true;
  }
  const auto parsed = parse_size(value.Scalar());
  if (!parsed) {
    problem(key, parsed.error().to_string());
  } else if (*parsed < min) {
    problem(key, fmt::format("must be at least {}", format_size(min)));
  } else {
    out = *parsed;
  }
  return true;
}

bool MapReader::address(const std::string& key, HostPort& out, Need need) {
  const YAML::Node value =
      take(key, need, {.kind = KeyKind::kAddress, .fallback = out.port > 0 ? out.to_string() : ""});
  if (!value) return false;
  const auto parsed = parse_host_port(value.IsScalar() ? value.Scalar() : "");
  if (!parsed) {
    problem(key, fmt::format("expected an address and a port like 127.0.0.1:6432, found {}",
                             describe(value)));
  } else {
    out = *parsed;
  }
  return true;
}

bool MapReader::choice(const std::string& key, int& out, const std::vector<std::string>& words) {
  const YAML::Node value = take(key, Need::kOptional,
                                {.kind = KeyKind::kChoice,
                                 .fallback = out >= 0 ? words[static_cast<size_t>(out)] : "",
                                 .words = words});
  if (!value) return false;
  const auto found = value.IsScalar() ? std::ranges::find(words, value.Scalar()) : words.end();
  if (found == words.end()) {
    const std::string near = value.IsScalar() ? nearest(value.Scalar(), words) : "";
    problem(key,
            fmt::format("expected one of {}, found {}{}", fmt::join(words, ", "), describe(value),
                        near.empty() ? "" : fmt::format("; did you mean \"{}\"?", near)));
  } else {
    out = static_cast<int>(found - words.begin());
  }
  return true;
}

bool MapReader::text_map(const std::string& key, std::map<std::string, std::string>& out) {
  const YAML::Node value = take(key, Need::kOptional, {.kind = KeyKind::kTextMap});
  if (!value) return false;
  if (!value.IsMap()) {
    problem(key, fmt::format("expected keys and values, found {}", describe(value)));
    return true;
  }
  for (const auto& entry : value) {
    if (!entry.first.IsScalar() || !entry.second.IsScalar()) {
      problems_.add(entry.first, path_of(key), "every value must be a text or a number");
      continue;
    }
    out[entry.first.Scalar()] = entry.second.Scalar();
  }
  return true;
}

bool MapReader::text_list(const std::string& key, std::vector<std::string>& out) {
  const YAML::Node value = take(key, Need::kOptional, {.kind = KeyKind::kTextList});
  if (!value) return false;
  if (!value.IsSequence()) {
    problem(key, fmt::format("expected a list, found {}", describe(value)));
    return true;
  }
  for (const auto& entry : value) {
    if (entry.IsScalar()) {
      out.push_back(entry.Scalar());
    } else {
      problems_.add(entry, path_of(key), "every item must be a text");
    }
  }
  return true;
}

MapReader MapReader::map(const std::string& key) {
  return MapReader(problems_, take(key, Need::kOptional, {.kind = KeyKind::kMap}), path_of(key));
}

void MapReader::finish() {
  for (const auto& [key, at] : keys_) {
    if (std::ranges::find(asked_, key) != asked_.end()) continue;
    const std::string near = nearest(key, asked_);
    std::vector<std::string> known = asked_;
    std::ranges::sort(known);
    problems_.add(at, path_of(key),
                  near.empty() ? fmt::format("unknown key; known here: {}", fmt::join(known, ", "))
                               : fmt::format("unknown key; did you mean \"{}\"?", near));
  }
}

}  // namespace bascule::cli
