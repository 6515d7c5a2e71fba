// `bascule demo`: a throw-away cluster under load loses its primary, gets it back as a replica, is
// switched over, and is checked row by row.
#pragma once

#include <string>

#include "cli/demo_report.h"
#include "cli/platform.h"
#include "control/records.h"

namespace bascule::cli {

struct DemoOptions {
  int repeat = 1;
  int clients = 8;
  DemoFault fault = DemoFault::kPostmaster;
  bool json = false;
  bool keep = false;  // leave the cluster running and its directory there
  std::string dir;    // empty: a new one in /tmp
  std::string user;   // as root: run as this one
  int pg_version = 0;
  int etcd_members = 0;  // 0: the store is a file
  control::ClusterConfig defaults;
};
// Exit code 1 if an acknowledged write was lost or duplicated, or the cluster did not recover.
int demo_command(const Platform& platform, const DemoOptions& options);

}  // namespace bascule::cli
