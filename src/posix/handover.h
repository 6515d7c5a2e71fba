// env::HandOver by a unix socket of type SOCK_SEQPACKET: each message is a line of words; sockets
// come as SCM_RIGHTS. Only this user and root are heard.
//
//   new: "take 1"                         old: "socket PORT HOST" with a descriptor, ..., "end"
//   new: "accepting"                      old: nothing; it lives on until its clients have left
//   new: "cancel PID SECRET-IN-HEX", ...
#pragma once

#include <memory>
#include <mutex>
#include <string>
#include <string_view>

#include "env/handover.h"
#include "posix/listening_sockets.h"

namespace bascule::posix {

class HandOverSocket final : public env::HandOver {
 public:
  // `sockets` must outlive it.
  explicit HandOverSocket(ListeningSockets& sockets) : sockets_(sockets) {}
  ~HandOverSocket() override;

  Status offer(env::Loop& loop, const std::string& path, env::HandOverEvents events) override;
  void withdraw() override;
  Result<bool> take(const std::string& path) override;
  void accepted() override;
  void pass_cancel(uint32_t pid, const std::string& secret) override;

 private:
  // A new process that has not said that it accepts by then has failed.
  static constexpr Nanos kPatience = 60s;
  enum class Phase { kOffered, kTaking, kTaken };

  void on_connect();
  void on_message();
  bool handle(std::string_view message);
  void send_sockets();
  void end_taking();

  ListeningSockets& sockets_;
  // The old process' end.
  env::Loop* loop_ = nullptr;
  env::HandOverEvents events_;
  std::string path_;
  UniqueFd offer_, successor_;
  Phase phase_ = Phase::kOffered;
  env::TimerId patience_ = env::TimerId::kNone;
  // The new one's.
  std::mutex mutex_;
  UniqueFd predecessor_;  // guarded by mutex_
};

}  // namespace bascule::posix
