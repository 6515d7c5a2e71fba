#include "store/etcd_wire.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <nlohmann/json.hpp>

#include "base/base64.h"
#include "store/bounds.h"

namespace bascule::store::etcd {
namespace {

using nlohmann::json;

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

const json* member(const json& object, const char* key) {
  const auto found = object.find(key);
  return found == object.end() || found->is_null() ? nullptr : &*found;
}

// A number or the text of one; absent is 0, as proto3 has it. false: neither.
bool number(const json& object, const char* key, uint64_t& out) {
  const json* value = member(object, key);
  if (value == nullptr) return true;
  if (value->is_number_unsigned()) {
    out = value->get<uint64_t>();
    return true;
  }
  if (!value->is_string()) return false;
  const auto& text = value->get_ref<const std::string&>();
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), out);
  return error == std::errc() && end == text.data() + text.size();
}

bool flag(const json& object, const char* key, bool& out) {
  const json* value = member(object, key);
  if (value != nullptr && !value->is_boolean()) return false;
  out = value != nullptr && value->get<bool>();
  return true;
}

bool bytes(const json& object, const char* key, std::string& out) {
  const json* value = member(object, key);
  if (value == nullptr) return true;
  if (!value->is_string()) return false;
  auto decoded = base64_decode(value->get_ref<const std::string&>());
  if (decoded) out = std::move(*decoded);
  return decoded.has_value();
}

const json* array_of(const json& object, const char* key, bool& good) {
  const json* value = member(object, key);
  if (value == nullptr) return nullptr;
  good = good && value->is_array();
  return value->is_array() ? value : nullptr;
}

bool entry_of(const json& kv, Entry& entry) {
  return kv.is_object() && bytes(kv, "key", entry.key) && bytes(kv, "value", entry.value) &&
         number(kv, "mod_revision", entry.revision);
}

bool range_of(const json& response, std::vector<Found>& ranges) {
  if (!response.is_object()) return false;
  const json* range = member(response, "response_range");
  if (range == nullptr) return true;  // of a write
  if (!range->is_object()) return false;
  Found found;
  bool good = number(*range, "count", found.count);
  if (const json* kvs = array_of(*range, "kvs", good)) {
    for (const json& kv : *kvs) {
      if (!entry_of(kv, found.entries.emplace_back())) return false;
    }
  }
  ranges.push_back(std::move(found));
  return good;
}

bool header_of(const json& answer, uint64_t& cluster_id, Revision& revision) {
  const json* header = member(answer, "header");
  return header != nullptr && header->is_object() && number(*header, "cluster_id", cluster_id) &&
         number(*header, "revision", revision);
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
  const json body = {{"name", user}, {"password", password}};
  return body.dump(-1, ' ', false, json::error_handler_t::replace);
}

Result<TxnAnswer> parse_txn(std::string_view text) {
  const json answer = json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!answer.is_object()) return malformed("not an object");
  TxnAnswer out;
  if (!header_of(answer, out.cluster_id, out.revision)) return malformed("header");
  if (!flag(answer, "succeeded", out.succeeded)) return malformed("succeeded");
  bool good = true;
  if (const json* responses = array_of(answer, "responses", good)) {
    for (const json& response : *responses) {
      if (!range_of(response, out.ranges)) return malformed("range");
    }
  }
  if (!good) return malformed("responses");
  return out;
}

Result<WatchAnswer> parse_watch(std::string_view text) {
  const json line = json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!line.is_object()) return malformed("not an object");
  if (const json* error = member(line, "error")) {
    WatchAnswer out;
    out.canceled = true;
    const json* message = error->is_object() ? member(*error, "message") : nullptr;
    if (message != nullptr && message->is_string()) {
      out.reason = message->get<std::string>().substr(0, kMessageBytesMax);
    }
    return out;
  }
  const json* result = member(line, "result");
  if (result == nullptr || !result->is_object()) return malformed("result");
  WatchAnswer out;
  uint64_t cluster_id = 0;
  if (!header_of(*result, cluster_id, out.revision)) return malformed("header");
  if (!flag(*result, "created", out.created) || !flag(*result, "canceled", out.canceled) ||
      !number(*result, "compact_revision", out.compacted)) {
    return malformed("watch");
  }
  const json* reason = member(*result, "cancel_reason");
  if (reason != nullptr && reason->is_string()) {
    out.reason = reason->get<std::string>().substr(0, kMessageBytesMax);
  }
  bool good = true;
  if (const json* events = array_of(*result, "events", good)) {
    for (const json& event : *events) {
      const json* kv = event.is_object() ? member(event, "kv") : nullptr;
      uint64_t revision = 0;
      if (kv == nullptr || !kv->is_object() || !number(*kv, "mod_revision", revision)) {
        return malformed("event");
      }
      out.last_change = std::max(out.last_change, revision);
    }
  }
  if (!good) return malformed("events");
  return out;
}

Result<std::string> parse_token(std::string_view text) {
  const json answer = json::parse(text, nullptr, /*allow_exceptions=*/false);
  const json* token = answer.is_object() ? member(answer, "token") : nullptr;
  if (token == nullptr || !token->is_string()) return malformed("token");
  auto out = token->get<std::string>();
  // It becomes part of a header.
  const bool printable = std::ranges::all_of(out, [](char c) { return c > ' ' && c < 0x7f; });
  if (out.empty() || out.size() > kTokenBytesMax || !printable) return malformed("token");
  return out;
}

Failure parse_failure(int status, std::string_view body) {
  Failure out;
  uint64_t code = 0;
  const json answer = json::parse(body, nullptr, /*allow_exceptions=*/false);
  if (answer.is_object()) {
    (void)number(answer, "code", code);
    // 3.4 has both; 3.6 (grpc-gateway 2) has "message" only.
    for (const char* key : {"message", "error"}) {
      const json* text = member(answer, key);
      if (text == nullptr || !text->is_string()) continue;
      out.message = text->get<std::string>().substr(0, kMessageBytesMax);
      break;
    }
  }
  if (out.message.empty()) out.message = fmt::format("status {}", status);
  // A server that is no etcd could send anything: one line of plain text remains.
  std::ranges::replace_if(out.message, [](char c) { return c >= 0 && c < ' '; }, ' ');
  out.refusal = refusal_of(status, code, out.message);
  return out;
}

}  // namespace bascule::store::etcd
