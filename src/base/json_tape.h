// A JSON text as one flat list of its values, in the order of the text. Records are decoded from
// it: no node of a tree is allocated for each value, and fields are found where they were written.
// Internal to control/.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace bascule {

struct JsonValue {
  enum class Kind : uint8_t {
    kNull,
    kBool,
    kUnsigned,
    kNegative,
    kReal,
    kString,
    kObject,  // followed by key (a kString) and value, `count` times
    kArray,   // followed by `count` values
  };
  Kind kind = Kind::kNull;
  bool truth = false;         // kBool
  size_t extent = 1;          // values until the next one that is not within this one
  size_t count = 0;           // kObject, kArray
  uint64_t natural = 0;       // kUnsigned
  int64_t negative = 0;       // kNegative
  std::string_view string{};  // kString

  const JsonValue* begin() const { return this + 1; }
  const JsonValue* end() const { return this + extent; }
  const JsonValue* next() const { return this + extent; }
  // Of an object, the first of that key; nullptr: none, or no object.
  const JsonValue* find(std::string_view key) const;
};

class JsonTape {
 public:
  // What is not JSON in UTF-8, from its first byte to its last, becomes kNull. Any depth.
  explicit JsonTape(std::string_view text);
  JsonTape(const JsonTape&) = delete;
  JsonTape& operator=(const JsonTape&) = delete;
  const JsonValue& root() const { return values_.front(); }

 private:
  std::string text_;  // strings lie in it, unescaped
  std::vector<JsonValue> values_;
};

}  // namespace bascule
