#include "posix/handover.h"

#include <errno.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <charconv>
#include <optional>
#include <utility>
#include <vector>

#include "base/log.h"

namespace bascule::posix {
namespace {

constexpr size_t kMessageMax = 1024;
constexpr int kAnswerTimeoutMs = 10'000;
constexpr size_t kSocketsMax = 4'096;

Result<sockaddr_un> address_of(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof address.sun_path) {
    return fail(ErrorCode::kInvalid, path + ": too long for a unix socket");
  }
  ::memcpy(address.sun_path, path.c_str(), path.size() + 1);
  return address;
}

const sockaddr* generic(const sockaddr_un& address) {
  return reinterpret_cast<const sockaddr*>(&address);
}

bool ours(int fd) {
  ucred peer{};
  socklen_t size = sizeof peer;
  if (::getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) != 0) return false;
  return peer.uid == 0 || peer.uid == ::geteuid();
}

// `passed`: -1: none.
bool send_message(int fd, std::string_view text, int passed = -1) {
  iovec part{const_cast<char*>(text.data()), text.size()};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  if (passed >= 0) {
    message.msg_control = control;
    message.msg_controllen = sizeof control;
    cmsghdr* header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof(int));
    ::memcpy(CMSG_DATA(header), &passed, sizeof passed);
  }
  return ::sendmsg(fd, &message, MSG_NOSIGNAL) == static_cast<ssize_t>(text.size());
}

struct Message {
  std::string text;  // empty: the other side has gone
  UniqueFd passed;
};
// nullopt: nothing yet.
std::optional<Message> receive(int fd) {
  char bytes[kMessageMax];
  iovec part{bytes, sizeof bytes};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  msghdr header{};
  header.msg_iov = &part;
  header.msg_iovlen = 1;
  header.msg_control = control;
  header.msg_controllen = sizeof control;
  const ssize_t n = ::recvmsg(fd, &header, MSG_CMSG_CLOEXEC);
  if (n < 0 && (errno == EAGAIN || errno == EINTR)) return std::nullopt;
  Message message;
  for (cmsghdr* c = CMSG_FIRSTHDR(&header); c != nullptr; c = CMSG_NXTHDR(&header, c)) {
    if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS) continue;
    int passed = -1;
    ::memcpy(&passed, CMSG_DATA(c), sizeof passed);
    message.passed.reset(passed);
  }
  if (n > 0 && (header.msg_flags & MSG_TRUNC) == 0)
    message.text.assign(bytes, static_cast<size_t>(n));
  return message;
}

std::string hex(std::string_view bytes) {
  std::string out;
  for (const char c : bytes) out += fmt::format("{:02x}", static_cast<unsigned char>(c));
  return out;
}

std::optional<std::string> unhex(std::string_view text) {
  std::string out;
  if (text.size() % 2 != 0) return std::nullopt;
  for (size_t i = 0; i < text.size(); i += 2) {
    unsigned value = 0;
    const auto [stop, error] = std::from_chars(text.data() + i, text.data() + i + 2, value, 16);
    if (error != std::errc() || stop != text.data() + i + 2) return std::nullopt;
    out += static_cast<char>(value);
  }
  return out;
}

}  // namespace

HandOverSocket::~HandOverSocket() { withdraw(); }

// ---- The old process
// -----------------------------------------------------------------------------

Status HandOverSocket::offer(env::Loop& loop, const std::string& path, env::HandOverEvents events) {
  const auto failed = [&] {
    return fail(ErrorCode::kUnavailable, fmt::format("{}: {}", path, ::strerror(errno)));
  };
  // Under another name first: nobody ever finds nothing there.
  const std::string fresh = path + ".new";
  const auto address = address_of(fresh);
  if (!address) return std::unexpected(address.error());
  UniqueFd fd(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  ::unlink(fresh.c_str());
  if (!fd.valid() || ::bind(fd.get(), generic(*address), sizeof *address) != 0 ||
      ::chmod(fresh.c_str(), 0600) != 0 || ::listen(fd.get(), 8) != 0 ||
      ::rename(fresh.c_str(), path.c_str()) != 0) {
    return failed();
  }
  loop_ = &loop;
  path_ = path;
  events_ = std::move(events);
  offer_ = std::move(fd);
  phase_ = Phase::kOffered;
  loop.watch(offer_.get(), env::kReadable, [this](uint32_t) { on_connect(); });
  return {};
}

void HandOverSocket::withdraw() {
  if (loop_ == nullptr) return;
  loop_->cancel(std::exchange(patience_, env::TimerId::kNone));
  if (offer_.valid()) {
    loop_->unwatch(offer_.get());
    offer_.reset();
    ::unlink(path_.c_str());
  }
  if (successor_.valid()) {
    loop_->unwatch(successor_.get());
    successor_.reset();
  }
  loop_ = nullptr;  // it may end before this object does
}

void HandOverSocket::on_connect() {
  for (;;) {
    UniqueFd fd(::accept4(offer_.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
    if (!fd.valid()) return;
    if (successor_.valid() || !ours(fd.get())) continue;  // one at a time
    successor_ = std::move(fd);
    loop_->watch(successor_.get(), env::kReadable, [this](uint32_t) { on_message(); });
    patience_ = loop_->call_after(kPatience, [this] {
      patience_ = env::TimerId::kNone;
      end_taking();
    });
    on_message();
  }
}

void HandOverSocket::on_message() {
  while (successor_.valid()) {
    const auto message = receive(successor_.get());
    if (!message) return;
    if (message->text.empty() || !handle(message->text)) return end_taking();
  }
}

bool HandOverSocket::handle(std::string_view message) {
  if (message == "take 1" && phase_ == Phase::kOffered) {
    phase_ = Phase::kTaking;
    log(LogLevel::kInfo, "hand-over", "another process takes over");
    events_.prepare();
    send_sockets();
    return true;
  }
  if (message == "accepting" && phase_ == Phase::kTaking) {
    phase_ = Phase::kTaken;
    loop_->cancel(std::exchange(patience_, env::TimerId::kNone));
    sockets_.passed_on();
    // The path is the new one's from here on.
    loop_->unwatch(offer_.get());
    offer_.reset();
    events_.taken();
    return true;
  }
  if (message.starts_with("cancel ") && phase_ == Phase::kTaken) {
    message.remove_prefix(7);
    uint32_t pid = 0;
    const char* end = message.data() + message.size();
    const auto [stop, error] = std::from_chars(message.data(), end, pid);
    if (error != std::errc() || stop == end || *stop != ' ') return false;
    const auto secret = unhex({stop + 1, static_cast<size_t>(end - stop - 1)});
    if (secret) events_.cancel(pid, *secret);
    return secret.has_value();
  }
  return false;
}

void HandOverSocket::send_sockets() {
  // The other side reads all the while; without this, many sockets would not fit into the queue.
  ::fcntl(successor_.get(), F_SETFL, 0);
  const timeval patience{5, 0};
  ::setsockopt(successor_.get(), SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
  sockets_.each([&](const env::Endpoint& endpoint, int fd) {
    send_message(successor_.get(), fmt::format("socket {} {}", endpoint.port, endpoint.host), fd);
  });
  send_message(successor_.get(), "end");
  ::fcntl(successor_.get(), F_SETFL, O_NONBLOCK);
}

void HandOverSocket::end_taking() {
  loop_->cancel(std::exchange(patience_, env::TimerId::kNone));
  loop_->unwatch(successor_.get());
  successor_.reset();
  if (std::exchange(phase_, phase_ == Phase::kTaken ? phase_ : Phase::kOffered) != Phase::kTaking) {
    return;
  }
  log(LogLevel::kWarn, "hand-over", "the process that was to take over went away");
  events_.aborted();
}

// ---- The new process
// -----------------------------------------------------------------------------

Result<bool> HandOverSocket::take(const std::string& path) {
  const auto address = address_of(path);
  if (!address) return std::unexpected(address.error());
  UniqueFd fd(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
  if (!fd.valid() || ::connect(fd.get(), generic(*address), sizeof *address) != 0) {
    if (errno == ENOENT || errno == ECONNREFUSED) return false;
    return fail(ErrorCode::kUnavailable, fmt::format("{}: {}", path, ::strerror(errno)));
  }
  if (!ours(fd.get()) || !send_message(fd.get(), "take 1")) {
    return fail(ErrorCode::kUnavailable, path + ": not a process that can be taken over");
  }
  std::vector<ListeningSockets::Socket> sockets;
  for (;;) {
    pollfd ready{fd.get(), POLLIN, 0};
    if (::poll(&ready, 1, kAnswerTimeoutMs) <= 0) {
      return fail(ErrorCode::kTimeout, path + ": the running process does not answer");
    }
    auto message = receive(fd.get());
    if (!message) continue;
    if (message->text == "end") break;
    env::Endpoint endpoint;
    const std::string_view text = message->text;
    const bool named = text.starts_with("socket ");
    const char* end = text.data() + text.size();
    const auto [stop, error] =
        std::from_chars(text.data() + (named ? 7 : text.size()), end, endpoint.port);
    if (!named || error != std::errc() || stop == end || !message->passed.valid() ||
        sockets.size() >= kSocketsMax) {
      return fail(ErrorCode::kUnavailable,
                  path +
                      ": the running process can't hand over now (somebody else takes over, or "
                      "it is another version)");
    }
    endpoint.host = std::string(stop + 1, end);
    sockets.emplace_back(std::move(endpoint), std::move(message->passed));
  }
  sockets_.adopt(std::move(sockets));
  const std::lock_guard lock(mutex_);
  predecessor_ = std::move(fd);
  return true;
}

void HandOverSocket::accepted() {
  sockets_.drop_adopted();
  const std::lock_guard lock(mutex_);
  if (!predecessor_.valid()) return;
  send_message(predecessor_.get(), "accepting");
}

void HandOverSocket::pass_cancel(uint32_t pid, const std::string& secret) {
  const std::lock_guard lock(mutex_);
  if (!predecessor_.valid()) return;
  // Never waited for: a worker calls this.
  ::fcntl(predecessor_.get(), F_SETFL, O_NONBLOCK);
  if (!send_message(predecessor_.get(), fmt::format("cancel {} {}", pid, hex(secret)))) {
    predecessor_.reset();  // it has ended
  }
}

}  // namespace bascule::posix
