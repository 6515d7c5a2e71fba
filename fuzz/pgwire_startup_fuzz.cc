// Any first packet of a client is refused or understood within bounds; what was understood can be
// built again and means the same.
#include <cstddef>
#include <cstdint>
#include <string>

#include "fuzz/check.h"
#include "pgwire/startup.h"

using namespace bascule::pgwire;

namespace {

void check_message(const StartupMessage& message) {
  BASCULE_FUZZ_CHECK(message.version.major == 3);
  BASCULE_FUZZ_CHECK(!message.user().empty());
  BASCULE_FUZZ_CHECK(!message.database().empty());
  BASCULE_FUZZ_CHECK(message.parameters.size() + message.protocol_options.size() <=
                     kMaxStartupParameters);
  BASCULE_FUZZ_CHECK(negotiate(message, kProtocol32).version <= kProtocol32);

  std::string built;
  append_startup(built, message.version, message.parameters);
  const auto again = parse_startup(built);
  BASCULE_FUZZ_CHECK(again.has_value());
  const auto& same = std::get<StartupMessage>(*again);
  BASCULE_FUZZ_CHECK(same.parameters == message.parameters);
  BASCULE_FUZZ_CHECK(same.replication == message.replication);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  const StartupFrame frame = peek_startup(bytes);
  BASCULE_FUZZ_CHECK(parse_startup(bytes).has_value() <= (frame.state == FrameState::kComplete));
  if (frame.state != FrameState::kComplete) return 0;
  BASCULE_FUZZ_CHECK(frame.size >= 8 && frame.size <= kMaxStartupPacket && frame.size <= size);

  const std::string_view packet = bytes.substr(0, frame.size);
  const auto parsed = parse_startup(packet);
  if (!parsed) return 0;
  if (const auto* message = std::get_if<StartupMessage>(&*parsed)) check_message(*message);
  if (const auto* cancel = std::get_if<CancelRequest>(&*parsed)) {
    std::string built;
    append_cancel_request(built, cancel->key);
    BASCULE_FUZZ_CHECK(built == packet);
  }
  return 0;
}
