// Which store a cluster has (`store` in bascule.yaml), and opening it.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "cli/platform.h"
#include "cli/yaml_reader.h"
#include "store/store.h"

namespace bascule::cli {

struct EtcdAt {
  std::vector<std::string> endpoints;
  std::string prefix;
  std::string user;
  std::string password_file;
  std::string ca_file, cert_file, key_file;
  Millis timeout{1000};
  bool operator==(const EtcdAt&) const = default;
};

struct StoreAt {
  std::string path;  // of `file:`; empty: etcd
  std::optional<EtcdAt> etcd;
  bool operator==(const StoreAt&) const = default;

  static StoreAt file(std::string path) { return {std::move(path), std::nullopt}; }
  // For people: "/var/lib/bascule/store.db", "etcd http://10.0.0.1:2379".
  std::string to_string() const;
};

// The key `store`: `file:/path` or a mapping. `resolve` makes paths absolute.
void read_store(MapReader& top, const std::function<std::string(const std::string&)>& resolve,
                StoreAt& out);
// As it stands in a file, from "store:" on.
std::string render_store(const StoreAt& at);

// A store with what it needs: threads, connections. Belongs to the loop's thread.
class OpenStore {
 public:
  struct Options {
    std::string identity;  // of a store that has to be made; empty: never make one
    Millis timeout{1000};  // of `file:`; etcd has its own
    int threads = 1;
  };
  // Reads the password's file; else it does no I/O.
  static Result<std::unique_ptr<OpenStore>> open(const Platform& platform, const StoreAt& at,
                                                 env::Loop& loop, const Options& options);
  // Runs what is left to run; the loop may still get posts by it, which do nothing.
  ~OpenStore();
  OpenStore(const OpenStore&) = delete;
  OpenStore& operator=(const OpenStore&) = delete;

  store::Store& store() { return *store_; }

 private:
  OpenStore() = default;

  std::unique_ptr<env::BlockingPool> pool_;
  std::unique_ptr<env::ChangeHint> hint_;
  std::unique_ptr<env::HttpClient> http_;
  std::unique_ptr<store::Store> store_;
};

}  // namespace bascule::cli
