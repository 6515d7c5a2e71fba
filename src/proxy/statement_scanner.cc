#include "proxy/statement_scanner.h"

#include <algorithm>
#include <array>
#include <utility>

namespace bascule::proxy {
namespace {

constexpr bool is_word(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
         (static_cast<unsigned char>(c) & 0x80) != 0;
}

// By byte: its lower case if it can be part of a word, else 0. Every statement passes here.
constexpr std::array<char, 256> kWordBytes = [] {
  std::array<char, 256> table{};
  for (size_t i = 0; i < table.size(); ++i) {
    const char c = static_cast<char>(i);
    if (is_word(c)) table[i] = c >= 'A' && c <= 'Z' ? static_cast<char>(c | 32) : c;
  }
  return table;
}();

// What a byte can mean between the words that matter.
enum class Byte : uint8_t { kPlain, kWord, kSign };
constexpr std::array<Byte, 256> kByteKinds = [] {
  std::array<Byte, 256> table{};
  for (size_t i = 0; i < table.size(); ++i) {
    if (kWordBytes[i] != 0) table[i] = Byte::kWord;
  }
  for (const char c : {'\'', '"', '-', '/', '*', '$', ';'}) {
    table[static_cast<unsigned char>(c)] = Byte::kSign;
  }
  return table;
}();

Byte kind_of(char c) { return kByteKinds[static_cast<unsigned char>(c)]; }

// Cheap, and true of every word that StatementScanner::anywhere() acts upon unless it follows INTO.
bool may_matter(std::string_view word) {
  switch (word.front() | 32) {
    case 'i':
      return word.size() == 4;  // into
    case 's':
      return word.size() == 10;  // set_config
    case 'p':
      return word.size() > 3 && word[2] == '_';  // pg_...
    default:
      return false;
  }
}

bool is_space(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

template <size_t N>
bool one_of(std::string_view word, const std::array<std::string_view, N>& words) {
  return std::find(words.begin(), words.end(), word) != words.end();
}

}  // namespace

std::string_view describe(Pin pin) {
  switch (pin) {
    case Pin::kNone:
      return "";
    case Pin::kTemporary:
      return "it has temporary tables";
    case Pin::kListen:
      return "it listens to notifications";
    case Pin::kPrepare:
      return "it has statements prepared with PREPARE";
    case Pin::kHoldCursor:
      return "it has cursors WITH HOLD";
    case Pin::kAdvisoryLock:
      return "it may hold advisory locks";
    case Pin::kSetConfig:
      return "it used set_config()";
    case Pin::kLoad:
      return "it used LOAD";
    case Pin::kSettings:
      return "it has settings that the proxy could not follow";
    case Pin::kPrepared:
      return "it has more prepared statements than the proxy remembers";
    case Pin::kUnclear:
      return "it ran what may have left something behind";
  }
  return "";
}

void Effects::merge(const Effects& later) {
  may_write |= later.may_write;
  has_effect |= later.has_effect;
  commits |= later.commits;
  not_atomic |= later.not_atomic;
  sets |= later.sets;
  deallocates |= later.deallocates;
  executes |= later.executes;
  savepoints |= later.savepoints;
  undoes |= later.undoes;
  statements = static_cast<uint16_t>(std::min(65535, statements + later.statements));
  if (later.transaction != TransactionEffect::kNone) transaction = later.transaction;
  if (pin == Pin::kNone) pin = later.pin;
}

void StatementScanner::begin() {
  mode_ = Mode::kNormal;
  first_ = First::kNone;
  previous_ = 0;
  word_size_ = 0;
  word_index_ = 0;
  after_into_ = after_with_ = after_no_ = chain_ = to_savepoint_ = create_prefix_ = do_ = false;
  effects_ = Effects{};
}

void StatementScanner::feed(std::string_view text) {
  for (size_t i = 0; i < text.size();) {
    switch (mode_) {
      case Mode::kNormal:
        i += dull(text.substr(i));
        i += word(text.substr(i));
        if (i < text.size()) sign(text[i++]);
        break;
      case Mode::kDollarTag:
      case Mode::kDollarBody:
        dollar(text[i++]);
        break;
      default:
        quoted(text[i++]);
        break;
    }
  }
}

// How many bytes at the front can be passed over: inside of a plain read or write, whole words that
// mean nothing and what stands between them. Most of most statements.
size_t StatementScanner::dull(std::string_view text) {
  const bool plain = first_ == First::kRead || first_ == First::kWrite;
  if (!plain || word_size_ > 0 || after_into_) return 0;
  const char* const end = text.data() + text.size();
  const char* dull = text.data();
  for (const char* at = dull; at != end;) {
    const Byte kind = kind_of(*at);
    if (kind == Byte::kSign) break;
    if (kind == Byte::kWord) {
      do {
        ++at;
      } while (at != end && kind_of(*at) == Byte::kWord);
      // It may go on, or be part of what the sign means.
      if (at == end || kind_of(*at) == Byte::kSign || may_matter({dull, at})) break;
    } else {
      ++at;
    }
    dull = at;
  }
  if (dull != text.data()) previous_ = dull[-1];
  return static_cast<size_t>(dull - text.data());
}

// How many bytes at the front belong to the current word, or begin one.
size_t StatementScanner::word(std::string_view text) {
  size_t size = word_size_, n = 0;
  for (; n < text.size(); ++n) {
    char c = kWordBytes[static_cast<unsigned char>(text[n])];
    if (c == 0 && text[n] == '$' && size > 0) c = '$';
    if (c == 0) break;
    if (size < kWordMax) word_[size] = c;
    if (size <= kWordMax) ++size;
  }
  word_size_ = static_cast<uint8_t>(size);
  if (n > 0) previous_ = text[n - 1];
  return n;
}

void StatementScanner::sign(char c) {
  const bool escape = word_size_ == 1 && word_[0] == 'e' && c == '\'';
  if (escape) word_size_ = 0;
  if (word_size_ > 0) end_word();
  if (is_space(c)) {
    previous_ = c;
    return;
  }
  switch (c) {
    case '\'':
      if (do_) pin(Pin::kUnclear);
      mode_ = escape ? Mode::kEscapeQuote : Mode::kQuote;
      escaped_ = false;
      break;
    case '"':
      mode_ = Mode::kIdentifier;
      break;
    case '-':
      if (previous_ == '-') mode_ = Mode::kLineComment;
      break;
    case '*':
      if (previous_ == '/') {
        mode_ = Mode::kBlockComment;
        depth_ = 1;
        c = 0;
      }
      break;
    case '$':
      mode_ = Mode::kDollarTag;
      tag_size_ = 0;
      break;
    case ';':
      end_statement();
      break;
    default:
      break;
  }
  // A statement may begin with a parenthesis, never with another sign: it is not a read that
  // counts.
  if (c != '(' && c != '-' && c != '/' && c != '*' && c != ';' && c != 0 &&
      first_ == First::kNone) {
    first_ = First::kOther;
    effects_.may_write = effects_.has_effect = true;
  }
  previous_ = c;
}

void StatementScanner::quoted(char c) {
  switch (mode_) {
    case Mode::kQuote:  // '' ends and begins again: the same in effect
      if (c == '\'') mode_ = Mode::kNormal;
      break;
    case Mode::kEscapeQuote:
      if (escaped_) {
        escaped_ = false;
      } else if (c == '\\') {
        escaped_ = true;
      } else if (c == '\'') {
        mode_ = Mode::kNormal;
      }
      break;
    case Mode::kIdentifier:
      if (c != '"') {
        if (word_size_ < kWordMax) word_[word_size_] = c;
        if (word_size_ <= kWordMax) ++word_size_;
      } else {
        mode_ = Mode::kNormal;
        quoted_name();
        if (word_index_ < 65535) ++word_index_;
        after_into_ = after_with_ = create_prefix_ = false;
      }
      break;
    case Mode::kLineComment:
      if (c == '\n') mode_ = Mode::kNormal;
      break;
    case Mode::kBlockComment:
      if (previous_ == '/' && c == '*') {
        if (depth_ < 255) ++depth_;
        c = 0;
      } else if (previous_ == '*' && c == '/') {
        c = 0;
        if (--depth_ == 0) mode_ = Mode::kNormal;
      }
      break;
    default:
      break;
  }
  previous_ = mode_ == Mode::kNormal ? '\0' : c;
}

void StatementScanner::dollar(char c) {
  if (mode_ == Mode::kDollarTag) {
    if (c == '$') {
      mode_ = Mode::kDollarBody;
      tag_matched_ = 0;
    } else if (is_word(c) && !(tag_size_ == 0 && c >= '0' && c <= '9') && tag_size_ < sizeof tag_) {
      tag_[tag_size_++] = c;
    } else {  // a parameter ($1) or a stray sign
      mode_ = Mode::kNormal;
      previous_ = 0;
      if (word({&c, 1}) == 0) sign(c);
    }
    return;
  }
  if (do_) body(c);
  // tag_matched_: 0, or 1 + the number of tag bytes seen after a '$'.
  if (c == '$') {
    if (tag_matched_ == tag_size_ + 1) {
      mode_ = Mode::kNormal;
      previous_ = 0;
      word_size_ = 0;
    } else {
      tag_matched_ = 1;
    }
  } else if (tag_matched_ > 0 && tag_matched_ <= tag_size_ && c == tag_[tag_matched_ - 1]) {
    ++tag_matched_;
  } else {
    tag_matched_ = 0;
  }
}

// Of a DO statement. What is put together at run time begins with EXECUTE.
void StatementScanner::body(char c) {
  if (is_word(c)) {
    if (word_size_ < kWordMax) {
      word_[word_size_] = c >= 'A' && c <= 'Z' ? static_cast<char>(c | 32) : c;
    }
    if (word_size_ <= kWordMax) ++word_size_;
    return;
  }
  const std::string_view word(word_, word_size_ <= kWordMax ? word_size_ : 0);
  word_size_ = 0;
  if (word.starts_with("pg_advisory_") || word.starts_with("pg_try_advisory_") ||
      one_of(word, std::to_array<std::string_view>({"set", "set_config", "reset", "execute",
                                                    "prepare", "listen", "load", "temp",
                                                    "temporary", "pg_temp", "discard"}))) {
    pin(Pin::kUnclear);
  }
}

// What can't be told for sure stays so.
void StatementScanner::pin(Pin why) {
  if (effects_.pin != Pin::kUnclear) effects_.pin = why;
}

void StatementScanner::quoted_name() {
  const std::string_view name(word_, word_size_ <= kWordMax ? word_size_ : 0);
  word_size_ = 0;
  const Pin before = std::exchange(effects_.pin, Pin::kNone);
  const bool undoes = effects_.undoes, may_write = effects_.may_write;
  if (!name.empty()) anywhere(name);
  const bool pins = effects_.pin != Pin::kNone;
  effects_.pin = before;
  effects_.undoes = undoes;
  effects_.may_write = may_write;
  if (pins) pin(Pin::kUnclear);
}

void StatementScanner::end_word() {
  const std::string_view word(word_, word_size_ <= kWordMax ? word_size_ : 0);
  word_size_ = 0;
  if (first_ == First::kNone) {
    first_word(word);
  } else if (!word.empty()) {
    later_word(word);
    anywhere(word);
  }
  if (word_index_ < 65535) ++word_index_;
}

void StatementScanner::first_word(std::string_view word) {
  struct Entry {
    std::string_view word;
    First first;
    bool Effects::* flag = nullptr;
    Pin pin = Pin::kNone;
  };
  static constexpr std::array kWords = {
      Entry{"select", First::kRead},
      Entry{"values", First::kRead},
      Entry{"table", First::kRead},
      Entry{"fetch", First::kRead},
      Entry{"move", First::kRead},
      Entry{"show", First::kHarmless},
      Entry{"with", First::kWith},
      Entry{"explain", First::kExplain},
      Entry{"insert", First::kWrite},
      Entry{"update", First::kWrite},
      Entry{"delete", First::kWrite},
      Entry{"merge", First::kWrite},
      Entry{"copy", First::kWrite},
      Entry{"begin", First::kBegin},
      Entry{"start", First::kStart},
      Entry{"commit", First::kCommit},
      Entry{"end", First::kCommit},
      Entry{"rollback", First::kRollback},
      Entry{"abort", First::kRollback},
      Entry{"set", First::kSet},
      Entry{"reset", First::kSet},
      Entry{"prepare", First::kPrepare},
      Entry{"declare", First::kDeclare},
      Entry{"create", First::kCreate},
      Entry{"deallocate", First::kDeallocate},
      Entry{"discard", First::kDeallocate},
      Entry{"savepoint", First::kHarmless, &Effects::savepoints},
      Entry{"release", First::kHarmless, &Effects::savepoints},
      Entry{"close", First::kHarmless, &Effects::undoes},
      Entry{"unlisten", First::kHarmless, &Effects::undoes},
      Entry{"drop", First::kNotAtomic, &Effects::undoes},
      Entry{"execute", First::kNotAtomic, &Effects::executes},
      Entry{"listen", First::kNotAtomic, nullptr, Pin::kListen},
      Entry{"load", First::kNotAtomic, nullptr, Pin::kLoad},
      Entry{"do", First::kNotAtomic},
  };
  ++effects_.statements;
  const auto* it =
      std::find_if(kWords.begin(), kWords.end(), [&](const Entry& e) { return e.word == word; });
  first_ = First::kNotAtomic;
  if (it != kWords.end()) {
    first_ = it->first;
    if (it->flag != nullptr) effects_.*it->flag = true;
    if (it->pin != Pin::kNone) pin(it->pin);
    do_ = word == "do";
  }
  switch (first_) {
    case First::kHarmless:
    case First::kBegin:
    case First::kStart:
      break;
    case First::kRead:
    case First::kWith:
    case First::kExplain:
    case First::kDeclare:
      effects_.has_effect = true;
      break;
    case First::kCommit:
      effects_.commits = effects_.has_effect = true;
      effects_.ends_failed = true;
      break;
    case First::kRollback:
      effects_.ends_failed = effects_.rolls_back = true;
      break;
    case First::kSet:
      effects_.sets = true;
      break;
    case First::kDeallocate:
      effects_.deallocates = true;
      break;
    case First::kCreate:
      create_prefix_ = true;
      [[fallthrough]];
    case First::kNotAtomic:
      effects_.not_atomic = true;
      [[fallthrough]];
    default:
      effects_.may_write = effects_.has_effect = true;
      break;
  }
}

void StatementScanner::later_word(std::string_view word) {
  switch (first_) {
    case First::kCreate:
      if ((create_prefix_ && (word == "temp" || word == "temporary")) || word == "pg_temp") {
        pin(Pin::kTemporary);
      }
      if (word == "execute") effects_.executes = true;
      create_prefix_ =
          create_prefix_ &&
          one_of(word, std::to_array<std::string_view>({"or", "replace", "local", "global"}));
      break;
    case First::kWith:
    case First::kExplain:
      if (one_of(word, std::to_array<std::string_view>(
                           {"insert", "update", "delete", "merge", "into", "create"}))) {
        effects_.may_write = true;
      }
      if (word == "execute") effects_.executes = true;
      if (first_ == First::kExplain && (word == "temp" || word == "temporary")) {
        pin(Pin::kUnclear);
      }
      break;
    case First::kDeclare:
      if (after_with_ && word == "hold") pin(Pin::kHoldCursor);
      after_with_ = word == "with";
      break;
    case First::kPrepare:
      if (word_index_ == 1) {
        if (word == "transaction") {
          effects_.commits = true;
        } else {
          pin(Pin::kPrepare);
          first_ = First::kOther;
        }
      }
      break;
    case First::kCommit:
    case First::kRollback:
      if (word == "to") effects_.savepoints = true;
      if (word == "to" || word == "prepared") to_savepoint_ = true;
      if (word == "chain" && !after_no_) chain_ = true;
      after_no_ = word == "no";
      break;
    default:
      break;
  }
}

void StatementScanner::anywhere(std::string_view word) {
  switch (word.front()) {
    case 'i':
      after_into_ = word == "into";
      if (after_into_ && first_ == First::kRead) effects_.may_write = true;
      return;
    case 't':
      if (after_into_ && (word == "temp" || word == "temporary")) pin(Pin::kTemporary);
      break;
    case 'l':
      if (word == "local" && after_into_) return;
      break;
    case 's':
      if (word == "set_config") pin(Pin::kSetConfig);
      break;
    case 'p':
      if (one_of(word, std::to_array<std::string_view>(
                           {"pg_advisory_lock", "pg_advisory_lock_shared", "pg_try_advisory_lock",
                            "pg_try_advisory_lock_shared"}))) {
        pin(Pin::kAdvisoryLock);
      }
      if (word.starts_with("pg_advisory_unlock")) effects_.undoes = true;
      // A rule of that view sets.
      if (word == "pg_settings" && effects_.may_write) pin(Pin::kUnclear);
      if (word == "pg_temp" && after_into_) pin(Pin::kUnclear);
      break;
    default:
      break;
  }
  after_into_ = false;
}

void StatementScanner::end_statement() {
  if (word_size_ > 0) end_word();
  switch (first_) {
    case First::kBegin:
    case First::kStart:
      effects_.transaction = TransactionEffect::kOpens;
      break;
    case First::kPrepare:
      effects_.transaction = TransactionEffect::kCloses;
      break;
    case First::kCommit:
    case First::kRollback:
      if (chain_ || to_savepoint_) {
        effects_.ends_failed = false;
        if (to_savepoint_) effects_.may_write |= effects_.commits;
        if (chain_) effects_.transaction = TransactionEffect::kOpens;
      } else {
        effects_.transaction = TransactionEffect::kCloses;
      }
      break;
    default:
      break;
  }
  first_ = First::kNone;
  word_index_ = 0;
  after_into_ = after_with_ = after_no_ = chain_ = to_savepoint_ = create_prefix_ = do_ = false;
}

Effects StatementScanner::finish() {
  end_statement();
  Effects result = effects_;
  if (result.statements != 1) result.ends_failed = result.rolls_back = false;
  // "BEGIN; ...; COMMIT" in one message commits in parts only if something follows; it does not
  // matter whether it does.
  if (result.statements > 1 && result.commits) result.not_atomic = true;
  return result;
}

Effects scan_statements(std::string_view sql) {
  StatementScanner scanner;
  scanner.begin();
  scanner.feed(sql);
  return scanner.finish();
}

}  // namespace bascule::proxy
