// No server without the verifier gets a ScramClient to done(). Byte 0 decides: the messages are
// the input itself (server-first and server-final, separated by a newline), or those of a real
// exchange with the bytes changed that the input names.
#include <cstddef>
#include <cstdint>
#include <string>

#include "fuzz/check.h"
#include "pgwire/scram.h"

using namespace bascule::pgwire;

namespace {

constexpr uint32_t kIterations = 1;  // hashing is not what is fuzzed

ScramClient make_client() { return ScramClient("pencil", "client", {}, 8); }

struct Exchange {
  std::string server_first, server_final;
};

Exchange real_exchange() {
  ScramClient client = make_client();
  ScramServer server(make_verifier("pencil", "salt", kIterations).value(), "server");
  Exchange exchange;
  exchange.server_first = server.on_first(kScramSha256, client.first().value()).value();
  exchange.server_final =
      server.on_final(client.on_continue(exchange.server_first).value()).value();
  return exchange;
}

bool accepts(const std::string& server_first, const std::string& server_final) {
  ScramClient client = make_client();
  BASCULE_FUZZ_CHECK(client.first().has_value());
  const auto answer = client.on_continue(server_first);
  if (answer) BASCULE_FUZZ_CHECK(answer->size() <= kScramMaxMessage);
  const auto status = client.on_final(server_final);
  BASCULE_FUZZ_CHECK(status.has_value() == client.done());
  BASCULE_FUZZ_CHECK(answer.has_value() || !client.done());
  return client.done();
}

// Pairs of (position, byte).
void change(std::string& text, std::string_view edits) {
  for (size_t i = 0; i + 1 < edits.size(); i += 2) {
    text[static_cast<unsigned char>(edits[i]) % text.size()] = edits[i + 1];
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  static const Exchange real = real_exchange();
  const std::string_view input(reinterpret_cast<const char*>(data) + 1, size - 1);
  if (data[0] % 2 == 0) {
    const size_t newline = std::min(input.find('\n'), input.size());
    const std::string first(input.substr(0, newline));
    const std::string final(input.substr(std::min(newline + 1, input.size())));
    if (accepts(first, final)) BASCULE_FUZZ_CHECK(first == real.server_first);
    return 0;
  }
  Exchange bent = real;
  const size_t half = input.size() / 2 & ~size_t{1};
  change(bent.server_first, input.substr(0, half));
  change(bent.server_final, input.substr(half));
  const bool same =
      bent.server_first == real.server_first && bent.server_final == real.server_final;
  BASCULE_FUZZ_CHECK(accepts(bent.server_first, bent.server_final) == same);
  return 0;
}
