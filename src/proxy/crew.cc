#include "proxy/crew.h"

#include <utility>

namespace bascule::proxy {

Workers::Workers(std::vector<std::unique_ptr<Worker>>& workers, const ProxyConfig& config)
    : workers_(workers), pass_cancel_(config.process.pass_cancel), config_(config) {
  config_.access = {};  // it is kept elsewhere, with its secrets
}

void Workers::cancel(uint32_t pid, const std::string& secret, CancelDone done) {
  if (pass_cancel_) {
    done = [this, pid, secret, done = std::move(done)](Known known) mutable {
      if (known == Known::kYes) return done(known);
      pass_cancel_(pid, secret, [done = std::move(done)]() mutable { done(Known::kNo); });
    };
  }
  const int worker = Worker::worker_of(pid);
  if (worker < 0 || worker >= size()) return done(Known::kNo);
  post(worker, [client = Worker::client_of(pid), secret, done = std::move(done)](
                   Worker& w) mutable { w.cancel(client, secret, std::move(done)); });
}

void Workers::wake(int worker) {
  post(worker, [](Worker& w) { w.dispatcher().pump_all(); });
}

void Workers::make_room(int for_worker) {
  for (int i = 0; i < size(); ++i) {
    if (i != for_worker) post(i, [](Worker& w) { w.dispatcher().make_room(); });
  }
}

void Workers::post(int worker, std::move_only_function<void(Worker&)> work) {
  Worker& target = *workers_[static_cast<size_t>(worker)];
  target.post([&target, work = std::move(work)]() mutable { work(target); });
}

Status Workers::control(const std::function<Status(Controls&)>& change) {
  const std::lock_guard lock(mutex_);
  Controls next = controls_;
  if (auto status = change(next); !status) return status;
  controls_ = std::move(next);
  // shared_ptr: each worker keeps its view until it takes the next.
  const auto view = std::make_shared<const Controls>(controls_);
  for (int i = 0; i < size(); ++i) post(i, [view](Worker& w) { w.set_controls(view); });
  return {};
}

Status Workers::configure(const std::function<Status(ProxyConfig&)>& change) {
  const std::lock_guard lock(mutex_);
  ProxyConfig next = config_;
  if (auto status = change(next); !status) return status;
  config_ = std::move(next);
  const auto view = std::make_shared<const ProxyConfig>(config_);  // shared_ptr: likewise
  for (int i = 0; i < size(); ++i) post(i, [view](Worker& w) { w.set_config(view); });
  return {};
}

}  // namespace bascule::proxy
