// What several groups of scenarios share: bounds, plans, blows.
#pragma once

#include "sim/scenarios.h"

namespace bascule::sim {

inline constexpr Nanos kFailover = millis(1500);  // detected at once: fence, ballots, promotion
inline constexpr Nanos kRestart =
    millis(4000);  // in place, until the standby has what was recovered
inline constexpr Nanos kSilence = millis(5000 + 2500);  // ttl, and what a fail-over takes

inline constexpr Nanos kEarly = millis(2000);      // evidence, ballots, promotion
inline constexpr Nanos kTolerance = millis(2000);  // blip_tolerance

inline void early(Plan& p) { p.config.early_takeover = true; }
inline void no_failsafe(Plan& p) { p.config.failsafe = false; }
inline void on_crash_restart(Plan& p) { p.config.on_crash = control::OnCrash::kRestart; }
inline void asynchronous(Plan& p) { p.config.sync_mode = control::SyncMode::kOff; }
inline void strict(Plan& p) { p.config.sync_strict = true; }
inline void two_members(Plan& p) { p.nodes = 2; }

inline void kill_postmaster(Member& m) { m.pg().kill_postmaster(millis(5)); }

std::span<const Scenario> fault_scenarios();    // processes, hosts, network, store
std::span<const Scenario> data_scenarios();     // durability, rejoin, operations, adversarial
std::span<const Scenario> policy_scenarios();   // members that may not lead, full disks
std::span<const Scenario> server_scenarios();   // load, ports, names, parameters
std::span<const Scenario> slot_scenarios();     // consumers of failover slots
std::span<const Scenario> outside_scenarios();  // what others do to data directories

}  // namespace bascule::sim
