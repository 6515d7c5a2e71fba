#include "pgwire/scram.h"
#include "pgwire/scram_internal.h"
#include "pgwire/startup.h"

namespace bascule::pgwire {
namespace {

constexpr std::string_view kBindingHeader = "p=tls-server-end-point,,";

// Why the gs2 header at the front of the client's first message is not acceptable; nullptr if it
// is. `header`: the header found, "n,,", "y,," or kBindingHeader.
const char* check_gs2_header(std::string_view message, bool plus, bool binding_offered,
                             std::string_view& header) {
  if (message.starts_with("n,,") || message.starts_with("y,,")) {
    header = message.substr(0, 3);
    if (plus) return "mechanism SCRAM-SHA-256-PLUS without channel binding";
    // RFC 5802, section 6: somebody between us took -PLUS out of the list.
    if (message[0] == 'y' && binding_offered) return "channel binding was downgraded";
    return nullptr;
  }
  if (message.starts_with("p=")) {
    if (!plus) return "channel binding without mechanism SCRAM-SHA-256-PLUS";
    if (!message.starts_with(kBindingHeader)) return "unsupported channel binding or authzid";
    header = kBindingHeader;
    return nullptr;
  }
  if (message.starts_with("n,a=") || message.starts_with("y,a=")) return "authzid not supported";
  return "malformed client-first-message";
}

}  // namespace

ScramServer::ScramServer(ScramVerifier verifier, std::string nonce, ChannelBinding binding)
    : verifier_(std::move(verifier)), nonce_(std::move(nonce)), binding_(std::move(binding)) {}

ScramServer::~ScramServer() {
  scram::wipe(verifier_.stored_key);
  scram::wipe(verifier_.server_key);
}

Result<std::string> ScramServer::refuse(ScramFailure failure, std::string_view message) {
  state_ = State::kFailed;
  failure_ = failure;
  return fail(ErrorCode::kInvalid, "SCRAM: " + std::string(message));
}

Result<std::string> ScramServer::on_first(std::string_view mechanism,
                                          std::string_view client_first) {
  using enum ScramFailure;
  if (state_ != State::kStart) return refuse(kProtocol, "client-first-message out of turn");
  if (!scram::valid_nonce(nonce_)) {
    return refuse(kProtocol, "internal: bad nonce");
  }
  if (client_first.size() > kScramMaxMessage) return refuse(kProtocol, "message too long");
  const bool plus = mechanism == kScramSha256Plus;
  const bool offered = !binding_.data.empty();
  if ((!plus && mechanism != kScramSha256) || (plus && !offered)) {
    return refuse(kProtocol, "mechanism not offered");
  }
  std::string_view header;
  if (const char* wrong = check_gs2_header(client_first, plus, offered, header)) {
    return refuse(kProtocol, wrong);
  }
  const std::string_view bare = client_first.substr(header.size());
  scram::Attributes attributes(bare);
  if (!attributes.next('n')) return refuse(kProtocol, "malformed or mandatory extension");
  const auto client_nonce = attributes.next('r');
  if (!client_nonce || !scram::valid_nonce(*client_nonce) ||
      client_nonce->size() + nonce_.size() > kScramMaxNonce) {
    return refuse(kProtocol, "malformed nonce");
  }
  while (!attributes.at_end()) {
    if (!attributes.next()) return refuse(kProtocol, "malformed extension");
  }
  gs2_header_ = header;
  first_bare_ = bare;
  full_nonce_ = std::string(*client_nonce) + nonce_;
  server_first_ = "r=" + full_nonce_ + ",s=" + base64_encode(verifier_.salt) +
                  ",i=" + std::to_string(verifier_.iterations);
  state_ = State::kSentFirst;
  return server_first_;
}

Result<std::string> ScramServer::on_final(std::string_view client_final) {
  using enum ScramFailure;
  if (state_ != State::kSentFirst) return refuse(kProtocol, "client-final-message out of turn");
  if (client_final.size() > kScramMaxMessage) return refuse(kProtocol, "message too long");

  scram::Attributes attributes(client_final);
  const auto binding = attributes.next('c');
  const auto nonce = attributes.next('r');
  if (!binding || !nonce) return refuse(kProtocol, "malformed client-final-message");
  size_t without_proof = attributes.offset();
  auto proof_text = attributes.next();
  while (proof_text && proof_text->name != 'p') {  // extensions
    without_proof = attributes.offset();
    proof_text = attributes.next();
  }
  const auto proof = proof_text ? scram::decode_key(proof_text->value) : std::nullopt;
  if (!proof || !attributes.at_end()) return refuse(kProtocol, "malformed client-final-message");
  if (*nonce != full_nonce_) return refuse(kProtocol, "nonce does not match");
  const bool bound = gs2_header_ == kBindingHeader;
  if (!secrets_equal(*binding, base64_encode(gs2_header_ + (bound ? binding_.data : "")))) {
    return refuse(kProtocol, "channel binding check failed");
  }

  const std::string signed_text =
      scram::auth_message(first_bare_, server_first_, client_final.substr(0, without_proof));
  const auto signature = scram::hmac(scram::view(verifier_.stored_key), signed_text);
  const auto server_signature = scram::hmac(scram::view(verifier_.server_key), signed_text);
  if (!signature || !server_signature) return refuse(kRefused, "the crypto library failed");
  Sha256Key client_key = scram::xor_keys(*proof, *signature);
  const auto stored_key = scram::sha256(scram::view(client_key));
  if (!stored_key || !secrets_equal(scram::view(*stored_key), scram::view(verifier_.stored_key))) {
    scram::wipe(client_key);
    return refuse(kRefused, "password authentication failed");
  }
  keys_.client_key = client_key;
  keys_.server_key = verifier_.server_key;
  scram::wipe(client_key);
  state_ = State::kDone;
  return "v=" + base64_encode(scram::view(*server_signature));
}

}  // namespace bascule::pgwire
