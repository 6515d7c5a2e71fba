// Any text of rules and maps is refused with a line number or gives rules that can be matched; what
// matches is what the rule says.
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "fuzz/check.h"
#include "proxy/hba.h"

using namespace bascule::proxy;

namespace {

void check_match(const HbaRules& rules, const HbaClient& client) {
  const HbaRule* rule = rules.match(client);
  if (rule == nullptr) return;
  using Connection = HbaRule::Connection;
  BASCULE_FUZZ_CHECK((rule->connection == Connection::kLocal) == !client.address);
  if (rule->connection == Connection::kHostSsl) BASCULE_FUZZ_CHECK(client.tls);
  if (rule->connection == Connection::kHostNoSsl) BASCULE_FUZZ_CHECK(!client.tls);
  if (rule->network) BASCULE_FUZZ_CHECK(rule->network->contains(*client.address));
  if (rule->method == AuthMethod::kPeer) BASCULE_FUZZ_CHECK(!client.address);
  if (rule->method == AuthMethod::kCert) BASCULE_FUZZ_CHECK(client.tls);
  (void)rules.allows(rule->map, client.user, client.database);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  const size_t cut = bytes.find('\x01');
  const std::string_view ident =
      cut == std::string_view::npos ? std::string_view() : bytes.substr(cut + 1);
  const auto rules = HbaRules::parse(bytes.substr(0, cut), "hba", ident, "ident");
  if (!rules) {
    BASCULE_FUZZ_CHECK(rules.error().message.starts_with("hba") ||
                       rules.error().message.starts_with("ident"));
    return 0;
  }
  const std::vector<std::string> roles = {"app", "staff"};
  for (const char* address : {"127.0.0.1", "10.1.2.3", "fe80::1", ""}) {
    for (const bool tls : {false, true}) {
      HbaClient client;
      client.address = bascule::parse_address(address);
      client.tls = tls;
      client.user = "app";
      client.database = "db";
      check_match(*rules, client);
      client.roles = &roles;
      client.replication = tls;
      check_match(*rules, client);
    }
  }
  return 0;
}
