// Any list of users is refused with its line, without a byte of it, or means the same when it is
// written again.
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "cli/secrets.h"
#include "fuzz/check.h"
#include "proxy/users.h"

using namespace bascule;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const auto users = cli::parse_userlist(text, "file");
  if (!users) {
    BASCULE_FUZZ_CHECK(users.error().message.starts_with("file:"));
    return 0;
  }
  bool plain = true;  // a line's end inside quotes can't be
  std::vector<proxy::ProxyUser> list;
  for (const cli::UserEntry& user : *users) {
    plain = plain && (user.name + user.secret).find('\n') == std::string::npos;
    list.push_back({user.name, user.secret});
  }
  BASCULE_FUZZ_CHECK(plain);
  const auto again = cli::parse_userlist(cli::render_userlist(*users), "file");
  BASCULE_FUZZ_CHECK(again.has_value() && again->size() == users->size());
  for (size_t i = 0; i < users->size(); ++i) {
    BASCULE_FUZZ_CHECK((*again)[i].name == (*users)[i].name &&
                       (*again)[i].secret == (*users)[i].secret);
  }
  (void)proxy::Users::build(list, "installation");
  return 0;
}
