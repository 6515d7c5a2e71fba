// A session between a client and a server that the test plays.
#pragma once

#include <gtest/gtest.h>

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "pgwire/messages.h"
#include "proxy/session.h"

namespace bascule::proxy {

// Types and, of errors, SQLSTATEs: "E(08007) Z(I)".
inline std::string summary(std::string_view bytes) {
  std::string out;
  while (!bytes.empty()) {
    const pgwire::Frame frame = pgwire::peek_frame(bytes, pgwire::kMaxPayload);
    if (frame.state != pgwire::FrameState::kComplete) return out + "?";
    if (!out.empty()) out += ' ';
    out += frame.type;
    if (frame.type == 'E') {
      const auto error = pgwire::parse_error(frame.payload);
      out += "(" + std::string(error->sqlstate) + ")";
    }
    if (frame.type == 'Z') out += "(" + std::string(frame.payload) + ")";
    bytes.remove_prefix(frame.size());
  }
  return out;
}

class SessionTest : public testing::Test, public SessionOutput {
 public:
  explicit SessionTest(PoolMode mode = PoolMode::kSession)
      : session(PortKind::kWriter, mode, kLimits, workspace, workspace.settings.none()) {}

  void to_server(std::string_view bytes) override { server += bytes; }
  void to_client(std::string_view bytes) override { client += bytes; }
  void on_parameter(std::string_view name, std::string_view value) override {
    parameters.emplace_back(std::string(name) + "=" + std::string(value));
  }

  Session::Intake from_client(std::string_view bytes, Session::Gate gate = Session::Gate::kOpen) {
    return session.on_client(bytes, gate, *this);
  }
  Session::Intake query(std::string_view sql) {
    std::string bytes;
    pgwire::append_query(bytes, sql);
    return from_client(bytes);
  }
  std::optional<Loss> from_server(std::string_view bytes,
                                  Session::Permit permit = Session::Permit::kValid,
                                  Session::Writable writable = Session::Writable::kYes) {
    const auto relayed = session.on_server(bytes, back, permit, writable, *this);
    return relayed.lost;
  }
  void on_unreplicated() override { ++unreplicated; }
  // What PostgreSQL says when a wait for a synchronous standby is cancelled; `routine` as it does.
  static std::string warning(std::string_view routine = "SyncRepWaitForLSN") {
    std::string payload("SWARNUNG\0VWARNING\0C01000\0Manders\0R", 34);
    payload.append(routine).append("\0\0", 2);
    return {std::string("N\0\0\0", 4) + static_cast<char>(payload.size() + 4) + payload};
  }
  static std::string complete(std::string_view tag, pgwire::TransactionStatus status) {
    std::string bytes;
    pgwire::append_command_complete(bytes, tag);
    pgwire::append_ready_for_query(bytes, status);
    return bytes;
  }
  void answer(std::string_view tag,
              pgwire::TransactionStatus status = pgwire::TransactionStatus::kIdle) {
    ASSERT_EQ(from_server(complete(tag, status)), std::nullopt);
  }
  void run(std::string_view sql, std::string_view tag,
           pgwire::TransactionStatus status = pgwire::TransactionStatus::kIdle) {
    query(sql);
    answer(tag, status);
    client.clear();
    server.clear();
  }
  std::string lose(Loss loss = Loss::kConnection) {
    client.clear();
    after = session.on_lost(loss, "n1, epoch 3", *this);
    return summary(client);
  }
  void attach() {
    back = pgwire::FrameScanner(pgwire::kBackendPolicy);
    session.attach(state, *this);
  }
  void SetUp() override { attach(); }

  static constexpr Session::Limits kLimits{.retained_bytes = 8192, .memory = {10, 10'000, 10}};
  Workspace workspace;
  ServerState state{workspace.settings.parameters({}), workspace.settings.none(), {}, {}, 0};
  Session session;
  pgwire::FrameScanner back{pgwire::kBackendPolicy};
  std::string server, client;
  int unreplicated = 0;
  std::vector<std::string> parameters;
  Session::After after = Session::After::kKeep;
};

}  // namespace bascule::proxy
