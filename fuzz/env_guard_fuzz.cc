// What agent and guard say to each other: packets of any bytes, and the command line in a start,
// which the guard takes apart in its own buffer.
#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "env/guard_wire.h"
#include "fuzz/check.h"

namespace {

using namespace bascule::env;

// A null ends each list.
std::vector<std::string> texts(char** list, const char* begin, const char* end) {
  std::vector<std::string> out;
  for (; *list != nullptr; ++list) {
    BASCULE_FUZZ_CHECK(*list >= begin && *list < end);
    out.emplace_back(*list);
  }
  return out;
}

void split(std::vector<char> bytes) {
  bytes.push_back('\0');
  char* const begin = bytes.data();
  const char* const end = begin + bytes.size() - 1;
  std::array<char*, 16> pointers;
  GuardStart start;
  if (split_guard_start(begin, end, pointers, start) != 0) return;
  const std::string again = encode_guard_start(start.log_file, texts(start.argv, begin, end),
                                               texts(start.environment, begin, end));
  BASCULE_FUZZ_CHECK(std::string_view(begin, bytes.size() - 1).starts_with(again));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view packet(reinterpret_cast<const char*>(data), size);
  if (const auto report = from_packet<GuardReport>(packet)) {
    BASCULE_FUZZ_CHECK(packet.starts_with(to_packet(*report)));
  }
  if (const auto request = from_packet<GuardRequest>(packet)) {
    BASCULE_FUZZ_CHECK(packet.starts_with(to_packet(*request)));
    split({data + sizeof *request, data + size});
  }
  split({data, data + size});
  return 0;
}
