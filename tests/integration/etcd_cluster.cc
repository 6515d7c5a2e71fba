#include "tests/integration/etcd_cluster.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cstdio>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <stdexcept>

namespace bascule::testing {
namespace {

namespace fs = std::filesystem;

void make_certificates(const std::string& directory, EtcdTlsFiles& out) {
  const auto at = [&](const char* name) { return directory + "/" + name; };
  out = {at("ca.pem"), at("server.pem"), at("server.key"), at("client.pem"), at("client.key")};
  const std::string key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2";
  const std::string quiet = " 2>" + at("openssl.log");
  shell(fmt::format("openssl req -x509 {} -subj /CN=test-ca -keyout {} -out {}{}", key,
                    at("ca.key"), out.ca, quiet));
  const auto sign = [&](const std::string& name, const std::string& cert, const std::string& to) {
    shell(fmt::format("openssl req {} -subj /CN={} -keyout {} -out {}{}", key, name, to,
                      at("request.pem"), quiet));
    shell(
        fmt::format("printf 'subjectAltName=IP:127.0.0.1\\nextendedKeyUsage=serverAuth,clientAuth"
                    "\\n' >{0}; openssl x509 -req -in {1} -CA {2} -CAkey {3} -CAcreateserial "
                    "-days 2 -extfile {0} -out {4}{5}",
                    at("extensions"), at("request.pem"), out.ca, at("ca.key"), cert, quiet));
  };
  // No common name: etcd would take it for a user's, which its own gateway is not (3.4).
  sign("server", out.server_cert, out.server_key);
  sign("client", out.client_cert, out.client_key);
}

}  // namespace

std::vector<int> free_ports(int count) {
  std::vector<int> fds, ports;
  for (int i = 0; i < count; ++i) {
    const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    if (::bind(fd, reinterpret_cast<sockaddr*>(&address), size) != 0 ||
        ::getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size) != 0) {
      throw std::runtime_error("no free port");
    }
    fds.push_back(fd);
    ports.push_back(ntohs(address.sin_port));
  }
  for (const int fd : fds) ::close(fd);
  return ports;
}

std::string shell(const std::string& command) {
  FILE* pipe = ::popen(command.c_str(), "r");
  if (pipe == nullptr) throw std::runtime_error("popen");
  std::string out;
  std::array<char, 4096> buffer{};
  while (const size_t n = std::fread(buffer.data(), 1, buffer.size(), pipe)) {
    out.append(buffer.data(), n);
  }
  const int status = ::pclose(pipe);
  if (status != 0) throw std::runtime_error(command + " failed: " + out);
  return out;
}

EtcdCluster::EtcdCluster(EtcdClusterOptions options) : options_(options) {
  std::string name = std::filesystem::temp_directory_path() / "etcd-test-XXXXXX";
  if (::mkdtemp(name.data()) == nullptr) throw std::runtime_error("can't make " + name);
  directory_ = name;
  if (options_.tls) make_certificates(directory_, tls_);
  const auto ports = free_ports(2 * options_.members);
  client_ports_.assign(ports.begin(), ports.begin() + options_.members);
  peer_ports_.assign(ports.begin() + options_.members, ports.end());
  pids_.assign(static_cast<size_t>(options_.members), 0);
  for (int i = 0; i < options_.members; ++i) start(i);
  if (!wait_healthy()) throw std::runtime_error("etcd did not become healthy: " + directory_);
}

EtcdCluster::~EtcdCluster() {
  for (int i = 0; i < options_.members; ++i) kill(i);
  std::error_code error;
  fs::remove_all(directory_, error);
}

std::string EtcdCluster::url(int port) const {
  return fmt::format("{}://127.0.0.1:{}", options_.tls ? "https" : "http", port);
}

std::vector<std::string> EtcdCluster::endpoints() const {
  std::vector<std::string> out;
  for (const int port : client_ports_) out.push_back(url(port));
  return out;
}

void EtcdCluster::start(int member) {
  const auto at = static_cast<size_t>(member);
  const auto peer = [](int port) { return fmt::format("http://127.0.0.1:{}", port); };
  std::vector<std::string> all;
  for (size_t i = 0; i < peer_ports_.size(); ++i) {
    all.push_back(fmt::format("m{}={}", i, peer(peer_ports_[i])));
  }
  std::vector<std::string> argv = {"etcd",
                                   "--name",
                                   fmt::format("m{}", member),
                                   "--data-dir",
                                   fmt::format("{}/m{}", directory_, member),
                                   "--listen-client-urls",
                                   url(client_ports_[at]),
                                   "--advertise-client-urls",
                                   url(client_ports_[at]),
                                   "--listen-peer-urls",
                                   peer(peer_ports_[at]),
                                   "--initial-advertise-peer-urls",
                                   peer(peer_ports_[at]),
                                   "--initial-cluster",
                                   fmt::format("{}", fmt::join(all, ",")),
                                   "--initial-cluster-token",
                                   "bascule-test",
                                   "--heartbeat-interval",
                                   std::to_string(options_.election_ms / 10),
                                   "--election-timeout",
                                   std::to_string(options_.election_ms),
                                   "--log-level",
                                   "error",
                                   "--logger",
                                   "zap",
                                   "--auth-token-ttl",
                                   std::to_string(options_.token_ttl_s)};
  if (options_.tls) {
    for (const std::string& word :
         {std::string("--cert-file"), tls_.server_cert, std::string("--key-file"), tls_.server_key,
          std::string("--trusted-ca-file"), tls_.ca, std::string("--client-cert-auth")}) {
      argv.push_back(word);
    }
  }
  std::vector<char*> raw;
  for (std::string& word : argv) raw.push_back(word.data());
  raw.push_back(nullptr);
  const std::string log = fmt::format("{}/m{}.log", directory_, member);
  const pid_t parent = ::getpid();
  const pid_t pid = ::fork();
  if (pid == 0) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (::getppid() != parent) ::_exit(1);
    ::setpgid(0, 0);
    const int fd = ::open(log.c_str(), O_CREAT | O_WRONLY | O_APPEND | O_CLOEXEC, 0600);
    ::dup2(fd, 1);
    ::dup2(fd, 2);
    ::execvp("etcd", raw.data());
    ::_exit(127);
  }
  pids_[at] = pid;
}

void EtcdCluster::kill(int member) {
  const pid_t pid = std::exchange(pids_[static_cast<size_t>(member)], 0);
  if (pid == 0) return;
  ::kill(pid, SIGKILL);
  ::waitpid(pid, nullptr, 0);
}

void EtcdCluster::suspend(int member) { ::kill(pids_[static_cast<size_t>(member)], SIGSTOP); }
void EtcdCluster::resume(int member) { ::kill(pids_[static_cast<size_t>(member)], SIGCONT); }

void EtcdCluster::wipe() {
  for (int i = 0; i < options_.members; ++i) {
    kill(i);
    fs::remove_all(fmt::format("{}/m{}", directory_, i));
  }
  for (int i = 0; i < options_.members; ++i) start(i);
  if (!wait_healthy()) throw std::runtime_error("etcd did not come back");
}

std::string EtcdCluster::ctl(const std::string& arguments, int member) {
  std::string certificates;
  if (options_.tls) {
    certificates =
        fmt::format("--cacert {} --cert {} --key {}", tls_.ca, tls_.client_cert, tls_.client_key);
  }
  const auto all = endpoints();
  const std::string where =
      member >= 0 ? all[static_cast<size_t>(member)] : fmt::format("{}", fmt::join(all, ","));
  return shell(
      fmt::format("ETCDCTL_API=3 etcdctl --command-timeout=2s --dial-timeout=2s "
                  "--endpoints {} {} {} 2>&1",
                  where, certificates, arguments));
}

bool EtcdCluster::wait_healthy() {
  for (int i = 0; i < 100; ++i) {
    bool healthy = true;
    for (size_t member = 0; member < pids_.size() && healthy; ++member) {
      if (pids_[member] == 0) continue;
      try {
        ctl("endpoint health", static_cast<int>(member));
      } catch (const std::runtime_error&) {
        healthy = false;
      }
    }
    if (healthy) return true;
    ::usleep(100'000);
  }
  return false;
}

int EtcdCluster::leader() {
  for (size_t member = 0; member < pids_.size(); ++member) {
    if (pids_[member] == 0) continue;
    try {
      const auto status =
          nlohmann::json::parse(ctl("endpoint status -w json", static_cast<int>(member)));
      const auto& of = status.at(0).at("Status");
      if (of.at("leader") == of.at("header").at("member_id")) return static_cast<int>(member);
    } catch (const std::exception&) {
      continue;
    }
  }
  return -1;
}

std::string EtcdCluster::member_id(int member) {
  const auto status = nlohmann::json::parse(ctl("endpoint status -w json", member));
  const auto id = status.at(0).at("Status").at("header").at("member_id").get<uint64_t>();
  return fmt::format("{:x}", id);
}

void EtcdCluster::move_leader_to(int member) {
  const int from = leader();
  if (from >= 0 && from != member) ctl("move-leader " + member_id(member), from);
}

}  // namespace bascule::testing
