// bascule-sim: runs simulated clusters by seed and says which broke a promise, and how to repeat
// it.
#include <fmt/format.h>
#include <poll.h>
#include <sys/wait.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <chrono>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "sim/cluster.h"
#include "sim/scenarios.h"

namespace bascule::sim {
namespace {

struct Options {
  uint64_t seeds = 0;
  uint64_t first = 1;
  std::optional<uint64_t> seed;
  bool trace = false;
  bool json = false;
  bool keep_going = false;
  bool expect_violation = false;
  int jobs = 2;
  std::string plan = "dense";
  std::string mutation;
  std::vector<std::string> checkers;
  std::string scenario;  // "all": every one
  bool list_scenarios = false;
  bool by_hand = false;
};

struct Totals {
  uint64_t seeds = 0;
  uint64_t events = 0;
  double simulated_seconds = 0;
  uint64_t acknowledged = 0;
  uint64_t hash = 0;  // of all runs together
  std::map<std::string, uint64_t> counts;
  std::vector<std::string> violations;
  std::vector<uint64_t> failing_seeds;
};

RunResult run_seed(uint64_t seed, const Options& options) {
  Plan plan = options.plan == "long" ? draw_long_plan(seed) : draw_plan(seed);
  if (!options.mutation.empty()) apply_mutation(plan, options.mutation);
  if (options.by_hand) plan.by_hand = plan.profile != Profile::kBlips && !plan.follows;
  plan.only_checkers = options.checkers;
  Cluster cluster(plan, options.trace);
  return cluster.run_standard();
}

void add(Totals& totals, const RunResult& r, const Options& options) {
  ++totals.seeds;
  totals.events += r.events;
  totals.simulated_seconds += static_cast<double>(r.simulated.count()) / 1e9;
  totals.acknowledged += r.acknowledged;
  totals.hash ^= r.hash * (2 * r.seed + 1);
  for (const auto& [name, n] : r.counts) totals.counts[name] += n;
  for (const World::Violation& v : r.violations) {
    totals.failing_seeds.push_back(r.seed);
    totals.violations.push_back(
        fmt::format("seed {} at {:.3f} s: {}: {}\n  repeat: ./dev sim --seed {}{}{} --trace",
                    r.seed, static_cast<double>(v.at.count()) / 1e9, v.checker, v.what, r.seed,
                    options.plan == "dense" ? "" : " --plan " + options.plan,
                    (options.by_hand ? " --by-hand" : "") +
                        (options.mutation.empty() ? "" : " --mutation " + options.mutation)));
  }
}

nlohmann::json to_json(const Totals& t) {
  return {{"seeds", t.seeds},
          {"events", t.events},
          {"simulated_seconds", t.simulated_seconds},
          {"acknowledged", t.acknowledged},
          {"hash", t.hash},
          {"counts", t.counts},
          {"violations", t.violations},
          {"failing_seeds", t.failing_seeds}};
}

void merge(Totals& into, const nlohmann::json& j) {
  into.seeds += j.at("seeds").get<uint64_t>();
  into.events += j.at("events").get<uint64_t>();
  into.simulated_seconds += j.at("simulated_seconds").get<double>();
  into.acknowledged += j.at("acknowledged").get<uint64_t>();
  into.hash ^= j.at("hash").get<uint64_t>();
  for (const auto& [name, n] : j.at("counts").items()) into.counts[name] += n.get<uint64_t>();
  for (const auto& v : j.at("violations")) into.violations.push_back(v.get<std::string>());
  for (const auto& v : j.at("failing_seeds")) into.failing_seeds.push_back(v.get<uint64_t>());
}

// Every `jobs`th seed, beginning with the `job`th.
Totals run_share(const Options& options, uint64_t job, uint64_t jobs) {
  Totals totals;
  size_t shown = 0;
  for (uint64_t i = job; i < options.seeds; i += jobs) {
    add(totals, run_seed(options.first + i, options), options);
    for (; shown < totals.violations.size() && options.keep_going; ++shown) {
      fmt::print(stderr, "{}\n", totals.violations[shown]);  // a long run tells as it goes
    }
    if (!totals.violations.empty() && !options.keep_going) break;
  }
  return totals;
}

// A process a job: no threads, and a crash of one seed doesn't hide the others.
Totals run_jobs(const Options& options) {
  const auto jobs = static_cast<uint64_t>(options.jobs);
  if (jobs <= 1) return run_share(options, 0, 1);
  std::vector<std::pair<pid_t, int>> children;
  for (uint64_t job = 0; job < jobs; ++job) {
    int fds[2];
    if (pipe(fds) != 0) throw std::runtime_error("pipe failed");
    std::fflush(nullptr);
    const pid_t pid = fork();
    if (pid < 0) throw std::runtime_error("fork failed");
    if (pid == 0) {
      close(fds[0]);
      const std::string text = to_json(run_share(options, job, jobs)).dump();
      size_t written = 0;
      while (written < text.size()) {
        const ssize_t n = write(fds[1], text.data() + written, text.size() - written);
        if (n <= 0) _exit(3);
        written += static_cast<size_t>(n);
      }
      _exit(0);
    }
    close(fds[1]);
    children.emplace_back(pid, fds[0]);
  }
  Totals totals;
  for (const auto& [pid, fd] : children) {
    std::string text;
    char buffer[65536];
    for (ssize_t n = 0; (n = read(fd, buffer, sizeof buffer)) > 0;) {
      text.append(buffer, static_cast<size_t>(n));
    }
    close(fd);
    int status = 0;
    waitpid(pid, &status, 0);
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
      totals.violations.push_back(
          fmt::format("a job died ({}); find the seed with --jobs 1", status));
    } else {
      merge(totals, nlohmann::json::parse(text));
    }
  }
  return totals;
}

void print(const Totals& t, double seconds) {
  const auto n = [&t](const char* name) {
    const auto it = t.counts.find(name);
    return it == t.counts.end() ? uint64_t{0} : it->second;
  };
  fmt::print(
      "{} seeds in {:.1f} s: {:.0f} seeds/s, {:.1f} simulated hours a minute, {:.0f} events/s\n",
      t.seeds, seconds, static_cast<double>(t.seeds) / seconds,
      t.simulated_seconds / 3600 / (seconds / 60), static_cast<double>(t.events) / seconds);
  fmt::print(
      "{} changes of leader, {} promotions, {} acknowledged commits, {} released by a standby\n",
      n("elections"), n("promotions"), t.acknowledged, n("commits.released_by_standby"));
  std::string group;
  for (const auto& [name, count] : t.counts) {
    const std::string head = name.substr(0, name.find('.'));
    if (head != group) fmt::print("{}{}:", group.empty() ? "" : "\n", head);
    group = head;
    fmt::print(" {}={}", name.size() > head.size() ? name.substr(head.size() + 1) : name, count);
  }
  fmt::print("\ntrace hash {:016x}\n", t.hash);
  for (const std::string& v : t.violations) fmt::print("VIOLATION {}\n", v);
  fmt::print("{} violations\n", t.violations.size());
}

// One line a run; as JSON one object a line.
bool run_scenario_seed(const Scenario& scenario, uint64_t seed, const Options& options) {
  const ScenarioResult r = run_scenario(scenario, seed, options.trace);
  const bool kept = r.run.violations.empty();
  if (options.json) {
    const nlohmann::json j{{"scenario", scenario.id},
                           {"what", scenario.what},
                           {"seed", seed},
                           {"gapMs", to_ms(r.gap)},
                           {"changes", r.changes},
                           {"leaderBefore", r.leader_before},
                           {"leaderAfter", r.leader_after},
                           {"acknowledged", r.run.acknowledged},
                           {"kept", kept}};
    fmt::print("{}\n", j.dump());
  } else {
    fmt::print("{:>4} {:<52} seed {:<4} {} gap {:>6} ms, {} changes, {} -> {}, {} commits\n",
               scenario.id, scenario.what, seed, kept ? "ok  " : "FAIL", to_ms(r.gap), r.changes,
               r.leader_before, r.leader_after, r.run.acknowledged);
  }
  for (const World::Violation& v : r.run.violations) {
    fmt::print(
        options.json ? stderr : stdout,
        "VIOLATION at {:.3f} s: {}: {}\n  repeat: ./dev sim --scenario {} --seed {} --trace\n",
        static_cast<double>(v.at.count()) / 1e9, v.checker, v.what, scenario.id, seed);
  }
  return kept;
}

int run_scenarios(const Options& options) {
  if (options.list_scenarios) {
    for (const Scenario& s : scenarios()) fmt::print("{:>4} {}\n", s.id, s.what);
    return 0;
  }
  if (options.scenario != "all" && find_scenario(options.scenario) == nullptr) {
    fmt::print(stderr, "there is no scenario \"{}\"; --scenarios lists them\n", options.scenario);
    return 2;
  }
  const uint64_t first = options.seed.value_or(options.first);
  const uint64_t last = first + (options.seed || options.seeds == 0 ? 1 : options.seeds);
  bool kept = true;
  for (const Scenario& s : scenarios()) {
    if (options.scenario != "all" && s.id != options.scenario) continue;
    for (uint64_t seed = first; seed < last; ++seed) {
      kept = run_scenario_seed(s, seed, options) && kept;
    }
  }
  return kept ? 0 : 1;
}

int run(const Options& options) {
  if (options.list_scenarios || !options.scenario.empty()) return run_scenarios(options);
  Options o = options;
  if (o.seed) {
    o.first = *o.seed;
    o.seeds = 1;
    o.jobs = 1;
  } else if (o.seeds == 0) {
    o.seeds = 100;
  }
  const auto begun = std::chrono::steady_clock::now();
  const Totals totals = run_jobs(o);
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begun;
  if (o.json) {
    nlohmann::json j = to_json(totals);
    j["seconds"] = took.count();
    fmt::print("{}\n", j.dump(1));
  } else {
    print(totals, took.count());
  }
  return totals.violations.empty() == o.expect_violation ? 1 : 0;
}

}  // namespace
}  // namespace bascule::sim

int main(int argc, char** argv) {
  bascule::sim::Options options;
  CLI::App app{"Simulated clusters: the production agents in a world of faults drawn from a seed"};
  app.add_option("--seeds", options.seeds, "Run so many seeds (default 100)");
  app.add_option("--first", options.first, "Begin with this seed (default 1)");
  app.add_option("--seed", options.seed, "Run this one seed");
  app.add_option("--jobs", options.jobs, "Processes (default 2)")->check(CLI::Range(1, 64));
  app.add_flag("--trace", options.trace, "Print what happens (with --seed)");
  app.add_flag("--json", options.json, "Print totals as JSON");
  app.add_flag("--keep-going", options.keep_going, "Do not end a job at its first violation");
  app.add_option("--plan", options.plan,
                 "dense: half a minute full of faults (default); long: hours with a few")
      ->check(CLI::IsMember({"dense", "long"}));
  app.add_flag("--by-hand", options.by_hand,
               "In each run somebody promotes a member's data directory by hand");
  app.add_option("--mutation", options.mutation,
                 "Remove one safety of the agent, to test the checkers")
      ->check(CLI::IsMember(bascule::sim::mutation_names()));
  app.add_option("--checkers", options.checkers,
                 "Listen to these checkers only, e.g. durability,one_writer")
      ->delimiter(',');
  app.add_option("--scenario", options.scenario,
                 "Run this scripted scenario, or \"all\", with --seed or --seeds");
  app.add_flag("--scenarios", options.list_scenarios, "List the scripted scenarios");
  app.add_flag("--expect-violation", options.expect_violation,
               "Succeed if and only if a promise is broken (with --mutation)");
  CLI11_PARSE(app, argc, argv);
  return bascule::sim::run(options);
}
