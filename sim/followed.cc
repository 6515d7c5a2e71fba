#include "sim/followed.h"

#include "control/agent.h"

namespace bascule::sim {

Followed::Followed(Fabric& ours)
    : world_(ours.world),
      ours_(ours),
      fabric_{ours.world, unobserved_, {}, {}},
      random_(ours.world.stream("followed")),
      pg_(fabric_, kHost, control::followed_cluster()) {
  fabric_.next_content = fabric_.next_session = uint64_t{1} << 40;
  ours_.servers.resize(kHostsMax, nullptr);
  ours_.servers[kHost] = &pg_;
  fabric_.servers = ours_.servers;
}

void Followed::start(const std::vector<NodeName>& members) {
  DataDirectory& d = pg_.data();
  d.state = control::DataDir::kReady;
  d.system_id = random_.next() | 1;
  d.timeline = d.checkpoint_timeline = d.max_timeline = 4;
  std::vector<std::string> slots;
  for (const NodeName& name : members) slots.push_back(control::slot_name(name));
  pg_.ensure_slots(slots, {});
  pg_.start_primary({}, 1, [this](bool) { write(); });
}

void Followed::write() {
  pg_.commit(++commits_, static_cast<uint32_t>(random_.between(100, 4000)),
             [](PostgresModel::Answer) {});
  world_.after(random_ms(random_, 20, 500), pg_.process(), [this] { write(); });
}

}  // namespace bascule::sim
