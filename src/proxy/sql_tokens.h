// SQL text as tokens, statement by statement, by the rules of PostgreSQL's lexer
// (https://www.postgresql.org/docs/15/sql-syntax-lexical.html). For short texts that are read once.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace bascule::proxy {

struct SqlToken {
  enum class Type : uint8_t {
    kWord,    // key word or identifier
    kQuoted,  // "identifier"
    kString,  // '...', E'...', $$...$$
    kNumber,
    kParameter,  // $1
    kSign,       // one byte of anything else
  };
  Type type = Type::kSign;
  int16_t depth = 0;      // of parentheses; those themselves count to the outside
  std::string_view text;  // as written

  // A word or sign; `word` in lower case.
  bool is(std::string_view word) const;
  std::string identifier() const;  // kWord, kQuoted: as PostgreSQL compares it
  std::string literal() const;     // kString: its value; escapes of E'...' are left as they are
};

struct SqlStatement {
  std::string_view text;  // from its first token to its last
  uint16_t number = 0;    // in the text, from 0; empty ones are not counted
  bool cut = false;       // it has more tokens than these
  std::vector<SqlToken> tokens;
};

class SqlStatements {
 public:
  explicit SqlStatements(std::string_view sql) : sql_(sql) {}
  // False: there is no further one, or the text can't be told apart.
  bool next(SqlStatement& statement);
  // A quote or comment without its end, or a backslash in a '...' literal, whose meaning depends on
  // a setting.
  bool failed() const { return failed_; }

 private:
  static constexpr size_t kTokensMax = 400;
  enum class Read { kToken, kEnd };
  Read token(SqlToken& token);
  bool skip_space();
  size_t quoted_end(size_t from, char quote, bool escapes);
  bool dollar_quoted(SqlToken& token);

  std::string_view sql_;
  size_t at_ = 0;
  uint32_t count_ = 0;
  bool failed_ = false;
};

std::string lower_case(std::string_view text);  // ASCII
std::string quote_literal(std::string_view text);
std::string quote_identifier(std::string_view text);

}  // namespace bascule::proxy
