// Host names to addresses, off the loops' threads: getaddrinfo() blocks, for seconds if a name
// server is gone. Answers are kept for a short time, failures too, so that retries every 25 ms do
// not become as many questions. Any thread.
#pragma once

#include <condition_variable>
#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "env/loop.h"
#include "posix/blocking_pool.h"

namespace bascule::posix {

class Resolver {
 public:
  // `address` is empty if the name is not known.
  using Answer = std::move_only_function<void(const std::string& address)>;
  // Calls back on `loop`, always in a later turn.
  void lookup(const std::string& host, env::Loop& loop, Answer answer);
  // No answer goes to this loop any more: before it dies.
  void forget(env::Loop& loop);

 private:
  static constexpr Nanos kKeep = 10s;
  static constexpr Nanos kKeepFailure = 1s;
  struct Question {
    env::Loop* loop;
    Answer answer;
  };
  struct Entry {
    std::string address;
    MonoTime expires{};
    bool asking = false;
    std::vector<Question> waiting;
  };
  static void reply(Question question, std::string address);
  void resolve(const std::string& host);

  std::mutex mutex_;
  std::map<std::string, Entry> entries_;  // guarded by mutex_; as many as the cluster has hosts
  // Last: its threads end before what they use. Two, so that one dead name does not delay others.
  ThreadPool pool_{2};
};

}  // namespace bascule::posix
