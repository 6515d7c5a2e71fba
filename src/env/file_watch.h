// A cheap signal between the processes of one host that share a file: "look at it again". It is a
// hint only: it may come without need and may be lost, so whoever listens also polls slowly.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "base/result.h"

namespace bascule::env {

class ChangeHint {
 public:
  virtual ~ChangeHint() = default;
  // Calls back on the loop after a ring() of the same path by any process, this one included.
  // The directory must exist. Returns an id for unlisten(). Loop thread only.
  virtual Result<uint64_t> listen(const std::string& path, std::function<void()> callback) = 0;
  virtual void unlisten(uint64_t id) = 0;
  // Wakes every listener of `path`. Thread-safe; writes no data to the disk; failures are ignored.
  virtual void ring(const std::string& path) = 0;
};

}  // namespace bascule::env
