#include "posix/uring_loop.h"

#include <errno.h>
#include <poll.h>
#include <string.h>

#include <utility>

#include "posix/reactor.h"
#include "posix/uring_buffers.h"

namespace bascule::posix {
namespace {

constexpr uint64_t kWatchBit = uint64_t{1} << 63;

int open_ring(io_uring& ring, unsigned requests, unsigned completions) {
  io_uring_params params{};
  params.flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_R_DISABLED |
                 IORING_SETUP_SUBMIT_ALL | IORING_SETUP_CQSIZE;
  params.cq_entries = completions;
  return ::io_uring_queue_init_params(requests, &ring, &params);
}

uint64_t watch_tag(int fd, uint32_t generation) {
  return kWatchBit | (uint64_t{generation & 0x7fffffff} << 32) | static_cast<uint32_t>(fd);
}

}  // namespace

std::string UringLoop::unavailable() {
  io_uring ring{};
  if (const int result = open_ring(ring, 8, 16); result < 0) {
    const std::string why = ::strerror(-result);
    if (result == -EINVAL) return why + " (it needs Linux 6.1)";
    if (result == -EPERM || result == -EACCES) {
      return why + " (see the sysctl kernel.io_uring_disabled, and seccomp rules of containers)";
    }
    return why;
  }
  const std::string why = UringBuffers::unavailable(ring);
  ::io_uring_queue_exit(&ring);
  return why;
}

UringLoop::UringLoop() {
  const int result = open_ring(ring_, kRequests, kCompletions);
  errno = -result;
  checked(result < 0 ? -1 : 0, "io_uring_setup");
  ::io_uring_ring_dontfork(&ring_);
  for (const int fd : {wake_fd(), timer_fd()}) {
    watch(fd, env::kReadable, [fd](uint32_t) { read_away(fd); });
  }
}

UringLoop::~UringLoop() { ::io_uring_queue_exit(&ring_); }

io_uring_sqe* UringLoop::request() {
  for (int i = 0; i < kAttempts; ++i) {
    if (io_uring_sqe* sqe = ::io_uring_get_sqe(&ring_)) return sqe;
    // Full: handed over early. Refused only while completions wait that there was no room for.
    if (::io_uring_submit(&ring_) < 0) ::io_uring_get_events(&ring_);
  }
  checked(-1, "io_uring_submit");
  return nullptr;
}

void UringLoop::cancel_request(uint64_t tag_of_it) {
  io_uring_sqe* sqe = request();
  ::io_uring_prep_cancel64(sqe, tag_of_it, 0);
  tag(sqe, 0);
}

void UringLoop::watch(int fd, uint32_t ready_mask,
                      std::move_only_function<void(uint32_t ready)> callback) {
  unwatch(fd);
  if (static_cast<size_t>(fd) >= watches_.size()) watches_.resize(static_cast<size_t>(fd) + 32);
  Watch& w = watches_[static_cast<size_t>(fd)];
  w.active = true;
  w.mask = ready_mask;
  w.callback = std::make_unique<std::move_only_function<void(uint32_t)>>(std::move(callback));
  arm(fd);
}

void UringLoop::arm(int fd) {
  const Watch& w = watches_[static_cast<size_t>(fd)];
  io_uring_sqe* sqe = request();
  ::io_uring_prep_poll_multishot(sqe, fd, to_epoll(w.mask));
  tag(sqe, watch_tag(fd, w.generation));
}

void UringLoop::unwatch(int fd) {
  if (fd < 0 || static_cast<size_t>(fd) >= watches_.size()) return;
  Watch& w = watches_[static_cast<size_t>(fd)];
  if (!w.active) return;
  cancel_request(watch_tag(fd, w.generation));
  w.active = false;
  ++w.generation;
  graveyard_.push_back(std::move(w.callback));
}

void UringLoop::on_poll(uint64_t tag_of_it, int result, uint32_t flags) {
  const auto fd = static_cast<uint32_t>(tag_of_it);
  const Watch& w = watches_[fd];
  // Removed, or closed and reused by somebody else.
  if (!w.active || watch_tag(static_cast<int>(fd), w.generation) != tag_of_it) return;
  const uint32_t generation = w.generation;
  const uint32_t ready = result < 0 ? w.mask : to_ready(static_cast<uint32_t>(result), w.mask);
  if (ready != 0) (*w.callback)(ready);
  const Watch& after = watches_[fd];
  if ((flags & IORING_CQE_F_MORE) == 0 && result >= 0 && after.active &&
      after.generation == generation) {
    arm(static_cast<int>(fd));
  }
}

unsigned UringLoop::dispatch() {
  unsigned count = 0, head;
  io_uring_cqe* cqe;
  io_uring_for_each_cqe(&ring_, head, cqe) {
    ++count;
    if (cqe->user_data == 0) continue;
    if ((cqe->user_data & kWatchBit) != 0) {
      on_poll(cqe->user_data, cqe->res, cqe->flags);
    } else if (client_ != nullptr) {
      client_->on_completion(cqe->user_data, cqe->res, cqe->flags);
    }
  }
  ::io_uring_cq_advance(&ring_, count);
  return count;
}

void UringLoop::run() {
  begin_run();
  if (!std::exchange(enabled_, true)) {
    const int result = ::io_uring_register(static_cast<unsigned>(ring_.ring_fd),
                                           IORING_REGISTER_ENABLE_RINGS, nullptr, 0);
    errno = -result;
    checked(result < 0 ? -1 : 0, "io_uring_register");
  }
  ::io_uring_register_ring_fd(&ring_);  // saves looking it up; does without if it can't
  while (!stopping()) {
    const bool idle = client_ == nullptr || client_->before_wait();
    const int result = prepare_wait() && idle ? ::io_uring_submit_and_wait(&ring_, 1)
                                              : ::io_uring_submit_and_get_events(&ring_);
    // EAGAIN, EBUSY: there is too much to be told first.
    if (result < 0 && result != -EINTR && result != -EAGAIN && result != -EBUSY) {
      errno = -result;
      checked(-1, "io_uring_enter");
    }
    const bool all_begun = ::io_uring_sq_ready(&ring_) == 0 && !::io_uring_cq_has_overflow(&ring_);
    const MonoTime began = begin_turn();
    if (client_ != nullptr && all_begun) client_->after_wait();
    const unsigned count = dispatch();
    finish_turn(began, count);
    graveyard_.clear();
  }
  // What was closed at the very end is to be closed.
  if (client_ != nullptr) client_->before_wait();
  ::io_uring_submit(&ring_);
  ::io_uring_unregister_ring_fd(&ring_);
  end_run();
}

}  // namespace bascule::posix
