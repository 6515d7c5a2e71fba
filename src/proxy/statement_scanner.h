// What a piece of SQL does to session and transaction, as far as its words tell: no parser, no
// catalog. It reads text as it streams by, keeps no copy, and knows comments, quotes and dollar
// quotes. It errs on the careful side ("may write") except for one thing that no proxy can see:
// what functions do inside.
#pragma once

#include <cstdint>
#include <memory>
#include <string_view>

namespace bascule::proxy {

// Why a session can't be set up again on another server.
enum class Pin : uint8_t {
  kNone,
  kTemporary,     // CREATE TEMP ..., SELECT INTO TEMP
  kListen,        // LISTEN: notifications in between would be lost without a sign
  kPrepare,       // SQL-level PREPARE
  kHoldCursor,    // DECLARE ... WITH HOLD
  kAdvisoryLock,  // session-level pg_advisory_lock and its kin
  kSetConfig,     // set_config()
  kLoad,          // LOAD
  kSettings,      // SET in a form or number that is not followed
  kPrepared,      // more prepared statements than are remembered
  kUnclear,       // DO, or something else whose words do not tell what it leaves behind
};
std::string_view describe(Pin pin);  // "it has temporary tables"

enum class TransactionEffect : uint8_t { kNone, kOpens, kCloses };

struct Effects {
  bool may_write = false;    // anything but statements that begin like a read
  bool has_effect = false;   // anything whose repetition could be noticed
  bool commits = false;      // COMMIT, END, PREPARE TRANSACTION, COMMIT PREPARED
  bool not_atomic = false;   // may commit in parts: CALL, DO, VACUUM, CREATE INDEX CONCURRENTLY ...
  bool sets = false;         // SET, RESET: answered with the tag SET or RESET
  bool deallocates = false;  // DEALLOCATE, DISCARD
  bool executes = false;     // EXECUTE, also inside of EXPLAIN and CREATE TABLE AS
  bool savepoints = false;   // SAVEPOINT, RELEASE, ROLLBACK TO
  bool undoes = false;       // may undo what pins: DROP, CLOSE, UNLISTEN, pg_advisory_unlock()
  bool ends_failed = false;  // one statement that ends a failed transaction: ROLLBACK, COMMIT ...
  bool rolls_back = false;   // ... and it is ROLLBACK or ABORT
  uint16_t statements = 0;
  TransactionEffect transaction = TransactionEffect::kNone;  // of all statements together
  Pin pin = Pin::kNone;

  void merge(const Effects& later);
};

class StatementScanner {
 public:
  void begin();
  void feed(std::string_view text);
  Effects finish();

 private:
  enum class Mode : uint8_t {
    kNormal,
    kQuote,        // '...'
    kEscapeQuote,  // E'...'
    kIdentifier,   // "..."
    kLineComment,
    kBlockComment,
    kDollarTag,   // $tag
    kDollarBody,  // $tag$ ... $tag$
  };
  enum class First : uint8_t {
    kNone,
    kOther,
    kRead,
    kWith,
    kExplain,
    kWrite,
    kBegin,
    kStart,
    kCommit,
    kRollback,
    kSet,
    kPrepare,
    kDeclare,
    kCreate,
    kDeallocate,
    kNotAtomic,
    kHarmless,
  };

  size_t dull(std::string_view text);
  size_t word(std::string_view text);
  void sign(char c);
  void quoted(char c);
  void dollar(char c);
  void body(char c);
  void pin(Pin why);
  void quoted_name();
  void end_word();
  void end_statement();
  void first_word(std::string_view word);
  void later_word(std::string_view word);
  void anywhere(std::string_view word);

  static constexpr uint8_t kWordMax = 32;
  Mode mode_ = Mode::kNormal;
  First first_ = First::kNone;
  char previous_ = 0;           // byte before this one, in kNormal and kBlockComment
  bool escaped_ = false;        // kEscapeQuote
  bool create_prefix_ = false;  // so far only CREATE [OR REPLACE] [LOCAL | GLOBAL]
  bool after_into_ = false;
  bool do_ = false;  // a DO statement: its body is looked through
  bool after_with_ = false;
  bool after_no_ = false;
  bool chain_ = false;
  bool to_savepoint_ = false;  // or of a prepared transaction: ends nothing
  uint8_t depth_ = 0;          // of block comments, which nest
  uint8_t word_size_ = 0;      // kWordMax + 1: too long to matter
  uint16_t word_index_ = 0;
  uint8_t tag_size_ = 0, tag_matched_ = 0;
  char word_[kWordMax];
  char tag_[64];
  Effects effects_;
};

// Of a text that is here as a whole.
Effects scan_statements(std::string_view sql);

// One that takes its space only between begin() and finish().
class BriefScanner {
 public:
  void begin() {
    if (scanner_ == nullptr) scanner_ = std::make_unique<StatementScanner>();
    scanner_->begin();
  }
  void feed(std::string_view sql) { scanner_->feed(sql); }
  Effects finish() {
    const Effects effects = scanner_->finish();
    scanner_.reset();
    return effects;
  }

 private:
  std::unique_ptr<StatementScanner> scanner_;
};

}  // namespace bascule::proxy
