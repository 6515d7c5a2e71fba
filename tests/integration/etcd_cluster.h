// A real etcd cluster on this host, for tests: its own directory, free ports, one process a member.
// Everything is gone when it is destroyed. Members run in their own process groups and are killed
// with this process.
#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

namespace bascule::testing {

struct EtcdTlsFiles {
  std::string ca, server_cert, server_key, client_cert, client_key;
};

struct EtcdClusterOptions {
  int members = 3;
  bool tls = false;       // and client certificates are required
  int token_ttl_s = 300;  // of log-in tokens
  int election_ms = 500;
};

class EtcdCluster {
 public:
  explicit EtcdCluster(EtcdClusterOptions options = {});
  ~EtcdCluster();
  EtcdCluster(const EtcdCluster&) = delete;
  EtcdCluster& operator=(const EtcdCluster&) = delete;

  int size() const { return options_.members; }
  std::vector<std::string> endpoints() const;
  const EtcdTlsFiles& tls() const { return tls_; }
  const std::string& directory() const { return directory_; }

  void start(int member);
  void kill(int member);     // SIGKILL, and reaped
  void suspend(int member);  // SIGSTOP
  void resume(int member);   // SIGCONT
  void wipe();               // kills all, deletes their data, starts them with the same names
  bool wait_healthy();       // every running member answers a linearizable read
  int leader();              // index; -1: none
  // Runs etcdctl with the endpoints and certificates; its output. Fails the process on exit != 0.
  std::string ctl(const std::string& arguments, int member = -1);
  // Moves leadership by etcd's own command.
  void move_leader_to(int member);

 private:
  std::string url(int port) const;
  std::string member_id(int member);

  EtcdClusterOptions options_;
  std::string directory_;
  EtcdTlsFiles tls_;
  std::vector<int> client_ports_, peer_ports_;
  std::vector<pid_t> pids_;
};

// TCP ports of 127.0.0.1 that are free now.
std::vector<int> free_ports(int count);
// Runs a shell command; its output. Throws std::runtime_error when it fails.
std::string shell(const std::string& command);

}  // namespace bascule::testing
