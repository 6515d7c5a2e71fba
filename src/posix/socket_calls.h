// recv() and send() as plain system calls. glibc's are places where a thread can be cancelled:
// where there is more than one thread, that is two atomic exchanges around each.
#pragma once

#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <string_view>

namespace bascule::posix {

inline ssize_t receive_bytes(int fd, char* to, size_t most) {
  return ::syscall(SYS_recvfrom, fd, to, most, 0, nullptr, nullptr);
}

inline ssize_t send_bytes(int fd, std::string_view bytes, int flags) {
  return ::syscall(SYS_sendto, fd, bytes.data(), bytes.size(), flags, nullptr, 0);
}

}  // namespace bascule::posix
