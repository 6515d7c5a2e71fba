// The workers of one proxy, for each other: work is posted to their loops. Any thread.
#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "proxy/shared.h"
#include "proxy/worker.h"

namespace bascule::proxy {

class Workers final : public Crew {
 public:
  // `workers` does not change while they run. `config`: what they begin with.
  Workers(std::vector<std::unique_ptr<Worker>>& workers, const ProxyConfig& config);

  void cancel(uint32_t pid, const std::string& secret, CancelDone done) override;
  void wake(int worker) override;
  void make_room(int for_worker) override;
  int size() const override { return static_cast<int>(workers_.size()); }
  void post(int worker, std::move_only_function<void(Worker&)> work) override;
  Status control(const std::function<Status(Controls&)>& change) override;
  Status configure(const std::function<Status(ProxyConfig&)>& change) override;

 private:
  std::vector<std::unique_ptr<Worker>>& workers_;
  const decltype(ProcessHooks::pass_cancel) pass_cancel_;
  std::mutex mutex_;
  Controls controls_;   // guarded by mutex_
  ProxyConfig config_;  // guarded by mutex_
};

}  // namespace bascule::proxy
