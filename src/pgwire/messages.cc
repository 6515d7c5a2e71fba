#include "pgwire/messages.h"

#include <algorithm>

#include "pgwire/wire.h"

namespace bascule::pgwire {
namespace {

using wire::Message;
using wire::Reader;

constexpr size_t kMaxMechanisms = 16;
constexpr size_t kMaxProtocolOptions = kMaxStartupParameters;

enum AuthenticationCode : uint32_t {
  kAuthOk = 0,
  kAuthCleartext = 3,
  kAuthMd5 = 5,
  kAuthSasl = 10,
  kAuthSaslContinue = 11,
  kAuthSaslFinal = 12,
};

std::unexpected<Error> malformed(const char* name) {
  return fail(ErrorCode::kInvalid, std::string("malformed ") + name + " message");
}

std::string_view view(std::span<const uint8_t> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

void append_error_fields(std::string& out, char type, const ErrorText& error) {
  Message message(out, type);
  message.u8('S').text(error.severity).u8('V').text(error.severity);
  message.u8('C').text(error.sqlstate).u8('M').text(error.message);
  if (!error.detail.empty()) message.u8('D').text(error.detail);
  if (!error.hint.empty()) message.u8('H').text(error.hint);
  message.u8('\0');
}

void set_field(ErrorView& error, char field, std::string_view value) {
  switch (field) {
    case 'S':
      if (error.severity.empty()) error.severity = value;
      break;
    case 'V':
      error.severity = value;
      break;
    case 'C':
      error.sqlstate = value;
      break;
    case 'M':
      error.message = value;
      break;
    case 'D':
      error.detail = value;
      break;
    case 'H':
      error.hint = value;
      break;
    case 'R':
      error.routine = value;
      break;
    default:
      break;
  }
}

}  // namespace

// ---- Server to client --------------------------------------------------------------------------

void append_authentication_ok(std::string& out) { Message(out, 'R').u32(kAuthOk); }

void append_authentication_cleartext(std::string& out) { Message(out, 'R').u32(kAuthCleartext); }

void append_authentication_md5(std::string& out, std::span<const uint8_t, 4> salt) {
  Message(out, 'R').u32(kAuthMd5).bytes(view(salt));
}

void append_authentication_sasl(std::string& out, std::span<const std::string_view> mechanisms) {
  Message message(out, 'R');
  message.u32(kAuthSasl);
  for (const std::string_view mechanism : mechanisms) message.text(mechanism);
  message.u8('\0');
}

void append_authentication_sasl_continue(std::string& out, std::string_view data) {
  Message(out, 'R').u32(kAuthSaslContinue).bytes(data);
}

void append_authentication_sasl_final(std::string& out, std::string_view data) {
  Message(out, 'R').u32(kAuthSaslFinal).bytes(data);
}

void append_parameter_status(std::string& out, std::string_view name, std::string_view value) {
  Message(out, 'S').text(name).text(value);
}

void append_backend_key_data(std::string& out, const CancelKey& key) {
  Message(out, 'K').u32(key.pid).bytes(key.secret);
}

void append_negotiate_protocol_version(std::string& out, ProtocolVersion newest,
                                       std::span<const std::string> unknown_options) {
  Message message(out, 'v');
  message.u32(newest.wire()).u32(static_cast<uint32_t>(unknown_options.size()));
  for (const std::string& option : unknown_options) message.text(option);
}

void append_ready_for_query(std::string& out, TransactionStatus status) {
  Message(out, 'Z').u8(static_cast<char>(status));
}

void append_error_response(std::string& out, const ErrorText& error) {
  append_error_fields(out, 'E', error);
}

void append_notice_response(std::string& out, const ErrorText& notice) {
  append_error_fields(out, 'N', notice);
}

void append_row_description(std::string& out, std::span<const Column> columns) {
  Message message(out, 'T');
  message.u16(static_cast<uint16_t>(columns.size()));
  for (const Column& column : columns) {
    // No table, no column number; no type modifier; text format.
    message.text(column.name).u32(0).u16(0).u32(column.type_oid);
    message.u16(static_cast<uint16_t>(column.type_size)).u32(~uint32_t{0}).u16(0);
  }
}

void append_data_row(std::string& out, std::span<const std::optional<std::string_view>> values) {
  Message message(out, 'D');
  message.u16(static_cast<uint16_t>(values.size()));
  for (const auto& value : values) {
    message.u32(value ? static_cast<uint32_t>(value->size()) : ~uint32_t{0});
    if (value) message.bytes(*value);
  }
}

void append_command_complete(std::string& out, std::string_view tag) {
  Message(out, 'C').text(tag);
}

void append_empty_query_response(std::string& out) { Message(out, 'I'); }
void append_parse_complete(std::string& out) { Message(out, '1'); }
void append_bind_complete(std::string& out) { Message(out, '2'); }
void append_close_complete(std::string& out) { Message(out, '3'); }
void append_no_data(std::string& out) { Message(out, 'n'); }

// ---- Client to server --------------------------------------------------------------------------

void append_query(std::string& out, std::string_view sql) { Message(out, 'Q').text(sql); }

void append_parse(std::string& out, std::string_view statement, std::string_view sql,
                  std::span<const uint32_t> parameter_types) {
  Message message(out, 'P');
  message.text(statement).text(sql).u16(static_cast<uint16_t>(parameter_types.size()));
  for (const uint32_t oid : parameter_types) message.u32(oid);
}

void append_bind(std::string& out, std::string_view portal, std::string_view statement,
                 std::span<const std::optional<std::string_view>> parameters) {
  Message message(out, 'B');
  message.text(portal).text(statement).u16(0).u16(static_cast<uint16_t>(parameters.size()));
  for (const auto& parameter : parameters) {
    message.u32(parameter ? static_cast<uint32_t>(parameter->size()) : ~uint32_t{0});
    if (parameter) message.bytes(*parameter);
  }
  message.u16(0);
}

void append_describe(std::string& out, Target target, std::string_view name) {
  Message(out, 'D').u8(static_cast<char>(target)).text(name);
}

void append_close(std::string& out, Target target, std::string_view name) {
  Message(out, 'C').u8(static_cast<char>(target)).text(name);
}

void append_execute(std::string& out, std::string_view portal, int32_t max_rows) {
  Message(out, 'E').text(portal).u32(static_cast<uint32_t>(max_rows));
}

void append_sync(std::string& out) { Message(out, 'S'); }
void append_flush(std::string& out) { Message(out, 'H'); }
void append_terminate(std::string& out) { Message(out, 'X'); }

void append_copy_data(std::string& out, std::string_view data) { Message(out, 'd').bytes(data); }
void append_copy_done(std::string& out) { Message(out, 'c'); }
void append_copy_fail(std::string& out, std::string_view reason) { Message(out, 'f').text(reason); }

void append_password(std::string& out, std::string_view password) {
  Message(out, 'p').text(password);
}

void append_sasl_initial_response(std::string& out, std::string_view mechanism,
                                  std::string_view data) {
  Message(out, 'p').text(mechanism).u32(static_cast<uint32_t>(data.size())).bytes(data);
}

void append_sasl_response(std::string& out, std::string_view data) {
  Message(out, 'p').bytes(data);
}

// ---- Parsers -----------------------------------------------------------------------------------

Result<Authentication> parse_authentication(std::string_view payload) {
  Reader reader(payload);
  Authentication auth;
  auth.code = reader.u32();
  if (!reader.ok()) return malformed("Authentication");
  switch (auth.code) {
    case kAuthOk:
      auth.kind = AuthenticationKind::kOk;
      break;
    case kAuthCleartext:
      auth.kind = AuthenticationKind::kCleartext;
      break;
    case kAuthMd5: {
      auth.kind = AuthenticationKind::kMd5;
      for (uint8_t& byte : auth.salt) byte = reader.u8();
      break;
    }
    case kAuthSasl: {
      auth.kind = AuthenticationKind::kSasl;
      for (auto name = reader.text(); !name.empty(); name = reader.text()) {
        if (auth.mechanisms.size() == kMaxMechanisms) return malformed("AuthenticationSASL");
        auth.mechanisms.push_back(name);
      }
      break;
    }
    case kAuthSaslContinue:
    case kAuthSaslFinal:
      auth.kind = auth.code == kAuthSaslContinue ? AuthenticationKind::kSaslContinue
                                                 : AuthenticationKind::kSaslFinal;
      auth.data = reader.rest();
      break;
    default:
      auth.kind = AuthenticationKind::kUnsupported;
      reader.rest();
      break;
  }
  if (!reader.ok_at_end()) return malformed("Authentication");
  return auth;
}

Result<ErrorView> parse_error(std::string_view payload) {
  Reader reader(payload);
  ErrorView error;
  for (auto field = static_cast<char>(reader.u8()); reader.ok() && field != '\0';
       field = static_cast<char>(reader.u8())) {
    const std::string_view value = reader.text();
    if (reader.ok()) set_field(error, field, value);
  }
  if (!reader.ok_at_end()) return malformed("ErrorResponse");
  return error;
}

ErrorView parse_error_prefix(std::string_view prefix) {
  Reader reader(prefix);
  ErrorView error;
  while (reader.left() > 0) {
    const auto field = static_cast<char>(reader.u8());
    const std::string_view value = reader.text();
    if (field == '\0' || !reader.ok()) break;
    set_field(error, field, value);
  }
  return error;
}

Result<ParameterStatus> parse_parameter_status(std::string_view payload) {
  Reader reader(payload);
  ParameterStatus status;
  status.name = reader.text();
  status.value = reader.text();
  if (!reader.ok_at_end() || status.name.empty()) return malformed("ParameterStatus");
  return status;
}

Result<CancelKey> parse_backend_key_data(std::string_view payload) {
  Reader reader(payload);
  CancelKey key;
  key.pid = reader.u32();
  key.secret = reader.rest();
  if (!reader.ok() || key.secret.size() < kMinCancelSecret ||
      key.secret.size() > kMaxCancelSecret) {
    return malformed("BackendKeyData");
  }
  return key;
}

Result<TransactionStatus> parse_ready_for_query(std::string_view payload) {
  if (payload == "I" || payload == "T" || payload == "E") {
    return static_cast<TransactionStatus>(payload[0]);
  }
  return malformed("ReadyForQuery");
}

Result<std::string_view> parse_command_complete(std::string_view payload) {
  Reader reader(payload);
  const std::string_view tag = reader.text();
  if (!reader.ok_at_end()) return malformed("CommandComplete");
  return tag;
}

Result<NegotiateProtocolVersion> parse_negotiate_protocol_version(std::string_view payload) {
  Reader reader(payload);
  NegotiateProtocolVersion negotiated;
  negotiated.newest = ProtocolVersion::from_wire(reader.u32());
  const uint32_t count = reader.u32();
  if (!reader.ok() || negotiated.newest.major != 3 || count > kMaxProtocolOptions) {
    return malformed("NegotiateProtocolVersion");
  }
  for (uint32_t i = 0; i < count; ++i) negotiated.unknown_options.push_back(reader.text());
  if (!reader.ok_at_end()) return malformed("NegotiateProtocolVersion");
  return negotiated;
}

Result<std::string_view> parse_password(std::string_view payload) {
  Reader reader(payload);
  const std::string_view password = reader.text();
  if (!reader.ok_at_end()) return malformed("PasswordMessage");
  return password;
}

Result<SaslInitialResponse> parse_sasl_initial_response(std::string_view payload) {
  Reader reader(payload);
  SaslInitialResponse response;
  response.mechanism = reader.text();
  const uint32_t length = reader.u32();
  if (length != ~uint32_t{0}) response.data = reader.bytes(length);
  if (!reader.ok_at_end() || response.mechanism.empty()) return malformed("SASLInitialResponse");
  return response;
}

Result<std::string_view> parse_query(std::string_view payload) {
  Reader reader(payload);
  const std::string_view sql = reader.text();
  if (!reader.ok_at_end()) return malformed("Query");
  return sql;
}

Result<ParseView> parse_parse(std::string_view payload) {
  Reader reader(payload);
  ParseView parse;
  parse.statement = reader.text();
  parse.sql = reader.text();
  const uint16_t count = reader.u16();
  parse.parameter_types = reader.bytes(size_t{count} * 4);
  if (!reader.ok_at_end()) return malformed("Parse");
  return parse;
}

Result<BindView> parse_bind(std::string_view payload) {
  Reader reader(payload);
  BindView bind;
  bind.portal = reader.text();
  bind.statement = reader.text();
  bind.rest = reader.rest();
  if (!reader.ok()) return malformed("Bind");
  return bind;
}

Result<TargetView> parse_target(std::string_view payload) {
  Reader reader(payload);
  TargetView view;
  view.target = static_cast<Target>(reader.u8());
  view.name = reader.text();
  const bool known = view.target == Target::kStatement || view.target == Target::kPortal;
  if (!reader.ok_at_end() || !known) return malformed("Describe or Close");
  return view;
}

Result<std::vector<RowDescriptionColumn>> parse_row_description(std::string_view payload) {
  Reader reader(payload);
  const uint16_t count = reader.u16();
  std::vector<RowDescriptionColumn> columns;
  // A hostile count must not reserve more than the bytes that are there can hold.
  columns.reserve(std::min<size_t>(count, reader.left() / 19));
  for (uint16_t i = 0; i < count && reader.ok(); ++i) {
    RowDescriptionColumn column;
    column.name = reader.text();
    reader.bytes(4 + 2);  // table, column number
    column.type_oid = reader.u32();
    reader.bytes(2 + 4);  // type size, type modifier
    column.format = static_cast<int16_t>(reader.u16());
    columns.push_back(column);
  }
  if (!reader.ok_at_end()) return malformed("RowDescription");
  return columns;
}

Result<std::vector<std::optional<std::string_view>>> parse_data_row(std::string_view payload) {
  Reader reader(payload);
  const uint16_t count = reader.u16();
  std::vector<std::optional<std::string_view>> values;
  values.reserve(std::min<size_t>(count, reader.left() / 4));
  for (uint16_t i = 0; i < count && reader.ok(); ++i) {
    const uint32_t length = reader.u32();
    if (length == ~uint32_t{0}) {
      values.emplace_back(std::nullopt);
    } else {
      values.emplace_back(reader.bytes(length));
    }
  }
  if (!reader.ok_at_end()) return malformed("DataRow");
  return values;
}

}  // namespace bascule::pgwire
