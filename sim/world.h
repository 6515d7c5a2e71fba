// The simulated world: virtual time, one event queue, processes that die, stop and freeze, hosts
// with clocks that run wrong, and a network that loses, delays and cuts. Everything random comes
// from streams of one seed, so a run repeats exactly; the trace hash says whether it did.
//
// Units: SimTime is true time since the start of the run. Hosts never see it; they see their own
// MonoTime through HostClock. Single-threaded; owned by the run (sim/cluster.h).
#pragma once

#include <fmt/format.h>

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/prng.h"
#include "base/time.h"
#include "sim/inline_function.h"

namespace bascule::sim {

using SimTime = Nanos;

// A place on the network.
using Endpoint = int;
inline constexpr int kHostsMax = 8;
inline constexpr Endpoint kStoreEndpoint = 8;
inline constexpr Endpoint kFirstProxy = 9;
inline constexpr int kProxies = 2;
inline constexpr Endpoint kDirectClients = 11;
inline constexpr int kEndpoints = 12;

// One life of one process: never reused. 0 is the world itself, which is always alive.
enum class ProcessId : uint32_t { kWorld = 0 };

// CLOCK_BOOTTIME of a host: begins anywhere, runs at `rate` of true time. A hypervisor pause holds
// it back (lost); an ordinary suspend doesn't.
struct HostClock {
  int64_t offset_ns = 0;
  double rate = 1.0;
  int64_t lost_ns = 0;
  MonoTime local(SimTime t) const;
  SimTime true_at(MonoTime local) const;  // as far as known now
};

class World {
 public:
  explicit World(uint64_t seed);

  uint64_t seed() const { return seed_; }
  SimTime now() const { return now_; }
  Prng stream(std::string_view name) const { return Prng::stream(seed_, name); }

  // ---- events -----------------------------------------------------------------------------------
  void at(SimTime when, ProcessId whose, InlineFunction&& run);
  void after(Nanos delay, ProcessId whose, InlineFunction&& run) {
    at(now_ + delay, whose, std::move(run));
  }
  // For what changes nothing of the process, or says so by disturb().
  void after_quietly(Nanos delay, ProcessId whose, InlineFunction&& run) {
    schedule(now_ + delay, new_slot(whose, Way::kQuiet, 0, std::move(run)));
  }
  // Runs events until `end` or until a violation; false if one was reported.
  bool run_until(SimTime end);
  uint64_t events_run() const { return events_run_; }

  // ---- processes and hosts ----------------------------------------------------------------------
  ProcessId spawn(Endpoint host);
  void kill(ProcessId id);    // its events are dropped from now on
  void stop(ProcessId id);    // SIGSTOP: its events wait
  void resume(ProcessId id);  // SIGCONT
  bool alive(ProcessId id) const { return processes_[static_cast<size_t>(id)].alive; }
  bool stopped(ProcessId id) const { return processes_[static_cast<size_t>(id)].stopped; }
  // So many events it has had: as long as they are the same it has done nothing.
  uint64_t events_of(ProcessId id) const { return processes_[static_cast<size_t>(id)].events; }
  // Runs once, at its next event that is not a quiet one, or when it is stopped, goes on or dies:
  // just before that. One at a time.
  void when_disturbed(ProcessId id, InlineFunction&& run) {
    processes_[static_cast<size_t>(id)].disturbed = std::move(run);
  }
  void disturb(ProcessId id);  // as if it had had an event
  // Everything on the host waits; its clock goes on (suspend) or not (hypervisor pause).
  enum class FrozenClock { kRuns, kStops };
  void freeze(Endpoint host, FrozenClock clock);
  void thaw(Endpoint host);
  bool frozen(Endpoint host) const { return frozen_[static_cast<size_t>(host)].on; }

  HostClock& clock(Endpoint host) { return clocks_[static_cast<size_t>(host)]; }
  MonoTime local(Endpoint host) const {
    const Frozen& f = frozen_[static_cast<size_t>(host)];
    const bool held = f.on && f.clock == FrozenClock::kStops;
    return clocks_[static_cast<size_t>(host)].local(held ? f.since : now_);
  }

  // ---- network ----------------------------------------------------------------------------------
  void cut(Endpoint from, Endpoint to) { ++links_[index(from, to)].cuts; }
  void heal(Endpoint from, Endpoint to);
  void set_delay(Endpoint from, Endpoint to, Nanos extra) { links_[index(from, to)].extra = extra; }
  void set_loss(Endpoint from, Endpoint to, double p) { links_[index(from, to)].loss = p; }
  bool reachable(Endpoint from, Endpoint to) const {
    return from == to || links_[index(from, to)].cuts == 0;
  }
  bool both_ways(Endpoint a, Endpoint b) const { return reachable(a, b) && reachable(b, a); }
  // One message: `deliver` runs as `receiver` after the link's delay, and `work` of the receiver's
  // before it. False: lost, now known to the simulator only. A link that is cut while a message
  // travels loses it too (deliver isn't run).
  bool send(Endpoint from, Endpoint to, ProcessId receiver, InlineFunction&& deliver,
            Nanos work = Nanos{0});
  // The same over a connection that goes on: lost bytes are sent again until they arrive or the
  // receiver is dead.
  void send_stream(Endpoint from, Endpoint to, ProcessId receiver, InlineFunction&& deliver);
  Nanos link_delay(Endpoint from, Endpoint to);

  // ---- what happened ----------------------------------------------------------------------------
  void mix(uint64_t value);  // into the trace hash
  uint64_t hash() const { return hash_; }
  void set_tracing(bool on) { tracing_ = on; }
  bool tracing() const { return tracing_; }
  template <typename... Args>
  void trace(fmt::format_string<Args...> format, Args&&... args) {
    if (tracing_) print_line(fmt::format(format, std::forward<Args>(args)...));
  }
  void count(std::string_view what, uint64_t n = 1);  // coverage
  const std::map<std::string, uint64_t, std::less<>>& counts() const { return counts_; }

  struct Violation {
    SimTime at{};
    std::string checker;
    std::string what;
  };
  // The run ends at the first one: what follows a broken promise proves nothing.
  void violation(std::string_view checker, std::string what);
  const std::vector<Violation>& violations() const { return violations_; }
  // Empty (the default): all. Else what other checkers say is not heard, to see which of them
  // notices a mutation by its consequences and which by the act.
  void listen_only_to(std::vector<std::string> checkers) { heard_ = std::move(checkers); }

  Prng& net_random() { return net_random_; }

 private:
  // How an event comes to its process: from within, or over a link that may be cut meanwhile.
  enum class Way : uint8_t { kLocal, kQuiet, kMessage, kStream, kStreamAgain };
  struct Slot {
    ProcessId whose{};
    Way way = Way::kLocal;
    uint8_t link = 0;
    InlineFunction run;
  };
  struct Key {
    SimTime at;
    uint64_t sequence;
    uint32_t slot;
    bool operator<(const Key& o) const { return at != o.at ? at < o.at : sequence < o.sequence; }
  };
  struct Process {
    bool alive = true;
    bool stopped = false;
    Endpoint host = -1;
    uint64_t events = 0;
    InlineFunction disturbed;
    std::vector<InlineFunction> waiting;
  };
  struct Frozen {
    bool on = false;
    FrozenClock clock = FrozenClock::kRuns;
    SimTime since{};
  };
  struct Link {
    int cuts = 0;
    Nanos extra{0};
    double loss = 0;
  };
  static size_t index(Endpoint from, Endpoint to) {
    return static_cast<size_t>(from * kEndpoints + to);
  }
  static_assert(kEndpoints * kEndpoints <= 256);  // Slot::link
  void schedule(SimTime when, uint32_t slot);
  void drop_first();
  uint32_t new_slot(ProcessId whose, Way way, size_t link, InlineFunction&& run);
  void free_slot(uint32_t slot);
  void transmit(uint32_t slot);
  bool arrives(uint32_t slot);
  bool waits(const Process& p) const {
    return p.stopped || (p.host >= 0 && frozen_[static_cast<size_t>(p.host)].on);
  }
  void run_waiting(Process& p, ProcessId id, Nanos delay);
  void print_line(const std::string& line) const;

  uint64_t seed_;
  SimTime now_{0};
  uint64_t sequence_ = 0;
  uint64_t events_run_ = 0;
  uint64_t hash_ = 0xcbf29ce484222325;
  bool tracing_ = false;
  std::vector<Key> heap_;                     // four children each: half as deep as a binary one
  std::vector<std::unique_ptr<Slot>> slots_;  // stay where they are while they run
  std::vector<uint32_t> free_slots_;
  std::vector<Process> processes_;
  std::array<HostClock, kEndpoints> clocks_;
  std::array<Frozen, kEndpoints> frozen_;
  std::array<Link, size_t{kEndpoints} * kEndpoints> links_;
  Prng net_random_;
  Prng resume_random_;
  std::map<std::string, uint64_t, std::less<>> counts_;
  std::vector<Violation> violations_;
  std::vector<std::string> heard_;
};

constexpr Nanos micros(int64_t n) { return Nanos{n * 1000}; }
constexpr Nanos millis(int64_t n) { return Nanos{n * 1000000}; }
// Uniform in [low, high] milliseconds, to the microsecond.
inline Nanos random_ms(Prng& prng, double low, double high) {
  return micros(prng.between(static_cast<int64_t>(low * 1000), static_cast<int64_t>(high * 1000)));
}

}  // namespace bascule::sim
