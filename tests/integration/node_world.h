// Real PostgreSQL servers, each driven through a node::Shell by operations instead of by an agent.
// As root everything runs as user "postgres" (see node_ops_test.cc's main).
#pragma once

#include <gtest/gtest.h>

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "node/pg_connection.h"
#include "node/shell.h"
#include "posix/blocking_pool.h"
#include "posix/disk.h"
#include "posix/entropy.h"
#include "posix/process.h"
#include "posix/reactor.h"
#include "store/memory_store.h"

namespace bascule::node {

class World {
 public:
  World();
  ~World();  // kills what it started, removes its directory

  struct Member {
    NodeConfig config;
    control::LocalState state;
    std::unique_ptr<Shell> shell;
    std::map<control::OpId, Result<control::OpData>> done;
    std::vector<std::string> exits;   // PgExited
    std::vector<std::string> losses;  // GuardLost
    control::PgStatus status;
    int persists_done = 0;
    bool ready = false;
  };

  // Prepared, its shell open and its guard attached.
  Member& add(const std::string& name, const std::function<void(NodeConfig&)>& adjust = {});
  void open(Member& member);  // again, after `member.shell.reset()`
  control::Upstream upstream(const Member& member) const;

  control::OpId begin(Member& member, control::Op op);
  Result<control::OpData> finish(Member& member, control::OpId id, Nanos within = 60s);
  Result<control::OpData> run(Member& member, control::Op op, Nanos within = 60s);
  control::PgStatus sample(Member& member);  // begun after this call
  void persist(Member& member, control::LocalState state);
  // Turns the loop until `done`; false when time is up.
  bool until(std::function<bool()> done, Nanos within = 10s);

  Result<Rows> sql(Member& member, const std::string& text, Nanos within = 10s);
  std::string value(Member& member, const std::string& text);
  Result<PgConnection> session(Member& member);
  env::Pid postmaster(Member& member);
  env::Pid guard_pid(Member& member);

  // A primary "n1" with a streaming standby "n2".
  std::pair<Member*, Member*> pair();

  posix::Reactor loop;
  posix::PosixProcess process;
  posix::PosixDisk disk;
  posix::SystemEntropy entropy;

 private:
  std::string directory_;
  store::MemoryBackend backend_{"test"};
  std::unique_ptr<store::MemoryStore> store_;
  std::unique_ptr<posix::ThreadPool> pool_;
  std::vector<std::unique_ptr<Member>> members_;
  control::OpId next_id_ = 1;
};

class NodeOps : public ::testing::Test {
 protected:
  World world;
};

#define ASSERT_DONE(expression)                                  \
  do {                                                           \
    const auto done_ = (expression);                             \
    ASSERT_TRUE(done_.has_value()) << done_.error().to_string(); \
  } while (false)

}  // namespace bascule::node
