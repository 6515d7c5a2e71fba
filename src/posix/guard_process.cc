#include "posix/guard_process.h"

#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string_view>

#include "env/guard_wire.h"
#include "posix/clock.h"
#include "posix/proc_tree.h"
#include "posix/unique_fd.h"
#include "posix/watchdog.h"

namespace bascule::posix {
namespace {

using env::GuardAsk;
using env::GuardReport;
using env::GuardRequest;
using env::GuardSays;
using env::GuardState;
using env::WatchdogState;

constexpr size_t kClientsMax = 16;
constexpr int kKillRetryMs = 5;
constexpr int kArgumentsMax = 256;
constexpr int kWatchdogSecondsMax = 3600;
constexpr int kPatsPerTimeout = 8;

class Guard {
 public:
  int open(const char* run_dir);
  int run();

 private:
  struct Client {
    UniqueFd fd;
  };

  void harden();
  bool listen_at(const char* run_dir);
  int wait_ms() const;
  void accept_clients();
  void read_client(Client& client);
  void handle(Client& client, const GuardRequest& request, size_t packet_bytes);
  int start(const GuardRequest& request, size_t packet_bytes);
  [[noreturn]] void become_postmaster(pid_t guard, const char* log_file, char** argv, char** envp);
  int arm(int64_t deadline_ns);
  int watch(const GuardRequest& request, size_t packet_bytes);
  void tend_watchdog();
  bool may_pat(int64_t now_ns) const;
  void on_deadline();
  void begin_kill();
  void kill_pass();
  void reap();
  void send(Client& client, GuardSays says, uint64_t id, int error);
  void tell_all(GuardSays says);
  GuardReport report(GuardSays says, uint64_t id, int error) const;
  bool expired() const {
    return deadline_ns_ != 0 && boot_now().time_since_epoch().count() >= deadline_ns_;
  }

  UniqueFd lock_, listener_, epoll_, timer_, signals_, postmaster_fd_;
  std::array<Client, kClientsMax> clients_;
  size_t client_count_ = 0;
  pid_t postmaster_ = 0;
  GuardState state_ = GuardState::kIdle;
  int wait_status_ = 0;
  int64_t deadline_ns_ = 0;
  int64_t killed_at_ns_ = 0;
  uint64_t starts_ = 0;
  bool fenced_ = false;
  bool real_time_ = false;
  bool locked_ = false;
  bool end_ = false;
  MonoTime lonely_since_{};
  Watchdog watchdog_;
  char watchdog_device_[env::kWatchdogPathMax + 1] = "";  // empty: none is wanted
  std::chrono::seconds watchdog_timeout_{};
  int64_t reset_after_ns_ = 0;  // the armed deadline
  int64_t next_pat_ns_ = 0;
  WatchdogState watchdog_state_ = WatchdogState::kOff;
  int watchdog_error_ = 0;
  alignas(8) char packet_[sizeof(GuardRequest) + env::kGuardStartBytesMax + 1];
};

void Guard::harden() {
  locked_ = mlockall(MCL_CURRENT | MCL_FUTURE) == 0;
  sched_param priority{};
  priority.sched_priority = 10;
  real_time_ = sched_setscheduler(0, SCHED_RR | SCHED_RESET_ON_FORK, &priority) == 0;
  if (!real_time_) setpriority(PRIO_PROCESS, 0, -15);
  std::fprintf(stderr, "guard %d: scheduling %s (nice %d), memory %s\n", getpid(),
               real_time_ ? "real-time" : "ordinary", getpriority(PRIO_PROCESS, 0),
               locked_ ? "locked" : "not locked");
}

bool Guard::listen_at(const char* run_dir) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  const int length = std::snprintf(address.sun_path, sizeof address.sun_path, "%s/%s", run_dir,
                                   env::kGuardSocketName);
  if (length < 0 || static_cast<size_t>(length) >= sizeof address.sun_path) {
    errno = ENAMETOOLONG;
    return false;
  }
  // Only the holder of guard.lock gets here, so a socket that is there belongs to a dead guard.
  unlink(address.sun_path);
  listener_.reset(socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  return listener_.valid() &&
         bind(listener_.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) == 0 &&
         listen(listener_.get(), kClientsMax) == 0;
}

int Guard::open(const char* run_dir) {
  umask(077);
  char path[4096];
  std::snprintf(path, sizeof path, "%s/%s", run_dir, env::kGuardLockName);
  lock_.reset(::open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600));
  if (!lock_.valid() || flock(lock_.get(), LOCK_EX | LOCK_NB) != 0) {
    std::fprintf(stderr, "guard: %s: %s (is another guard running?)\n", path, strerror(errno));
    return 1;
  }
  sigset_t mask;
  sigemptyset(&mask);
  for (const int number : {SIGCHLD, SIGTERM, SIGINT, SIGHUP, SIGQUIT}) sigaddset(&mask, number);
  sigprocmask(SIG_BLOCK, &mask, nullptr);
  signal(SIGPIPE, SIG_IGN);
  signals_.reset(signalfd(-1, &mask, SFD_CLOEXEC | SFD_NONBLOCK));
  timer_.reset(timerfd_create(CLOCK_BOOTTIME, TFD_CLOEXEC | TFD_NONBLOCK));
  epoll_.reset(epoll_create1(EPOLL_CLOEXEC));
  if (prctl(PR_SET_CHILD_SUBREAPER, 1) != 0 || !listen_at(run_dir)) {
    std::fprintf(stderr, "guard: %s: %s\n", run_dir, strerror(errno));
    return 1;
  }
  for (const int fd : {listener_.get(), signals_.get(), timer_.get()}) {
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.fd = fd;
    if (epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event) != 0) return 1;
  }
  harden();
  lonely_since_ = boot_now();
  return 0;
}

int Guard::wait_ms() const {
  if (state_ == GuardState::kKilling) return kKillRetryMs;
  if (watchdog_.running()) {
    const Nanos left(next_pat_ns_ - boot_now().time_since_epoch().count());
    return static_cast<int>(std::max<int64_t>(to_ms(left) + 1, 0));
  }
  return state_ == GuardState::kIdle && client_count_ == 0 ? 1000 : -1;
}

int Guard::run() {
  while (!end_) {
    epoll_event events[kClientsMax];
    const int count = epoll_wait(epoll_.get(), events, kClientsMax, wait_ms());
    // The deadline first, whatever else is pending; also should the timer have been missed.
    if (expired() && state_ == GuardState::kRunning) on_deadline();
    for (int i = 0; i < count; ++i) {
      const int fd = events[i].data.fd;
      if (fd == timer_.get()) {
        uint64_t expirations;
        [[maybe_unused]] const ssize_t n = read(fd, &expirations, sizeof expirations);
      } else if (fd == signals_.get()) {
        signalfd_siginfo info;
        while (read(fd, &info, sizeof info) == sizeof info) {
          if (info.ssi_signo == SIGTERM && state_ == GuardState::kIdle) end_ = true;
        }
      } else if (fd == listener_.get()) {
        accept_clients();
      } else {
        for (Client& client : clients_) {
          if (client.fd.valid() && client.fd.get() == fd) read_client(client);
        }
      }
    }
    reap();
    if (state_ == GuardState::kKilling) kill_pass();
    tend_watchdog();
    if (state_ == GuardState::kIdle && client_count_ == 0 &&
        boot_now() - lonely_since_ > std::chrono::seconds(kLonelySeconds)) {
      end_ = true;
    }
  }
  watchdog_.stop();
  return 0;
}

void Guard::accept_clients() {
  for (;;) {
    UniqueFd fd(accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (!fd.valid()) return;
    ucred peer{};
    socklen_t size = sizeof peer;
    if (getsockopt(fd.get(), SOL_SOCKET, SO_PEERCRED, &peer, &size) != 0 ||
        (peer.uid != geteuid() && peer.uid != 0)) {
      continue;
    }
    for (Client& client : clients_) {
      if (client.fd.valid()) continue;
      epoll_event event{};
      event.events = EPOLLIN;
      event.data.fd = fd.get();
      if (epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd.get(), &event) != 0) break;
      client.fd = std::move(fd);
      ++client_count_;
      break;
    }
  }
}

void Guard::read_client(Client& client) {
  for (;;) {
    const ssize_t n = recv(client.fd.get(), packet_, sizeof packet_ - 1, 0);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
    const auto request =
        n > 0 ? env::from_packet<GuardRequest>({packet_, static_cast<size_t>(n)}) : std::nullopt;
    if (!request) {
      client.fd.reset();
      --client_count_;
      lonely_since_ = boot_now();
      return;
    }
    handle(client, *request, static_cast<size_t>(n));
  }
}

void Guard::handle(Client& client, const GuardRequest& request, size_t packet_bytes) {
  int error = 0;
  switch (request.ask) {
    case GuardAsk::kStatus:
      break;
    case GuardAsk::kStart:
      error = start(request, packet_bytes);
      break;
    case GuardAsk::kArm:
      error = arm(request.deadline_ns);
      break;
    case GuardAsk::kDisarm:
      error = arm(0);
      break;
    case GuardAsk::kWatch:
      error = watch(request, packet_bytes);
      break;
    case GuardAsk::kKill:
      killed_at_ns_ = boot_now().time_since_epoch().count();
      if (state_ == GuardState::kRunning) begin_kill();
      break;
    case GuardAsk::kSignal:
      if (postmaster_ == 0) {
        error = ESRCH;
      } else if (!signal_by_fd(postmaster_fd_.get(), request.signal)) {
        error = errno;
      }
      break;
    case GuardAsk::kEnd:
      error = state_ == GuardState::kIdle ? 0 : EBUSY;
      end_ = error == 0;
      break;
    default:
      error = EINVAL;
  }
  send(client, GuardSays::kAnswer, request.id, error);
}

int Guard::start(const GuardRequest& request, size_t packet_bytes) {
  if (state_ != GuardState::kIdle) return EBUSY;
  if (expired()) return ETIME;
  if (request.deadline_ns <= killed_at_ns_) return ECANCELED;
  packet_[packet_bytes] = '\0';
  char* pointers[kArgumentsMax];
  env::GuardStart command;
  if (const int error = env::split_guard_start(packet_ + sizeof(GuardRequest),
                                               packet_ + packet_bytes, pointers, command)) {
    return error;
  }
  const pid_t guard = getpid();
  const pid_t pid = fork();
  if (pid < 0) return errno;
  if (pid == 0) {
    become_postmaster(guard, command.log_file, command.argv, command.environment);
  }
  postmaster_ = pid;
  postmaster_fd_.reset(open_pidfd(pid));
  state_ = GuardState::kRunning;
  fenced_ = false;
  ++starts_;
  tell_all(GuardSays::kStarted);
  return 0;
}

void Guard::become_postmaster(pid_t guard, const char* log_file, char** argv, char** envp) {
  prctl(PR_SET_PDEATHSIG, SIGQUIT);
  if (getppid() != guard) _exit(126);  // the guard died before prctl
  setsid();
  setpriority(PRIO_PROCESS, 0, 0);
  prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
  signal(SIGPIPE, SIG_DFL);
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
  const int null = ::open("/dev/null", O_RDONLY);
  const int log = ::open(log_file, O_WRONLY | O_CREAT | O_APPEND, 0600);
  if (null < 0 || log < 0) _exit(125);
  dup2(null, 0);
  dup2(log, 1);
  dup2(log, 2);
  close(null);
  close(log);
  execve(argv[0], argv, envp);
  std::fprintf(stderr, "guard: %s: %s\n", argv[0], strerror(errno));
  _exit(127);
}

int Guard::arm(int64_t deadline_ns) {
  if (deadline_ns < 0) return EINVAL;
  deadline_ns_ = deadline_ns;
  itimerspec when{};
  when.it_value.tv_sec = deadline_ns / 1'000'000'000;
  when.it_value.tv_nsec = deadline_ns % 1'000'000'000;
  const bool set = timerfd_settime(timer_.get(), TFD_TIMER_ABSTIME, &when, nullptr) == 0;
  const int error = set ? 0 : errno;
  tend_watchdog();
  return error;
}

int Guard::watch(const GuardRequest& request, size_t packet_bytes) {
  const size_t length = packet_bytes - sizeof(GuardRequest);
  const bool wanted = length > 0;
  if (length > env::kWatchdogPathMax || request.deadline_ns < 0 ||
      (wanted && (request.signal < 1 || request.signal > kWatchdogSecondsMax))) {
    return EINVAL;
  }
  memcpy(watchdog_device_, packet_ + sizeof(GuardRequest), length);
  watchdog_device_[length] = '\0';
  watchdog_timeout_ = std::chrono::seconds(request.signal);
  reset_after_ns_ = request.deadline_ns;
  watchdog_error_ = wanted ? watchdog_.start(watchdog_device_, watchdog_timeout_) : 0;
  watchdog_state_ = watchdog_error_ == 0 ? WatchdogState::kActive : WatchdogState::kFailed;
  tend_watchdog();  // stops it again unless a deadline is armed
  if (!wanted) watchdog_state_ = WatchdogState::kOff;
  return watchdog_error_;
}

bool Guard::may_pat(int64_t now_ns) const {
  return state_ == GuardState::kIdle || deadline_ns_ == 0 ||
         now_ns + Nanos(watchdog_timeout_).count() <= deadline_ns_ + reset_after_ns_;
}

void Guard::tend_watchdog() {
  const int64_t now_ns = boot_now().time_since_epoch().count();
  const bool wanted = watchdog_device_[0] != '\0' && deadline_ns_ != 0;
  if (wanted && !watchdog_.running()) {
    watchdog_error_ = watchdog_.start(watchdog_device_, watchdog_timeout_);
    watchdog_state_ = watchdog_error_ == 0 ? WatchdogState::kActive : WatchdogState::kFailed;
    next_pat_ns_ = now_ns;
  } else if (!wanted && watchdog_.running() && watchdog_.stop() == 0 &&
             watchdog_state_ == WatchdogState::kActive) {
    watchdog_state_ = WatchdogState::kReady;
  }
  if (!watchdog_.running() || now_ns < next_pat_ns_) return;
  if (may_pat(now_ns)) watchdog_.pat();
  next_pat_ns_ = now_ns + Nanos(watchdog_timeout_).count() / kPatsPerTimeout;
}

void Guard::on_deadline() {
  fenced_ = true;
  begin_kill();
  tell_all(GuardSays::kFenced);
}

void Guard::begin_kill() {
  state_ = GuardState::kKilling;
  killed_at_ns_ = boot_now().time_since_epoch().count();
  // Stopped first, it neither forks nor reaps while its children are found. Killed first, it would
  // hand them to us only once it is gone, which hung storage can delay.
  if (postmaster_ != 0) signal_by_fd(postmaster_fd_.get(), SIGSTOP);
  kill_pass();
}

void Guard::kill_pass() {
  if (postmaster_ != 0) {
    kill_descendants(postmaster_);
    signal_by_fd(postmaster_fd_.get(), SIGKILL);
  }
  // Orphans are our children: we are their subreaper.
  kill_descendants(getpid());
  reap();
}

void Guard::reap() {
  if (state_ == GuardState::kIdle) return;
  for (;;) {
    int status = 0;
    const pid_t pid = waitpid(-1, &status, WNOHANG);
    if (pid == 0) return;
    if (pid < 0) {
      if (errno == EINTR) continue;
      state_ = GuardState::kIdle;  // ECHILD: nothing of PostgreSQL is left
      lonely_since_ = boot_now();
      tell_all(GuardSays::kExited);
      return;
    }
    if (pid == postmaster_) {
      wait_status_ = status;
      postmaster_ = 0;
      postmaster_fd_.reset();
      // Whatever it left behind serves nobody, and an orphan busy in a query does not notice.
      state_ = GuardState::kKilling;
    }
  }
}

GuardReport Guard::report(GuardSays says, uint64_t id, int error) const {
  GuardReport out;
  out.says = says;
  out.id = id;
  out.error = error;
  out.deadline_ns = deadline_ns_;
  out.starts = starts_;
  out.guard_pid = getpid();
  out.postmaster_pid = postmaster_;
  out.wait_status = wait_status_;
  out.state = state_;
  out.fenced = fenced_ ? 1 : 0;
  out.real_time = real_time_ ? 1 : 0;
  out.locked = locked_ ? 1 : 0;
  out.watchdog = watchdog_state_;
  out.watchdog_error = static_cast<uint16_t>(watchdog_error_);
  return out;
}

void Guard::send(Client& client, GuardSays says, uint64_t id, int error) {
  const GuardReport out = report(says, id, error);
  // A client that does not read loses reports, never the guard's time.
  ::send(client.fd.get(), &out, sizeof out, MSG_DONTWAIT | MSG_NOSIGNAL);
}

void Guard::tell_all(GuardSays says) {
  for (Client& client : clients_) {
    if (client.fd.valid()) send(client, says, 0, 0);
  }
}

}  // namespace

int guard_main(int argc, char** argv) {
  if (argc != 3 || std::string_view(argv[1]) != "--run-dir") {
    std::fprintf(stderr, "usage: bascule guard --run-dir DIR\n");
    return 2;
  }
  static Guard guard;  // not on the stack: its buffers are locked once
  const int failed = guard.open(argv[2]);
  return failed != 0 ? failed : guard.run();
}

}  // namespace bascule::posix
