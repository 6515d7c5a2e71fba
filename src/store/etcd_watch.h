// Changes below one range of etcd, as a stream that outlives its connections: it resumes behind the
// last change it saw, at another member if need be; where etcd has compacted that away it begins
// anew, and says that anything may have changed. One loop's thread.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "store/etcd_client.h"

namespace bascule::store {

class EtcdWatch {
 public:
  // `changed` is called on the loop: soon after a change, after every gap that could not be
  // resumed, and at least every kSilence while nothing is heard, because the connection may be the
  // reason. It must not destroy this object.
  EtcdWatch(EtcdClient& client, env::Loop& loop, etcd::Range range, std::function<void()> changed);
  ~EtcdWatch();
  EtcdWatch(const EtcdWatch&) = delete;
  EtcdWatch& operator=(const EtcdWatch&) = delete;

  static constexpr Millis kSilence{900};
  // Silent for so long, another member is tried: this one may hang.
  static constexpr Millis kSilenceMax{5000};
  static constexpr size_t kLineBytesMax = 8 << 20;

 private:
  void open();
  void on_data(std::string_view bytes);
  void on_line(std::string_view line);
  void on_ended(const env::HttpAnswer& answer);
  void reopen(std::string_view why);
  void look();
  void heard(Revision last_change);

  EtcdClient& client_;
  env::Loop& loop_;
  const etcd::Range range_;
  const std::function<void()> changed_;

  std::optional<EtcdClient::Line> line_;
  std::string buffer_;  // the beginning of a line
  Revision from_ = 0;   // of the next change; 0: not known
  bool created_ = false;
  MonoTime opened_{};
  MonoTime heard_{};
  MonoTime told_{};
  Millis pause_{0};
  env::TimerId open_timer_ = env::TimerId::kNone;
  env::TimerId look_timer_ = env::TimerId::kNone;
};

}  // namespace bascule::store
