// env::ChangeHint by inotify: ring() opens "<path>-bell" for writing and closes it, listeners watch
// its directory for IN_CLOSE_WRITE of that name. Opening and closing dirties no page, and a bell
// that somebody removed is simply made again (`man 7 inotify`).
#pragma once

#include <map>
#include <string>

#include "env/file_watch.h"
#include "env/loop.h"
#include "posix/unique_fd.h"

namespace bascule::posix {

class InotifyHint final : public env::ChangeHint {
 public:
  explicit InotifyHint(env::Loop& loop);
  ~InotifyHint() override;
  InotifyHint(const InotifyHint&) = delete;
  InotifyHint& operator=(const InotifyHint&) = delete;

  Result<uint64_t> listen(const std::string& path, std::function<void()> callback) override;
  void unlisten(uint64_t id) override;
  void ring(const std::string& path) override;

 private:
  struct Listener {
    int watch = -1;    // of the bell's directory
    std::string bell;  // file name
    std::function<void()> callback;
  };

  void on_readable();

  env::Loop& loop_;
  UniqueFd inotify_;
  uint64_t next_id_ = 1;
  std::map<uint64_t, Listener> listeners_;
};

}  // namespace bascule::posix
