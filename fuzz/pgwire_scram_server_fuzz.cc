// Nobody without the password gets a ScramServer to done(). Byte 0 decides: client-first and
// client-final are the input itself, or those of a real exchange with bytes changed; or the input
// is a verifier or base64, which come back the same when they are accepted.
#include <cstddef>
#include <cstdint>
#include <string>

#include "fuzz/check.h"
#include "pgwire/scram.h"

using namespace bascule::pgwire;

namespace {

const ScramVerifier& verifier() {
  static const ScramVerifier value = make_verifier("pencil", "salt", 1).value();
  return value;
}

ScramServer make_server(bool binding) {
  return ScramServer(verifier(), "server",
                     binding ? ChannelBinding{.data = "hash"} : ChannelBinding{});
}

struct Exchange {
  std::string client_first, client_final;
};

Exchange real_exchange(bool binding) {
  ScramClient client("pencil", "client",
                     binding ? ChannelBinding{.data = "hash"} : ChannelBinding{});
  ScramServer server = make_server(binding);
  Exchange exchange;
  exchange.client_first = client.first().value();
  const auto reply = server.on_first(client.mechanism(), exchange.client_first);
  exchange.client_final = client.on_continue(reply.value()).value();
  return exchange;
}

bool accepts(bool binding, std::string_view mechanism, const Exchange& exchange) {
  ScramServer server = make_server(binding);
  const auto reply = server.on_first(mechanism, exchange.client_first);
  if (reply) BASCULE_FUZZ_CHECK(reply->size() <= kScramMaxMessage);
  const auto final = server.on_final(exchange.client_final);
  BASCULE_FUZZ_CHECK(final.has_value() == server.done());
  BASCULE_FUZZ_CHECK(server.done() == (server.failure() == ScramFailure::kNone));
  BASCULE_FUZZ_CHECK(reply.has_value() || !server.done());
  return server.done();
}

void change(std::string& text, std::string_view edits) {
  for (size_t i = 0; i + 1 < edits.size(); i += 2) {
    text[static_cast<unsigned char>(edits[i]) % text.size()] = edits[i + 1];
  }
}

void check_text_formats(std::string_view input) {
  if (const auto parsed = ScramVerifier::parse(input)) {
    BASCULE_FUZZ_CHECK(parsed->to_string() == input);
  }
  if (const auto decoded = bascule::base64_decode(input)) {
    BASCULE_FUZZ_CHECK(bascule::base64_encode(*decoded) == input);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  static const Exchange real[] = {real_exchange(false), real_exchange(true)};
  const std::string_view input(reinterpret_cast<const char*>(data) + 1, size - 1);
  const bool binding = (data[0] & 4) != 0;
  const std::string_view mechanism = (data[0] & 8) != 0 ? kScramSha256Plus : kScramSha256;
  switch (data[0] & 3) {
    case 0: {
      const size_t newline = std::min(input.find('\n'), input.size());
      const Exchange raw{std::string(input.substr(0, newline)),
                         std::string(input.substr(std::min(newline + 1, input.size())))};
      if (accepts(binding, mechanism, raw)) {
        BASCULE_FUZZ_CHECK(raw.client_final == real[binding].client_final);
      }
      break;
    }
    case 1: {
      const std::string_view right = binding ? kScramSha256Plus : kScramSha256;
      Exchange bent = real[binding];
      const size_t half = input.size() / 2 & ~size_t{1};
      change(bent.client_first, input.substr(0, half));
      change(bent.client_final, input.substr(half));
      const bool same = bent.client_first == real[binding].client_first &&
                        bent.client_final == real[binding].client_final;
      BASCULE_FUZZ_CHECK(accepts(binding, right, bent) == same);
      break;
    }
    default:
      check_text_formats(input);
      break;
  }
  return 0;
}
