#include "posix/process.h"

#include <fcntl.h>
#include <poll.h>
#include <pwd.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <thread>

#include "posix/clock.h"
#include "posix/proc_tree.h"
#include "posix/unique_fd.h"

namespace bascule::posix {
namespace {

namespace fs = std::filesystem;
using env::Command;
using env::Finished;
using env::Pid;

constexpr size_t kOutputBytesKept = 16 << 10;
constexpr size_t kErrorBytesKept = 4 << 10;
constexpr int kPollSliceMs = 50;  // how late a cancellation is noticed

std::unexpected<Error> failed(const std::string& what, int error) {
  return fail(error == ENOENT || error == ESRCH ? ErrorCode::kNotFound : ErrorCode::kUnavailable,
              what + ": " + strerror(error));
}

class Handle final : public env::ProcessHandle {
 public:
  Handle(Pid pid, UniqueFd fd) : pid_(pid), fd_(std::move(fd)) {}
  Pid pid() const override { return pid_; }
  int fd() const override { return fd_.get(); }
  bool alive() const override {
    pollfd waiting{fd_.get(), POLLIN, 0};
    return poll(&waiting, 1, 0) == 0;
  }
  Status signal(int number) override {
    if (!signal_by_fd(fd_.get(), number)) return failed("signal " + std::to_string(pid_), errno);
    return {};
  }

 private:
  Pid pid_;
  UniqueFd fd_;
};

class Socket final : public env::PacketSocket {
 public:
  Socket(UniqueFd fd, Pid peer) : fd_(std::move(fd)), peer_(peer) {}
  int fd() const override { return fd_.get(); }
  Pid peer() const override { return peer_; }
  Status send(std::string_view packet) override {
    const ssize_t n = ::send(fd_.get(), packet.data(), packet.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n < 0) return failed("send", errno);
    return {};
  }
  Result<std::optional<std::string>> receive() override {
    char buffer[4096];
    const ssize_t n = ::recv(fd_.get(), buffer, sizeof buffer, MSG_DONTWAIT);
    if (n > 0) return std::string(buffer, static_cast<size_t>(n));
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) return std::nullopt;
    return fail(ErrorCode::kUnavailable, n == 0 ? "peer has hung up" : strerror(errno));
  }
  bool wait_readable(Millis at_most) override {
    pollfd waiting{fd_.get(), POLLIN, 0};
    return poll(&waiting, 1, static_cast<int>(std::max<int64_t>(at_most.count(), 0))) > 0;
  }

 private:
  UniqueFd fd_;
  Pid peer_;
};

// `process` is its directory in /proc.
bool is_in(const fs::path& process, const fs::path& directory, std::string_view program) {
  std::error_code gone;
  if (fs::read_symlink(process / "cwd", gone) != directory || gone) return false;
  std::string name = fs::read_symlink(process / "exe", gone).filename().string();
  // Replaced by an upgrade, it still runs.
  constexpr std::string_view kDeleted = " (deleted)";
  if (name.ends_with(kDeleted)) name.resize(name.size() - kDeleted.size());
  return !gone && name == program;
}

// A file of /proc fails with ESRCH when its process ends between open and read. An iterator over
// the buffer would throw then (std::__ios_failure); the stream's own operators turn it into badbit.
std::string read_all(std::ifstream& file) {
  std::ostringstream text;
  text << file.rdbuf();
  return std::move(text).str();
}

// Everything that must not be done between fork and exec: no allocation there.
struct Prepared {
  std::vector<char*> argv;
  std::vector<std::string> environment_text;
  std::vector<char*> environment;

  explicit Prepared(const Command& command) {
    for (const std::string& text : command.argv) argv.push_back(const_cast<char*>(text.c_str()));
    argv.push_back(nullptr);
    environment_text = {"PATH=/usr/local/bin:/usr/bin:/bin", "LANG=C", "LC_ALL=C", "TZ=UTC"};
    for (const std::string& text : command.environment) environment_text.push_back(text);
    for (std::string& text : environment_text) environment.push_back(text.data());
    environment.push_back(nullptr);
  }
};

[[noreturn]] void exec_child(const Prepared& prepared, const char* directory, int output,
                             int errors) {
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
  signal(SIGPIPE, SIG_DFL);
  setsid();
  const int null = ::open("/dev/null", O_RDONLY);
  if (null < 0 || dup2(null, 0) < 0 || dup2(output, 1) < 0 || dup2(errors, 2) < 0) _exit(126);
  close(null);
  if (*directory != '\0' && chdir(directory) != 0) _exit(126);
  execve(prepared.argv[0], prepared.argv.data(), prepared.environment.data());
  static constexpr char kMessage[] = "cannot execute: ";
  [[maybe_unused]] ssize_t n = ::write(2, kMessage, sizeof kMessage - 1);
  n = ::write(2, prepared.argv[0], strlen(prepared.argv[0]));
  _exit(127);
}

// What the child writes. Reads until it has closed both of its ends or must die.
class Pump {
 public:
  Pump(const Command& command, Finished& out, UniqueFd output, UniqueFd errors)
      : command_(command), out_(out), output_(std::move(output)), errors_(std::move(errors)) {}

  Status run() {
    while (output_.valid() || errors_.valid()) {
      if (command_.cancelled && command_.cancelled()) {
        return fail(ErrorCode::kUnavailable, command_.argv[0] + ": cancelled");
      }
      if (boot_now() >= command_.deadline) {
        return fail(ErrorCode::kTimeout, command_.argv[0] + ": did not finish in time");
      }
      // A negative descriptor is passed over.
      pollfd waiting[2] = {{output_.get(), POLLIN, 0}, {errors_.get(), POLLIN, 0}};
      const int64_t left = to_ms(command_.deadline - boot_now()) + 1;
      if (poll(waiting, 2, static_cast<int>(std::min<int64_t>(left, kPollSliceMs))) <= 0) continue;
      if (waiting[0].revents != 0) read_output();
      if (waiting[1].revents != 0) read_errors();
    }
    return {};
  }

 private:
  std::string_view read_from(UniqueFd& fd) {
    const ssize_t n = ::read(fd.get(), buffer_, sizeof buffer_);
    if (n == 0) fd.reset();
    return {buffer_, n > 0 ? static_cast<size_t>(n) : 0};
  }
  void read_output() {
    const std::string_view piece = read_from(output_);
    if (piece.empty()) return;
    if (command_.on_output) command_.on_output(piece);
    std::string& kept = out_.output;
    kept += piece;
    if (kept.size() > 2 * kOutputBytesKept) kept.erase(0, kept.size() - kOutputBytesKept);
  }
  void read_errors() {
    const std::string_view piece = read_from(errors_);
    out_.errors += piece.substr(0, kErrorBytesKept - std::min(kErrorBytesKept, out_.errors.size()));
  }

  const Command& command_;
  Finished& out_;
  UniqueFd output_, errors_;
  char buffer_[8192];
};

}  // namespace

Result<Finished> PosixProcess::run(const Command& command) {
  const Prepared prepared(command);
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) return failed("pipe", errno);
  UniqueFd read_end(ends[0]), errors_read_end, errors_write_end;
  UniqueFd write_end(ends[1]);
  if (command.errors_go == Command::Errors::kApart) {
    if (pipe2(ends, O_CLOEXEC) != 0) return failed("pipe", errno);
    errors_read_end.reset(ends[0]);
    errors_write_end.reset(ends[1]);
  }
  const int errors = errors_write_end.valid() ? errors_write_end.get() : write_end.get();
  const pid_t parent = getpid();
  const pid_t pid = fork();
  if (pid < 0) return failed(command.argv[0], errno);
  if (pid == 0) {
    // Without us its result would concern nobody, and it may be writing into the data directory.
    // Children of its own do not die thereby: see Server::end_stray_tools().
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) _exit(126);                       // we died before prctl
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);  // ours are not for tools
    exec_child(prepared, command.directory.c_str(), write_end.get(), errors);
  }
  write_end.reset();
  errors_write_end.reset();
  Finished out;
  const Status pumped = Pump(command, out, std::move(read_end), std::move(errors_read_end)).run();
  if (!pumped) ::kill(-pid, SIGKILL);  // its own session; not reaped yet, so the number is its
  if (!pumped) ::kill(pid, SIGKILL);
  int status = 0;
  while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
  }
  if (!pumped) return std::unexpected(pumped.error());
  if (WIFEXITED(status)) out.exit_code = WEXITSTATUS(status);
  if (WIFSIGNALED(status)) out.signal = WTERMSIG(status);
  if (out.output.size() > kOutputBytesKept) {
    out.output.erase(0, out.output.size() - kOutputBytesKept);
  }
  return out;
}

Result<std::unique_ptr<env::ProcessHandle>> PosixProcess::spawn_detached(
    const Command& command, const std::string& log_file) {
  const Prepared prepared(command);
  const UniqueFd log(::open(log_file.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600));
  if (!log.valid()) return failed(log_file, errno);
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) return failed("pipe", errno);
  const UniqueFd read_end(ends[0]);
  UniqueFd write_end(ends[1]);
  // Forked twice, so that it is init's child and never a zombie of ours.
  const pid_t middle = fork();
  if (middle < 0) return failed(command.argv[0], errno);
  if (middle == 0) {
    const pid_t child = fork();
    if (child == 0) exec_child(prepared, command.directory.c_str(), log.get(), log.get());
    [[maybe_unused]] const ssize_t n = ::write(write_end.get(), &child, sizeof child);
    _exit(0);
  }
  write_end.reset();
  pid_t child = -1;
  const ssize_t n = ::read(read_end.get(), &child, sizeof child);
  waitpid(middle, nullptr, 0);
  if (n != sizeof child || child <= 0) return failed(command.argv[0], EAGAIN);
  return open(child);
}

Result<std::unique_ptr<env::ProcessHandle>> PosixProcess::open(Pid pid) {
  UniqueFd fd(open_pidfd(pid));
  if (!fd.valid()) return failed("process " + std::to_string(pid), errno);
  return std::make_unique<Handle>(pid, std::move(fd));
}

std::vector<Pid> PosixProcess::children(Pid parent) {
  std::vector<Pid> out(4096);
  out.resize(static_cast<size_t>(children_of(parent, out.data(), 4096)));
  return out;
}

std::string PosixProcess::title(Pid pid) {
  std::ifstream file("/proc/" + std::to_string(pid) + "/cmdline", std::ios::binary);
  std::string text = read_all(file);
  std::replace(text.begin(), text.end(), '\0', ' ');
  while (!text.empty() && text.back() == ' ') text.pop_back();
  return text;
}

std::vector<Pid> PosixProcess::in_directory(const std::string& directory,
                                            std::string_view program) {
  std::error_code error;
  std::vector<Pid> out;
  const fs::path wanted = fs::canonical(directory, error);
  if (error) return out;
  for (const auto& entry : fs::directory_iterator("/proc", error)) {
    const std::string name = entry.path().filename().string();
    if (name.find_first_not_of("0123456789") != std::string::npos) continue;
    if (is_in(entry.path(), wanted, program)) out.push_back(std::stoi(name));
  }
  return out;
}

bool PosixProcess::works_in(Pid pid, const std::string& directory, std::string_view program) {
  std::error_code error;
  const fs::path wanted = fs::canonical(directory, error);
  return !error && is_in("/proc/" + std::to_string(pid), wanted, program);
}

bool PosixProcess::stopped(Pid pid) {
  std::ifstream file("/proc/" + std::to_string(pid) + "/stat");
  const std::string text = read_all(file);
  const size_t after = text.rfind(')');
  return after != std::string::npos && after + 2 < text.size() &&
         (text[after + 2] == 'T' || text[after + 2] == 't');
}

Result<uint64_t> PosixProcess::voluntary_switches(Pid pid) {
  std::ifstream file("/proc/" + std::to_string(pid) + "/status");
  static constexpr std::string_view kKey = "voluntary_ctxt_switches:";
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with(kKey)) return strtoull(line.c_str() + kKey.size(), nullptr, 10);
  }
  return failed("process " + std::to_string(pid), ESRCH);
}

Result<std::unique_ptr<env::PacketSocket>> PosixProcess::connect(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof address.sun_path) {
    return fail(ErrorCode::kInvalid, path + ": too long for a socket's path",
                "choose a run directory with a shorter path");
  }
  path.copy(address.sun_path, path.size());
  UniqueFd fd(socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd.valid() ||
      ::connect(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) != 0) {
    return failed(path, errno);
  }
  ucred peer{};
  socklen_t size = sizeof peer;
  if (getsockopt(fd.get(), SOL_SOCKET, SO_PEERCRED, &peer, &size) != 0) {
    return failed(path, errno);
  }
  return std::make_unique<Socket>(std::move(fd), peer.pid);
}

Pid PosixProcess::self() { return getpid(); }

std::string PosixProcess::self_program() {
  std::error_code error;
  return fs::read_symlink("/proc/self/exe", error).string();
}

std::string PosixProcess::user() {
  passwd entry{};
  passwd* found = nullptr;
  char buffer[4096];
  getpwuid_r(geteuid(), &entry, buffer, sizeof buffer, &found);
  return found == nullptr ? std::to_string(geteuid()) : entry.pw_name;
}

void PosixProcess::sleep(Millis time) { std::this_thread::sleep_for(time); }

}  // namespace bascule::posix
