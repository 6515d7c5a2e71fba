// env::BlockingPool over std::thread: work is taken in the order of submission by the first free
// thread. The destructor runs what is still queued, then joins.
#pragma once

#include <condition_variable>
#include <deque>
#include <mutex>
#include <thread>
#include <vector>

#include "env/loop.h"

namespace bascule::posix {

class ThreadPool final : public env::BlockingPool {
 public:
  explicit ThreadPool(int threads);
  ~ThreadPool() override;
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  void submit(env::Callback work) override;

 private:
  void run();

  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<env::Callback> queue_;  // guarded by mutex_
  bool closing_ = false;             // guarded by mutex_
  std::vector<std::thread> threads_;
};

}  // namespace bascule::posix
