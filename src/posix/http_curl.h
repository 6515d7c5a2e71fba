// env::HttpClient over libcurl's multi interface, in a thread of its own: libcurl wants
// level-triggered descriptors, the loop's are edge-triggered, and names are resolved in passing.
#pragma once

#include <atomic>
#include <map>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "env/http.h"
#include "env/loop.h"

namespace bascule::posix {

class CurlHttp final : public env::HttpClient {
 public:
  CurlHttp(env::Loop& loop, env::HttpTls tls);
  ~CurlHttp() override;
  CurlHttp(const CurlHttp&) = delete;
  CurlHttp& operator=(const CurlHttp&) = delete;

  uint64_t send(env::HttpRequest request, DoneCallback done) override;
  uint64_t stream(env::HttpRequest request, DataCallback data, DoneCallback done) override;
  void cancel(uint64_t id) override;

 private:
  struct Transfer;  // belongs to the thread
  struct Order {    // to the thread
    uint64_t id = 0;
    std::unique_ptr<Transfer> transfer;  // null: cancel
  };
  struct Listener {
    DataCallback data;
    DoneCallback done;
  };

  uint64_t start(env::HttpRequest request, DataCallback data, DoneCallback done);
  void submit(Order order);

  // In the thread.
  void run();
  void take_orders();
  void begin(std::unique_ptr<Transfer> transfer);
  void end(uint64_t id);
  void collect_finished();
  void tell(uint64_t id, env::HttpAnswer answer);
  static size_t on_body(char* bytes, size_t one, size_t count, void* transfer);
  static size_t on_upload(char* to, size_t one, size_t count, void* transfer);
  static size_t on_data(Transfer& transfer, std::string_view bytes);

  env::Loop& loop_;
  const env::HttpTls tls_;
  // Tells what comes back to the loop whether this object is still there. Loop thread only.
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
  std::map<uint64_t, Listener> listeners_;  // loop thread
  uint64_t next_id_ = 1;

  std::mutex mutex_;
  std::vector<Order> orders_;  // guarded by mutex_
  bool closing_ = false;       // guarded by mutex_

  void* multi_ = nullptr;                                  // CURLM
  std::map<uint64_t, std::unique_ptr<Transfer>> running_;  // thread
  std::thread thread_;
};

}  // namespace bascule::posix
