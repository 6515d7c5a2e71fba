// Memory that the kernel receives into: a ring of buffers, of which it takes the next for whatever
// socket has something (`man 3 io_uring_register_buf_ring`). No connection owns a buffer while it
// is idle. From Linux 6.12 on a buffer is used bit by bit, so that small messages lie one behind
// the other in few pages; before that, each receive takes one. Used by the loop's thread only.
#pragma once

#include <liburing.h>

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace bascule::posix {

class UringBuffers {
 public:
  static constexpr uint16_t kGroup = 0;  // for IOSQE_BUFFER_SELECT

  explicit UringBuffers(io_uring& ring);  // aborts if the kernel refuses
  ~UringBuffers();
  UringBuffers(const UringBuffers&) = delete;
  UringBuffers& operator=(const UringBuffers&) = delete;

  // Empty: a ring of buffers can be had.
  static std::string unavailable(io_uring& ring);

  // What a completion has received: `result` bytes. Valid until release().
  std::string_view received(int result, uint32_t cqe_flags) const;
  // Once for each completion that has IORING_CQE_F_BUFFER, in their order: the kernel may have the
  // bytes again.
  void release(int result, uint32_t cqe_flags);

 private:
  static int enter_ring(io_uring& ring, void* memory, unsigned entries, bool incremental);
  void add(uint16_t buffer);

  size_t size_ = 0;     // of one
  unsigned count_ = 0;  // a power of two
  io_uring_buf_ring* entries_ = nullptr;
  char* bytes_ = nullptr;
  std::vector<size_t> offsets_;  // of the first byte in each that is not used yet
};

}  // namespace bascule::posix
