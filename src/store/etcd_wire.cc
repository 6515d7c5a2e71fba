#include "store/etcd_wire.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <nlohmann/json.hpp>

#include "base/base64.h"
#include "base/json_tape.h"
#include "store/bounds.h"

namespace bascule::store::etcd {
namespace {

constexpr size_t kMessageBytesMax = 300;
constexpr size_t kTokenBytesMax = 4096;

// grpc's codes (google.golang.org/grpc/codes).
enum Code : uint64_t {
  kInvalidArgument = 3,
  kPermissionDenied = 7,
  kResourceExhausted = 8,
  kFailedPrecondition = 9,
  kUnimplemented = 12,
  kUnauthenticated = 16,
};

std::string base64_text(std::string_view bytes) { return '"' + base64_encode(bytes) + '"'; }

std::string range_object(const Range& range) {
  std::string out = "{\"key\":" + base64_text(range.key);
  if (!range.end.empty()) out += ",\"range_end\":" + base64_text(range.end);
  if (range.changed_since != 0) {
    out += fmt::format(",\"min_mod_revision\":\"{}\"", range.changed_since);
  }
  return out + "}";
}

std::string range_op(const Range& range) {
  return "{\"request_range\":" + range_object(range) + "}";
}

std::string write_op(const Write& write) {
  if (!write.value) return "{\"request_delete_range\":{\"key\":" + base64_text(write.key) + "}}";
  return "{\"request_put\":{\"key\":" + base64_text(write.key) +
         ",\"value\":" + base64_text(*write.value) + "}}";
}

std::string compare_op(const Compare& compare) {
  return fmt::format(
      "{{\"target\":\"MOD\",\"result\":\"EQUAL\",\"key\":{},\"mod_revision\":\"{}\"}}",
      base64_text(compare.key), compare.revision);
}

template <typename T, typename Render>
std::string array(const std::vector<T>& items, Render render) {
  std::string out = "[";
  for (const T& item : items) {
    if (out.size() > 1) out += ',';
    out += render(item);
  }
  return out + "]";
}

auto malformed(std::string_view what) {
  return fail(ErrorCode::kInvalid, fmt::format("etcd's answer is malformed: {}", what));
}

using Kind = JsonValue::Kind;

const JsonValue* member(const JsonValue& object, std::string_view key) {
  const JsonValue* found = object.find(key);
  return found == nullptr || found->kind == Kind::kNull ? nullptr : found;
}

// A number or the text of one; absent is 0, as proto3 has it. false: neither.
bool number(const JsonValue& object, std::string_view key, uint64_t& out) {
  const JsonValue* value = member(object, key);
  if (value == nullptr) return true;
  if (value->kind == Kind::kUnsigned) {
    out = value->natural;
    return true;
  }
  if (value->kind != Kind::kString) return false;
  const std::string_view text = value->string;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), out);
  return error == std::errc() && end == text.data() + text.size();
}

bool flag(const JsonValue& object, std::string_view key, bool& out) {
  const JsonValue* value = member(object, key);
  if (value != nullptr && value->kind != Kind::kBool) return false;
  out = value != nullptr && value->truth;
  return true;
}

bool bytes(const JsonValue& object, std::string_view key, std::string& out) {
  const JsonValue* value = member(object, key);
  if (value == nullptr) return true;
  if (value->kind != Kind::kString) return false;
  auto decoded = base64_decode(value->string);
  if (decoded) out = std::move(*decoded);
  return decoded.has_value();
}

// Empty: it is absent, or no text.
std::string message_in(const JsonValue& object, std::string_view key) {
  const JsonValue* value = member(object, key);
  if (value == nullptr || value->kind != Kind::kString) return {};
  return std::string(value->string.substr(0, kMessageBytesMax));
}

// `each` of the items until it refuses one. Absent is empty. false: refused, or no array.
template <typename Each>
bool each_of(const JsonValue& object, std::string_view key, Each each) {
  const JsonValue* array = member(object, key);
  if (array == nullptr) return true;
  if (array->kind != Kind::kArray) return false;
  for (const JsonValue* item = array->begin(); item != array->end(); item = item->next()) {
    if (!each(*item)) return false;
  }
  return true;
}

bool entry_of(const JsonValue& kv, Entry& entry) {
  return kv.kind == Kind::kObject && bytes(kv, "key", entry.key) &&
         bytes(kv, "value", entry.value) && number(kv, "mod_revision", entry.revision);
}

bool range_of(const JsonValue& response, std::vector<Found>& ranges) {
  if (response.kind != Kind::kObject) return false;
  const JsonValue* range = member(response, "response_range");
  if (range == nullptr) return true;  // of a write
  if (range->kind != Kind::kObject) return false;
  Found& found = ranges.emplace_back();
  return number(*range, "count", found.count) && each_of(*range, "kvs", [&](const JsonValue& kv) {
           return entry_of(kv, found.entries.emplace_back());
         });
}

bool header_of(const JsonValue& answer, uint64_t& cluster_id, Revision& revision) {
  const JsonValue* header = member(answer, "header");
  return header != nullptr && header->kind == Kind::kObject &&
         number(*header, "cluster_id", cluster_id) && number(*header, "revision", revision);
}

bool contains(std::string_view text, std::string_view part) {
  return text.find(part) != std::string_view::npos;
}

// What etcd itself says when it is certain that it did not begin (etcdserver's api/v3rpc/rpctypes).
Refusal refusal_of(int status, uint64_t code, std::string_view message) {
  for (const char* token : {"invalid auth token", "user name is empty", "revision of auth store",
                            "revision in header is old"}) {
    if (contains(message, token)) return Refusal::kToken;
  }
  if (code == kUnauthenticated || status == 401) return Refusal::kToken;
  if (contains(message, "etcdserver: no leader")) return Refusal::kElsewhere;
  if (contains(message, "too many requests")) return Refusal::kElsewhere;
  switch (code) {
    case kInvalidArgument:
    case kPermissionDenied:
    case kResourceExhausted:
    case kFailedPrecondition:
      return Refusal::kFinal;
    case kUnimplemented:
      return Refusal::kElsewhere;
    default:
      break;
  }
  if (status == 403 || status == 413) return Refusal::kFinal;
  // Not an etcd, or one of another version: the address is wrong, others may be right.
  if (status == 404 || status == 405) return Refusal::kElsewhere;
  return Refusal::kUnclear;
}

}  // namespace

Range prefix_range(std::string_view prefix) {
  const std::string from_there_on(1, '\0');
  if (prefix.empty()) return {from_there_on, from_there_on};
  return {std::string(prefix), prefix_end(prefix).value_or(from_there_on)};
}

std::string read_body(const std::vector<Range>& ranges) {
  return "{\"success\":" + array(ranges, range_op) + "}";
}

std::string txn_body(const std::vector<Compare>& compares, const std::vector<Write>& writes,
                     const std::string& fence) {
  const std::string look = "[" + range_op({fence, ""}) + "]";
  return "{\"compare\":" + array(compares, compare_op) +
         ",\"success\":" + (writes.empty() ? look : array(writes, write_op)) +
         ",\"failure\":" + look + "}";
}

std::string watch_body(const Range& range, Revision from) {
  std::string create = range_object(range);
  create.pop_back();
  if (from != 0) create += fmt::format(",\"start_revision\":\"{}\"", from);
  return "{\"create_request\":" + create + "}}";
}

std::string authenticate_body(std::string_view user, std::string_view password) {
  const nlohmann::json body = {{"name", user}, {"password", password}};
  return body.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

Result<TxnAnswer> parse_txn(std::string_view text) {
  const JsonTape tape(text);
  const JsonValue& answer = tape.root();
  if (answer.kind != Kind::kObject) return malformed("not an object");
  TxnAnswer out;
  if (!header_of(answer, out.cluster_id, out.revision)) return malformed("header");
  if (!flag(answer, "succeeded", out.succeeded)) return malformed("succeeded");
  const auto take = [&out](const JsonValue& response) { return range_of(response, out.ranges); };
  if (!each_of(answer, "responses", take)) return malformed("responses");
  return out;
}

Result<WatchAnswer> parse_watch(std::string_view text) {
  const JsonTape tape(text);
  const JsonValue& line = tape.root();
  if (line.kind != Kind::kObject) return malformed("not an object");
  WatchAnswer out;
  if (const JsonValue* error = member(line, "error")) {
    out.canceled = true;
    out.reason = message_in(*error, "message");
    return out;
  }
  const JsonValue* result = member(line, "result");
  if (result == nullptr || result->kind != Kind::kObject) return malformed("result");
  uint64_t cluster_id = 0;
  if (!header_of(*result, cluster_id, out.revision)) return malformed("header");
  if (!flag(*result, "created", out.created) || !flag(*result, "canceled", out.canceled) ||
      !number(*result, "compact_revision", out.compacted)) {
    return malformed("watch");
  }
  out.reason = message_in(*result, "cancel_reason");
  const auto take = [&out](const JsonValue& event) {
    const JsonValue* kv = member(event, "kv");
    uint64_t revision = 0;
    if (kv == nullptr || kv->kind != Kind::kObject || !number(*kv, "mod_revision", revision)) {
      return false;
    }
    out.last_change = std::max(out.last_change, revision);
    return true;
  };
  if (!each_of(*result, "events", take)) return malformed("events");
  return out;
}

Result<std::string> parse_token(std::string_view text) {
  const JsonTape tape(text);
  const JsonValue* token = member(tape.root(), "token");
  if (token == nullptr || token->kind != Kind::kString) return malformed("token");
  std::string out(token->string);
  // It becomes part of a header.
  const bool printable = std::ranges::all_of(out, [](char c) { return c > ' ' && c < 0x7f; });
  if (out.empty() || out.size() > kTokenBytesMax || !printable) return malformed("token");
  return out;
}

Failure parse_failure(int status, std::string_view body) {
  Failure out;
  uint64_t code = 0;
  const JsonTape tape(body);
  (void)number(tape.root(), "code", code);
  // 3.4 has both; 3.6 (grpc-gateway 2) has "message" only.
  out.message = message_in(tape.root(), "message");
  if (out.message.empty()) out.message = message_in(tape.root(), "error");
  if (out.message.empty()) out.message = fmt::format("status {}", status);
  // A server that is no etcd could send anything: one line of plain text remains.
  std::ranges::replace_if(out.message, [](char c) { return c >= 0 && c < ' '; }, ' ');
  out.refusal = refusal_of(status, code, out.message);
  return out;
}

}  // namespace bascule::store::etcd
