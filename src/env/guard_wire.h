// What the agent and the guard process say to each other, over a SOCK_SEQPACKET socket in run_dir
// ("guard.sock", 0600): one GuardRequest a packet, answered by one GuardReport; further reports
// come unasked when something happens. A new agent may meet an older guard: hence the version, and
// fixed sizes and order. Same host, so native byte order.
#pragma once

#include <cerrno>
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

namespace bascule::env {

inline constexpr uint32_t kGuardMagic = 0x42475244;  // "BGRD"
inline constexpr uint16_t kGuardVersion = 1;
inline constexpr size_t kGuardStartBytesMax = 32 << 10;
inline constexpr size_t kWatchdogPathMax = 255;
inline constexpr char kGuardSocketName[] = "guard.sock";
inline constexpr char kGuardLockName[] = "guard.lock";

enum class GuardAsk : uint16_t {
  kStatus = 1,
  // Followed by strings, see encode_guard_start. `deadline_ns` is when the operation that asks was
  // begun: refused (ECANCELED) if a kill came since, so that a late start undoes no kill.
  kStart,
  kArm,  // no process of PostgreSQL may live beyond `deadline_ns`
  kDisarm,
  kKill,    // now
  kSignal,  // to the postmaster
  kEnd,     // the guard ends; refused while PostgreSQL runs
  // Followed by the path of a watchdog device, empty: none. While a deadline is armed the device
  // runs with a time-out of `signal` seconds and is patted as long as it then resets the machine
  // `deadline_ns` after the armed deadline at the latest, or nothing of PostgreSQL lives. The
  // answer tells whether the device can be had: it is tried at once.
  kWatch,
};

struct GuardRequest {
  uint32_t magic = kGuardMagic;
  uint16_t version = kGuardVersion;
  GuardAsk ask = GuardAsk::kStatus;
  uint64_t id = 0;          // comes back in the answer
  int64_t deadline_ns = 0;  // CLOCK_BOOTTIME
  int32_t signal = 0;
  int32_t reserved = 0;
};
static_assert(sizeof(GuardRequest) == 32 && std::is_trivially_copyable_v<GuardRequest>);

enum class GuardSays : uint16_t {
  kAnswer = 1,  // to request `id`; `error` is an errno, 0: done
  kStarted,
  kFenced,  // the deadline passed: killing
  kExited,  // every process of PostgreSQL is reaped
};
enum class GuardState : uint8_t { kIdle, kRunning, kKilling };
enum class WatchdogState : uint8_t {
  kOff,
  kReady,   // could be started
  kActive,  // runs
  kFailed,  // see `watchdog_error`
};

struct GuardReport {
  uint32_t magic = kGuardMagic;
  uint16_t version = kGuardVersion;
  GuardSays says = GuardSays::kAnswer;
  uint64_t id = 0;
  int64_t deadline_ns = 0;  // armed; 0: not
  uint64_t starts = 0;      // how often it has started PostgreSQL
  int32_t error = 0;
  int32_t guard_pid = 0;
  int32_t postmaster_pid = 0;  // 0: not running
  int32_t wait_status = 0;     // of the last postmaster, as waitpid(2) gives it
  GuardState state = GuardState::kIdle;
  uint8_t fenced = 0;     // the last PostgreSQL ended by the deadline
  uint8_t real_time = 0;  // runs with SCHED_RR
  uint8_t locked = 0;     // its memory cannot be paged out
  WatchdogState watchdog = WatchdogState::kOff;
  uint8_t reserved = 0;
  uint16_t watchdog_error = 0;  // errno of the last attempt
};
static_assert(sizeof(GuardReport) == 56 && std::is_trivially_copyable_v<GuardReport>);

// log file, arguments and environment, each '\0'-terminated; an empty string ends each list.
inline std::string encode_guard_start(const std::string& log_file,
                                      const std::vector<std::string>& argv,
                                      const std::vector<std::string>& environment) {
  std::string out = log_file + '\0';
  for (const auto* list : {&argv, &environment}) {
    for (const std::string& text : *list) out += text + '\0';
    out += '\0';
  }
  return out;
}

// The same taken apart in place: the guard allocates nothing. `end` can be read, and is '\0';
// `pointers` becomes both lists, each with a null at its end. 0, or an errno.
struct GuardStart {
  const char* log_file = nullptr;
  char** argv = nullptr;
  char** environment = nullptr;
};
inline int split_guard_start(char* at, const char* end, std::span<char*> pointers,
                             GuardStart& out) {
  size_t used = 0;
  out.log_file = at;
  at += std::strlen(at) + 1;
  for (char*** list : {&out.argv, &out.environment}) {
    *list = pointers.data() + used;
    while (at < end && *at != '\0') {
      if (used + 2 >= pointers.size()) return E2BIG;
      pointers[used++] = at;
      at += std::strlen(at) + 1;
    }
    if (at >= end) return EINVAL;
    pointers[used++] = nullptr;
    ++at;
  }
  return out.argv[0] == nullptr ? EINVAL : 0;
}

template <typename Packet>
std::string to_packet(const Packet& packet, std::string_view rest = {}) {
  std::string out(sizeof packet, '\0');
  std::memcpy(out.data(), &packet, sizeof packet);
  return out.append(rest);
}

// nullopt: not ours, or of a version that we do not speak.
template <typename Packet>
std::optional<Packet> from_packet(std::string_view bytes) {
  Packet packet;
  if (bytes.size() < sizeof packet) return std::nullopt;
  std::memcpy(&packet, bytes.data(), sizeof packet);
  if (packet.magic != kGuardMagic || packet.version != kGuardVersion) return std::nullopt;
  return packet;
}

}  // namespace bascule::env
