// env::HandOver by a unix socket of type SOCK_SEQPACKET: each message (handover_wire.h) is a line
// of words; sockets come as SCM_RIGHTS. Only this user and root are heard.
//
//   new: "take 2"               old: "socket PORT HOST" with a descriptor, ..., "end"; or "busy
//   WHY" new: "accepting"            old: "taken"; it lives on until its clients have left. Or
//   "late" new: "cancel NUMBER PID SECRET-IN-HEX", ...   old: "cancelled NUMBER", ...
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "env/handover.h"
#include "posix/handover_wire.h"
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
  Status accepted(env::Loop& loop) override;
  void pass_cancel(uint32_t pid, const std::string& secret, env::Callback done) override;
  bool between() override;

 private:
  static constexpr size_t kPassedMax = 1'024;  // cancel requests that wait for the old process
  enum class Phase { kOffered, kPreparing, kTaking, kTaken };

  void on_connect();
  void wait_for_successor(Nanos patience);
  void on_message();
  bool handle(const HandOverMessage& message);
  bool begin_taking();
  void on_prepared(const Result<Nanos>& patience);
  void on_accepting();
  void confirm(uint64_t cancel);  // any thread
  void send_sockets();
  void drop_successor(const std::optional<HandOverMessage>& last_words = {});
  void end_taking();
  int predecessor();
  void on_predecessor();
  void lose_predecessor();

  ListeningSockets& sockets_;
  // The old process' end.
  env::Loop* loop_ = nullptr;
  env::HandOverEvents events_;
  std::string path_;
  UniqueFd offer_;
  UniqueFd successor_;  // replaced under mutex_, by the loop's thread only
  Phase phase_ = Phase::kOffered;
  env::TimerId patience_ = env::TimerId::kNone;
  std::mutex mutex_;
  // The new one's; all guarded by mutex_.
  UniqueFd predecessor_;
  bool taken_ = false;                        // the old process has confirmed it
  std::map<uint64_t, env::Callback> passed_;  // cancel requests, by number
  uint64_t last_cancel_ = 0;
};

}  // namespace bascule::posix
