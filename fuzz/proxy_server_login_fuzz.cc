// A server that may say anything never hears the password in clear on a connection that somebody
// could read, and is never believed to be ready before it let us in.
// Input: one byte of options, then the server's bytes.
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "fuzz/check.h"
#include "proxy/server_login.h"

using namespace bascule;
using namespace bascule::proxy;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  constexpr std::string_view kPassword = "a password that shows";
  ServerCredential credential;
  if ((data[0] & 1) != 0) credential.password = kPassword;
  if ((data[0] & 2) != 0) credential.keys.emplace();
  if ((data[0] & 4) != 0) credential.md5_secret = "md5" + std::string(32, 'b');
  const bool secured = (data[0] & 8) != 0;
  pgwire::ChannelBinding binding;
  if (secured) binding.data = "end point";
  ServerLogin login({{"user", "app"}, {"database", "db"}}, std::move(credential), "nonce");
  std::string reply =
      login.first(binding, secured ? ServerLogin::Privacy::kPrivate : ServerLogin::Privacy::kNone);
  std::string unread;
  const std::string_view bytes(reinterpret_cast<const char*>(data) + 1, size - 1);
  const size_t piece = 1 + (data[0] >> 4) * 7;
  for (size_t at = 0; at < bytes.size(); at += piece) {
    unread.append(bytes.substr(at, piece));
    const size_t done = login.on_bytes(unread, reply);
    BASCULE_FUZZ_CHECK(done <= unread.size());
    unread.erase(0, done);
    if (login.state() == ServerLogin::State::kFailed) {
      BASCULE_FUZZ_CHECK(login.failure().message.find(kPassword) == std::string::npos);
      break;
    }
  }
  if (!secured) BASCULE_FUZZ_CHECK(reply.find(kPassword) == std::string::npos);
  if (login.state() == ServerLogin::State::kReady) {
    // AuthenticationOk has come.
    BASCULE_FUZZ_CHECK(bytes.find(std::string_view("R\0\0\0\x08\0\0\0\0", 9)) !=
                       std::string_view::npos);
  }
  return 0;
}
