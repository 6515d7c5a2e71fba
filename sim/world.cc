#include "sim/world.h"

#include <algorithm>
#include <cstdio>

namespace bascule::sim {

namespace {
constexpr size_t kChildren = 4;
}

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

uint32_t World::new_slot(ProcessId whose, Way way, size_t link, InlineFunction&& run) {
  uint32_t slot = 0;
  if (free_slots_.empty()) {
    slot = static_cast<uint32_t>(slots_.size());
    slots_.push_back(std::make_unique<Slot>());
  } else {
    slot = free_slots_.back();
    free_slots_.pop_back();
  }
  Slot& s = *slots_[slot];
  s.whose = whose;
  s.way = way;
  s.link = static_cast<uint8_t>(link);
  s.run = std::move(run);
  return slot;
}

void World::free_slot(uint32_t slot) {
  slots_[slot]->run.reset();
  free_slots_.push_back(slot);
}

void World::schedule(SimTime when, uint32_t slot) {
  const Key key{std::max(when, now_), sequence_++, slot};
  size_t hole = heap_.size();
  heap_.push_back(key);
  while (hole > 0) {
    const size_t parent = (hole - 1) / kChildren;
    if (!(key < heap_[parent])) break;
    heap_[hole] = heap_[parent];
    hole = parent;
  }
  heap_[hole] = key;
}

void World::drop_first() {
  const Key key = heap_.back();
  heap_.pop_back();
  const size_t size = heap_.size();
  if (size == 0) return;
  size_t hole = 0;
  for (size_t child = 1; child < size; child = hole * kChildren + 1) {
    size_t least = child;
    const size_t end = std::min(child + kChildren, size);
    while (++child < end) {
      if (heap_[child] < heap_[least]) least = child;
    }
    if (!(heap_[least] < key)) break;
    heap_[hole] = heap_[least];
    hole = least;
  }
  heap_[hole] = key;
}

void World::at(SimTime when, ProcessId whose, InlineFunction&& run) {
  schedule(when, new_slot(whose, Way::kLocal, 0, std::move(run)));
}

bool World::run_until(SimTime end) {
  while (!heap_.empty() && violations_.empty()) {
    const Key key = heap_.front();
    if (key.at > end) break;
    drop_first();
    now_ = key.at;
    if (!arrives(key.slot)) continue;
    Slot& slot = *slots_[key.slot];
    Process& p = processes_[static_cast<size_t>(slot.whose)];
    if (waits(p)) {
      p.waiting.push_back(std::move(slot.run));
    } else {
      ++events_run_;
      if (slot.way != Way::kQuiet) disturb(slot.whose);
      mix(static_cast<uint64_t>(key.at.count()) ^ (static_cast<uint64_t>(slot.whose) << 48));
      slot.run();
    }
    free_slot(key.slot);
  }
  if (violations_.empty()) now_ = std::max(now_, end);
  return violations_.empty();
}

// Its time has come. False: it is lost, or under way once more.
bool World::arrives(uint32_t slot) {
  const Slot& s = *slots_[slot];
  if (!alive(s.whose)) {
    free_slot(slot);
    return false;
  }
  if (s.way == Way::kLocal || s.way == Way::kQuiet) return true;
  const bool cut = s.way == Way::kStreamAgain || links_[s.link].cuts > 0;
  if (cut) s.way == Way::kMessage ? free_slot(slot) : transmit(slot);
  return !cut;
}

ProcessId World::spawn(Endpoint host) {
  processes_.emplace_back();
  processes_.back().host = host;
  return static_cast<ProcessId>(processes_.size() - 1);
}

void World::kill(ProcessId id) {
  if (id == ProcessId::kWorld) return;
  disturb(id);
  Process& p = processes_[static_cast<size_t>(id)];
  p.alive = false;
  p.waiting.clear();
}

void World::stop(ProcessId id) {
  if (id == ProcessId::kWorld) return;
  disturb(id);
  processes_[static_cast<size_t>(id)].stopped = true;
}

void World::disturb(ProcessId id) {
  Process& p = processes_[static_cast<size_t>(id)];
  ++p.events;
  if (!p.disturbed) return;
  InlineFunction run = std::move(p.disturbed);
  p.disturbed.reset();
  run();
}

void World::resume(ProcessId id) {
  disturb(id);
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

bool World::send(Endpoint from, Endpoint to, ProcessId receiver, InlineFunction&& deliver,
                 Nanos work) {
  const Link& link = links_[index(from, to)];
  if (link.cuts > 0) return false;
  if (link.loss > 0 && net_random_.chance(link.loss)) return false;
  schedule(now_ + link_delay(from, to) + work,
           new_slot(receiver, Way::kMessage, index(from, to), std::move(deliver)));
  return true;
}

void World::send_stream(Endpoint from, Endpoint to, ProcessId receiver, InlineFunction&& deliver) {
  if (!alive(receiver)) return;
  transmit(new_slot(receiver, Way::kStream, index(from, to), std::move(deliver)));
}

void World::transmit(uint32_t slot) {
  Slot& s = *slots_[slot];
  const Link& link = links_[s.link];
  const bool lost = link.cuts > 0 || (link.loss > 0 && net_random_.chance(link.loss));
  s.way = lost ? Way::kStreamAgain : Way::kStream;
  const Nanos takes = lost ? millis(200) : link_delay(s.link / kEndpoints, s.link % kEndpoints);
  schedule(now_ + takes, slot);
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
