#include "sim/by_hand.h"

namespace bascule::sim {

void promote_by_hand(Member& m, int records, std::function<void()> done) {
  PostgresModel& pg = m.pg();
  const auto promoted = [&pg, records, done = std::move(done)](uint32_t) {
    for (int i = 0; i < records; ++i) pg.write_marker([](bool) {});
    pg.checkpoint([&pg, done](bool) { pg.fast_shutdown([done](bool) { done(); }); });
  };
  pg.start_standby(std::nullopt, "by_hand", [&pg, promoted](bool) { pg.promote({}, promoted); });
  pg.is_run_by_hand();
}

}  // namespace bascule::sim
