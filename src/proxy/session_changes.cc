#include "proxy/session_changes.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <span>
#include <utility>

#include "proxy/sql_tokens.h"

namespace bascule::proxy {
namespace {

using Kind = StateChange::Kind;
using Type = SqlToken::Type;

using Words = std::span<const std::string_view>;

// Reads the tokens of one statement from the front.
class Reader {
 public:
  explicit Reader(const SqlStatement& statement) : tokens_(statement.tokens) {}

  bool ended() const { return at_ == tokens_.size(); }
  const SqlToken* peek(size_t ahead = 0) const {
    return at_ + ahead < tokens_.size() ? &tokens_[at_ + ahead] : nullptr;
  }
  const SqlToken* take() { return ended() ? nullptr : &tokens_[at_++]; }
  bool is(std::string_view word, size_t ahead = 0) const {
    const SqlToken* t = peek(ahead);
    return t != nullptr && t->is(word);
  }
  bool skip(std::string_view word) {
    if (!is(word)) return false;
    ++at_;
    return true;
  }
  bool skip_one_of(std::initializer_list<std::string_view> words) {
    return std::any_of(words.begin(), words.end(), [&](std::string_view w) { return skip(w); });
  }
  // An identifier; empty if there is none that can be understood.
  std::string name() {
    const SqlToken* t = peek();
    if (t == nullptr || !(t->type == Type::kWord || t->type == Type::kQuoted)) return {};
    if (const SqlToken* next = peek(1); next != nullptr && next->text == "&") return {};  // U&"..."
    ++at_;
    return t->identifier();
  }

 private:
  std::span<const SqlToken> tokens_;
  size_t at_ = 0;
};

std::string setting_name(Reader& r) {
  if (r.skip("time")) return r.skip("zone") ? "timezone" : "";
  if (r.skip("names")) return "client_encoding";
  if (r.skip("schema")) return "search_path";
  if (r.skip("xml")) return r.skip("option") ? "xmloption" : "";
  // As PostgreSQL compares names: without regard to case, quoted or not.
  std::string name;
  do {
    const std::string part = r.name();
    if (part.empty()) return {};
    name += (name.empty() ? "" : ".") + lower_case(part);
  } while (r.skip("."));
  return name;
}

StateChange read_set(Reader& r, std::string_view statement) {
  if (r.is("local") || r.is("transaction") || r.is("constraints"))
    return StateChange::of(Kind::kNothing);
  std::string name;
  if (r.skip("session")) {
    if (r.skip("characteristics")) {
      name = "session characteristics";
    } else if (r.skip("authorization")) {
      name = "session authorization";
    }
  }
  if (name.empty()) name = setting_name(r);
  r.skip_one_of({"to", "="});
  if (name.empty() || r.ended() || (r.is("from") && r.is("current", 1))) {
    return StateChange::of_pin(Kind::kPin, Pin::kSettings);
  }
  const bool last = r.peek(1) == nullptr;
  const bool reset = last && (r.is("default") || (name == "timezone" && r.is("local")) ||
                              (name == "role" && r.is("none")));
  StateChange c = StateChange::of(reset ? Kind::kReset : Kind::kSet, std::move(name));
  if (!reset) c.text = statement;
  return c;
}

StateChange read_reset(Reader& r) {
  if (r.skip("all")) return StateChange::of(Kind::kResetAll);
  if (r.is("session") && r.is("authorization", 1)) {
    return StateChange::of(Kind::kReset, "session authorization");
  }
  std::string name;
  if (r.skip("transaction")) {
    name = "transaction_isolation";
  } else {
    name = setting_name(r);
  }
  return name.empty() ? StateChange::of_pin(Kind::kPin, Pin::kSettings)
                      : StateChange::of(Kind::kReset, std::move(name));
}

// The name of a prepared statement is next.
std::optional<StateChange> read_named(Reader& r, Kind kind, std::string_view sql) {
  const SqlToken* t = r.peek();
  if (t == nullptr) return std::nullopt;
  const auto from = static_cast<uint32_t>(t->text.data() - sql.data());
  const auto to = from + static_cast<uint32_t>(t->text.size());
  StateChange c = StateChange::of(kind, r.name());
  if (c.name.empty()) return std::nullopt;
  c.from = from;
  c.to = to;
  return c;
}

// [schema .] name; `schema` is set.
std::string read_qualified(Reader& r, std::string& schema) {
  std::string name = r.name();
  schema.clear();
  if (r.skip(".")) schema = std::exchange(name, r.name());
  return name;
}

bool dropped_at_commit(const SqlStatement& s) {
  for (size_t i = 0; i + 2 < s.tokens.size(); ++i) {
    if (s.tokens[i].depth == 0 && s.tokens[i].is("on") && s.tokens[i + 1].is("commit") &&
        s.tokens[i + 2].is("drop")) {
      return true;
    }
  }
  return false;
}

// CREATE TEMP ...: what is to be dropped again.
std::optional<StateChange> read_create_temporary(Reader r, const SqlStatement& s) {
  if (r.skip("or")) r.skip("replace");
  r.skip_one_of({"global", "local"});
  const bool temporary = r.skip_one_of({"temp", "temporary"});
  r.skip("recursive");
  if (!r.skip_one_of({"table", "view", "sequence"})) return std::nullopt;
  if (r.skip("if")) {
    r.skip("not");
    r.skip("exists");
  }
  std::string schema;
  std::string name = read_qualified(r, schema);
  if (name.empty() || !(schema.empty() ? temporary : schema == "pg_temp")) return std::nullopt;
  if (dropped_at_commit(s)) return StateChange::of(Kind::kNothing);
  return StateChange::of_pin(Kind::kPin, Pin::kTemporary, std::move(name));
}

void read_drop(Reader& r, std::vector<StateChange>& out) {
  if (!r.skip_one_of({"table", "view", "sequence"})) return;
  if (r.skip("if")) r.skip("exists");
  do {
    std::string schema;
    std::string name = read_qualified(r, schema);
    if (name.empty() || !(schema.empty() || schema == "pg_temp")) return;
    out.push_back(StateChange::of_pin(Kind::kUnpin, Pin::kTemporary, std::move(name)));
  } while (r.skip(","));
}

// [AND [NO] CHAIN], TO [SAVEPOINT] name, PREPARED ...
std::optional<StateChange> read_end(Reader& r, Kind kind) {
  r.skip_one_of({"work", "transaction"});
  if (r.skip("prepared")) return std::nullopt;
  if (!r.skip("to")) return StateChange::of(kind);
  r.skip("savepoint");
  return StateChange::of(Kind::kRollbackTo, r.name());
}

std::optional<StateChange> read_release(Reader& r) {
  if (r.is("savepoint") && r.peek(1) != nullptr) r.take();
  return StateChange::of(Kind::kRelease, r.name());
}

// ---- Calls of functions
// --------------------------------------------------------------------------

struct Call {
  std::string_view function;
  size_t first = 0, last = 0;  // tokens: from the function's name to its closing parenthesis
  std::vector<std::span<const SqlToken>> arguments;
};

constexpr auto kFollowedFunctions = std::to_array<std::string_view>(
    {"set_config", "pg_advisory_lock", "pg_advisory_lock_shared", "pg_try_advisory_lock",
     "pg_try_advisory_lock_shared", "pg_advisory_unlock", "pg_advisory_unlock_shared",
     "pg_advisory_unlock_all"});

std::optional<Call> call_at(const SqlStatement& s, size_t at) {
  const std::vector<SqlToken>& t = s.tokens;
  if (t[at].type != Type::kWord || at + 1 >= t.size() || t[at + 1].text != "(") return std::nullopt;
  Call call;
  for (const std::string_view f : kFollowedFunctions) {
    if (t[at].is(f)) call.function = f;
  }
  if (call.function.empty()) return std::nullopt;
  call.first = at;
  const int depth = t[at].depth + 1;
  size_t begin = at + 2;
  for (size_t i = begin; i < t.size(); ++i) {
    const bool closes = t[i].text == ")" && t[i].depth == depth - 1;
    if (!closes && !(t[i].text == "," && t[i].depth == depth)) continue;
    if (i > begin) call.arguments.emplace_back(t.data() + begin, i - begin);
    begin = i + 1;
    if (!closes) continue;
    call.last = i;
    return call;
  }
  return std::nullopt;
}

bool is_constant(std::span<const SqlToken> a) {
  if (a.size() == 2 && a[0].text == "-") return a[1].type == Type::kNumber;
  if (a.size() != 1) return false;
  if (a[0].type == Type::kString) return a[0].text.find('\\') == std::string_view::npos;
  return a[0].type == Type::kNumber || a[0].type == Type::kParameter || a[0].is("true") ||
         a[0].is("false");
}

std::string constant_text(std::span<const SqlToken> a) {
  std::string text;
  for (const SqlToken& t : a) text += t.type == Type::kString ? t.literal() : lower_case(t.text);
  return text;
}

bool has_parameter(std::span<const SqlToken> a) {
  return a.size() == 1 && a[0].type == Type::kParameter;
}

// A SELECT of nothing but a list: each item of it is computed once.
bool plain_select(const SqlStatement& s) {
  if (s.cut || !s.tokens.front().is("select")) return false;
  return std::none_of(s.tokens.begin(), s.tokens.end(), [](const SqlToken& t) {
    if (t.type != Type::kWord || t.depth != 0) return false;
    for (const std::string_view w :
         {"from", "where", "union", "intersect", "except", "limit", "offset", "fetch", "group",
          "having", "into", "window", "order", "for", "case", "and", "or", "distinct"}) {
      if (t.is(w)) return true;
    }
    return false;
  });
}

// The call is an item of the list by itself.
bool stands_alone(const SqlStatement& s, const Call& call) {
  size_t before = call.first;
  if (before >= 2 && s.tokens[before - 1].text == "." && s.tokens[before - 2].is("pg_catalog")) {
    before -= 2;
  }
  const SqlToken& previous = s.tokens[before - 1];
  if (s.tokens[call.first].depth != 0 || !(previous.is("select") || previous.text == ",")) {
    return false;
  }
  if (call.last + 1 >= s.tokens.size()) return true;
  const SqlToken& next = s.tokens[call.last + 1];
  return next.text == "," || next.type == Type::kWord || next.type == Type::kQuoted;
}

bool certainly_local(const Call& call) {
  return call.arguments.size() == 3 && call.arguments[2].size() == 1 &&
         call.arguments[2][0].is("true");
}

StateChange advisory(const Call& call) {
  const bool shared = call.function.ends_with("_shared");
  const bool unlock = call.function.starts_with("pg_advisory_unlock");
  if (call.function == "pg_advisory_unlock_all") {
    return StateChange::of_pin(Kind::kUnpin, Pin::kAdvisoryLock);
  }
  std::string key = shared ? "s" : "x";
  bool parameters = false;
  for (const auto& a : call.arguments) {
    key += "," + constant_text(a);
    parameters |= has_parameter(a);
  }
  StateChange c =
      StateChange::of_pin(unlock ? Kind::kUnpin : Kind::kPin, Pin::kAdvisoryLock, std::move(key));
  c.parameters = parameters;
  return c;
}

StateChange set_config(const Call& call) {
  const auto& a = call.arguments;
  if (a.size() != 3) return StateChange::of(Kind::kNothing);  // fails
  const bool parameters = has_parameter(a[0]) || has_parameter(a[1]) || has_parameter(a[2]);
  if (!parameters) {
    return set_config_change(constant_text(a[0]), constant_text(a[1]), constant_text(a[2]));
  }
  StateChange c = StateChange::of(Kind::kSetConfig);
  const auto raw = [](std::span<const SqlToken> arg) {
    return (has_parameter(arg) ? "" : "=") + constant_text(arg);
  };
  c.name = raw(a[0]);
  c.text = raw(a[1]);
  c.is_local = raw(a[2]);
  c.parameters = true;
  return c;
}

// Calls that change what outlives the transaction. False: some that can't be followed.
bool read_calls(const SqlStatement& s, std::vector<StateChange>& out) {
  const bool plain = plain_select(s);
  for (size_t i = 1; i < s.tokens.size(); ++i) {
    if (s.tokens[i].type != Type::kWord) continue;
    const bool sets = s.tokens[i].is("set_config");
    const auto call = call_at(s, i);
    if (!call) {
      if (sets) return false;
      continue;
    }
    const bool certain = plain && stands_alone(s, *call) &&
                         std::all_of(call->arguments.begin(), call->arguments.end(), is_constant);
    const bool unlocks = call->function.starts_with("pg_advisory_unlock");
    if (sets && certainly_local(*call)) {
      out.push_back(StateChange::of(Kind::kNothing));
    } else if (certain) {
      out.push_back(sets ? set_config(*call) : advisory(*call));
    } else if (!unlocks) {
      return false;
    }
  }
  return !s.cut;
}

// ---- Statements
// ----------------------------------------------------------------------------------

// EXPLAIN ... EXECUTE name, CREATE TABLE ... AS EXECUTE name
std::optional<StateChange> read_inner_execute(const SqlStatement& s, std::string_view sql) {
  Reader r(s);
  const bool explain = r.skip("explain");
  while (const SqlToken* t = r.take()) {
    if (t->depth == 0 && (explain || t->is("as")) && r.skip("execute")) {
      return read_named(r, Kind::kExecute, sql);
    }
    if (explain && t->is("execute") && t->depth == 0) return read_named(r, Kind::kExecute, sql);
  }
  return std::nullopt;
}

std::optional<StateChange> read_prepare(Reader& r, const SqlStatement& s, std::string_view sql) {
  if (r.is("transaction") && !r.is("as", 1) && !r.is("(", 1)) return StateChange::of(Kind::kCommit);
  auto c = read_named(r, Kind::kPrepare, sql);
  if (c) c->end = static_cast<uint32_t>(s.text.data() + s.text.size() - sql.data());
  return c;
}

std::optional<StateChange> read_deallocate(Reader& r, std::string_view sql) {
  if (r.is("prepare") && r.peek(1) != nullptr) r.take();
  if (r.is("all")) return StateChange::of(Kind::kDeallocateAll);
  return read_named(r, Kind::kDeallocate, sql);
}

void read_discard(Reader& r, std::vector<StateChange>& out) {
  if (r.is("all")) out.push_back(StateChange::of(Kind::kDiscardAll));
  if (r.skip_one_of({"temp", "temporary"})) {
    out.push_back(StateChange::of_pin(Kind::kUnpin, Pin::kTemporary));
  }
}

void read_declare(Reader& r, const SqlStatement& s, std::vector<StateChange>& out) {
  const std::string name = r.name();
  for (size_t i = 2; i + 1 < s.tokens.size() && !s.tokens[i].is("for"); ++i) {
    if (s.tokens[i].is("with") && s.tokens[i + 1].is("hold") && !name.empty()) {
      out.push_back(StateChange::of_pin(Kind::kPin, Pin::kHoldCursor, name));
    }
  }
}

void read_close(Reader& r, Pin pin, std::string_view all, std::vector<StateChange>& out) {
  if (r.is(all)) {
    out.push_back(StateChange::of_pin(Kind::kUnpin, pin));
  } else if (std::string name = r.name(); !name.empty()) {
    out.push_back(StateChange::of_pin(Kind::kUnpin, pin, std::move(name)));
  }
}

void put(std::vector<StateChange>& out, std::optional<StateChange> c) {
  if (c) out.push_back(std::move(*c));
}

// What the first word says. True: all of the statement is in `out`.
bool read_by_verb(const SqlStatement& s, std::string_view sql, std::vector<StateChange>& out) {
  Reader r(s);
  if (r.skip("set")) return out.push_back(read_set(r, s.text)), true;
  if (r.skip("reset")) return out.push_back(read_reset(r)), true;
  if (r.skip("deallocate")) return put(out, read_deallocate(r, sql)), true;
  if (r.skip("discard")) return read_discard(r, out), true;
  if (r.skip("execute")) return put(out, read_named(r, Kind::kExecute, sql)), true;
  if (r.skip_one_of({"commit", "end"})) return put(out, read_end(r, Kind::kCommit)), true;
  if (r.skip_one_of({"rollback", "abort"})) return put(out, read_end(r, Kind::kRollback)), true;
  if (r.skip("savepoint")) return out.push_back(StateChange::of(Kind::kSavepoint, r.name())), true;
  if (r.skip("release")) return put(out, read_release(r)), true;
  if (r.skip("listen")) {
    return out.push_back(StateChange::of_pin(Kind::kPin, Pin::kListen, r.name())), true;
  }
  if (r.skip("unlisten")) return read_close(r, Pin::kListen, "*", out), true;
  if (r.skip("close")) return read_close(r, Pin::kHoldCursor, "all", out), true;
  if (r.skip("drop")) return read_drop(r, out), true;
  if (r.skip("prepare")) {
    put(out, read_prepare(r, s, sql));
  } else if (r.skip("declare")) {
    read_declare(r, s, out);
  } else if (r.skip("create")) {
    put(out, read_create_temporary(r, s));
    put(out, read_inner_execute(s, sql));
  } else if (r.is("explain")) {
    put(out, read_inner_execute(s, sql));
  }
  return false;
}

void read_statement(const SqlStatement& s, std::string_view sql, std::vector<StateChange>& out) {
  const size_t first = out.size();
  if (read_by_verb(s, sql, out)) return;
  std::vector<StateChange> calls;
  const bool followed = read_calls(s, calls);
  const Pin pin = scan_statements(s.text).pin;
  const bool explained =
      std::any_of(out.begin() + static_cast<std::ptrdiff_t>(first), out.end(), [&](const auto& c) {
        return c.pin == pin || (pin == Pin::kPrepare && c.kind == Kind::kPrepare) ||
               (pin == Pin::kTemporary && c.kind == Kind::kNothing);
      });
  const bool by_calls = pin == Pin::kSetConfig || pin == Pin::kAdvisoryLock;
  if (pin != Pin::kNone && !(by_calls ? followed : explained)) {
    out.push_back(StateChange::of_pin(Kind::kPin, pin));
  }
  // The pin of the last word is known only: there may be a call as well.
  if (pin != Pin::kNone && !by_calls && !followed) {
    out.push_back(StateChange::of_pin(Kind::kPin, Pin::kSetConfig));
  }
  if (followed) out.insert(out.end(), calls.begin(), calls.end());
}

}  // namespace

std::optional<std::vector<StateChange>> parse_state_changes(std::string_view sql) {
  std::vector<StateChange> changes;
  SqlStatements statements(sql);
  SqlStatement statement;
  while (statements.next(statement)) {
    const size_t first = changes.size();
    // The body of such a function has statements of its own.
    const bool atomic = statement.tokens.front().is("create") &&
                        std::any_of(statement.tokens.begin(), statement.tokens.end(),
                                    [](const SqlToken& t) { return t.is("atomic"); });
    if (atomic) return std::nullopt;
    read_statement(statement, sql, changes);
    for (size_t i = first; i < changes.size(); ++i) changes[i].statement = statement.number;
  }
  if (statements.failed()) return std::nullopt;
  return changes;
}

}  // namespace bascule::proxy
