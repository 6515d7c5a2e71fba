#include "proxy/console.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "base/log.h"
#include "proxy/client_connection.h"
#include "proxy/console_settings.h"
#include "proxy/worker.h"

namespace bascule::proxy {
namespace {

int servers_of(const ConsoleSnapshot& snapshot, const std::string& database) {
  int servers = 0;
  for (const auto& [key, pool] : snapshot.pools) {
    if (database.empty() || key.first == database) servers += pool.servers();
  }
  return servers;
}

int closing_of(const ConsoleSnapshot& snapshot, const std::string& database) {
  int servers = 0;
  for (const auto& [key, pool] : snapshot.pools) {
    if (database.empty() || key.first == database) servers += pool.sv_closing;
  }
  return servers;
}

int busy_of(const ConsoleSnapshot& snapshot) {
  int busy = 0;
  for (const auto& [key, pool] : snapshot.pools) busy += pool.busy;
  return busy;
}

}  // namespace

bool Console::is_database(const AccessConfig& access, std::string_view database) {
  const bool exists = !access.console_admins.empty() || !access.console_stats.empty();
  return exists && (database == "pgbouncer" || database == "bascule");
}

std::optional<Console::Right> Console::right_of(const AccessConfig& access, std::string_view user) {
  const auto in = [&](const std::vector<std::string>& names) {
    return std::ranges::find(names, user) != names.end();
  };
  if (in(access.console_admins)) return Right::kOrder;
  if (in(access.console_stats)) return Right::kLook;
  return std::nullopt;
}

Console::Console(Worker& worker, ClientConnection& client, std::string user, Right right)
    : worker_(worker), client_(client), user_(std::move(user)), right_(right) {}

Console::~Console() { stop(); }

void Console::stop() {
  stopped_ = true;
  ++question_;
  worker_.loop().cancel(std::exchange(look_, env::TimerId::kNone));
}

size_t Console::on_bytes(std::string_view bytes) {
  in_on_bytes_ = true;
  size_t done = 0;
  do {
    std::string reply;
    done += protocol_.on_bytes(bytes.substr(done), reply);
    if (!reply.empty()) client_.to_client(reply);
    if (!busy()) break;
    carry_out();
  } while (!busy() && !stopped_);
  in_on_bytes_ = false;
  return done;
}

void Console::carry_out() {
  const ConsoleCommand command = protocol_.command();
  if (needs_admin(command) && right_ != Right::kOrder) {
    return refuse("42501", "admin access needed");
  }
  if (command.verb == ConsoleVerb::kShow) return show(command.show);
  if (command.verb == ConsoleVerb::kShowSetting) {
    ConsoleAnswer answer;
    answer.tag = "SHOW";
    answer.table.emplace();
    answer.table->rows = {{std::string(*session_setting(command.argument))}};
    return finish(std::move(answer));
  }
  const auto& databases = worker_.config().databases;
  if (command.verb != ConsoleVerb::kSet && !command.argument.empty() && !databases.empty() &&
      find_database(databases, command.argument) == nullptr) {
    return refuse("3D000", fmt::format("no such database: {}", command.argument));
  }
  if (needs_admin(command)) {
    log(LogLevel::kInfo, "console", "command",
        {{"user", user_},
         {"command", tag_of(command.verb)},
         {"argument", command.argument},
         {"id", command.id}});
  }
  change(command);
}

void Console::change(const ConsoleCommand& command) {
  switch (command.verb) {
    case ConsoleVerb::kPause:
      return pause(command);
    case ConsoleVerb::kResume:
      return resume(command.argument);
    case ConsoleVerb::kSuspend:
      return suspend();
    case ConsoleVerb::kKill:
      return kill(command.argument);
    case ConsoleVerb::kKillClient:
      return kill_client(command.id);
    case ConsoleVerb::kShutdown:
      return shut_down(command.shutdown);
    case ConsoleVerb::kReload:
      return reload();
    case ConsoleVerb::kSet:
      return set(command);
    case ConsoleVerb::kReconnect:
      for (int i = 0; i < worker_.crew().size(); ++i) {
        worker_.crew().post(i, [database = command.argument](Worker& worker) {
          worker.dispatcher().reconnect(database);
        });
      }
      return ask(Detail::kPools, [this](const ConsoleSnapshot&) { done(); });
    case ConsoleVerb::kDisable:
    case ConsoleVerb::kEnable: {
      const bool disable = command.verb == ConsoleVerb::kDisable;
      return done(worker_.crew().control([&](Controls& controls) -> Status {
        if (disable) {
          controls.disabled.insert(command.argument);
        } else {
          controls.disabled.erase(command.argument);
        }
        return {};
      }));
    }
    case ConsoleVerb::kWaitClose:
      return wait_until([database = command.argument](const ConsoleSnapshot& s) {
        return closing_of(s, database) == 0;
      });
    case ConsoleVerb::kNothing:
    case ConsoleVerb::kShow:
    case ConsoleVerb::kShowSetting:
      return;
  }
}

// ---- SHOW --------------------------------------------------------------------------------------

void Console::show(ConsoleShow what) {
  if (what == ConsoleShow::kHelp) {
    ConsoleAnswer answer;
    answer.tag = "SHOW";
    answer.notice = "Console usage";
    answer.detail = kConsoleHelp;
    return finish(std::move(answer));
  }
  ask(needs_sockets(what) ? Detail::kSockets : Detail::kPools,
      [this, what](const ConsoleSnapshot& snapshot) {
        const ProxyConfig defaults;
        ConsoleView view{snapshot, worker_.config(), defaults, worker_.controls(), nullptr, {}};
        if (worker_.route() != nullptr) view.route = &worker_.route()->table;
        for (const ProxyUser& user : worker_.access()->config.users)
          view.users.push_back(user.name);
        ConsoleAnswer answer;
        answer.tag = "SHOW";
        answer.table = table_of(what, view);
        finish(std::move(answer));
      });
}

// ---- Orders ------------------------------------------------------------------------------------

void Console::pause(const ConsoleCommand& command) {
  const Status status = worker_.crew().control([&](Controls& controls) -> Status {
    if (controls.all != Halt::kNone) {
      return fail(ErrorCode::kConflict, "already suspended/paused");
    }
    if (command.argument.empty()) {
      controls.all = Halt::kPaused;
    } else {
      controls.paused.insert(command.argument);
    }
    return {};
  });
  if (!status) return done(status);
  wait_until([database = command.argument](const ConsoleSnapshot& s) {
    return servers_of(s, database) == 0;
  });
}

void Console::resume(const std::string& database) {
  done(worker_.crew().control([&](Controls& controls) -> Status {
    if (controls.leaving) return fail(ErrorCode::kConflict, "pooler is shutting down");
    if (database.empty()) {
      if (controls.all == Halt::kNone) {
        return fail(ErrorCode::kConflict, "pooler is not paused/suspended");
      }
      controls.all = Halt::kNone;
    } else if (controls.paused.erase(database) == 0) {
      return fail(ErrorCode::kConflict, fmt::format("database {} is not paused", database));
    }
    return {};
  }));
}

void Console::suspend() {
  const Status status = worker_.crew().control([](Controls& controls) -> Status {
    if (controls.all != Halt::kNone) {
      return fail(ErrorCode::kConflict, "already suspended/paused");
    }
    if (!controls.paused.empty()) {
      return fail(ErrorCode::kConflict, "cannot suspend with paused databases");
    }
    controls.all = Halt::kSuspended;
    return {};
  });
  if (!status) return done(status);
  wait_until([](const ConsoleSnapshot& s) { return busy_of(s) == 0; });
}

void Console::kill(const std::string& database) {
  const Status status = worker_.crew().control([&](Controls& controls) -> Status {
    if (controls.all != Halt::kNone) {
      return fail(ErrorCode::kConflict, "already suspended/paused");
    }
    if (database.empty()) {
      controls.all = Halt::kPaused;
    } else {
      controls.paused.insert(database);
    }
    return {};
  });
  if (!status) return done(status);
  for (int i = 0; i < worker_.crew().size(); ++i) {
    worker_.crew().post(i, [database](Worker& worker) { worker.kill(database); });
  }
  ask(Detail::kPools, [this](const ConsoleSnapshot&) { done(); });
}

void Console::kill_client(uint64_t id) {
  const int at = Worker::worker_of_socket(id);
  if (at >= worker_.crew().size()) return refuse("22023", "client not found");
  worker_.crew().post(at, [id, back = way_back()](Worker& worker) {
    const bool found = worker.kill_client(id);
    back([found](Console& console) {
      found ? console.done() : console.refuse("22023", "client not found");
    });
  });
}

void Console::shut_down(ShutdownMode mode) {
  const auto& shut_down = worker_.config().process.shut_down;
  if (!shut_down) return refuse("0A000", "this process can't be shut down by the console");
  if (mode == ShutdownMode::kNow) {
    // Not answered, as by PgBouncer: the connection stays until the process ends.
    shut_down();
    return;
  }
  done(worker_.crew().control([mode](Controls& controls) -> Status {
    controls.leaving = true;
    if (mode == ShutdownMode::kWaitForServers) controls.all = Halt::kPaused;
    return {};
  }));
}

void Console::reload() {
  const auto& hook = worker_.config().process.reload;
  if (!hook) return refuse("0A000", "this process can't be reloaded by the console");
  hook([back = way_back()](Status status) {
    back([status](Console& console) { console.done(status); });
  });
}

void Console::set(const ConsoleCommand& command) {
  if (session_setting(command.argument)) {
    ConsoleAnswer answer;
    answer.tag = "SET";
    answer.notice = "SET ignored";
    return finish(std::move(answer));
  }
  const Status status = worker_.crew().configure(
      [&](ProxyConfig& config) { return set_config(config, command.argument, command.value); });
  if (!status) return done(status);
  ConsoleAnswer answer;
  answer.tag = fmt::format("SET {}={}", command.argument, command.value);
  finish(std::move(answer));
}

void Console::cancel() {
  if (!busy()) return;
  if (protocol_.command().verb == ConsoleVerb::kPause ||
      protocol_.command().verb == ConsoleVerb::kSuspend) {
    const std::string database = protocol_.command().argument;
    (void)worker_.crew().control([&](Controls& controls) -> Status {
      if (database.empty()) {
        controls.all = Halt::kNone;
      } else {
        controls.paused.erase(database);
      }
      return {};
    });
  }
  refuse("57014", "canceling statement due to user request");
}

// ---- Asking the workers ------------------------------------------------------------------------

Console::Return Console::way_back() {
  return [home = worker_.index(), self = client_.self(), question = ++question_,
          &crew = worker_.crew()](std::function<void(Console&)> work) {
    crew.post(home, [self, question, work = std::move(work)](Worker& worker) {
      ClientConnection* client = worker.client(self);
      Console* console = client != nullptr ? client->console() : nullptr;
      if (console == nullptr || console->stopped_ || console->question_ != question) return;
      work(*console);
    });
  };
}

void Console::ask(Detail detail, OnSnapshot then) {
  then_ = std::move(then);
  answers_ = {};
  missing_ = worker_.crew().size();
  const Return back = way_back();
  const auto sockets = detail == Detail::kSockets ? Worker::Sockets::kYes : Worker::Sockets::kNo;
  for (int i = 0; i < worker_.crew().size(); ++i) {
    worker_.crew().post(i, [back, sockets, question = question_](Worker& worker) {
      back([question, piece = worker.snapshot(sockets)](Console& console) {
        console.on_piece(question, piece);
      });
    });
  }
}

void Console::on_piece(uint64_t question, ConsoleSnapshot piece) {
  if (question != question_) return;
  answers_ += std::move(piece);
  if (--missing_ > 0) return;
  const OnSnapshot then = std::exchange(then_, nullptr);
  const ConsoleSnapshot all = std::exchange(answers_, {});
  then(all);
}

void Console::wait_until(Until until) {
  until_ = std::move(until);
  look_again();
}

void Console::look_again() {
  ask(Detail::kPools, [this](const ConsoleSnapshot& snapshot) {
    if (until_(snapshot)) return done();
    // What it waits for happens at clients and servers of any worker, now and then.
    look_ = worker_.loop().call_after(kLookEvery, [this] {
      look_ = env::TimerId::kNone;
      look_again();
    });
  });
}

// ---- Answers -----------------------------------------------------------------------------------

void Console::done() {
  ConsoleAnswer answer;
  answer.tag = tag_of(protocol_.command().verb);
  finish(std::move(answer));
}

void Console::done(const Status& status) {
  if (status) return done();
  const bool unknown = status.error().code == ErrorCode::kNotFound;
  const bool value = status.error().code == ErrorCode::kInvalid;
  refuse(unknown ? "42704" : value ? "22023" : "55000", status.error().to_string());
}

void Console::refuse(std::string_view sqlstate, std::string message) {
  ConsoleAnswer answer;
  answer.error = {std::string(sqlstate), std::move(message)};
  finish(std::move(answer));
}

void Console::finish(ConsoleAnswer answer) {
  ++question_;  // whatever else was asked is of no interest any more
  worker_.loop().cancel(std::exchange(look_, env::TimerId::kNone));
  std::string reply;
  protocol_.finish(answer, reply);
  client_.to_client(reply);
  if (!in_on_bytes_) client_.resume();
}

}  // namespace bascule::proxy
