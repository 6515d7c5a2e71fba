#include "pgwire/scram.h"
#include "pgwire/scram_internal.h"
#include "pgwire/startup.h"

namespace bascule::pgwire {
namespace {

constexpr size_t kMaxClientNonce = 256;

std::unexpected<Error> protocol_error(const char* what) {
  return fail(ErrorCode::kInvalid, std::string("SCRAM: ") + what);
}

std::string gs2_header(const ChannelBinding& binding) {
  if (!binding.data.empty()) return "p=tls-server-end-point,,";
  return binding.support == ChannelBinding::Support::kClientSupports ? "y,," : "n,,";
}

}  // namespace

ScramClient::ScramClient(Credential credential, std::string nonce, ChannelBinding binding,
                         uint32_t max_iterations)
    : credential_(std::move(credential)),
      nonce_(std::move(nonce)),
      binding_(std::move(binding)),
      max_iterations_(max_iterations) {}

ScramClient::~ScramClient() {
  if (auto* password = std::get_if<std::string>(&credential_)) scram::wipe(*password);
  scram::wipe(expected_server_signature_);
}

std::string_view ScramClient::mechanism() const {
  return binding_.data.empty() ? kScramSha256 : kScramSha256Plus;
}

Result<std::string> ScramClient::first() {
  if (state_ != State::kStart || nonce_.size() > kMaxClientNonce || !scram::valid_nonce(nonce_)) {
    state_ = State::kFailed;
    return fail(ErrorCode::kInternal, "SCRAM: started twice or with a bad nonce");
  }
  // PostgreSQL takes the user of the start-up packet; libpq leaves this one empty too.
  first_bare_ = "n=,r=" + nonce_;
  state_ = State::kSentFirst;
  return gs2_header(binding_) + first_bare_;
}

Result<std::string> ScramClient::on_continue(std::string_view server_first) {
  const bool expected = state_ == State::kSentFirst;
  state_ = State::kFailed;  // until the end of this function is reached
  if (!expected) return protocol_error("server-first-message out of turn");
  if (server_first.size() > kScramMaxMessage) return protocol_error("message too long");

  scram::Attributes attributes(server_first);
  const auto nonce = attributes.next('r');
  if (!nonce || !scram::valid_nonce(*nonce) || nonce->size() <= nonce_.size() ||
      !nonce->starts_with(nonce_)) {
    return protocol_error("the server's nonce is malformed or does not extend ours");
  }
  const auto salt_text = attributes.next('s');
  if (!salt_text) return protocol_error("no salt from the server");
  const auto salt = base64_decode(*salt_text);
  if (!salt || salt->empty() || salt->size() > kScramMaxSalt) {
    return protocol_error("malformed salt from the server");
  }
  const auto iterations_text = attributes.next('i');
  if (!iterations_text) return protocol_error("no iteration count from the server");
  const auto iterations = scram::parse_iterations(*iterations_text, max_iterations_);
  if (!iterations) return protocol_error("the server's iteration count is out of bounds");
  // What follows are optional extensions: a mandatory one ("m=") stands before "r=".

  if (const auto* password = std::get_if<std::string>(&credential_)) {
    auto keys = derive_keys(*password, *salt, *iterations);
    if (!keys) return std::unexpected(keys.error());
    keys_ = *keys;
  } else {
    keys_ = std::get<ScramKeys>(credential_);
  }

  std::string final = "c=" + base64_encode(gs2_header(binding_) + binding_.data);
  final.append(",r=").append(*nonce);
  const std::string signed_text = scram::auth_message(first_bare_, server_first, final);
  const auto stored_key = scram::sha256(scram::view(keys_.client_key));
  const auto server_signature = scram::hmac(scram::view(keys_.server_key), signed_text);
  if (!stored_key || !server_signature) return protocol_error("the crypto library failed");
  const auto signature = scram::hmac(scram::view(*stored_key), signed_text);
  if (!signature) return protocol_error("the crypto library failed");
  expected_server_signature_ = *server_signature;
  const Sha256Key proof = scram::xor_keys(keys_.client_key, *signature);
  final.append(",p=").append(base64_encode(scram::view(proof)));
  state_ = State::kSentFinal;
  return final;
}

Status ScramClient::on_final(std::string_view server_final) {
  const bool expected = state_ == State::kSentFinal;
  state_ = State::kFailed;
  if (!expected) return protocol_error("server-final-message out of turn");
  if (server_final.size() > kScramMaxMessage) return protocol_error("message too long");
  if (server_final.starts_with("e=")) return protocol_error("the server refused the login");
  const auto encoded = scram::Attributes(server_final).next('v');
  const auto signature = encoded ? scram::decode_key(*encoded) : std::nullopt;
  if (!signature) return protocol_error("malformed server-final-message");
  if (!secrets_equal(scram::view(*signature), scram::view(expected_server_signature_))) {
    return fail(ErrorCode::kInvalid, "SCRAM: the server's signature is wrong",
                "it does not know the password's verifier: check that it is the right server");
  }
  state_ = State::kDone;
  return {};
}

}  // namespace bascule::pgwire
