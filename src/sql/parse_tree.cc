#include "sql/parse_tree.h"

#include <pg_query.h>

#include <charconv>
#include <cstdlib>
#include <string>
#include <utility>

namespace bascule::sql {
namespace {

bool blank(char c) { return c == ' ' || c == '\n' || c == '\r' || c == '\t'; }

}  // namespace

ParseTree::~ParseTree() { release(); }

void ParseTree::release() {
  // Handed out by the library with malloc, apart from the rest of its result.
  std::free(std::exchange(json_, nullptr));
}

ParseTree::Outcome ParseTree::parse(const char* sql) {
  release();
  nodes_.clear();
  if (nodes_.capacity() > kNodesKept) nodes_.shrink_to_fit();
  PgQueryParseResult result = pg_query_parse(sql);
  if (result.error != nullptr) {
    pg_query_free_parse_result(result);
    return Outcome::kSyntaxError;
  }
  json_ = std::exchange(result.parse_tree, nullptr);
  pg_query_free_parse_result(result);
  return json_ == nullptr ? Outcome::kBroken : read(json_);
}

ParseTree::Outcome ParseTree::read(std::string_view json) {
  nodes_.clear();
  open_.clear();
  std::string_view key;
  const char* p = json.data();
  const char* const end = p + json.size();
  const auto text = [&](std::string_view& out, bool& escaped) {
    const char* const begin = ++p;
    for (; p < end && *p != '"'; ++p) {
      if (*p != '\\') continue;
      escaped = true;
      if (++p >= end) return false;
    }
    if (p >= end) return false;
    out = {begin, static_cast<size_t>(p++ - begin)};
    return true;
  };
  const auto add = [&](TreeNode::Kind kind) -> TreeNode& {
    TreeNode& node = nodes_.emplace_back();
    node.kind = kind;
    node.key = std::exchange(key, {});
    node.end = static_cast<uint32_t>(nodes_.size());
    return node;
  };
  while (p < end) {
    if (nodes_.size() > kNodesMax) return Outcome::kTooLarge;
    const char c = *p;
    if (blank(c) || c == ',') {
      ++p;
    } else if (c == '{' || c == '[') {
      ++p;
      add(c == '{' ? TreeNode::Kind::kObject : TreeNode::Kind::kList);
      open_.push_back(static_cast<uint32_t>(nodes_.size() - 1));
    } else if (c == '}' || c == ']') {
      ++p;
      if (open_.empty() || !key.empty()) return Outcome::kBroken;
      TreeNode& closed = nodes_[open_.back()];
      if ((c == '}') != (closed.kind == TreeNode::Kind::kObject)) return Outcome::kBroken;
      closed.end = static_cast<uint32_t>(nodes_.size());
      open_.pop_back();
      if (open_.empty()) break;
    } else if (open_.empty()) {
      return Outcome::kBroken;
    } else if (c == '"') {
      std::string_view found;
      bool escaped = false;
      if (!text(found, escaped)) return Outcome::kBroken;
      const bool in_object = nodes_[open_.back()].kind == TreeNode::Kind::kObject;
      if (in_object && key.empty()) {
        if (p >= end || *p++ != ':' || escaped || found.empty()) return Outcome::kBroken;
        key = found;
        continue;
      }
      TreeNode& node = add(TreeNode::Kind::kText);
      node.text = found;
      node.escaped = escaped;
    } else {
      const char* const begin = p;
      while (p < end && *p != ',' && *p != '}' && *p != ']' && !blank(*p)) ++p;
      if (p == begin) return Outcome::kBroken;
      add(TreeNode::Kind::kScalar).text = {begin, static_cast<size_t>(p - begin)};
    }
  }
  return open_.empty() && !nodes_.empty() ? Outcome::kParsed : Outcome::kBroken;
}

uint32_t ParseTree::child(uint32_t parent, std::string_view key) const {
  for (uint32_t i = parent + 1; i < nodes_[parent].end; i = nodes_[i].end) {
    if (nodes_[i].key == key) return i;
  }
  return 0;
}

std::string ParseTree::value(uint32_t node) const {
  return nodes_[node].escaped ? unescape(nodes_[node].text) : std::string(nodes_[node].text);
}

std::string ParseTree::value(uint32_t parent, std::string_view key) const {
  const uint32_t at = child(parent, key);
  return at == 0 ? std::string() : value(at);
}

std::vector<std::string> ParseTree::names(uint32_t list) const {
  std::vector<std::string> out;
  for (uint32_t i = list + 1; list != 0 && i < nodes_[list].end; i = nodes_[i].end) {
    if (const uint32_t string = child(i, "String"); string != 0)
      out.push_back(value(string, "sval"));
  }
  return out;
}

std::string unescape(std::string_view text) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '\\' || i + 1 == text.size()) {
      out += text[i];
      continue;
    }
    const char c = text[++i];
    switch (c) {
      case 'n':
        out += '\n';
        break;
      case 't':
        out += '\t';
        break;
      case 'r':
        out += '\r';
        break;
      case 'b':
        out += '\b';
        break;
      case 'f':
        out += '\f';
        break;
      case 'u': {
        // The library writes only bytes below 0x20 and <, > this way.
        unsigned code = '?';
        if (i + 4 < text.size()) std::from_chars(&text[i + 1], &text[i] + 5, code, 16);
        out += code < 128 ? static_cast<char>(code) : '?';
        i += 4;
        break;
      }
      default:
        out += c;
    }
  }
  return out;
}

}  // namespace bascule::sql
