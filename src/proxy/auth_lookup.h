// Users that no list names, and the roles of users, as the cluster knows them: asked for on a
// connection of the worker's own (AuthQuery), one after the other, and remembered for a while.
// Asked by clients that have not proved anything yet: everything is bounded.
#pragma once

#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "proxy/client_login.h"
#include "proxy/own_query.h"
#include "proxy/slot_map.h"

namespace bascule::proxy {

class Worker;

// The text of a query with $1 replaced by a literal. nullopt: no name of PostgreSQL.
std::optional<std::string> with_user(std::string_view query, std::string_view user);

class AuthLookup {
 public:
  explicit AuthLookup(Worker& worker) : worker_(worker) {}

  enum class Asked {
    kKnown,    // `answer` is set
    kLater,    // ClientConnection::on_user_answer() follows, as long as the client is there
    kTooMany,  // the queue is full
  };
  Asked ask(const std::string& user, UserQuestion question, Handle client, UserAnswer& answer);
  // A client failed with what was remembered: it may be out of date.
  void doubt(const std::string& user);
  // Why nobody could be asked last time; empty if that went well.
  const std::string& last_error() const { return last_error_; }

  void reset();  // users, rules or the route have changed
  void sweep();  // some times a minute: closes what is not used, forgets what is too old
  void close();

 private:
  struct Known {
    UserAnswer answer;
    UserQuestion question;  // what the answer covers
    MonoTime at{}, until{};
  };
  using Cache = std::map<std::string, Known, std::less<>>;
  struct Question {
    UserQuestion wants;
    std::vector<Handle> clients;
    int attempts = 0;
  };
  static constexpr size_t kQueueMax = 1'000;
  static constexpr size_t kKnownMax = 50'000;
  static constexpr size_t kUnknownMax = 10'000;  // names are the clients' to choose
  static constexpr size_t kRolesMax = 10'000;
  static constexpr Nanos kTimeout = 3s;
  static constexpr Nanos kRetry = 50ms;
  static constexpr Nanos kIdle = 60s;

  const UserAnswer* remembered(const std::string& user, UserQuestion question);
  void remember(const std::string& user, const Question& question, UserAnswer answer);
  void begin_next();
  void run(const std::string& sql, OwnConnection::OnRow on_row, void (AuthLookup::*next)());
  bool connect(int attempt);  // false: nobody is there to ask
  void ask_secret();
  void ask_roles();
  void finish();
  void later(std::string error);

  Worker& worker_;
  Cache known_, unknown_;
  std::map<std::string, Question> waiting_;
  std::deque<std::string> queue_;  // names in waiting_, in order; the first is being asked about
  bool busy_ = false;
  UserAnswer answer_;
  std::string server_;  // name and epoch of whom connection_ leads to
  // What the connection uses must live as long.
  std::shared_ptr<const Access> access_;
  std::unique_ptr<OwnConnection> connection_;
  MonoTime used_{};
  env::TimerId retry_ = env::TimerId::kNone;
  std::string last_error_;
};

}  // namespace bascule::proxy
