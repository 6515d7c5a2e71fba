// proxy::Session under any order of client bytes, server bytes, losses and refusals. The input is a
// list of steps: one byte that says what happens, one for the length, then the bytes.
#include <cstdint>
#include <string>
#include <string_view>

#include "fuzz/check.h"
#include "proxy/session.h"

namespace {

using bascule::proxy::Loss;
using bascule::proxy::PortKind;
using bascule::proxy::Session;

class Output : public bascule::proxy::SessionOutput {
 public:
  void to_server(std::string_view bytes) override {
    BASCULE_FUZZ_CHECK(attached);
    sent += bytes.size();
  }
  void to_client(std::string_view) override {}
  void on_parameter(std::string_view, std::string_view) override {}
  bool attached = false;
  size_t sent = 0;
};

struct World {
  Session::Limits limits{.retained_bytes = 256, .memory = {4, 512, 4}};
  bascule::proxy::Workspace workspace;
  bascule::proxy::ServerState state{
      workspace.settings.parameters({}), workspace.settings.none(), {}, {}, 0};
  Session session{PortKind::kWriter, bascule::proxy::PoolMode::kSession, limits, workspace,
                  workspace.settings.none()};
  bascule::pgwire::FrameScanner back{bascule::pgwire::kBackendPolicy};
  Output out;
  std::string client_unread, server_unread;
  bool waiting = false;

  void attach() {
    if (session.attached()) return;
    back = bascule::pgwire::FrameScanner(bascule::pgwire::kBackendPolicy);
    server_unread.clear();
    out.attached = true;
    (void)session.script(state);
    session.attach(state, out);
    waiting = false;
  }
  bool client(std::string_view bytes, Session::Gate gate) {
    client_unread += bytes;
    const Session::Intake intake = session.on_client(client_unread, gate, out);
    BASCULE_FUZZ_CHECK(intake.consumed <= client_unread.size());
    client_unread.erase(0, intake.consumed);
    waiting = intake.next == Session::Next::kNeedServer;
    if (waiting) BASCULE_FUZZ_CHECK(!session.attached() || gate == Session::Gate::kShut);
    return intake.next == Session::Next::kMore || waiting;
  }
  bool lose(Loss loss) {
    const Session::After after = session.on_lost(loss, "n1", out);
    out.attached = false;
    server_unread.clear();
    if (after == Session::After::kClose) return false;
    BASCULE_FUZZ_CHECK(!session.attached());
    return true;
  }
  bool server(std::string_view bytes, Session::Permit permit) {
    if (!session.attached()) return true;
    server_unread += bytes;
    const auto relayed =
        session.on_server(server_unread, back, permit, Session::Writable::kNo, out);
    BASCULE_FUZZ_CHECK(relayed.consumed <= server_unread.size());
    server_unread.erase(0, relayed.consumed);
    return relayed.lost ? lose(*relayed.lost) : true;
  }
  void refuse() {
    if (waiting || session.wants_retry()) session.refuse("57P03", "no primary", out);
    waiting = false;
  }
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  std::string_view input(reinterpret_cast<const char*>(data), size);
  World world;
  world.attach();
  while (input.size() >= 2) {
    const auto what = static_cast<uint8_t>(input[0]);
    const size_t length = std::min<size_t>(static_cast<uint8_t>(input[1]), input.size() - 2);
    const std::string_view bytes = input.substr(2, length);
    input.remove_prefix(2 + length);
    bool alive = true;
    switch (what % 8) {
      case 0:
      case 1:
        alive = world.client(bytes, Session::Gate::kOpen);
        break;
      case 2:
        alive = world.client(bytes, Session::Gate::kShut);
        break;
      case 3:
      case 4:
        alive = world.server(bytes, Session::Permit::kValid);
        break;
      case 5:
        alive = world.server(bytes, Session::Permit::kExpired);
        break;
      case 6:
        alive = world.lose(static_cast<Loss>(length % 7));
        break;
      case 7:
        (length & 1) != 0 ? world.refuse() : world.attach();
        break;
    }
    if (!alive) break;
  }
  return 0;
}
