// Objects by handle: index + generation, so that a handle kept too long finds nothing rather than
// somebody else. Objects taken out live until bury() empties the graveyard at the end of the turn,
// because one of their own functions may be on the stack.
#pragma once

#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

namespace bascule::proxy {

struct Handle {
  uint32_t index = 0;
  uint32_t generation = 0;  // 0: nobody
  bool operator==(const Handle&) const = default;
};

template <typename T>
class SlotMap {
 public:
  // T is built as T(args..., handle).
  template <typename... Args>
  T& emplace(Args&&... args) {
    uint32_t index;
    if (free_.empty()) {
      index = static_cast<uint32_t>(slots_.size());
      slots_.emplace_back();
    } else {
      index = free_.back();
      free_.pop_back();
    }
    Slot& slot = slots_[index];
    slot.object = std::make_unique<T>(std::forward<Args>(args)..., Handle{index, slot.generation});
    ++size_;
    return *slot.object;
  }

  T* find(Handle handle) const {
    T* object = at(handle.index);
    return object != nullptr && slots_[handle.index].generation == handle.generation ? object
                                                                                     : nullptr;
  }
  T* at(uint32_t index) const {
    return index < slots_.size() ? slots_[index].object.get() : nullptr;
  }

  void remove(Handle handle) {
    if (find(handle) == nullptr) return;
    Slot& slot = slots_[handle.index];
    graveyard_.push_back(std::move(slot.object));
    if (++slot.generation == 0) slot.generation = 1;
    free_.push_back(handle.index);
    --size_;
  }
  void bury() { graveyard_.clear(); }
  bool has_dead() const { return !graveyard_.empty(); }

  size_t size() const { return size_; }
  // Handles of all, in order of index: the map may change while they are visited.
  std::vector<Handle> handles() const {
    std::vector<Handle> all;
    for (uint32_t i = 0; i < slots_.size(); ++i) {
      if (slots_[i].object) all.push_back({i, slots_[i].generation});
    }
    return all;
  }

 private:
  struct Slot {
    std::unique_ptr<T> object;
    uint32_t generation = 1;
  };
  std::vector<Slot> slots_;
  std::vector<uint32_t> free_;
  std::vector<std::unique_ptr<T>> graveyard_;
  size_t size_ = 0;
};

}  // namespace bascule::proxy
