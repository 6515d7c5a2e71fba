// One description of a record's fields serves both ways. JsonReader and JsonWriter have the same
// verbs, so that
//
//     static void fields(auto& f, Of<Ballot> auto& b) {
//       f.name("member", b.member);
//       f.required("answers", b.answers);
//       f.check(!b.member.empty(), "member is missing");
//     }
//
// is what write_record(ballot) writes and read_record<Ballot>(text, "ballot") accepts. Reading: the
// first thing that is wrong is kept and reported; absent fields leave the default unless
// `required`. fields() is found by its record's namespace, so it can't be in an unnamed one.
// Internal to control/.
#pragma once

#include <fmt/format.h>

#include <algorithm>
#include <concepts>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "base/json_tape.h"
#include "base/result.h"
#include "base/time.h"
#include "base/types.h"

namespace bascule::control {

template <typename Enum, size_t N>
std::string_view name_of(const std::pair<Enum, std::string_view> (&table)[N], Enum value) {
  for (const auto& [v, name] : table) {
    if (v == value) return name;
  }
  return "?";
}

// `auto&` that takes a record to be read (T) and one to be written (const T).
template <typename Record, typename T>
concept Of = std::same_as<std::remove_const_t<Record>, T>;

class JsonReader {
 public:
  // `value` and `what` are looked at as long as this lives.
  JsonReader(const JsonValue& value, std::string_view what)
      : value_(value), next_(value.begin()), what_(what) {
    if (value_.kind != Kind::kObject) wrong("not a JSON object");
  }

  template <typename Int>
  void number(std::string_view key, Int& out) {
    if (const auto* v = find(key)) read_int(key, *v, out);
  }
  template <typename Int>
  void required(std::string_view key, Int& out) {
    if (const auto* v = find(key)) {
      read_int(key, *v, out);
    } else {
      wrong(fmt::format("{} is missing", key));
    }
  }
  void duration(std::string_view key, Millis& out) {
    int64_t ms = out.count();
    number(key, ms);
    check(ms >= 0 && ms <= 1000LL * 3600 * 24 * 365, "a duration is out of range");
    out = Millis(ms);
  }
  // 0 to the year 9999, which is what to_iso8601 can print.
  void wall(std::string_view key, WallTime& out) {
    constexpr int64_t kLatest = 253402300799999;
    int64_t ms = out.time_since_epoch().count();
    number(key, ms);
    check(ms >= 0 && ms <= kLatest, "a time is out of range");
    out = WallTime(Millis(ms >= 0 && ms <= kLatest ? ms : 0));
  }
  template <typename Int>
  void optional(std::string_view key, std::optional<Int>& out) {
    if (const auto* v = find(key)) read_int(key, *v, out.emplace());
  }
  void boolean(std::string_view key, bool& out) {
    if (const auto* v = find(key)) {
      if (v->kind == Kind::kBool)
        out = v->truth;
      else
        wrong(fmt::format("{} is not true or false", key));
    }
  }
  void text(std::string_view key, std::string& out) {
    if (const auto* v = find(key)) {
      if (v->kind == Kind::kString)
        out = v->string;
      else
        wrong(fmt::format("{} is not a string", key));
    }
  }
  // "" is nobody.
  void name(std::string_view key, NodeName& out) {
    const std::string_view s = word(key);
    if (!s.empty()) parse_name(s, out);
  }
  void names(std::string_view key, std::vector<NodeName>& out) {
    const auto* v = find(key);
    if (!v) return;
    if (v->kind != Kind::kArray || v->count > 256)
      return wrong(fmt::format("{} is not a list", key));
    for (const auto* item = v->begin(); item != v->end(); item = item->next()) {
      NodeName n;
      if (item->kind == Kind::kString)
        parse_name(item->string, n);
      else
        wrong(fmt::format("{} has an item that is not a string", key));
      out.push_back(std::move(n));
    }
  }
  void texts(std::string_view key, std::vector<std::string>& out) {
    const auto* v = find(key);
    if (!v) return;
    if (v->kind != Kind::kArray || v->count > 256)
      return wrong(fmt::format("{} is not a list", key));
    for (const auto* item = v->begin(); item != v->end(); item = item->next()) {
      if (item->kind == Kind::kString)
        out.emplace_back(item->string);
      else
        wrong(fmt::format("{} has an item that is not a string", key));
    }
  }
  void lsn(std::string_view key, Lsn& out) {
    const std::string_view s = word(key);
    if (s.empty()) return;
    if (auto parsed = Lsn::parse(s))
      out = *parsed;
    else
      wrong(fmt::format("{}: {}", key, parsed.error().message));
  }
  void position(std::string_view key, Position& out) {
    const auto* v = find(key);
    if (!v) return;
    JsonReader inner(*v, key);
    inner.number("timeline", out.timeline.value);
    inner.lsn("lsn", out.lsn);
    if (auto ok = inner.status(); !ok) wrong(ok.error().message);
  }
  template <typename Enum, size_t N>
  void choice(std::string_view key, const std::pair<Enum, std::string_view> (&table)[N],
              Enum& out) {
    const std::string_view s = word(key);
    if (s.empty()) return;
    for (const auto& [v, n] : table) {
      if (n == s) {
        out = v;
        return;
      }
    }
    wrong(fmt::format("{}: \"{}\" is not known", key, s.substr(0, 40)));
  }
  template <typename Enum, size_t N>
  void required_choice(std::string_view key, const std::pair<Enum, std::string_view> (&table)[N],
                       Enum& out) {
    if (!find(key)) wrong(fmt::format("{} is missing", key));
    choice(key, table, out);
  }
  // A list of records.
  template <typename T>
  void objects(std::string_view key, size_t count_max, std::vector<T>& out) {
    const auto* v = find(key);
    if (!v) return;
    if (v->kind != Kind::kArray || v->count > count_max)
      return wrong(fmt::format("{} is not a list", key));
    for (const auto* item = v->begin(); item != v->end(); item = item->next()) {
      JsonReader inner(*item, key);
      fields(inner, out.emplace_back());
      if (auto ok = inner.status(); !ok) return wrong(ok.error().message);
    }
  }
  // {...}, if it is there.
  template <typename T>
  void object(std::string_view key, std::optional<T>& out) {
    const auto* v = find(key);
    if (!v) return;
    JsonReader inner(*v, key);
    fields(inner, out.emplace());
    if (auto ok = inner.status(); !ok) wrong(ok.error().message);
  }
  // {"name": {...}, ...}
  template <typename T>
  void object_map(std::string_view key, size_t count_max, std::map<std::string, T>& out) {
    const auto* v = find(key);
    if (!v) return;
    if (v->kind != Kind::kObject || v->count > count_max)
      return wrong(fmt::format("{} is no map", key));
    for (const auto* name = v->begin(); name != v->end(); name = name[1].next()) {
      JsonReader inner(name[1], key);
      fields(inner, out[std::string(name->string)]);
      if (auto ok = inner.status(); !ok) return wrong(ok.error().message);
    }
  }
  void text_map(std::string_view key, size_t count_max, std::map<std::string, std::string>& out) {
    const auto* v = find(key);
    if (!v) return;
    if (v->kind != Kind::kObject || v->count > count_max)
      return wrong(fmt::format("{} is no map", key));
    for (const auto* name = v->begin(); name != v->end(); name = name[1].next()) {
      if (name[1].kind != Kind::kString) {
        return wrong(fmt::format("{}.{} is not a string", key, name->string));
      }
      out[std::string(name->string)] = name[1].string;
    }
  }
  void check(bool good, std::string_view otherwise) {
    if (!good) wrong(std::string(otherwise));
  }

  Status status() const {
    if (!error_) return {};
    return fail(ErrorCode::kInvalid, fmt::format("{}: {}", what_, *error_));
  }

 private:
  using Kind = JsonValue::Kind;

  // From behind what was found last: fields are nearly always asked for in the order in which they
  // were written. Of several with one key, that is the next one.
  const JsonValue* find(std::string_view key) {
    if (value_.kind != Kind::kObject) return nullptr;
    for (const auto* name = next_; name != value_.end(); name = name[1].next()) {
      if (name->string == key) return found(name);
    }
    for (const auto* name = value_.begin(); name != next_; name = name[1].next()) {
      if (name->string == key) return found(name);
    }
    return nullptr;
  }
  const JsonValue* found(const JsonValue* name) {
    next_ = name[1].next();
    return name + 1;
  }
  // "": absent, empty, or no string.
  std::string_view word(std::string_view key) {
    const auto* v = find(key);
    if (v && v->kind != Kind::kString) wrong(fmt::format("{} is not a string", key));
    return v ? v->string : std::string_view{};
  }
  template <typename Int>
  void read_int(std::string_view key, const JsonValue& v, Int& out) {
    if (v.kind == Kind::kUnsigned ? std::in_range<Int>(v.natural)
                                  : v.kind == Kind::kNegative && std::in_range<Int>(v.negative)) {
      out = v.kind == Kind::kUnsigned ? static_cast<Int>(v.natural) : static_cast<Int>(v.negative);
    } else if (v.kind == Kind::kUnsigned || v.kind == Kind::kNegative) {
      wrong(fmt::format("{} is out of range", key));
    } else {
      wrong(fmt::format("{} is not a whole number", key));
    }
  }
  void parse_name(std::string_view s, NodeName& out) {
    if (auto parsed = NodeName::parse(s))
      out = *parsed;
    else
      wrong(parsed.error().message);
  }
  void wrong(std::string why) {
    if (!error_) error_ = std::move(why);
  }

  const JsonValue& value_;
  const JsonValue* next_;  // behind the field that was found last
  std::string_view what_;
  std::optional<std::string> error_;
};

// Text at once: a leader writes records several times a second.
class JsonWriter {
 public:
  template <typename Int>
  void number(std::string_view key, const Int& in) {
    field(key);
    const fmt::format_int digits(in);
    out_.append(digits.data(), digits.size());
  }
  template <typename Int>
  void required(std::string_view key, const Int& in) {
    number(key, in);
  }
  template <typename Int>
  void optional(std::string_view key, const std::optional<Int>& in) {
    if (in) number(key, *in);
  }
  void duration(std::string_view key, const Millis& in) { number(key, in.count()); }
  void wall(std::string_view key, const WallTime& in) {
    number(key, in.time_since_epoch().count());
  }
  void boolean(std::string_view key, const bool& in) {
    field(key);
    out_ += in ? "true" : "false";
  }
  void text(std::string_view key, std::string_view in) {
    field(key);
    quote(in);
  }
  void texts(std::string_view key, const std::vector<std::string>& in) {
    list(key, in, [this](const std::string& item) { quote(item); });
  }
  void text_map(std::string_view key, size_t, const std::map<std::string, std::string>& in) {
    map(key, in, [this](const std::string& item) { quote(item); });
  }
  void name(std::string_view key, const NodeName& in) { text(key, in.str()); }
  void names(std::string_view key, const std::vector<NodeName>& in) {
    list(key, in, [this](const NodeName& item) { quote(item.str()); });
  }
  void lsn(std::string_view key, const Lsn& in) { text(key, in.to_string()); }
  void position(std::string_view key, const Position& in) {
    field(key);
    out_ += '{';
    number("timeline", in.timeline.value);
    lsn("lsn", in.lsn);
    out_ += '}';
  }
  template <typename Enum, size_t N>
  void choice(std::string_view key, const std::pair<Enum, std::string_view> (&table)[N],
              const Enum& in) {
    text(key, name_of(table, in));
  }
  template <typename Enum, size_t N>
  void required_choice(std::string_view key, const std::pair<Enum, std::string_view> (&table)[N],
                       const Enum& in) {
    choice(key, table, in);
  }
  template <typename T>
  void objects(std::string_view key, size_t, const std::vector<T>& in) {
    list(key, in, [this](const T& item) { write(item); });
  }
  template <typename T>
  void object(std::string_view key, const std::optional<T>& in) {
    if (!in) return;
    field(key);
    write(*in);
  }
  template <typename T>
  void object_map(std::string_view key, size_t, const std::map<std::string, T>& in) {
    map(key, in, [this](const T& item) { write(item); });
  }
  void check(bool, std::string_view) {}

  template <typename T>
  void write(const T& record) {
    out_ += '{';
    fields(*this, record);
    out_ += '}';
  }
  std::string take() { return std::move(out_); }

 private:
  void separate() {
    if (out_.back() != '{' && out_.back() != '[') out_ += ',';
  }
  void field(std::string_view key) {
    separate();
    quote(key);
    out_ += ':';
  }
  // Bytes that are not UTF-8 are replaced instead of thrown about: a reason may quote a server's
  // message.
  void quote(std::string_view in) {
    const auto plain = [](unsigned char c) {
      return c >= 0x20 && c < 0x7f && c != '"' && c != '\\';
    };
    if (std::ranges::all_of(in, plain)) {
      out_ += '"';
      out_ += in;
      out_ += '"';
    } else {
      out_ += nlohmann::json(in).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
    }
  }
  template <typename Items, typename Write>
  void list(std::string_view key, const Items& items, Write write_item) {
    field(key);
    out_ += '[';
    for (const auto& item : items) {
      separate();
      write_item(item);
    }
    out_ += ']';
  }
  template <typename Items, typename Write>
  void map(std::string_view key, const Items& items, Write write_item) {
    field(key);
    out_ += '{';
    for (const auto& [name, item] : items) {
      field(name);
      write_item(item);
    }
    out_ += '}';
  }

  std::string out_;
};

template <typename T>
std::string write_record(const T& record) {
  JsonWriter writer;
  writer.write(record);
  return writer.take();
}

template <typename T>
Result<T> read_record(std::string_view text, std::string_view what) {
  const JsonTape tape(text);
  JsonReader reader(tape.root(), what);
  T record;
  fields(reader, record);
  if (auto ok = reader.status(); !ok) return std::unexpected(ok.error());
  return record;
}

}  // namespace bascule::control
