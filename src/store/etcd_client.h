// Requests to an etcd cluster through whichever of its members answers: endpoints with failover,
// deadlines, log-in. What a request means is the caller's business (etcd_store.h).
//
// One loop's thread. Each call's `done` comes once, on the loop, never inside call(), at the latest
// when its deadline has passed; none comes after the client's destruction.
//
// A call goes to the member that answered last. Another one is asked too when that refuses, breaks
// off, or is silent for `attempt`, as long as asking twice is harmless (Repeat). The first final
// answer counts.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "env/http.h"
#include "env/loop.h"
#include "store/etcd_wire.h"

namespace bascule::store {

struct EtcdOptions {
  std::vector<std::string> endpoints;  // "https://10.0.0.1:2379"
  std::string prefix;                  // of every key in etcd; not seen by the users of the store
  std::string user;                    // empty: without log-in
  std::string password;
  std::string identity;  // of a store that has none yet; empty: never make one
  Millis timeout{1000};  // every request is answered within it
  Millis attempt{250};
};

class EtcdClient {
 public:
  enum class Repeat {
    kHarmless,    // reads; transactions of which at most one can succeed
    kUnlessSent,  // only after an attempt that certainly was not carried out
  };
  // What the caller says to an answer of status 200: kNotYet when it would rather hear the other
  // attempts that are under way (a conflict may be with oneself).
  enum class Verdict { kFinal, kNotYet };

  struct Reply {
    bool answered = false;
    std::string body;      // answered
    bool unclear = false;  // another attempt, or any if not answered, may have been carried out
    Error error;           // not answered
  };
  struct Call {
    std::string path;  // "/v3/kv/txn"
    std::string body;
    Repeat repeat = Repeat::kHarmless;
    MonoTime deadline;
    std::function<Verdict(const std::string& body)> judge;  // null: all are final
    std::move_only_function<void(Reply)> done;
  };

  EtcdClient(EtcdOptions options, env::Loop& loop, env::HttpClient& http);
  ~EtcdClient();
  EtcdClient(const EtcdClient&) = delete;
  EtcdClient& operator=(const EtcdClient&) = delete;

  void call(Call call);

  // A stream (watch) is the caller's; it says how it went, so that the next one goes elsewhere.
  struct Line {
    size_t endpoint = 0;
    uint64_t token_number = 0;
    uint64_t http_id = 0;
  };
  // nullopt: not logged in yet; try again a little later.
  std::optional<Line> open_stream(const std::string& path, const std::string& body,
                                  env::HttpClient::DataCallback data,
                                  env::HttpClient::DoneCallback ended);
  void close_stream(const Line& line) { http_.cancel(line.http_id); }
  void avoid(const Line& line) { blame(line.endpoint); }  // it was silent or broke off
  void refuse_token(const Line& line) { drop_token(line.token_number); }
  const std::string& name(const Line& line) const { return options_.endpoints[line.endpoint]; }

  const EtcdOptions& options() const { return options_; }

  // As long as it stays the same, every answer comes over connections that were there when it was
  // first asked for: from processes that have served since, with nothing restored between.
  uint64_t continuity() const { return continuity_; }

 private:
  using Id = uint64_t;
  enum class Login { kNeeded, kIsOne };
  struct Attempt {
    uint64_t number = 0;
    size_t endpoint = 0;
    uint64_t http_id = 0;
    uint64_t token_number = 0;
  };
  struct Pending {
    Call call;
    Login login = Login::kNeeded;
    std::vector<Attempt> running;
    std::vector<size_t> tried;        // endpoints of this round
    bool unclear = false;             // an attempt ended without a clear answer
    std::optional<std::string> kept;  // a body that judge() called kNotYet
    std::string last_problem;
    int tokens_refused = 0;
    env::TimerId timer = env::TimerId::kNone;  // next attempt
    env::TimerId deadline = env::TimerId::kNone;
  };

  void add(Call call, Login login);
  void attempt(Id id);
  void send(Id id, Pending& pending, size_t endpoint);
  void on_answer(Id id, uint64_t number, env::HttpAnswer answer);
  void on_success(Id id, Pending& pending, std::string body);
  void on_failure(Id id, Pending& pending, const Attempt& attempt, const env::HttpAnswer& answer);
  void go_on(Id id, Pending& pending);
  void expire(Id id);
  void finish(Id id, Reply reply);

  std::optional<size_t> choose(const Pending& pending) const;
  void blame(size_t endpoint);
  void praise(size_t endpoint);

  void log_in();
  void on_login(Reply reply);
  void drop_token(uint64_t number);
  env::HttpRequest request(size_t endpoint, const std::string& path, const std::string& body) const;

  const EtcdOptions options_;
  env::Loop& loop_;
  env::HttpClient& http_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);  // for posted work; loop thread only

  Id next_id_ = 1;
  std::map<Id, Pending> pending_;
  uint64_t continuity_ = 0;
  size_t preferred_ = 0;
  std::vector<MonoTime> blamed_until_;

  std::string token_;
  uint64_t token_number_ = 0;  // of token_; an old one that is refused says nothing about it
  bool logging_in_ = false;
  std::vector<Id> waiting_for_token_;
};

}  // namespace bascule::store
