#include "base/json_tape.h"

#include <rapidjson/reader.h>

namespace bascule {
namespace {

// RapidJSON tells it one value after another.
class Recorder {
 public:
  explicit Recorder(std::vector<JsonValue>& values) : values_(values) {}

  bool Null() { return add({}); }
  bool Bool(bool b) { return add({.kind = JsonValue::Kind::kBool, .truth = b}); }
  bool Int(int i) { return Int64(i); }
  bool Uint(unsigned u) { return Uint64(u); }
  bool Int64(int64_t i) {
    if (i >= 0) return Uint64(static_cast<uint64_t>(i));
    return add({.kind = JsonValue::Kind::kNegative, .negative = i});
  }
  bool Uint64(uint64_t u) { return add({.kind = JsonValue::Kind::kUnsigned, .natural = u}); }
  bool Double(double) { return add({.kind = JsonValue::Kind::kReal}); }
  bool RawNumber(const char*, rapidjson::SizeType, bool) { return false; }
  bool String(const char* s, rapidjson::SizeType size, bool) {
    return add({.kind = JsonValue::Kind::kString, .string = {s, size}});
  }
  bool Key(const char* s, rapidjson::SizeType size, bool copy) { return String(s, size, copy); }
  bool StartObject() { return begin(JsonValue::Kind::kObject); }
  bool EndObject(rapidjson::SizeType count) { return end(count); }
  bool StartArray() { return begin(JsonValue::Kind::kArray); }
  bool EndArray(rapidjson::SizeType count) { return end(count); }

 private:
  bool add(const JsonValue& value) {
    values_.push_back(value);
    return true;
  }
  bool begin(JsonValue::Kind kind) {
    open_.push_back(values_.size());
    return add({.kind = kind});
  }
  bool end(size_t count) {
    JsonValue& value = values_[open_.back()];
    value.count = count;
    value.extent = values_.size() - open_.back();
    open_.pop_back();
    return true;
  }

  std::vector<JsonValue>& values_;
  std::vector<size_t> open_;
};

}  // namespace

const JsonValue* JsonValue::find(std::string_view key) const {
  if (kind != Kind::kObject) return nullptr;
  for (const JsonValue* name = begin(); name != end(); name = name[1].next()) {
    if (name->string == key) return name + 1;
  }
  return nullptr;
}

JsonTape::JsonTape(std::string_view text) : text_(text) {
  constexpr unsigned kFlags = rapidjson::kParseInsituFlag | rapidjson::kParseIterativeFlag |
                              rapidjson::kParseValidateEncodingFlag;
  values_.reserve(text.size() / 8 + 1);
  Recorder recorder(values_);
  rapidjson::Reader reader;
  rapidjson::InsituStringStream stream(text_.data());
  // A zero byte is the end to RapidJSON.
  if (text.contains('\0') || reader.Parse<kFlags>(stream, recorder).IsError()) {
    values_.assign(1, JsonValue{});
  }
}

}  // namespace bascule
