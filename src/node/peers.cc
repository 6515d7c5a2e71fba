#include "node/peers.h"

#include <fmt/format.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <utility>

namespace bascule::node {
namespace {

using control::PeerOutcome;
using control::PeerReply;
using control::PeerRequest;
using nlohmann::json;

constexpr size_t kBytesMax = 4096;
constexpr size_t kRunBytes = 12;
constexpr size_t kRunsRemembered = 256;
constexpr Millis kConnectWithin{250};
constexpr Millis kAnswerWithin{400};

Result<json> parse(const std::string& text) {
  if (text.size() > kBytesMax) return fail(ErrorCode::kInvalid, "peer: too long");
  json out = json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!out.is_object()) return fail(ErrorCode::kInvalid, "peer: not a JSON object");
  return out;
}

std::string text_of(const json& object, const char* key) {
  const auto found = object.find(key);
  return found != object.end() && found->is_string() ? found->get<std::string>() : "";
}

bool same(const std::string& a, const std::string& b) {
  return !a.empty() && a.size() == b.size() && CRYPTO_memcmp(a.data(), b.data(), a.size()) == 0;
}

// Names have no line ends, so the parts can't be read in another way.
std::string request_text(const std::string& cluster, const std::string& to, const std::string& run,
                         uint64_t n, const std::string& message) {
  return fmt::format("bascule peer request\n{}\n{}\n{}\n{}\n{}", cluster, to, run, n, message);
}
std::string reply_text(const std::string& run, uint64_t n, const std::string& message) {
  return fmt::format("bascule peer reply\n{}\n{}\n{}", run, n, message);
}

}  // namespace

Peers::Peers(Identity identity, env::HttpClient* http, env::Entropy& entropy)
    : identity_(std::move(identity)), http_(http), run_(entropy.hex(kRunBytes)) {}

// Hexadecimal; empty, and so equal to nothing, if it can't be made.
std::string Peers::mac(const std::string& text) const {
  std::array<unsigned char, EVP_MAX_MD_SIZE> digest{};
  unsigned size = 0;
  if (identity_.secret.empty() ||
      HMAC(EVP_sha256(), identity_.secret.data(), static_cast<int>(identity_.secret.size()),
           reinterpret_cast<const unsigned char*>(text.data()), text.size(), digest.data(),
           &size) == nullptr) {
    return {};
  }
  std::string out;
  for (unsigned i = 0; i < size; ++i) out += fmt::format("{:02x}", digest[i]);
  return out;
}

std::string Peers::seal(const NodeName& to, uint64_t n, const PeerRequest& request) const {
  const std::string message = control::encode(request);
  const std::string text = request_text(identity_.cluster, to.str(), run_, n, message);
  return json{{"cluster", identity_.cluster}, {"to", to.str()},  {"run", run_}, {"n", n},
              {"message", message},           {"mac", mac(text)}}
      .dump();
}

void Peers::ask(const NodeName& member, const std::string& url, const PeerRequest& request,
                Answered done) {
  if (http_ == nullptr) return done(PeerOutcome::kSilent, {});
  const uint64_t n = next_++;
  env::HttpRequest http;
  http.url = url + "/peer";
  http.body = seal(member, n, request);
  http.connect_timeout = kConnectWithin;
  http.timeout = kAnswerWithin;
  http.answer_bytes_max = kBytesMax;
  http_->send(std::move(http), [this, n, done = std::move(done)](env::HttpAnswer answer) {
    if (answer.status == 0) {
      return done(answer.refused ? PeerOutcome::kRefused : PeerOutcome::kSilent, {});
    }
    auto reply = answer.status == 200 ? open_reply(answer.body, n)
                                      : fail(ErrorCode::kConflict, "peer: it refuses");
    if (!reply) return done(PeerOutcome::kSilent, {});
    done(PeerOutcome::kAnswered, std::move(*reply));
  });
}

Result<PeerReply> Peers::open_reply(const std::string& sealed, uint64_t n) const {
  const auto object = parse(sealed);
  if (!object) return std::unexpected(object.error());
  const std::string message = text_of(*object, "message");
  if (!same(text_of(*object, "mac"), mac(reply_text(run_, n, message)))) {
    return fail(ErrorCode::kInvalid, "peer: the seal is wrong");
  }
  return control::decode_peer_reply(message);
}

Result<Peers::Opened> Peers::open(const std::string& sealed) {
  const auto object = parse(sealed);
  if (!object) return std::unexpected(object.error());
  Opened out;
  out.run = text_of(*object, "run");
  const auto n = object->find("n");
  if (n != object->end() && n->is_number_unsigned()) out.n = n->get<uint64_t>();
  const std::string message = text_of(*object, "message");
  const std::string text =
      request_text(identity_.cluster, identity_.me.str(), out.run, out.n, message);
  if (!same(text_of(*object, "mac"), mac(text))) {
    return fail(ErrorCode::kInvalid, "peer: the seal is wrong",
                "Have all members the same replication password and cluster name?");
  }
  auto request = control::decode_peer_request(message);
  if (!request) return std::unexpected(request.error());
  out.request = std::move(*request);
  Seen& seen = seen_[out.request.from];
  const bool old = std::ranges::find(seen.retired, out.run) != seen.retired.end();
  if (old || (seen.run == out.run && out.n <= seen.n)) {
    return fail(ErrorCode::kInvalid, "peer: seen before");
  }
  if (seen.run != out.run && !seen.run.empty()) {
    seen.retired.push_back(seen.run);
    if (seen.retired.size() > kRunsRemembered) seen.retired.pop_front();
  }
  seen.run = out.run;
  seen.n = out.n;
  return out;
}

std::string Peers::seal(const Opened& question, const PeerReply& reply) const {
  const std::string message = control::encode(reply);
  return json{{"message", message}, {"mac", mac(reply_text(question.run, question.n, message))}}
      .dump();
}

}  // namespace bascule::node
