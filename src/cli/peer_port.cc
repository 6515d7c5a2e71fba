#include "cli/peer_port.h"

#include <memory>
#include <mutex>
#include <optional>
#include <utility>

namespace bascule::cli {
namespace {

constexpr Millis kAnswerWithin{500};

// The agent may answer when nobody waits any more: hence shared, and the loop only while it lives.
struct Waiting {
  std::mutex mutex;
  env::Loop* loop = nullptr;
  std::optional<Result<std::string>> answer;
};

}  // namespace

std::function<Result<std::string>(std::string)> peer_port(const Platform& platform,
                                                          node::Node& node) {
  return [&platform, &node](std::string sealed) -> Result<std::string> {
    const auto loop = platform.make_loop();
    const auto waiting = std::make_shared<Waiting>();
    waiting->loop = loop.get();
    node.peer_asks(std::move(sealed), [waiting](Result<std::string> answer) {
      const std::lock_guard lock(waiting->mutex);
      waiting->answer = std::move(answer);
      if (waiting->loop != nullptr) {
        waiting->loop->post([loop = waiting->loop] { loop->stop(); });
      }
    });
    loop->call_after(kAnswerWithin, [&loop] { loop->stop(); });
    loop->run();
    const std::lock_guard lock(waiting->mutex);
    waiting->loop = nullptr;
    if (!waiting->answer) return fail(ErrorCode::kTimeout, "the agent does not answer");
    return *waiting->answer;
  };
}

}  // namespace bascule::cli
