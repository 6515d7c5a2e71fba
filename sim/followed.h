// The cluster that ours follows (standby_cluster): one primary of somebody else on a host of its
// own, written to by its own clients. Nothing of it is checked; what it writes is the members' WAL.
#pragma once

#include "sim/postgres_model.h"

namespace bascule::sim {

class Followed {
 public:
  static constexpr Endpoint kHost = kHostsMax - 1;

  // Takes its place among `ours`, whose members' slots it has.
  explicit Followed(Fabric& ours);
  void start(const std::vector<NodeName>& members);

 private:
  void write();

  World& world_;
  Fabric& ours_;
  PostgresObserver unobserved_;
  Fabric fabric_;
  Prng random_;
  PostgresModel pg_;
  uint64_t commits_ = uint64_t{1} << 40;
};

}  // namespace bascule::sim
