// env::Loop over io_uring. A turn is one io_uring_enter(): it hands over what was asked for since
// the last one, runs what the kernel had deferred to it (IORING_SETUP_DEFER_TASKRUN), and waits.
// One thread only may enter (IORING_SETUP_SINGLE_ISSUER): the one that calls run(); what is asked
// for before that is handed over then. Needs Linux 6.1; see `man 2 io_uring_setup`.
#pragma once

#include <liburing.h>

#include <memory>
#include <string>
#include <vector>

#include "posix/loop_core.h"

namespace bascule::posix {

class UringLoop final : public LoopCore {
 public:
  // Why io_uring can't be used here (an old kernel, seccomp, kernel.io_uring_disabled); empty: it
  // can. Asks the kernel.
  static std::string unavailable();

  UringLoop();  // aborts if the kernel refuses: ask unavailable() first
  ~UringLoop() override;

  // By multishot polls; the same contract as the epoll loop's.
  void watch(int fd, uint32_t ready_mask,
             std::move_only_function<void(uint32_t ready)> callback) override;
  void unwatch(int fd) override;
  void run() override;

  // Who makes requests of its own and is told how they ended.
  class Client {
   public:
    virtual ~Client() = default;
    // `tag`: as given to request(). `flags`: IORING_CQE_F_*.
    virtual void on_completion(uint64_t tag, int result, uint32_t flags) = 0;
    // The last chance to make requests before they are handed over. False: after_wait() has
    // something to do, so that there must be no waiting.
    virtual bool before_wait() = 0;
    // All requests have been handed over: what can end at once has ended, and what the ring says of
    // it is there. on_completion() follows, but for tags that the client sets to 0 now.
    virtual void after_wait() = 0;
  };
  void set_client(Client* client) { client_ = client; }
  // Of a client's tags: the highest bit must not be set. 0: its end is not told.
  static constexpr uint64_t kTagMask = ~(uint64_t{1} << 63);
  // To be filled by an io_uring_prep_*() before the next call.
  io_uring_sqe* request();
  // `sqe` is already filled.
  static void tag(io_uring_sqe* sqe, uint64_t value) {
    sqe->user_data = value;
    if (value == 0) sqe->flags |= IOSQE_CQE_SKIP_SUCCESS;
  }
  // Ends the request with this tag: its completion comes with -ECANCELED, unless it is late.
  void cancel_request(uint64_t tag);
  // Now, not at the end of the turn. What can end at once has ended then, though it is told later.
  void hand_over() { ::io_uring_submit_and_get_events(&ring_); }
  io_uring& ring() { return ring_; }

 private:
  struct Watch {
    uint32_t generation = 0;  // plus one at each removal: tells late events of an earlier owner
    uint32_t mask = 0;
    bool active = false;
    std::unique_ptr<std::move_only_function<void(uint32_t)>> callback;
  };

  static constexpr unsigned kRequests = 1024;
  static constexpr unsigned kCompletions = 4096;
  static constexpr int kAttempts = 1000;

  unsigned dispatch();
  void on_poll(uint64_t tag, int result, uint32_t flags);
  void arm(int fd);

  io_uring ring_{};
  Client* client_ = nullptr;
  bool enabled_ = false;
  std::vector<Watch> watches_;  // by descriptor
  std::vector<std::unique_ptr<std::move_only_function<void(uint32_t)>>> graveyard_;
};

}  // namespace bascule::posix
