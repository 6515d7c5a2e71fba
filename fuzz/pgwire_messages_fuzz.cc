// Every parser takes any payload, views stay inside it, and what is accepted can be built again to
// the same bytes. Byte 0 picks the parser.
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "fuzz/check.h"
#include "pgwire/messages.h"

using namespace bascule::pgwire;

namespace {

void check_same(const std::string& built, std::string_view payload) {
  const Frame frame = peek_frame(built, kMaxPayload);
  BASCULE_FUZZ_CHECK(frame.state == FrameState::kComplete);
  BASCULE_FUZZ_CHECK(frame.size() == built.size());
  BASCULE_FUZZ_CHECK(frame.payload == payload);
}

void check_authentication(std::string_view payload) {
  const auto auth = parse_authentication(payload);
  if (!auth) return;
  std::string out;
  switch (auth->kind) {
    case AuthenticationKind::kOk:
      append_authentication_ok(out);
      break;
    case AuthenticationKind::kCleartext:
      append_authentication_cleartext(out);
      break;
    case AuthenticationKind::kMd5:
      append_authentication_md5(out, auth->salt);
      break;
    case AuthenticationKind::kSasl:
      append_authentication_sasl(out, auth->mechanisms);
      break;
    case AuthenticationKind::kSaslContinue:
      append_authentication_sasl_continue(out, auth->data);
      break;
    case AuthenticationKind::kSaslFinal:
      append_authentication_sasl_final(out, auth->data);
      break;
    case AuthenticationKind::kUnsupported:
      return;
  }
  check_same(out, payload);
}

void check_error(std::string_view payload) {
  const ErrorView part = parse_error_prefix(payload);
  if (const auto whole = parse_error(payload)) {
    BASCULE_FUZZ_CHECK(part.sqlstate == whole->sqlstate && part.severity == whole->severity);
    BASCULE_FUZZ_CHECK(part.message == whole->message && part.hint == whole->hint);
  }
}

void check_small_server_messages(std::string_view payload) {
  std::string out;
  if (const auto status = parse_parameter_status(payload)) {
    append_parameter_status(out, status->name, status->value);
    check_same(out, payload);
  }
  if (const auto key = parse_backend_key_data(payload)) {
    out.clear();
    append_backend_key_data(out, *key);
    check_same(out, payload);
  }
  if (const auto status = parse_ready_for_query(payload)) {
    out.clear();
    append_ready_for_query(out, *status);
    check_same(out, payload);
  }
  if (const auto tag = parse_command_complete(payload)) {
    out.clear();
    append_command_complete(out, *tag);
    check_same(out, payload);
  }
  if (const auto negotiated = parse_negotiate_protocol_version(payload)) {
    out.clear();
    const std::vector<std::string> options(negotiated->unknown_options.begin(),
                                           negotiated->unknown_options.end());
    append_negotiate_protocol_version(out, negotiated->newest, options);
    check_same(out, payload);
  }
}

void check_rows(std::string_view payload) {
  if (const auto row = parse_data_row(payload)) {
    std::string out;
    append_data_row(out, *row);
    check_same(out, payload);
  }
  if (const auto columns = parse_row_description(payload)) {
    BASCULE_FUZZ_CHECK(columns->size() <= payload.size() / 19);
  }
}

void check_client_messages(std::string_view payload) {
  std::string out;
  if (const auto sql = parse_query(payload)) {
    append_query(out, *sql);
    check_same(out, payload);
  }
  if (const auto parse = parse_parse(payload)) {
    std::vector<uint32_t> types;
    for (size_t i = 0; i < parse->parameter_types.size(); i += 4) {
      uint32_t oid = 0;
      for (size_t j = 0; j < 4; ++j) {
        oid = oid << 8 | static_cast<unsigned char>(parse->parameter_types[i + j]);
      }
      types.push_back(oid);
    }
    out.clear();
    append_parse(out, parse->statement, parse->sql, types);
    check_same(out, payload);
  }
  if (const auto bind = parse_bind(payload)) {
    BASCULE_FUZZ_CHECK(bind->portal.size() + bind->statement.size() + bind->rest.size() + 2 ==
                       payload.size());
  }
  if (const auto target = parse_target(payload)) {
    out.clear();
    append_describe(out, target->target, target->name);
    check_same(out, payload);
  }
  if (const auto password = parse_password(payload)) {
    out.clear();
    append_password(out, *password);
    check_same(out, payload);
  }
  if (const auto sasl = parse_sasl_initial_response(payload)) {
    out.clear();
    append_sasl_initial_response(out, sasl->mechanism, sasl->data);
    // "No data" (length -1) reads like data of length 0.
    if (!sasl->data.empty()) check_same(out, payload);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const std::string_view payload(reinterpret_cast<const char*>(data) + 1, size - 1);
  switch (data[0] % 5) {
    case 0:
      check_authentication(payload);
      break;
    case 1:
      check_error(payload);
      break;
    case 2:
      check_small_server_messages(payload);
      break;
    case 3:
      check_rows(payload);
      break;
    default:
      check_client_messages(payload);
      break;
  }
  return 0;
}
