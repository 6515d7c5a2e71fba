// The wire protocol of an admin console, without I/O: takes the client's bytes, names the command
// to carry out, turns its result into messages. Simple queries, and the extended protocol for
// drivers that speak nothing else: texts without parameters, results in text format. The client is
// logged in; it is not trusted beyond that: everything is bounded.
#pragma once

#include <cstddef>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "proxy/console_command.h"
#include "proxy/console_tables.h"

namespace bascule::proxy {

struct ConsoleError {
  std::string sqlstate;
  std::string message;
};

// What became of a command.
struct ConsoleAnswer {
  std::optional<ConsoleError> error;
  std::optional<ConsoleTable> table;
  std::string tag;             // of CommandComplete
  std::string notice, detail;  // beside it; empty: none
};

class ConsoleProtocol {
 public:
  enum class State {
    kReady,    // more bytes are needed
    kRunning,  // command() is to be carried out; finish() follows, bytes wait
    kEnded,    // the client said goodbye, or can't be followed: send the reply and close
  };
  // Consumes whole messages, up to one that asks for a command. Appends to `reply`.
  size_t on_bytes(std::string_view bytes, std::string& reply);
  State state() const { return state_; }
  const ConsoleCommand& command() const { return command_; }
  void finish(const ConsoleAnswer& answer, std::string& reply);

  // After AuthenticationOk, up to the first ReadyForQuery.
  static void greet(uint32_t pid, std::string_view secret, std::string& reply);

  static constexpr size_t kMessageMax = 16 * 1024;
  static constexpr size_t kStatementsMax = 100;

 private:
  enum class Rows { kDescribed, kBare };  // with or without a RowDescription

  void on_message(char type, std::string_view payload, std::string& reply);
  void on_query(std::string_view payload, std::string& reply);
  void on_parse(std::string_view payload, std::string& reply);
  void on_bind(std::string_view payload, std::string& reply);
  void on_describe(std::string_view payload, std::string& reply);
  void on_execute(std::string_view payload, std::string& reply);
  void begin(ConsoleCommand command, Rows rows, std::string& reply);
  void on_close(std::string_view payload, std::string& reply);
  void describe(const ConsoleCommand& command, std::string& reply);
  void broken(std::string& reply);
  void refuse(std::string_view sqlstate, std::string_view message, std::string& reply);

  State state_ = State::kReady;
  ConsoleCommand command_;
  Rows rows_ = Rows::kDescribed;  // of the command that runs; kBare: of the extended protocol
  bool skipping_ = false;         // an error was given: up to the next Sync
  std::map<std::string, ConsoleCommand, std::less<>> statements_, portals_;
};

}  // namespace bascule::proxy
