// Lines about clients that were not let in. They are the clients' to cause: so many a second and no
// more, and what comes from a client is cut short (the log escapes it).
#pragma once

#include <string>
#include <string_view>

#include "base/log.h"
#include "base/time.h"

namespace bascule::proxy {

class RefusalLog {
 public:
  void note(MonoTime now, const std::string& client, std::string_view why) {
    if (now - since_ >= 1s) {
      if (passed_over_ > 0) {
        log(LogLevel::kInfo, "proxy", "more log-ins were refused", {{"count", passed_over_}});
      }
      since_ = now;
      lines_ = passed_over_ = 0;
    }
    if (++lines_ > kLinesPerSecond) {
      ++passed_over_;
      return;
    }
    log(LogLevel::kInfo, "proxy", "log-in refused",
        {{"client", client}, {"why", why.substr(0, kReasonMax)}});
  }

 private:
  static constexpr int kLinesPerSecond = 10;
  static constexpr size_t kReasonMax = 300;
  MonoTime since_{};
  int lines_ = 0, passed_over_ = 0;
};

}  // namespace bascule::proxy
