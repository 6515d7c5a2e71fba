#include "posix/uring_buffers.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "posix/loop_core.h"

namespace bascule::posix {
namespace {

// Newer than Debian's liburing: IOU_PBUF_RING_INC of io_uring_buf_reg.flags, IORING_CQE_F_BUF_MORE.
constexpr uint16_t kIncremental = 2;
constexpr uint32_t kBufferHasMore = 1u << 4;

constexpr size_t kIncrementalSize = 256 * 1024;
constexpr unsigned kIncrementalCount = 2;  // together they fit a core's second-level cache
constexpr size_t kWholeSize = 16 * 1024;
constexpr unsigned kWholeCount = 128;

// Pages that are used when they are touched.
void* map(size_t size) {
  void* memory = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  checked(memory == MAP_FAILED ? -1 : 0, "mmap");
  return memory;
}

uint16_t buffer_of(uint32_t cqe_flags) {
  return static_cast<uint16_t>(cqe_flags >> IORING_CQE_BUFFER_SHIFT);
}

}  // namespace

int UringBuffers::enter_ring(io_uring& ring, void* memory, unsigned entries, bool incremental) {
  io_uring_buf_reg reg{};
  reg.ring_addr = reinterpret_cast<uint64_t>(memory);
  reg.ring_entries = entries;
  reg.bgid = kGroup;
  reg.pad = incremental ? kIncremental : 0;  // flags, by now
  return ::io_uring_register_buf_ring(&ring, &reg, 0);
}

std::string UringBuffers::unavailable(io_uring& ring) {
  void* memory = map(4096);
  const int result = enter_ring(ring, memory, 8, false);
  if (result == 0) ::io_uring_unregister_buf_ring(&ring, kGroup);
  ::munmap(memory, 4096);
  return result == 0 ? std::string() : std::string("no buffer rings: ") + ::strerror(-result);
}

UringBuffers::UringBuffers(io_uring& ring) {
  void* memory = map(kWholeCount * sizeof(io_uring_buf));
  size_ = kIncrementalSize;
  count_ = kIncrementalCount;
  int result = enter_ring(ring, memory, count_, true);
  if (result == -EINVAL) {
    size_ = kWholeSize;
    count_ = kWholeCount;
    result = enter_ring(ring, memory, count_, false);
  }
  errno = -result;
  checked(result < 0 ? -1 : 0, "io_uring_register_buf_ring");
  entries_ = static_cast<io_uring_buf_ring*>(memory);
  bytes_ = static_cast<char*>(map(size_ * count_));
  offsets_.resize(count_);
  for (unsigned i = 0; i < count_; ++i) add(static_cast<uint16_t>(i));
}

UringBuffers::~UringBuffers() {
  // The kernel keeps the pages of the ring for as long as it needs them.
  ::munmap(bytes_, size_ * count_);
  ::munmap(entries_, kWholeCount * sizeof(io_uring_buf));
}

void UringBuffers::add(uint16_t buffer) {
  offsets_[buffer] = 0;
  ::io_uring_buf_ring_add(entries_, bytes_ + size_ * buffer, static_cast<unsigned>(size_), buffer,
                          ::io_uring_buf_ring_mask(count_), 0);
  ::io_uring_buf_ring_advance(entries_, 1);
}

std::string_view UringBuffers::received(int result, uint32_t cqe_flags) const {
  const uint16_t buffer = buffer_of(cqe_flags);
  return {bytes_ + size_ * buffer + offsets_[buffer], static_cast<size_t>(result)};
}

void UringBuffers::release(int result, uint32_t cqe_flags) {
  const uint16_t buffer = buffer_of(cqe_flags);
  if ((cqe_flags & kBufferHasMore) != 0) {
    offsets_[buffer] += static_cast<size_t>(result);
  } else {
    add(buffer);
  }
}

}  // namespace bascule::posix
