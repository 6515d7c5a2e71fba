// env::Loop over epoll. The thread that calls run() is the loop's thread; before that, everything
// may be called by the thread that owns the object.
#pragma once

#include <sys/epoll.h>

#include <memory>
#include <vector>

#include "posix/loop_core.h"

namespace bascule::posix {

// Receives raw epoll bits (EPOLLIN, EPOLLRDHUP, ...): for engines that need more than env::Ready.
class EventSink {
 public:
  virtual ~EventSink() = default;
  virtual void on_events(uint32_t epoll_events) = 0;
};

class Reactor final : public LoopCore {
 public:
  Reactor();  // aborts if the kernel refuses an epoll descriptor
  ~Reactor() override;

  // Watching a descriptor again replaces its callback and mask.
  void watch(int fd, uint32_t ready_mask,
             std::move_only_function<void(uint32_t ready)> callback) override;
  void unwatch(int fd) override;
  void run() override;

  // The same with raw epoll bits, EPOLLET among them or not. The sink must outlive its
  // registration, and until the end of the turn in which it is removed.
  void add(int fd, uint32_t epoll_events, EventSink& sink);
  void modify(int fd, uint32_t epoll_events);
  void remove(int fd);
  // The same for a descriptor that is closed next and has no duplicate: closing takes it out.
  void forget(int fd);

 private:
  struct Slot {
    EventSink* sink = nullptr;
    uint32_t generation = 0;  // plus one at each removal: tells late events of an earlier owner
    uint32_t events = 0;
    std::unique_ptr<EventSink> owned;  // of watch()
  };

  void dispatch(int count);
  Slot& slot(int fd);

  static constexpr int kEventsPerTurn = 256;

  UniqueFd epoll_;
  std::vector<Slot> slots_;  // by descriptor
  std::vector<std::unique_ptr<EventSink>> graveyard_;
  epoll_event ready_[kEventsPerTurn];
};

// env::Ready of epoll bits, for a watch() with this mask.
uint32_t to_ready(uint32_t epoll_events, uint32_t ready_mask);
uint32_t to_epoll(uint32_t ready_mask);

}  // namespace bascule::posix
