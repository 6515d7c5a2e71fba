// Builders and parsers of single messages, protocol 3.0 and 3.2:
// https://www.postgresql.org/docs/18/protocol-message-formats.html
//
// Builders append one whole message to `out`. A string of the protocol ends at its first NUL: what
// follows a NUL in an argument is left out. Arguments of 1 GiB and more are a programming error.
// Parsers take the payload (without type and length), check every bound, and return kInvalid with a
// message that holds no byte of the payload. Views point into the payload.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "pgwire/startup.h"

namespace bascule::pgwire {

// ---- Server to client: builders --------------------------------------------------------------

void append_authentication_ok(std::string& out);
void append_authentication_cleartext(std::string& out);
void append_authentication_md5(std::string& out, std::span<const uint8_t, 4> salt);
void append_authentication_sasl(std::string& out, std::span<const std::string_view> mechanisms);
void append_authentication_sasl_continue(std::string& out, std::string_view data);
void append_authentication_sasl_final(std::string& out, std::string_view data);
void append_parameter_status(std::string& out, std::string_view name, std::string_view value);
void append_backend_key_data(std::string& out, const CancelKey& key);
void append_negotiate_protocol_version(std::string& out, ProtocolVersion newest,
                                       std::span<const std::string> unknown_options);

enum class TransactionStatus : char { kIdle = 'I', kInTransaction = 'T', kFailed = 'E' };
void append_ready_for_query(std::string& out, TransactionStatus status);

// "ERROR", "FATAL", "PANIC" / "WARNING", "NOTICE", ...; sqlstate: 5 of [0-9A-Z].
struct ErrorText {
  std::string_view severity = "ERROR";
  std::string_view sqlstate;
  std::string_view message;
  std::string_view detail = {};  // empty: left out
  std::string_view hint = {};    // empty: left out
};
void append_error_response(std::string& out, const ErrorText& error);
void append_notice_response(std::string& out, const ErrorText& notice);

// Small answers of our own; text format only. A column of type text unless said otherwise.
struct Column {
  std::string_view name;
  uint32_t type_oid = 25;
  int16_t type_size = -1;
};
void append_row_description(std::string& out, std::span<const Column> columns);
void append_data_row(std::string& out, std::span<const std::optional<std::string_view>> values);
void append_command_complete(std::string& out, std::string_view tag);
void append_empty_query_response(std::string& out);
void append_parse_complete(std::string& out);
void append_bind_complete(std::string& out);
void append_close_complete(std::string& out);
void append_no_data(std::string& out);

// ---- Client to server: builders --------------------------------------------------------------

void append_query(std::string& out, std::string_view sql);
void append_parse(std::string& out, std::string_view statement, std::string_view sql,
                  std::span<const uint32_t> parameter_types = {});
// Parameters in text format, results in text format.
void append_bind(std::string& out, std::string_view portal, std::string_view statement,
                 std::span<const std::optional<std::string_view>> parameters);
enum class Target : char { kStatement = 'S', kPortal = 'P' };
void append_describe(std::string& out, Target target, std::string_view name);
void append_close(std::string& out, Target target, std::string_view name);
void append_execute(std::string& out, std::string_view portal, int32_t max_rows = 0);
void append_sync(std::string& out);
void append_flush(std::string& out);
void append_terminate(std::string& out);
void append_copy_data(std::string& out, std::string_view data);  // either direction
void append_copy_done(std::string& out);                         // either direction
void append_copy_fail(std::string& out, std::string_view reason);
// Also the answer to md5 (md5.h). The payload is a secret: wipe `out` after use.
void append_password(std::string& out, std::string_view password);
void append_sasl_initial_response(std::string& out, std::string_view mechanism,
                                  std::string_view data);
void append_sasl_response(std::string& out, std::string_view data);

// ---- Parsers ---------------------------------------------------------------------------------

enum class AuthenticationKind {
  kOk,
  kCleartext,
  kMd5,
  kSasl,
  kSaslContinue,
  kSaslFinal,
  kUnsupported,  // Kerberos, GSSAPI, SSPI, ...: `code` says which
};
struct Authentication {
  AuthenticationKind kind = AuthenticationKind::kUnsupported;
  uint32_t code = 0;
  std::array<uint8_t, 4> salt{};             // kMd5
  std::vector<std::string_view> mechanisms;  // kSasl, at most 16
  std::string_view data;                     // kSaslContinue, kSaslFinal
};
Result<Authentication> parse_authentication(std::string_view payload);

// ErrorResponse and NoticeResponse. Absent fields are empty.
struct ErrorView {
  std::string_view severity;  // not translated ('V') if the server sends it, else 'S'
  std::string_view sqlstate;
  std::string_view message;
  std::string_view detail;
  std::string_view hint;
  std::string_view routine;  // the server's function that says so: never translated
  bool fatal() const { return severity == "FATAL" || severity == "PANIC"; }
};
Result<ErrorView> parse_error(std::string_view payload);
// Of the first bytes of the payload, where a large error streams: takes the fields that are whole.
ErrorView parse_error_prefix(std::string_view prefix);

struct ParameterStatus {
  std::string_view name;
  std::string_view value;
};
Result<ParameterStatus> parse_parameter_status(std::string_view payload);
Result<CancelKey> parse_backend_key_data(std::string_view payload);  // secret of 4 to 256 bytes
Result<TransactionStatus> parse_ready_for_query(std::string_view payload);
Result<std::string_view> parse_command_complete(std::string_view payload);  // the tag

struct NegotiateProtocolVersion {
  ProtocolVersion newest;
  std::vector<std::string_view> unknown_options;
};
Result<NegotiateProtocolVersion> parse_negotiate_protocol_version(std::string_view payload);

// 'p' of a client; which one it is follows from what was asked.
Result<std::string_view> parse_password(std::string_view payload);
struct SaslInitialResponse {
  std::string_view mechanism;
  std::string_view data;  // empty if the client sent none (length -1)
};
Result<SaslInitialResponse> parse_sasl_initial_response(std::string_view payload);
// SASLResponse is its payload.

Result<std::string_view> parse_query(std::string_view payload);  // the SQL text
struct ParseView {
  std::string_view statement;
  std::string_view sql;
  std::string_view parameter_types;  // big-endian Oids, 4 bytes each, as sent
};
Result<ParseView> parse_parse(std::string_view payload);
struct BindView {
  std::string_view portal;
  std::string_view statement;
  std::string_view rest;  // formats, parameters, result formats: as sent, not checked
};
Result<BindView> parse_bind(std::string_view payload);
struct TargetView {
  Target target = Target::kStatement;
  std::string_view name;
};
Result<TargetView> parse_target(std::string_view payload);  // Describe, Close

struct RowDescriptionColumn {
  std::string_view name;
  uint32_t type_oid = 0;
  int16_t format = 0;
};
Result<std::vector<RowDescriptionColumn>> parse_row_description(std::string_view payload);
// NULL is nullopt.
Result<std::vector<std::optional<std::string_view>>> parse_data_row(std::string_view payload);

}  // namespace bascule::pgwire
