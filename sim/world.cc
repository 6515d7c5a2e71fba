#include "sim/world.h"

#include <algorithm>
#include <cstdio>

namespace bascule::sim {

MonoTime HostClock::local(SimTime t) const {
  const auto run = static_cast<int64_t>(static_cast<double>(t.count()) * rate);
  return MonoTime(Nanos(offset_ns + run - lost_ns));
}

SimTime HostClock::true_at(MonoTime local_time) const {
  const int64_t run = local_time.time_since_epoch().count() - offset_ns + lost_ns;
  // One microsecond more, so that rounding never makes a timer fire before its time.
  return SimTime(static_cast<int64_t>(static_cast<double>(run) / rate) + 1000);
}

World::World(uint64_t seed)
    : seed_(seed),
      net_random_(Prng::stream(seed, "network")),
      resume_random_(Prng::stream(seed, "resume")) {
  processes_.emplace_back();
}

void World::at(SimTime when, ProcessId whose, InlineFunction run) {
  uint32_t slot = 0;
  if (free_slots_.empty()) {
    slot = static_cast<uint32_t>(slots_.size());
    slots_.emplace_back();
  } else {
    slot = free_slots_.back();
    free_slots_.pop_back();
  }
  slots_[slot].whose = whose;
  slots_[slot].run = std::move(run);
  heap_.push_back(Key{std::max(when, now_), sequence_++, slot});
  std::push_heap(heap_.begin(), heap_.end(), std::greater<>{});
}

bool World::run_until(SimTime end) {
  while (!heap_.empty() && violations_.empty()) {
    const Key key = heap_.front();
    if (key.at > end) break;
    std::pop_heap(heap_.begin(), heap_.end(), std::greater<>{});
    heap_.pop_back();
    const ProcessId whose = slots_[key.slot].whose;
    InlineFunction run = std::move(slots_[key.slot].run);
    free_slots_.push_back(key.slot);
    now_ = key.at;
    Process& p = processes_[static_cast<size_t>(whose)];
    if (!p.alive) continue;
    if (waits(p)) {
      p.waiting.push_back(std::move(run));
      continue;
    }
    ++events_run_;
    mix(static_cast<uint64_t>(key.at.count()) ^ (static_cast<uint64_t>(whose) << 48));
    run();
  }
  if (violations_.empty()) now_ = std::max(now_, end);
  return violations_.empty();
}

ProcessId World::spawn(Endpoint host) {
  processes_.emplace_back();
  processes_.back().host = host;
  return static_cast<ProcessId>(processes_.size() - 1);
}

void World::kill(ProcessId id) {
  if (id == ProcessId::kWorld) return;
  Process& p = processes_[static_cast<size_t>(id)];
  p.alive = false;
  p.waiting.clear();
}

void World::stop(ProcessId id) {
  if (id != ProcessId::kWorld) processes_[static_cast<size_t>(id)].stopped = true;
}

void World::resume(ProcessId id) {
  Process& p = processes_[static_cast<size_t>(id)];
  if (!p.stopped) return;
  p.stopped = false;
  if (!waits(p)) run_waiting(p, id, Nanos{0});
}

void World::run_waiting(Process& p, ProcessId id, Nanos delay) {
  std::vector<InlineFunction> waiting;
  waiting.swap(p.waiting);
  for (InlineFunction& run : waiting) {
    delay += micros(1);
    after(delay, id, std::move(run));
  }
}

void World::freeze(Endpoint host, FrozenClock clock) {
  Frozen& f = frozen_[static_cast<size_t>(host)];
  if (f.on) return;
  f = Frozen{true, clock, now_};
}

void World::thaw(Endpoint host) {
  Frozen& f = frozen_[static_cast<size_t>(host)];
  if (!f.on) return;
  f.on = false;
  if (f.clock == FrozenClock::kStops) {
    HostClock& c = clock(host);
    c.lost_ns += static_cast<int64_t>(static_cast<double>((now_ - f.since).count()) * c.rate);
  }
  // Processes wake one after another, in any order: buffered acknowledgements may leave before the
  // guard has run.
  for (size_t i = 1; i < processes_.size(); ++i) {
    if (!processes_[i].alive || processes_[i].host != host || processes_[i].stopped) continue;
    run_waiting(processes_[i], static_cast<ProcessId>(i), random_ms(resume_random_, 0, 5));
  }
}

void World::heal(Endpoint from, Endpoint to) {
  int& cuts = links_[index(from, to)].cuts;
  if (cuts > 0) --cuts;
}

Nanos World::link_delay(Endpoint from, Endpoint to) {
  if (from == to) return micros(net_random_.between(10, 60));
  Nanos delay = micros(net_random_.between(80, 900));
  if (net_random_.chance(0.01)) delay += random_ms(net_random_, 1, 40);
  return delay + links_[index(from, to)].extra;
}

bool World::send(Endpoint from, Endpoint to, ProcessId receiver, InlineFunction deliver) {
  const Link& link = links_[index(from, to)];
  if (link.cuts > 0) return false;
  if (link.loss > 0 && net_random_.chance(link.loss)) return false;
  after(link_delay(from, to), ProcessId::kWorld,
        [this, from, to, receiver, run = std::make_unique<InlineFunction>(std::move(deliver))] {
          if (!reachable(from, to)) return;
          at(now_, receiver, std::move(*run));
        });
  return true;
}

void World::send_stream(Endpoint from, Endpoint to, ProcessId receiver, InlineFunction deliver) {
  if (!alive(receiver)) return;
  const Link& link = links_[index(from, to)];
  const bool lost = link.cuts > 0 || (link.loss > 0 && net_random_.chance(link.loss));
  after(
      lost ? millis(200) : link_delay(from, to), ProcessId::kWorld,
      [this, from, to, receiver, lost, run = std::make_unique<InlineFunction>(std::move(deliver))] {
        if (lost || !reachable(from, to)) {
          send_stream(from, to, receiver, std::move(*run));
        } else {
          at(now_, receiver, std::move(*run));
        }
      });
}

void World::mix(uint64_t value) {
  hash_ ^= value;
  hash_ *= 0x100000001b3;
  hash_ ^= hash_ >> 29;
}

void World::count(std::string_view what, uint64_t n) {
  auto it = counts_.find(what);
  if (it == counts_.end()) it = counts_.emplace(std::string(what), 0).first;
  it->second += n;
}

void World::violation(std::string_view checker, std::string what) {
  if (!heard_.empty() && std::ranges::find(heard_, checker) == heard_.end()) {
    trace("(not heard) {}: {}", checker, what);
    return;
  }
  trace("VIOLATION {}: {}", checker, what);
  violations_.push_back(Violation{now_, std::string(checker), std::move(what)});
}

void World::print_line(const std::string& line) const {
  std::printf("%9.3f  %s\n", static_cast<double>(now_.count()) / 1e9, line.c_str());
}

}  // namespace bascule::sim
