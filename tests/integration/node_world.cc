#include "tests/integration/node_world.h"

#include <fmt/format.h>
#include <unistd.h>

#include <filesystem>

namespace bascule::node {
namespace {

namespace op = control::op;
namespace event = control::event;
namespace effect = control::effect;

constexpr int kFirstPort = 24500;

}  // namespace

World::World() {
  static int worlds = 0;
  directory_ = std::filesystem::temp_directory_path() /
               fmt::format("bascule-node-{}-{}", getpid(), ++worlds);
  std::filesystem::create_directory(directory_);
  store_ = std::make_unique<store::MemoryStore>(backend_, loop);
  pool_ = std::make_unique<posix::ThreadPool>(6);
}

World::~World() {
  for (auto& member : members_) {
    const env::Pid guard = guard_pid(*member);
    member->shell.reset();
    if (auto handle = process.open(guard); guard != 0 && handle) (void)(*handle)->signal(9);
  }
  pool_.reset();
  for (auto& member : members_) {
    const std::string data = member->config.data_dir;
    while (!process.in_directory(data, "postgres").empty()) {
      for (const env::Pid pid : process.in_directory(data, "postgres")) {
        if (auto handle = process.open(pid)) (void)(*handle)->signal(9);
      }
    }
  }
  if (!::testing::Test::HasFailure()) std::filesystem::remove_all(directory_);
}

World::Member& World::add(const std::string& name, const std::function<void(NodeConfig&)>& adjust) {
  auto member = std::make_unique<Member>();
  NodeConfig& c = member->config;
  c.agent.cluster = "test";
  c.agent.name = NodeName::parse(name).value();
  c.agent.host = "127.0.0.1";
  c.agent.port =
      kFirstPort + static_cast<int>(getpid() % 500) * 8 + static_cast<int>(members_.size());
  c.data_dir = directory_ + "/" + name + "/data";
  c.run_dir = directory_ + "/" + name + "/run";
  c.superuser_password = "super's secret";
  c.replication_password = "it's a \\ se:cret";
  c.client_users = {{"app", "app secret", "app"}};
  c.parameters = {{"shared_buffers", "16MB"}, {"max_connections", "30"}};
  c.sampling = 200ms;
  member->state.incarnation = "inc" + name;
  if (adjust) adjust(c);
  members_.push_back(std::move(member));
  open(*members_.back());
  return *members_.back();
}

void World::open(Member& member) {
  auto opened = Shell::open(member.config, {loop, *pool_, process, disk, *store_, entropy});
  ASSERT_TRUE(opened) << opened.error().to_string();
  member.shell = std::move(opened->shell);
  member.ready = false;
  const auto sink = [&member](const control::Event& happened) {
    if (const auto* e = std::get_if<event::OpDone>(&happened))
      member.done.emplace(e->id, e->result);
    if (const auto* e = std::get_if<event::PgExited>(&happened)) member.exits.push_back(e->how);
    if (const auto* e = std::get_if<event::GuardLost>(&happened)) member.losses.push_back(e->how);
    if (const auto* e = std::get_if<event::Observed>(&happened)) member.status = e->status;
    if (std::get_if<event::PersistDone>(&happened) != nullptr) ++member.persists_done;
  };
  member.shell->start(member.state, sink, [&member](const Status& status) {
    EXPECT_TRUE(status) << status.error().to_string();
    member.ready = true;
  });
  ASSERT_TRUE(until([&] { return member.ready; }));
}

control::Upstream World::upstream(const Member& member) const {
  return {member.config.agent.name, member.config.agent.host, member.config.agent.port};
}

bool World::until(std::function<bool()> done, Nanos within) {
  const MonoTime limit = loop.now() + within;
  while (!done()) {
    if (loop.now() >= limit) return false;
    loop.call_after(1ms, [this] { loop.stop(); });
    loop.run();
  }
  return true;
}

control::OpId World::begin(Member& member, control::Op operation) {
  const control::OpId id = next_id_++;
  control::Effects effects;
  effects.push_back(effect::StartOp{id, std::move(operation)});
  member.shell->perform(std::move(effects));
  return id;
}

Result<control::OpData> World::finish(Member& member, control::OpId id, Nanos within) {
  if (!until([&] { return member.done.contains(id); }, within)) {
    return fail(ErrorCode::kTimeout, "operation not done");
  }
  return member.done.at(id);
}

Result<control::OpData> World::run(Member& member, control::Op operation, Nanos within) {
  return finish(member, begin(member, std::move(operation)), within);
}

control::PgStatus World::sample(Member& member) {
  const MonoTime since = loop.now();
  control::Effects effects;
  effects.push_back(effect::SetSampling{200ms});
  member.shell->perform(std::move(effects));
  EXPECT_TRUE(until([&] { return member.status.sampled_at >= since; }));
  return member.status;
}

void World::persist(Member& member, control::LocalState state) {
  member.state = state;
  const int before = member.persists_done;
  control::Effects effects;
  effects.push_back(effect::Persist{next_id_++, std::move(state)});
  member.shell->perform(std::move(effects));
  EXPECT_TRUE(until([&] { return member.persists_done > before; }));
}

Result<PgConnection> World::session(Member& member) {
  return PgConnection::connect({{"host", member.config.run_dir},
                                {"port", std::to_string(member.config.agent.port)},
                                {"user", member.config.superuser},
                                {"dbname", "postgres"}},
                               {loop, loop.now() + 5s});
}

Result<Rows> World::sql(Member& member, const std::string& text, Nanos within) {
  auto connection = session(member);
  if (!connection) return std::unexpected(connection.error());
  return connection->query(text, {loop, loop.now() + within});
}

std::string World::value(Member& member, const std::string& text) {
  auto rows = sql(member, text);
  if (!rows) return "error: " + rows.error().to_string();
  if (rows->empty() || rows->at(0).empty()) return "";
  return rows->at(0)[0].value_or("NULL");
}

env::Pid World::postmaster(Member& member) {
  auto text = disk.read(member.config.data_dir + "/postmaster.pid", 4096);
  return text ? atoi(text->c_str()) : 0;
}

env::Pid World::guard_pid(Member& member) {
  auto socket = process.connect(member.config.run_dir + "/guard.sock");
  return socket ? (*socket)->peer() : 0;
}

std::pair<World::Member*, World::Member*> World::pair() {
  Member& n1 = add("n1");
  Member& n2 = add("n2");
  auto initialized = run(n1, op::InitDb{});
  EXPECT_TRUE(initialized) << initialized.error().to_string();
  auto started = run(n1, op::StartPrimary{});
  EXPECT_TRUE(started) << started.error().to_string();
  auto slots = run(n1, op::EnsureSlots{{control::slot_name(n2.config.agent.name)}, {}});
  EXPECT_TRUE(slots) << slots.error().to_string();
  auto cloned = run(n2, op::Clone{upstream(n1)});
  EXPECT_TRUE(cloned) << cloned.error().to_string();
  auto follows = run(n2, op::StartStandby{upstream(n1)});
  EXPECT_TRUE(follows) << follows.error().to_string();
  EXPECT_TRUE(until([&] { return sample(n2).receiver_streaming; }));
  return {&n1, &n2};
}

}  // namespace bascule::node
