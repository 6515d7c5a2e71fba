// Invariant 1: the holder of an epoch can no longer acknowledge a write once the holder of a later
// one has accepted its first. A timeline belongs to one epoch (checked by wal_identity.cc), so
// timelines stand for epochs here. In an epoch that follows another cluster nobody writes.
#include <algorithm>
#include <array>

#include "sim/checkers/checker.h"

namespace bascule::sim {
namespace {

class OneWriter : public Checker {
 public:
  using Checker::Checker;

  void commit_inserted(Endpoint host, const WalRecord& r) override {
    if (truth_.follows && !truth_.store_damaged && follows_another()) {
      report(host, r, "accepted it while the cluster follows another one");
    }
    if (r.timeline <= newest_) return;
    newest_ = r.timeline;
    newest_host_ = host;
    since_ = world().now();
  }

  void commit_released(Endpoint host, const WalRecord& r, const Release& release) override {
    if (r.timeline >= newest_ || truth_.rolled_back(host)) return;
    if (release.by == Release::By::kCancelled) return;  // no promise, and its client is told so
    const bool synchronous = release.by == Release::By::kStandby;
    // The standby's answer can lie in the buffers of a frozen host. What it had before it balloted
    // is in the new line, so the late acknowledgement is true.
    if (synchronous && in_newest(r.commit)) {
      world().count("exception.late_but_true");
      return;
    }
    // What somebody forced gave up is promised to nobody, whatever a standby had of it.
    if (!synchronous || truth_.forced_since(r.timeline)) {
      // Proxies answer for their own clients: they check the permit. A direct client of a guest
      // that was frozen is the documented exception (control-plane.md, Timing).
      if (!is_direct(r.commit)) return;
      const auto thawed = thawed_[static_cast<size_t>(host)];
      const auto& config = truth_.view().config;  // an operator may have made the ttl longer
      const Millis ttl = std::max(truth_.initial.ttl, config ? config->value.ttl : Millis(0));
      const Nanos grace = control::ClusterConfig::fence_after(ttl) * 11 / 10 + millis(300);
      if (thawed >= SimTime{0} && world().now() - thawed < grace) {
        world().count("exception.direct_client_of_frozen_host");
        return;
      }
    }
    report(host, r,
           fmt::format("released it ({}{})", synchronous ? "acknowledged by " : "no standby asked",
                       release.standby));
  }

  void proxy_forwarded(Endpoint proxy, const WalRecord& r, Epoch epoch) override {
    if (r.timeline >= newest_ || truth_.was_rolled_back) return;
    // Early take-over: the old leader's time is not over, and what a standby acknowledged before it
    // balloted is in the new line.
    if (truth_.initial.early_takeover && in_newest(r.commit)) {
      world().count("exception.late_but_true");
      return;
    }
    report(proxy, r, fmt::format("a proxy forwarded it as of epoch {}", epoch.value));
  }

  void host_thawed(Endpoint host, World::FrozenClock) override {
    thawed_[static_cast<size_t>(host)] = world().now();
  }

 private:
  bool follows_another() {
    const control::ClusterView& view = truth_.view();
    if (!view.leader) return false;
    const auto epoch = view.history.find(view.leader->value.epoch);
    return epoch != view.history.end() && epoch->second.following;
  }

  bool in_newest(uint64_t commit) {
    const auto& wal = member(newest_host_).pg().data().wal;
    return std::ranges::find(wal, commit, &WalRecord::commit) != wal.end();
  }

  void report(Endpoint where, const WalRecord& r, const std::string& how) {
    world().violation(
        "one_writer",
        fmt::format(
            "commit {} on timeline {} at endpoint {}: {}, {} ms after timeline {} on host {} "
            "had accepted its first write",
            r.commit, r.timeline, where, how, to_ms(world().now() - since_), newest_,
            newest_host_));
  }

  uint32_t newest_ = 0;
  Endpoint newest_host_ = -1;
  SimTime since_{0};
  std::array<SimTime, kHostsMax> thawed_ = [] {
    std::array<SimTime, kHostsMax> a{};
    a.fill(SimTime{-1});
    return a;
  }();
};

}  // namespace

std::unique_ptr<Checker> make_one_writer(Truth& truth) {
  return std::make_unique<OneWriter>(truth);
}

}  // namespace bascule::sim
