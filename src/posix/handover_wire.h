// What two processes say to each other at a hand-over (handover.h), a line of words each, as
// values. The peer is of the same user, but perhaps of another version: anything else than these is
// nothing. Pure.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace bascule::posix {

struct HandOverMessage {
  enum class Kind {
    kTake,       // new: "take 2", 2 being the version of all this
    kSocket,     // old: "socket PORT HOST", with a descriptor
    kEnd,        // old: "end" of the sockets
    kBusy,       // old: "busy WHY": nothing is given away now
    kAccepting,  // new
    kTaken,      // old
    kLate,       // old, in place of kTaken: it goes on by itself
    kCancel,     // new: "cancel NUMBER PID SECRET-IN-HEX"
    kCancelled,  // old: "cancelled NUMBER"
  };
  Kind kind = Kind::kTake;
  uint64_t number = 0;  // kCancel, kCancelled
  uint32_t pid = 0;     // kCancel
  uint16_t port = 0;    // kSocket
  std::string text =
      {};  // kSocket: host, of a unix socket its directory; kBusy: why; kCancel: secret
  bool operator==(const HandOverMessage&) const = default;
};

inline constexpr size_t kHandOverMessageMax = 1024;

std::string encode(const HandOverMessage& message);
std::optional<HandOverMessage> parse_hand_over(std::string_view text);

}  // namespace bascule::posix
