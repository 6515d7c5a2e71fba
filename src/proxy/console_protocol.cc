#include "proxy/console_protocol.h"

#include <utility>

#include "pgwire/frames.h"
#include "pgwire/messages.h"

namespace bascule::proxy {

namespace {

constexpr std::string_view kSyntaxError = "42601";
constexpr std::string_view kProtocolViolation = "08P01";

std::vector<pgwire::Column> wire_columns(std::span<const ConsoleColumn> columns) {
  std::vector<pgwire::Column> out;
  for (const ConsoleColumn& column : columns) {
    switch (column.type) {  // Oids of pg_type
      case ConsoleColumn::Type::kText:
        out.push_back({column.name, 25, -1});
        break;
      case ConsoleColumn::Type::kInt4:
        out.push_back({column.name, 23, 4});
        break;
      case ConsoleColumn::Type::kInt8:
        out.push_back({column.name, 20, 8});
        break;
      case ConsoleColumn::Type::kNumeric:
        out.push_back({column.name, 1700, -1});
        break;
    }
  }
  return out;
}

// Of SHOW client_encoding and its kin: one column, named like it.
std::vector<ConsoleColumn> columns_for(const ConsoleCommand& command) {
  if (command.verb == ConsoleVerb::kShowSetting) return {{command.argument}};
  if (command.verb != ConsoleVerb::kShow) return {};
  const auto columns = columns_of(command.show);
  return {columns.begin(), columns.end()};
}

uint16_t u16_at(std::string_view bytes, size_t at) {
  return static_cast<uint16_t>(static_cast<unsigned char>(bytes[at]) << 8 |
                               static_cast<unsigned char>(bytes[at + 1]));
}

// What follows the names in a Bind: formats of parameters, parameters, formats of results.
// nullopt: not that.
struct BindRest {
  bool parameters = false, binary = false;
};
std::optional<BindRest> read_bind(std::string_view rest) {
  BindRest out;
  if (rest.size() < 2) return std::nullopt;
  size_t at = 2 + size_t{2} * u16_at(rest, 0);
  if (rest.size() < at + 2) return std::nullopt;
  if (u16_at(rest, at) != 0) {
    out.parameters = true;
    return out;
  }
  at += 2;
  if (rest.size() < at + 2) return std::nullopt;
  const size_t formats = u16_at(rest, at);
  if (rest.size() != at + 2 + 2 * formats) return std::nullopt;
  for (size_t i = 0; i < formats; ++i) out.binary |= u16_at(rest, at + 2 + 2 * i) != 0;
  return out;
}

}  // namespace

void ConsoleProtocol::greet(uint32_t pid, std::string_view secret, std::string& reply) {
  for (const auto& [name, value] :
       {std::pair("server_version", "1.25.0/bouncer"), std::pair("client_encoding", "UTF8"),
        std::pair("server_encoding", "UTF8"), std::pair("DateStyle", "ISO"),
        std::pair("TimeZone", "GMT"), std::pair("standard_conforming_strings", "on"),
        std::pair("is_superuser", "on")}) {
    pgwire::append_parameter_status(reply, name, value);
  }
  pgwire::append_backend_key_data(reply, {pid, std::string(secret)});
  pgwire::append_ready_for_query(reply, pgwire::TransactionStatus::kIdle);
}

size_t ConsoleProtocol::on_bytes(std::string_view bytes, std::string& reply) {
  size_t done = 0;
  while (state_ == State::kReady) {
    const pgwire::Frame frame = pgwire::peek_frame(bytes.substr(done), kMessageMax);
    if (frame.state == pgwire::FrameState::kIncomplete) break;
    if (frame.state == pgwire::FrameState::kBad) {
      broken(reply);
      break;
    }
    done += frame.size();
    on_message(frame.type, frame.payload, reply);
  }
  return state_ == State::kEnded ? bytes.size() : done;
}

void ConsoleProtocol::on_message(char type, std::string_view payload, std::string& reply) {
  if (type == 'X') {
    state_ = State::kEnded;
    return;
  }
  if (type == 'S') {
    skipping_ = false;
    portals_.clear();  // the transaction is over
    return pgwire::append_ready_for_query(reply, pgwire::TransactionStatus::kIdle);
  }
  if (skipping_) return;
  switch (type) {
    case 'Q':
      return on_query(payload, reply);
    case 'P':
      return on_parse(payload, reply);
    case 'B':
      return on_bind(payload, reply);
    case 'D':
      return on_describe(payload, reply);
    case 'E':
      return on_execute(payload, reply);
    case 'C':
      return on_close(payload, reply);
    case 'H':
      return;  // what there is to say is sent anyhow
    default:
      return broken(reply);
  }
}

void ConsoleProtocol::broken(std::string& reply) {
  pgwire::append_error_response(reply, {.severity = "FATAL",
                                        .sqlstate = kProtocolViolation,
                                        .message = "invalid frontend message for the console"});
  state_ = State::kEnded;
}

// Of the extended protocol.
void ConsoleProtocol::refuse(std::string_view sqlstate, std::string_view message,
                             std::string& reply) {
  pgwire::append_error_response(reply, {.sqlstate = sqlstate, .message = message});
  skipping_ = true;
}

void ConsoleProtocol::begin(ConsoleCommand command, Rows rows, std::string& reply) {
  rows_ = rows;
  command_ = std::move(command);
  if (command_.verb != ConsoleVerb::kNothing) {
    state_ = State::kRunning;
    return;
  }
  pgwire::append_empty_query_response(reply);
  if (rows == Rows::kDescribed) {
    pgwire::append_ready_for_query(reply, pgwire::TransactionStatus::kIdle);
  }
}

void ConsoleProtocol::on_query(std::string_view payload, std::string& reply) {
  const auto sql = pgwire::parse_query(payload);
  if (!sql) return broken(reply);
  auto command = parse_console_command(*sql);
  if (!command) {
    pgwire::append_error_response(reply,
                                  {.sqlstate = kSyntaxError, .message = command.error().message});
    return pgwire::append_ready_for_query(reply, pgwire::TransactionStatus::kIdle);
  }
  begin(std::move(*command), Rows::kDescribed, reply);
}

void ConsoleProtocol::on_parse(std::string_view payload, std::string& reply) {
  const auto parse = pgwire::parse_parse(payload);
  if (!parse) return broken(reply);
  auto command = parse_console_command(parse->sql);
  if (!command) return refuse(kSyntaxError, command.error().message, reply);
  if (!parse->statement.empty() && statements_.contains(parse->statement)) {
    return refuse("42P05", "prepared statement already exists", reply);
  }
  if (statements_.size() >= kStatementsMax && !parse->statement.empty()) {
    return refuse("53400", "too many prepared statements for the console", reply);
  }
  statements_.insert_or_assign(std::string(parse->statement), std::move(*command));
  pgwire::append_parse_complete(reply);
}

void ConsoleProtocol::on_bind(std::string_view payload, std::string& reply) {
  const auto bind = pgwire::parse_bind(payload);
  const auto rest = bind ? read_bind(bind->rest) : std::nullopt;
  if (!rest) return broken(reply);
  const auto statement = statements_.find(bind->statement);
  if (statement == statements_.end()) {
    return refuse("26000", "prepared statement does not exist", reply);
  }
  if (rest->parameters) {
    return refuse(kProtocolViolation, "commands of the console have no parameters", reply);
  }
  if (rest->binary) return refuse("0A000", "the console gives results as text only", reply);
  if (!bind->portal.empty() && portals_.size() >= kStatementsMax) {
    return refuse("53400", "too many portals for the console", reply);
  }
  portals_.insert_or_assign(std::string(bind->portal), statement->second);
  pgwire::append_bind_complete(reply);
}

void ConsoleProtocol::describe(const ConsoleCommand& command, std::string& reply) {
  const auto columns = columns_for(command);
  if (columns.empty()) return pgwire::append_no_data(reply);
  pgwire::append_row_description(reply, wire_columns(columns));
}

void ConsoleProtocol::on_describe(std::string_view payload, std::string& reply) {
  const auto target = pgwire::parse_target(payload);
  if (!target) return broken(reply);
  const bool statement = target->target == pgwire::Target::kStatement;
  const auto& known = statement ? statements_ : portals_;
  const auto found = known.find(target->name);
  if (found == known.end()) {
    return statement ? refuse("26000", "prepared statement does not exist", reply)
                     : refuse("34000", "portal does not exist", reply);
  }
  // ParameterDescription: none.
  if (statement) reply.append("t\0\0\0\6\0\0", 7);
  describe(found->second, reply);
}

void ConsoleProtocol::on_execute(std::string_view payload, std::string& reply) {
  const size_t end = payload.find('\0');
  if (end == std::string_view::npos || payload.size() != end + 5) return broken(reply);
  const auto portal = portals_.find(payload.substr(0, end));
  if (portal == portals_.end()) return refuse("34000", "portal does not exist", reply);
  begin(portal->second, Rows::kBare, reply);
}

void ConsoleProtocol::on_close(std::string_view payload, std::string& reply) {
  const auto target = pgwire::parse_target(payload);
  if (!target) return broken(reply);
  auto& known = target->target == pgwire::Target::kStatement ? statements_ : portals_;
  if (const auto found = known.find(target->name); found != known.end()) known.erase(found);
  pgwire::append_close_complete(reply);
}

void ConsoleProtocol::finish(const ConsoleAnswer& answer, std::string& reply) {
  state_ = State::kReady;
  const bool simple = rows_ == Rows::kDescribed;
  if (!answer.notice.empty()) {
    pgwire::append_notice_response(reply, {.severity = "NOTICE",
                                           .sqlstate = "00000",
                                           .message = answer.notice,
                                           .detail = answer.detail});
  }
  if (answer.error) {
    pgwire::append_error_response(
        reply, {.sqlstate = answer.error->sqlstate, .message = answer.error->message});
    skipping_ = !simple;
  } else {
    if (answer.table) {
      if (simple) describe(command_, reply);
      std::vector<std::optional<std::string_view>> values;
      for (const ConsoleTable::Row& row : answer.table->rows) {
        values.assign(row.begin(), row.end());
        pgwire::append_data_row(reply, values);
      }
    }
    pgwire::append_command_complete(reply, answer.tag);
  }
  if (simple) pgwire::append_ready_for_query(reply, pgwire::TransactionStatus::kIdle);
}

}  // namespace bascule::proxy
