#include "pgwire/messages.h"

#include <gtest/gtest.h>

#include <set>

#include "pgwire/md5.h"
#include "pgwire/testing.h"

namespace bascule::pgwire {
namespace {

using testing::From;
using testing::Message;

std::vector<Message> from_server(const std::string& name) {
  return testing::messages(testing::load(name), From::kServer);
}
std::vector<Message> from_client(const std::string& name) {
  return testing::messages(testing::load(name), From::kClient);
}

std::string framed(const Message& m) {
  std::string out(1, m.type);
  const auto length = static_cast<uint32_t>(m.payload.size() + 4);
  for (int shift = 24; shift >= 0; shift -= 8) out.push_back(static_cast<char>(length >> shift));
  return out + m.payload;
}

// The payload of the one message in `bytes`.
std::string_view payload(std::string_view bytes) {
  const Frame frame = peek_frame(bytes, kMaxPayload);
  EXPECT_EQ(frame.state, FrameState::kComplete);
  EXPECT_EQ(frame.size(), bytes.size());
  return frame.payload;
}

// Parses with what the type calls for and builds it again; empty for types without both.
std::string rebuilt_from_server(const Message& m) {
  std::string out;
  switch (m.type) {
    case 'R': {
      const auto auth = parse_authentication(m.payload);
      if (!auth) break;
      if (auth->kind == AuthenticationKind::kOk) append_authentication_ok(out);
      if (auth->kind == AuthenticationKind::kCleartext) append_authentication_cleartext(out);
      if (auth->kind == AuthenticationKind::kMd5) append_authentication_md5(out, auth->salt);
      if (auth->kind == AuthenticationKind::kSasl) {
        append_authentication_sasl(out, auth->mechanisms);
      }
      if (auth->kind == AuthenticationKind::kSaslContinue) {
        append_authentication_sasl_continue(out, auth->data);
      }
      if (auth->kind == AuthenticationKind::kSaslFinal) {
        append_authentication_sasl_final(out, auth->data);
      }
      break;
    }
    case 'S':
      if (const auto s = parse_parameter_status(m.payload)) {
        append_parameter_status(out, s->name, s->value);
      }
      break;
    case 'K':
      if (const auto key = parse_backend_key_data(m.payload)) append_backend_key_data(out, *key);
      break;
    case 'Z':
      if (const auto s = parse_ready_for_query(m.payload)) append_ready_for_query(out, *s);
      break;
    case 'C':
      if (const auto tag = parse_command_complete(m.payload)) append_command_complete(out, *tag);
      break;
    case 'D':
      if (const auto row = parse_data_row(m.payload)) append_data_row(out, *row);
      break;
    case 'v':
      if (const auto v = parse_negotiate_protocol_version(m.payload)) {
        const std::vector<std::string> options(v->unknown_options.begin(),
                                               v->unknown_options.end());
        append_negotiate_protocol_version(out, v->newest, options);
      }
      break;
    default:
      break;
  }
  return out;
}

std::string rebuilt_from_client(const Message& m) {
  std::string out;
  switch (m.type) {
    case 'Q':
      if (const auto sql = parse_query(m.payload)) append_query(out, *sql);
      break;
    case 'P':
      if (const auto p = parse_parse(m.payload)) append_parse(out, p->statement, p->sql);
      break;
    case 'D':
      if (const auto t = parse_target(m.payload)) append_describe(out, t->target, t->name);
      break;
    case 'C':
      if (const auto t = parse_target(m.payload)) append_close(out, t->target, t->name);
      break;
    case 'S':
      append_sync(out);
      break;
    case 'H':
      append_flush(out);
      break;
    case 'X':
      append_terminate(out);
      break;
    case 'c':
      append_copy_done(out);
      break;
    case 'd':
      append_copy_data(out, m.payload);
      break;
    default:
      break;
  }
  return out;
}

TEST(Messages, WhatIsParsedAndBuiltAgainIsWhatPostgreSqlSent) {
  std::set<char> seen;
  for (const auto& name : testing::sessions()) {
    for (const Message& m : from_server(name)) {
      if (std::string_view("RSKZCDv").find(m.type) == std::string_view::npos) continue;
      EXPECT_EQ(rebuilt_from_server(m), framed(m)) << name << " " << m.type;
      seen.insert(m.type);
    }
    for (const Message& m : from_client(name)) {
      if (std::string_view("QPDCSHXcd").find(m.type) == std::string_view::npos) continue;
      EXPECT_EQ(rebuilt_from_client(m), framed(m)) << name << " " << m.type;
      seen.insert(m.type);
    }
  }
  EXPECT_EQ(seen.size(), 13U) << "the captures hold all of these types";
}

// In all of these every byte counts, so nothing cut short is whole.
TEST(Messages, NothingCutShortIsAccepted) {
  for (const auto& name : testing::sessions()) {
    for (const Message& m : from_server(name)) {
      for (size_t n = 0; n < m.payload.size(); ++n) {
        const std::string_view part = std::string_view(m.payload).substr(0, n);
        if (m.type == 'T') {
          EXPECT_FALSE(parse_row_description(part).has_value()) << n;
        }
        if (m.type == 'D') {
          EXPECT_FALSE(parse_data_row(part).has_value()) << n;
        }
        if (m.type == 'E' || m.type == 'N') {
          EXPECT_FALSE(parse_error(part).has_value()) << n;
        }
        if (m.type == 'S') {
          EXPECT_FALSE(parse_parameter_status(part).has_value()) << n;
        }
        if (m.type == 'K') {
          EXPECT_FALSE(parse_backend_key_data(part).has_value()) << n;
        }
        if (m.type == 'C') {
          EXPECT_FALSE(parse_command_complete(part).has_value()) << n;
        }
        if (m.type == 'v') {
          EXPECT_FALSE(parse_negotiate_protocol_version(part).has_value()) << n;
        }
      }
    }
    for (const Message& m : from_client(name)) {
      for (size_t n = 0; n < m.payload.size(); ++n) {
        const std::string_view part = std::string_view(m.payload).substr(0, n);
        if (m.type == 'Q') {
          EXPECT_FALSE(parse_query(part).has_value()) << n;
        }
        if (m.type == 'P') {
          EXPECT_FALSE(parse_parse(part).has_value()) << n;
        }
        if (m.type == 'D' || m.type == 'C') {
          EXPECT_FALSE(parse_target(part).has_value()) << n;
        }
      }
    }
  }
}

TEST(Messages, ErrorsOfPostgreSqlAreRead) {
  const auto errors = testing::of_type(from_server("error"), 'E');
  ASSERT_EQ(errors.size(), 1U);
  const auto error = parse_error(errors[0].payload);
  ASSERT_TRUE(error.has_value());
  EXPECT_EQ(error->severity, "ERROR");
  EXPECT_EQ(error->sqlstate, "22012");
  EXPECT_EQ(error->message, "division by zero");
  EXPECT_FALSE(error->fatal());

  const auto refused = testing::of_type(from_server("scram_wrong_password"), 'E');
  const auto unknown = testing::of_type(from_server("scram_unknown_user"), 'E');
  EXPECT_TRUE(parse_error(refused.at(0).payload)->fatal());
  EXPECT_EQ(parse_error(refused.at(0).payload)->sqlstate, "28P01");
  EXPECT_EQ(parse_error(unknown.at(0).payload)->sqlstate, "28P01");

  const auto at_sync = testing::of_type(from_server("error_at_sync"), 'E');
  const auto detailed = parse_error(at_sync.at(0).payload);
  EXPECT_EQ(detailed->sqlstate, "23503");
  EXPECT_NE(detailed->detail, "");
}

TEST(Messages, AnErrorOfOursIsReadBackAndItsPrefixHoldsTheSqlState) {
  std::string bytes;
  append_error_response(bytes, {.severity = "FATAL",
                                .sqlstate = "57P03",
                                .message = "no primary",
                                .detail = "waited 10 s",
                                .hint = "retry"});
  const auto error = parse_error(payload(bytes));
  ASSERT_TRUE(error.has_value());
  EXPECT_TRUE(error->fatal());
  EXPECT_EQ(error->sqlstate, "57P03");
  EXPECT_EQ(error->message, "no primary");
  EXPECT_EQ(error->detail, "waited 10 s");
  EXPECT_EQ(error->hint, "retry");
  const ErrorView part = parse_error_prefix(payload(bytes).substr(0, 26));
  EXPECT_EQ(part.severity, "FATAL");
  EXPECT_EQ(part.sqlstate, "57P03");
  EXPECT_EQ(part.message, "") << "cut in its middle: left out";
  EXPECT_EQ(parse_error_prefix("").sqlstate, "");

  std::string notice;
  append_notice_response(notice, {.severity = "NOTICE", .sqlstate = "00000", .message = "m"});
  EXPECT_EQ(notice[0], 'N');
  EXPECT_EQ(parse_error(payload(notice))->severity, "NOTICE");
}

TEST(Messages, StringsEndAtTheirFirstNul) {
  using std::string_view_literals::operator""sv;
  std::string with, without;
  append_query(with, "select 1\0; drop table t"sv);
  append_query(without, "select 1");
  EXPECT_EQ(with, without);
}

TEST(Messages, RowsOfOursAreReadBack) {
  std::string bytes;
  append_row_description(bytes, std::vector<Column>{{"a"}, {"b", 23, 4}});
  const auto columns = parse_row_description(payload(bytes));
  ASSERT_TRUE(columns.has_value());
  ASSERT_EQ(columns->size(), 2U);
  EXPECT_EQ((*columns)[0].name, "a");
  EXPECT_EQ((*columns)[1].type_oid, 23U);
  bytes.clear();
  const std::vector<std::optional<std::string_view>> row = {"x", std::nullopt, ""};
  append_data_row(bytes, row);
  EXPECT_EQ(parse_data_row(payload(bytes)).value(), row);
}

TEST(Messages, RowDescriptionsOfPostgreSqlAreRead) {
  const auto all = testing::of_type(from_server("scram_simple"), 'T');
  const auto columns = parse_row_description(all.at(0).payload);
  ASSERT_TRUE(columns.has_value());
  ASSERT_EQ(columns->size(), 3U);
  EXPECT_EQ((*columns)[0].name, "one");
  EXPECT_EQ((*columns)[0].type_oid, 23U);
  EXPECT_EQ((*columns)[2].type_oid, 25U);
}

TEST(Messages, ExtendedQueryMessagesAreReadBack) {
  std::string bytes;
  const std::vector<uint32_t> types = {23, 25};
  append_parse(bytes, "s", "select $1, $2", types);
  const auto parse = parse_parse(payload(bytes));
  ASSERT_TRUE(parse.has_value());
  EXPECT_EQ(parse->statement, "s");
  EXPECT_EQ(parse->sql, "select $1, $2");
  EXPECT_EQ(parse->parameter_types, std::string_view("\0\0\0\x17\0\0\0\x19", 8));
  bytes.clear();
  const std::vector<std::optional<std::string_view>> parameters = {"1", std::nullopt};
  append_bind(bytes, "p", "s", parameters);
  const auto bind = parse_bind(payload(bytes));
  ASSERT_TRUE(bind.has_value());
  EXPECT_EQ(bind->portal, "p");
  EXPECT_EQ(bind->statement, "s");
  EXPECT_EQ(bind->rest.size(), 2U + 2 + 4 + 1 + 4 + 2);
  bytes.clear();
  append_execute(bytes, "p", 5);
  EXPECT_EQ(payload(bytes), std::string_view("p\0\0\0\0\5", 6));
}

TEST(Messages, ExecuteIsBuiltAsLibpqBuildsIt) {
  const auto executes = testing::of_type(from_client("extended"), 'E');
  std::string execute;
  append_execute(execute, "");
  EXPECT_EQ(execute, framed(executes.at(0)));
}

TEST(Messages, SaslInitialResponsesAreReadBack) {
  std::string bytes;
  append_sasl_initial_response(bytes, "SCRAM-SHA-256", "n,,n=,r=x");
  const auto response = parse_sasl_initial_response(payload(bytes));
  ASSERT_TRUE(response.has_value());
  EXPECT_EQ(response->mechanism, "SCRAM-SHA-256");
  EXPECT_EQ(response->data, "n,,n=,r=x");
  EXPECT_TRUE(parse_sasl_initial_response(std::string_view("M\0\xff\xff\xff\xff", 6)).has_value());
  EXPECT_FALSE(parse_sasl_initial_response(std::string_view("M\0\xff\xff\xff\xfe", 6)).has_value());
  EXPECT_FALSE(parse_sasl_initial_response(std::string_view("M\0\0\0\0\2x", 7)).has_value());
  EXPECT_FALSE(parse_sasl_initial_response(std::string_view("M\0\0\0\0\1xy", 8)).has_value());

  const auto real = testing::of_type(from_client("scram_simple"), 'p');
  const auto parsed = parse_sasl_initial_response(real.at(0).payload);
  bytes.clear();
  append_sasl_initial_response(bytes, parsed->mechanism, parsed->data);
  EXPECT_EQ(bytes, framed(real[0]));
}

TEST(Messages, HostileCountsAndLengthsAreRefused) {
  using std::string_view_literals::operator""sv;
  EXPECT_FALSE(parse_data_row("\xff\xff"sv).has_value());
  EXPECT_FALSE(parse_data_row("\0\1\x7f\xff\xff\xff"sv).has_value());
  EXPECT_FALSE(parse_row_description("\xff\xff"sv).has_value());
  EXPECT_FALSE(parse_parse("\0\0\xff\xff"sv).has_value());
  EXPECT_FALSE(parse_negotiate_protocol_version("\0\3\0\0\xff\xff\xff\xff"sv).has_value());
  EXPECT_FALSE(parse_negotiate_protocol_version("\0\2\0\0\0\0\0\0"sv).has_value());
  EXPECT_FALSE(parse_authentication("\0\0\0\x0a"sv).has_value()) << "mechanisms without an end";
  EXPECT_FALSE(parse_authentication("\0\0\0\5abc"sv).has_value());
  EXPECT_FALSE(parse_authentication("\0\0\0\0x"sv).has_value());
  EXPECT_EQ(parse_authentication("\0\0\0\7"sv)->kind, AuthenticationKind::kUnsupported);
  EXPECT_FALSE(parse_ready_for_query("").has_value());
  EXPECT_FALSE(parse_ready_for_query("X").has_value());
  EXPECT_FALSE(parse_ready_for_query("II").has_value());
  EXPECT_FALSE(parse_target("Xname\0"sv).has_value());
  std::string many("\0\0\0\x0a", 4);
  for (int i = 0; i < 17; ++i) many += "M\0"sv;
  many.push_back('\0');
  EXPECT_FALSE(parse_authentication(many).has_value());
}

TEST(Messages, CancelKeysOfProtocol32MayBeLong) {
  for (const size_t size : {4, 32, 256}) {
    std::string bytes;
    append_backend_key_data(bytes, {.pid = 1, .secret = std::string(size, 'k')});
    EXPECT_EQ(parse_backend_key_data(payload(bytes))->secret.size(), size);
  }
  for (const size_t size : {0, 3, 257}) {
    std::string bytes;
    append_backend_key_data(bytes, {.pid = 1, .secret = std::string(size, 'k')});
    EXPECT_FALSE(parse_backend_key_data(payload(bytes)).has_value());
  }
}

TEST(Md5, AnswersAsLibpqDid) {
  const auto auth = parse_authentication(from_server("md5").at(0).payload);
  ASSERT_EQ(auth->kind, AuthenticationKind::kMd5);
  const auto secret = md5_secret("legacy", "correct horse");
  ASSERT_TRUE(secret.has_value());
  EXPECT_EQ(secret->size(), 35U);
  std::string answer;
  append_password(answer, md5_response(*secret, auth->salt).value());
  EXPECT_EQ(answer, framed(from_client("md5").at(0)));
  EXPECT_EQ(parse_password(payload(answer)).value(), *md5_response(*secret, auth->salt));
  EXPECT_FALSE(md5_response("correct horse", auth->salt).has_value());
}

}  // namespace
}  // namespace bascule::pgwire
