#include "sql/text_scan.h"

#include <array>
#include <bit>
#include <cstring>
#include <utility>

namespace bascule::sql {
namespace {

enum Class : uint8_t {
  kOther,
  kWord,
  kDigit,
  kBlank,
  kSign,
  kComma,
  kQuote,
  kDoubleQuote,
  kDollar
};

constexpr std::array<Class, 256> make_classes() {
  std::array<Class, 256> out{};
  for (int c = 0; c < 256; ++c) {
    const bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || c >= 128;
    if (letter) out[c] = kWord;
    if (c >= '0' && c <= '9') out[c] = kDigit;
  }
  for (const char c : {' ', '\t', '\n', '\r', '\f', '\v'}) out[static_cast<uint8_t>(c)] = kBlank;
  for (const char c : std::string_view("+-*/<>=~!@#%^&|`?:()[]{}.;\\")) {
    out[static_cast<uint8_t>(c)] = kSign;
  }
  out[','] = kComma;
  out['\''] = kQuote;
  out['"'] = kDoubleQuote;
  out['$'] = kDollar;
  return out;
}
constexpr std::array<Class, 256> kClasses = make_classes();

// Of bytes, as bits of bytes in a word: what Scanner::plain() has to know.
constexpr uint64_t kEach = 0x0101010101010101;
constexpr int kCounts = 1;        // a token by itself
constexpr int kStops = 2;         // needs a look of its own
constexpr int kStopsAsFirst = 3;  // so does this, but within a word
constexpr std::array<uint8_t, 256> make_traits() {
  std::array<uint8_t, 256> out{};
  for (int c = 0; c < 256; ++c) {
    const Class kind = kClasses[c];
    if (kind == kWord || kind == kDigit || kind == kDollar) out[c] = 1;
    if (kind == kDigit || kind == kDollar) out[c] |= 1 << kStopsAsFirst;
    const bool comment = c == '-' || c == '/';
    if (kind == kSign) out[c] = comment || c == '&' ? 1 << kStops : 1 << kCounts;
    if (kind == kQuote || kind == kDoubleQuote || kind == kOther) out[c] = 1 << kStops;
  }
  return out;
}
constexpr std::array<uint8_t, 256> kTraits = make_traits();

uint64_t traits_of(char c) { return kTraits[static_cast<uint8_t>(c)]; }
uint64_t traits_of_eight(const char* in) {
  return (traits_of(in[0]) | traits_of(in[1]) << 8 | traits_of(in[2]) << 16 |
          traits_of(in[3]) << 24) |
         (traits_of(in[4]) << 32 | traits_of(in[5]) << 40 | traits_of(in[6]) << 48 |
          traits_of(in[7]) << 56);
}
uint64_t traits_of_last(std::string_view text) {
  uint64_t out = uint64_t{1} << (8 * text.size() + kStops);
  for (size_t i = 0; i < text.size(); ++i) out |= traits_of(text[i]) << (8 * i);
  return out;
}

Class class_of(char c) { return kClasses[static_cast<uint8_t>(c)]; }
bool in_word(char c) {
  const Class k = class_of(c);
  return k == kWord || k == kDigit || k == kDollar;
}

char lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; }
bool equals_lower(std::string_view text, std::string_view lower_case) {
  if (text.size() != lower_case.size()) return false;
  for (size_t i = 0; i < text.size(); ++i) {
    if (lower(text[i]) != lower_case[i]) return false;
  }
  return true;
}

std::string_view trim(std::string_view text) {
  while (!text.empty() && class_of(text.front()) == kBlank) text.remove_prefix(1);
  while (!text.empty() && class_of(text.back()) == kBlank) text.remove_suffix(1);
  return text;
}

void read_hint(std::string_view comment, Hints& hints) {
  comment = trim(comment);
  constexpr std::string_view kMark = "bascule:";
  if (!comment.starts_with(kMark)) return;
  comment.remove_prefix(kMark.size());
  while (!comment.empty()) {
    const size_t comma = comment.find(',');
    const std::string_view item = trim(comment.substr(0, comma));
    comment = comma == std::string_view::npos ? "" : comment.substr(comma + 1);
    constexpr std::string_view kAffinity = "affinity=";
    if (item == "primary") hints.primary = true;
    if (item.starts_with(kAffinity) && item.size() <= kAffinity.size() + kAffinityBytesMax) {
      hints.affinity = trim(item.substr(kAffinity.size()));
    }
  }
}

class Scanner {
 public:
  Scanner(std::string_view sql, std::string& key) : sql_(sql), key_(key) {}

  TextScan run() {
    if (sql_.size() > kTextBytesMax) return failed(ScanProblem::kTooLong);
    key_.resize_and_overwrite(sql_.size() + 1, [this](char* out, size_t) {
      begin_ = out_ = out;
      scan();
      return static_cast<size_t>(out_ - begin_);
    });
    if (result_.problem == ScanProblem::kNone && depth_ > kDepthTokensMax) {
      return failed(ScanProblem::kTooDeep);
    }
    return result_;
  }

 private:
  TextScan failed(ScanProblem problem) {
    result_.problem = problem;
    return result_;
  }
  bool stop(ScanProblem problem) {
    result_.problem = problem;
    return false;
  }
  char at(size_t i) const { return i < sql_.size() ? sql_[i] : '\0'; }
  void copy(size_t until) {
    std::memcpy(out_, sql_.data() + i_, until - i_);
    out_ += until - i_;
    i_ = until;
  }

  size_t end_of_word(size_t at) const {
    while (at < sql_.size() && in_word(sql_[at])) ++at;
    return at;
  }

  void scan() {
    bool good = true;
    while (good) {
      if (!first_) plain();
      if (i_ == sql_.size()) return;
      switch (class_of(sql_[i_])) {
        case kWord:
          word();
          break;
        case kDigit:
          number();
          break;
        case kQuote:
          good = quoted(Literal::kPlain);
          break;
        case kDoubleQuote:
          good = delimited();
          break;
        case kDollar:
          good = dollar();
          break;
        case kSign:
          good = sign();
          break;
        case kBlank:
        case kComma:
          *out_++ = sql_[i_++];
          break;
        case kOther:
          if (sql_[i_] == '\0') {
            good = stop(ScanProblem::kNul);
          } else {
            ++depth_;
            *out_++ = sql_[i_++];
          }
          break;
      }
    }
  }

  // Words, blanks, commas and signs that begin no comment, which most of a text is: eight bytes at
  // a time, and copied at once. Looked at in registers: what is written through a char pointer may
  // be anything, this object included.
  void plain() {
    const char* const begin = sql_.data() + i_;
    const char* const end = sql_.data() + sql_.size();
    const char* in = begin;
    uint64_t carry = 0;  // the byte before is of a word
    uint64_t stop = 0;
    for (; stop == 0; in += 8) {
      const uint64_t traits =
          end - in >= 8 ? traits_of_eight(in) : traits_of_last({in, static_cast<size_t>(end - in)});
      const uint64_t words = traits & kEach;
      const uint64_t starts = words & ~(words << 8 | carry);
      carry = words >> 56;
      stop = (traits >> kStops | (traits >> kStopsAsFirst & starts)) & kEach;
      const uint64_t counted = (starts | (traits >> kCounts & kEach)) & (stop - 1) & ~stop;
      depth_ += static_cast<uint32_t>((counted * kEach) >> 56);
    }
    in += std::countr_zero(stop) / 8 - 8;
    // One letter and a quote: may be a prefix.
    if (in != begin && in != end && (*in == '\'' || *in == '&') && in_word(in[-1]) &&
        (in == begin + 1 || !in_word(in[-2]))) {
      --in;
      --depth_;
    }
    copy(static_cast<size_t>(in - sql_.data()));
  }

  void first_word(std::string_view word) {
    first_ = false;
    for (const std::string_view data :
         {"select", "with", "values", "table", "insert", "update", "delete", "merge"}) {
      normalise_ = normalise_ || equals_lower(word, data);
    }
  }

  void word() {
    ++depth_;
    const size_t begin = i_;
    copy(end_of_word(i_));
    const std::string_view word = sql_.substr(begin, i_ - begin);
    if (first_) first_word(word);
    // E'...', B'...', X'...', N'...', U&'...': the lexer's prefixes are part of the literal.
    if (word.size() != 1) return;
    const char prefix = lower(word[0]);
    if (at(i_) == '\'' && (prefix == 'e' || prefix == 'b' || prefix == 'x' || prefix == 'n')) {
      prefixed_ = prefix == 'e' ? Literal::kEscaped : Literal::kVerbatim;
    } else if (prefix == 'u' && at(i_) == '&' && at(i_ + 1) == '\'') {
      *out_++ = sql_[i_++];
      prefixed_ = Literal::kVerbatim;
    }
  }

  void number() {
    first_ = false;
    if (!normalise_) {
      copy(i_ + 1);
      return;
    }
    while (i_ < sql_.size() && class_of(sql_[i_]) == kDigit) ++i_;
    *out_++ = '0';
    // 1e5, 0x1F, 1_000: what follows stays as it is.
    copy(end_of_word(i_));
  }

  enum class Literal : uint8_t { kPlain, kEscaped, kVerbatim };
  bool quoted(Literal kind) {
    first_ = false;
    if (prefixed_ != Literal::kPlain) kind = std::exchange(prefixed_, Literal::kPlain);
    const size_t begin = i_++;
    for (;; ++i_) {
      if (i_ >= sql_.size()) return stop(ScanProblem::kUnterminated);
      const char c = sql_[i_];
      if (c == '\0') return stop(ScanProblem::kNul);
      if (c == '\\') {
        if (kind == Literal::kEscaped) {
          ++i_;  // a zero byte behind it is met as the end or by the parser
          if (at(i_) == '\0') return stop(ScanProblem::kUnterminated);
        } else {
          result_.plain_backslash = true;
        }
      } else if (c == '\'') {
        if (at(i_ + 1) != '\'') break;
        ++i_;
      }
    }
    const size_t end = i_ + 1;
    if (normalise_ && kind == Literal::kPlain) {
      *out_++ = '\'';
      *out_++ = '\'';
      i_ = end;
    } else {
      i_ = begin;
      copy(end);
    }
    return true;
  }

  bool delimited() {
    first_ = false;
    ++depth_;
    const size_t end = sql_.find('"', i_ + 1);
    if (end == std::string_view::npos) return stop(ScanProblem::kUnterminated);
    if (sql_.substr(i_, end - i_).find('\0') != std::string_view::npos) {
      return stop(ScanProblem::kNul);
    }
    copy(end + 1);  // "" inside of a name reads as two names beside each other: the same bytes
    return true;
  }

  // $1, or $tag$ ... $tag$.
  bool dollar() {
    first_ = false;
    size_t tag = i_ + 1;
    if (class_of(at(tag)) == kDigit) {
      copy(tag);
      while (i_ < sql_.size() && class_of(sql_[i_]) == kDigit) *out_++ = sql_[i_++];
      return true;
    }
    while (class_of(at(tag)) == kWord || class_of(at(tag)) == kDigit) ++tag;
    if (at(tag) != '$') {
      ++depth_;
      copy(i_ + 1);
      return true;
    }
    const std::string_view quote = sql_.substr(i_, tag + 1 - i_);
    const size_t end = sql_.find(quote, tag + 1);
    if (end == std::string_view::npos) return stop(ScanProblem::kUnterminated);
    if (sql_.substr(i_, end - i_).find('\0') != std::string_view::npos) {
      return stop(ScanProblem::kNul);
    }
    copy(end + quote.size());
    return true;
  }

  bool sign() {
    const char c = sql_[i_];
    if (c == '-' && at(i_ + 1) == '-') {
      size_t end = sql_.find_first_of("\n\r", i_);
      if (end == std::string_view::npos) end = sql_.size();
      if (sql_.substr(i_, end - i_).find('\0') != std::string_view::npos) {
        return stop(ScanProblem::kNul);
      }
      i_ = end;
      *out_++ = ' ';
      return true;
    }
    if (c == '/' && at(i_ + 1) == '*') return block_comment();
    // A leading bracket or semicolon says nothing yet: (SELECT ...) UNION ...
    if (c != '(' && c != ';') first_ = false;
    ++depth_;
    *out_++ = c;
    ++i_;
    return true;
  }

  bool block_comment() {
    const size_t begin = i_ + 2;
    uint32_t nesting = 1;
    for (i_ = begin; i_ < sql_.size(); ++i_) {
      if (sql_[i_] == '\0') return stop(ScanProblem::kNul);
      if (sql_[i_] == '/' && at(i_ + 1) == '*') {
        ++nesting;
        ++i_;
      } else if (sql_[i_] == '*' && at(i_ + 1) == '/') {
        ++i_;
        if (--nesting == 0) {
          read_hint(sql_.substr(begin, i_ - 1 - begin), result_.hints);
          ++i_;
          *out_++ = ' ';
          return true;
        }
      }
    }
    return stop(ScanProblem::kUnterminated);
  }

  std::string_view sql_;
  std::string& key_;
  char* begin_ = nullptr;
  char* out_ = nullptr;
  size_t i_ = 0;
  uint32_t depth_ = 0;
  bool first_ = true;       // no word yet
  bool normalise_ = false;  // it reads or writes rows
  Literal prefixed_ = Literal::kPlain;
  TextScan result_;
};

}  // namespace

TextScan scan_text(std::string_view sql, std::string& key) { return Scanner(sql, key).run(); }

}  // namespace bascule::sql
