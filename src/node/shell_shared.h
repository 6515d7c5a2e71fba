// What a Shell shares with its work in the pool. For shell*.cc only.
#pragma once

#include <string>
#include <utility>

#include "node/shell.h"
#include "node/slot_keeper.h"
#include "node/write_probe.h"

namespace bascule::node {

// The operation's id where nobody waits for it: one of the shell's own.
inline constexpr control::OpId kOwnOp = ~control::OpId{0};

struct Shell::Shared {
  NodeConfig config;
  ShellDeps deps;
  Server server;
  Sampler sampler;
  WriteProbe write_probe;
  Notes notes;
  SlotKeeper slots;
  Shell* shell = nullptr;  // loop's thread only; nullptr once it is gone

  Shared(NodeConfig c, ShellDeps d)
      : config(std::move(c)),
        deps(d),
        server({config, deps.process, deps.disk, deps.loop}),
        sampler(server),
        write_probe(server),
        notes(deps.disk, config.run_dir + "/events.jsonl"),
        slots(server, [this](LogLevel level, std::string what, std::string why) {
          remark(level, std::move(what), std::move(why));
        }) {}

  // From any thread.
  void remark(LogLevel level, std::string what, std::string why) {
    deps.loop.post([this, level, what = std::move(what), why = std::move(why)] {
      if (shell != nullptr) shell->remark(what, why, level);
    });
  }
};

}  // namespace bascule::node
