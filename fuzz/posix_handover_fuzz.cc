// What one process says to the other at a hand-over of sockets: whatever the bytes, parsing ends,
// and what was accepted survives being written and read again.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "fuzz/check.h"
#include "posix/handover_wire.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto message = bascule::posix::parse_hand_over({reinterpret_cast<const char*>(data), size});
  if (!message) return 0;
  const std::string text = bascule::posix::encode(*message);
  BASCULE_FUZZ_CHECK(size > bascule::posix::kHandOverMessageMax ||
                     bascule::posix::parse_hand_over(text) == message);
  return 0;
}
