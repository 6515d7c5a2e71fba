// PostgreSQL's own parser (libpg_query), its tree as a flat list in reading order: walking it needs
// no recursion, so that hostile depth costs no stack. Of the forms that the library offers JSON is
// the cheapest besides its internal structs, whose headers are not shipped; protobuf costs 3 to 5
// times as much (measured: docs/proxy.md, "Cost of the analysis").
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace bascule::sql {

struct TreeNode {
  enum class Kind : uint8_t { kObject, kList, kText, kScalar };
  Kind kind = Kind::kScalar;
  // Of the member in its object: "FuncCall", "funcname"; empty in a list. Never escaped.
  std::string_view key;
  std::string_view text;  // kText: without quotes, escapes as in JSON; kScalar: as written
  bool escaped = false;   // kText: it has escapes; see unescape()
  uint32_t end = 0;       // index after the last node inside; itself + 1 without any
};

class ParseTree {
 public:
  enum class Outcome : uint8_t { kParsed, kSyntaxError, kTooLarge, kBroken };

  ParseTree() = default;
  ~ParseTree();
  ParseTree(const ParseTree&) = delete;
  ParseTree& operator=(const ParseTree&) = delete;

  // `sql` must have passed scan_text() (depth, zero bytes) and end with a zero byte behind its end.
  // The nodes and their views are valid until the next parse() or the end of the object.
  Outcome parse(const char* sql);
  const std::vector<TreeNode>& nodes() const { return nodes_; }

  // The child with this key; 0: none (the root is nobody's child).
  uint32_t child(uint32_t parent, std::string_view key) const;
  // Of a kText: its escapes resolved.
  std::string value(uint32_t node) const;
  // Of the child with this key; empty: none.
  std::string value(uint32_t parent, std::string_view key) const;
  // The strings of a list of String nodes ("funcname": schema and name); others are left out.
  // `list` 0: none.
  std::vector<std::string> names(uint32_t list) const;

  // Reads the library's JSON; public for its tests and fuzzer. `json` must outlive the nodes.
  Outcome read(std::string_view json);

 private:
  static constexpr size_t kNodesMax = 400'000;
  static constexpr size_t kNodesKept = 10'000;  // memory of more is given back at the next parse
  void release();
  std::vector<TreeNode> nodes_;
  std::vector<uint32_t> open_;  // objects and lists around the current place
  char* json_ = nullptr;        // of the library
};

// The text of a JSON string with its escapes resolved.
std::string unescape(std::string_view text);

}  // namespace bascule::sql
