#include "proxy/sql_tokens.h"

#include <algorithm>

namespace bascule::proxy {
namespace {

bool starts_word(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' ||
         (static_cast<unsigned char>(c) & 0x80) != 0;
}
bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_space(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

std::string undouble(std::string_view text, char quote) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    out += text[i];
    if (text[i] == quote && i + 1 < text.size() && text[i + 1] == quote) ++i;
  }
  return out;
}

}  // namespace

std::string lower_case(std::string_view text) {
  std::string out(text);
  for (char& c : out) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c | 32) : c;
  return out;
}

std::string quote_literal(std::string_view text) {
  std::string out = "E'";
  for (const char c : text) {
    if (c == '\'' || c == '\\') out += c;
    out += c;
  }
  return out + "'";
}

std::string quote_identifier(std::string_view text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"') out += c;
    out += c;
  }
  return out + "\"";
}

bool SqlToken::is(std::string_view word) const {
  if (type != Type::kWord && type != Type::kSign) return false;
  return std::equal(text.begin(), text.end(), word.begin(), word.end(),
                    [](char a, char b) { return (a >= 'A' && a <= 'Z' ? a | 32 : a) == b; });
}

std::string SqlToken::identifier() const {
  if (type == Type::kWord) return lower_case(text);
  return undouble(text.substr(1, text.size() - 2), '"');
}

std::string SqlToken::literal() const {
  std::string_view inner = text;
  if (inner.front() == '$') {
    const size_t tag = inner.find('$', 1) + 1;
    return std::string(inner.substr(tag, inner.size() - 2 * tag));
  }
  inner.remove_prefix(inner.find('\'') + 1);
  inner.remove_suffix(1);
  return undouble(inner, '\'');
}

bool SqlStatements::skip_space() {
  while (at_ < sql_.size()) {
    if (is_space(sql_[at_])) {
      ++at_;
    } else if (sql_.substr(at_).starts_with("--")) {
      at_ = std::min(sql_.find_first_of("\n\r", at_), sql_.size());
    } else if (sql_.substr(at_).starts_with("/*")) {
      int depth = 0;
      do {
        const std::string_view rest = sql_.substr(at_);
        if (rest.empty()) return false;
        if (rest.starts_with("/*")) {
          ++depth;
          at_ += 2;
        } else if (rest.starts_with("*/")) {
          --depth;
          at_ += 2;
        } else {
          ++at_;
        }
      } while (depth > 0);
    } else {
      break;
    }
  }
  return true;
}

// Position behind the closing quote; 0: there is none, or a backslash in between.
size_t SqlStatements::quoted_end(size_t from, char quote, bool escapes) {
  for (size_t i = from; i < sql_.size(); ++i) {
    if (sql_[i] == '\\' && quote == '\'') {
      if (!escapes) return 0;
      ++i;
    } else if (sql_[i] == quote) {
      if (i + 1 >= sql_.size() || sql_[i + 1] != quote) return i + 1;
      ++i;
    }
  }
  return 0;
}

bool SqlStatements::dollar_quoted(SqlToken& token) {
  size_t i = at_ + 1;
  if (i < sql_.size() && is_digit(sql_[i])) return false;
  while (i < sql_.size() && (starts_word(sql_[i]) || is_digit(sql_[i]))) ++i;
  if (i >= sql_.size() || sql_[i] != '$') return false;
  const std::string_view tag = sql_.substr(at_, i + 1 - at_);
  const size_t end = sql_.find(tag, i + 1);
  token.type = SqlToken::Type::kString;
  failed_ = end == std::string_view::npos;
  token.text = sql_.substr(at_, failed_ ? sql_.size() : end + tag.size() - at_);
  return true;
}

// Up to the next ';' outside of parentheses the tokens of one statement.
SqlStatements::Read SqlStatements::token(SqlToken& token) {
  using Type = SqlToken::Type;
  if (!skip_space()) failed_ = true;
  if (failed_ || at_ >= sql_.size()) return Read::kEnd;
  const char c = sql_[at_];
  size_t end = at_ + 1;
  token = {};
  const bool escape_string =
      (c == 'e' || c == 'E') && at_ + 1 < sql_.size() && sql_[at_ + 1] == '\'';
  if (c == '\'' || c == '"' || escape_string) {
    token.type = c == '"' ? Type::kQuoted : Type::kString;
    end = quoted_end(at_ + (escape_string ? 2 : 1), c == '"' ? '"' : '\'', escape_string);
    failed_ = end == 0;
  } else if (starts_word(c)) {
    token.type = Type::kWord;
    while (end < sql_.size() &&
           (starts_word(sql_[end]) || is_digit(sql_[end]) || sql_[end] == '$')) {
      ++end;
    }
  } else if (is_digit(c)) {
    token.type = Type::kNumber;
    while (end < sql_.size() &&
           (is_digit(sql_[end]) || starts_word(sql_[end]) || sql_[end] == '.')) {
      ++end;
    }
  } else if (c == '$' && dollar_quoted(token)) {
    end = at_ + token.text.size();
  } else if (c == '$') {
    while (end < sql_.size() && is_digit(sql_[end])) ++end;
    token.type = end > at_ + 1 ? Type::kParameter : Type::kSign;
  }
  if (failed_) return Read::kEnd;
  token.text = sql_.substr(at_, end - at_);
  at_ = end;
  return Read::kToken;
}

bool SqlStatements::next(SqlStatement& statement) {
  statement.tokens.clear();
  statement.cut = false;
  int depth = 0;
  const char* end = nullptr;
  SqlToken t;
  while (token(t) == Read::kToken) {
    const char sign = t.type == SqlToken::Type::kSign ? t.text.front() : '\0';
    if (sign == ';' && depth <= 0) {
      if (statement.tokens.empty()) continue;
      break;
    }
    if (sign == ')' || sign == ']') --depth;
    t.depth = static_cast<int16_t>(std::clamp(depth, 0, 1000));
    if (sign == '(' || sign == '[') ++depth;
    end = t.text.data() + t.text.size();
    if (statement.tokens.size() < kTokensMax) {
      statement.tokens.push_back(t);
    } else {
      statement.cut = true;
    }
  }
  if (failed_ || statement.tokens.empty()) return false;
  const char* begin = statement.tokens.front().text.data();
  statement.text = {begin, static_cast<size_t>(end - begin)};
  statement.number = static_cast<uint16_t>(std::min(count_++, uint32_t{65'535}));
  return true;
}

}  // namespace bascule::proxy
