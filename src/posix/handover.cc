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

#include <optional>
#include <utility>
#include <vector>

#include "base/log.h"

namespace bascule::posix {
namespace {

using Kind = HandOverMessage::Kind;

constexpr int kAnswerTimeoutMs = 10'000;
constexpr Nanos kFirstWords = 10s;  // of who has connected
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
bool send_message(int fd, const HandOverMessage& what, int passed = -1) {
  std::string text = encode(what);
  iovec part{text.data(), text.size()};
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

struct Received {
  std::optional<HandOverMessage> message;  // nothing: the other side has gone, or talks nonsense
  UniqueFd passed;
};
// nullopt: nothing yet.
std::optional<Received> receive(int fd) {
  char bytes[kHandOverMessageMax];
  iovec part{bytes, sizeof bytes};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  msghdr header{};
  header.msg_iov = &part;
  header.msg_iovlen = 1;
  header.msg_control = control;
  header.msg_controllen = sizeof control;
  const ssize_t n = ::recvmsg(fd, &header, MSG_CMSG_CLOEXEC);
  if (n < 0 && (errno == EAGAIN || errno == EINTR)) return std::nullopt;
  Received received;
  for (cmsghdr* c = CMSG_FIRSTHDR(&header); c != nullptr; c = CMSG_NXTHDR(&header, c)) {
    if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS) continue;
    int passed = -1;
    ::memcpy(&passed, CMSG_DATA(c), sizeof passed);
    received.passed.reset(passed);
  }
  if (n > 0 && (header.msg_flags & MSG_TRUNC) == 0) {
    received.message = parse_hand_over({bytes, static_cast<size_t>(n)});
  }
  return received;
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
  drop_successor();
  lose_predecessor();
  loop_ = nullptr;  // it may end before this object does
}

void HandOverSocket::on_connect() {
  for (;;) {
    UniqueFd fd(::accept4(offer_.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
    if (!fd.valid()) return;
    // One at a time; also if one has gone away while it was prepared for.
    if (phase_ != Phase::kOffered || successor_.valid() || !ours(fd.get())) continue;
    {
      const std::lock_guard lock(mutex_);
      successor_ = std::move(fd);
    }
    loop_->watch(successor_.get(), env::kReadable, [this](uint32_t) { on_message(); });
    wait_for_successor(kFirstWords);
    on_message();
  }
}

void HandOverSocket::wait_for_successor(Nanos patience) {
  loop_->cancel(patience_);
  patience_ = loop_->call_after(patience, [this] {
    patience_ = env::TimerId::kNone;
    on_message();
    if (phase_ != Phase::kTaken) end_taking();
  });
}

void HandOverSocket::on_message() {
  while (successor_.valid()) {
    const auto received = receive(successor_.get());
    if (!received) return;
    if (!received->message || !handle(*received->message)) return end_taking();
  }
}

bool HandOverSocket::handle(const HandOverMessage& message) {
  if (message.kind == Kind::kTake) return begin_taking();
  if (message.kind == Kind::kAccepting && phase_ == Phase::kTaking) return on_accepting(), true;
  if (message.kind != Kind::kCancel || phase_ != Phase::kTaken) return false;
  events_.cancel(message.pid, message.text, [this, number = message.number] { confirm(number); });
  return true;
}

bool HandOverSocket::begin_taking() {
  if (phase_ != Phase::kOffered) return false;
  phase_ = Phase::kPreparing;
  loop_->cancel(std::exchange(patience_, env::TimerId::kNone));
  log(LogLevel::kInfo, "hand-over", "another process takes over");
  events_.prepare([this](Result<Nanos> patience) { on_prepared(patience); });
  return true;
}

void HandOverSocket::on_prepared(const Result<Nanos>& patience) {
  phase_ = Phase::kOffered;
  if (!patience) {
    const std::string why = patience.error().to_string();
    log(LogLevel::kWarn, "hand-over", "nothing is handed over now", {{"reason", why}});
    return drop_successor(HandOverMessage{.kind = Kind::kBusy, .text = why});
  }
  phase_ = Phase::kTaking;
  if (!successor_.valid()) return end_taking();
  wait_for_successor(*patience);
  send_sockets();
}

void HandOverSocket::on_accepting() {
  phase_ = Phase::kTaken;
  loop_->cancel(std::exchange(patience_, env::TimerId::kNone));
  send_message(successor_.get(), {.kind = Kind::kTaken});
  sockets_.passed_on();
  // The path is the new one's from here on.
  loop_->unwatch(offer_.get());
  offer_.reset();
  events_.taken();
}

void HandOverSocket::confirm(uint64_t cancel) {
  const std::lock_guard lock(mutex_);
  if (successor_.valid())
    send_message(successor_.get(), {.kind = Kind::kCancelled, .number = cancel});
}

void HandOverSocket::send_sockets() {
  // The other side reads all the while; without this, many sockets would not fit into the queue.
  ::fcntl(successor_.get(), F_SETFL, 0);
  const timeval patience{5, 0};
  ::setsockopt(successor_.get(), SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
  sockets_.each([&](const env::Endpoint& endpoint, int fd) {
    send_message(successor_.get(),
                 {.kind = Kind::kSocket, .port = endpoint.port, .text = endpoint.host}, fd);
  });
  send_message(successor_.get(), {.kind = Kind::kEnd});
  ::fcntl(successor_.get(), F_SETFL, O_NONBLOCK);
}

void HandOverSocket::drop_successor(const std::optional<HandOverMessage>& last_words) {
  if (!successor_.valid()) return;
  if (last_words) send_message(successor_.get(), *last_words);
  loop_->cancel(std::exchange(patience_, env::TimerId::kNone));
  loop_->unwatch(successor_.get());
  const std::lock_guard lock(mutex_);
  successor_.reset();
}

void HandOverSocket::end_taking() {
  if (phase_ != Phase::kTaking) return drop_successor();
  // Who does not hear it takes us for dead, and goes on.
  drop_successor(HandOverMessage{.kind = Kind::kLate});
  phase_ = Phase::kOffered;
  log(LogLevel::kWarn, "hand-over", "the process that was to take over went away, or is late");
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
  if (!ours(fd.get()) || !send_message(fd.get(), {.kind = Kind::kTake})) {
    return fail(ErrorCode::kUnavailable, path + ": not a process that can be taken over");
  }
  std::vector<ListeningSockets::Socket> sockets;
  for (;;) {
    pollfd ready{fd.get(), POLLIN, 0};
    if (::poll(&ready, 1, kAnswerTimeoutMs) <= 0) {
      return fail(ErrorCode::kTimeout, path + ": the running process does not answer");
    }
    auto received = receive(fd.get());
    if (!received) continue;
    const auto& message = received->message;
    if (message && message->kind == Kind::kEnd) break;
    if (message && message->kind == Kind::kBusy) return fail(ErrorCode::kConflict, message->text);
    if (!message || message->kind != Kind::kSocket || !received->passed.valid() ||
        sockets.size() >= kSocketsMax) {
      return fail(ErrorCode::kUnavailable,
                  path +
                      ": the running process can't hand over now (somebody else takes over, or "
                      "it is another version)");
    }
    sockets.emplace_back(env::Endpoint{message->text, message->port}, std::move(received->passed));
  }
  sockets_.adopt(std::move(sockets));
  const std::lock_guard lock(mutex_);
  predecessor_ = std::move(fd);
  return true;
}

Status HandOverSocket::accepted(env::Loop& loop) {
  sockets_.drop_adopted();
  loop_ = &loop;
  const int fd = predecessor();
  if (fd < 0) return {};
  pollfd ready{fd, POLLIN, 0};
  (void)send_message(fd, {.kind = Kind::kAccepting});  // the answer tells
  std::optional<Received> answer;
  if (::poll(&ready, 1, kAnswerTimeoutMs) > 0) answer = receive(fd);
  // That the other end was closed before it read ours comes before what it had said.
  if (answer && !answer->message) answer = receive(fd);
  const auto says = [&](Kind kind) {
    return answer && answer->message && answer->message->kind == kind;
  };
  if (says(Kind::kLate)) {
    return fail(ErrorCode::kConflict, "the running process has not waited so long, and goes on",
                "try again");
  }
  // One that has died, or hangs, serves nobody.
  if (!says(Kind::kTaken)) return lose_predecessor(), Status();
  ::fcntl(fd, F_SETFL, O_NONBLOCK);
  loop.watch(fd, env::kReadable, [this](uint32_t) { on_predecessor(); });
  const std::lock_guard lock(mutex_);
  taken_ = true;
  return {};
}

int HandOverSocket::predecessor() {
  const std::lock_guard lock(mutex_);
  return predecessor_.get();
}

void HandOverSocket::on_predecessor() {
  for (;;) {
    const auto received = receive(predecessor());
    if (!received) return;
    const auto& message = received->message;
    if (!message || message->kind != Kind::kCancelled) return lose_predecessor();
    env::Callback done;
    {
      const std::lock_guard lock(mutex_);
      if (const auto it = passed_.find(message->number); it != passed_.end()) {
        done = std::move(it->second);
        passed_.erase(it);
      }
    }
    if (done) done();
  }
}

void HandOverSocket::lose_predecessor() {
  std::map<uint64_t, env::Callback> passed;
  {
    const std::lock_guard lock(mutex_);
    if (!predecessor_.valid()) return;
    loop_->unwatch(predecessor_.get());
    predecessor_.reset();
    passed = std::move(passed_);
  }
  for (auto& [number, done] : passed) done();
}

bool HandOverSocket::between() {
  const std::lock_guard lock(mutex_);
  return successor_.valid() && predecessor_.valid();
}

void HandOverSocket::pass_cancel(uint32_t pid, const std::string& secret, env::Callback done) {
  {
    const std::lock_guard lock(mutex_);
    const uint64_t number = ++last_cancel_;
    // Never waited for: a worker calls this.
    if (taken_ && predecessor_.valid() && passed_.size() < kPassedMax &&
        send_message(predecessor_.get(),
                     {.kind = Kind::kCancel, .number = number, .pid = pid, .text = secret})) {
      passed_.emplace(number, std::move(done));
      return;
    }
  }
  done();
}

}  // namespace bascule::posix
