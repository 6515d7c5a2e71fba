// SCRAM-SHA-256 and SCRAM-SHA-256-PLUS as PostgreSQL speaks it, both sides, as pure state machines
// (RFC 5802, RFC 7677, https://www.postgresql.org/docs/15/sasl-authentication.html). No randomness
// inside: the caller passes nonces and salts (from the operating system's generator).
//
// Passwords: SASLprep (RFC 4013) changes nothing in printable ASCII, and a password for which it
// fails is used as raw bytes by PostgreSQL and by libpq. Here every password is used as raw bytes:
// equal to PostgreSQL for ASCII, for what is not valid UTF-8, and for text that is already
// normalised (NFKC, no exotic spaces); a password that SASLprep would change (for example a
// full-width letter) does not match. Pass-through of keys and stored verifiers are not concerned.
//
// Secrets are wiped when an object dies. No error text holds a secret or a byte of the peer's.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <variant>

#include "base/base64.h"
#include "base/result.h"

namespace bascule::pgwire {

inline constexpr std::string_view kScramSha256 = "SCRAM-SHA-256";
inline constexpr std::string_view kScramSha256Plus = "SCRAM-SHA-256-PLUS";
inline constexpr uint32_t kScramDefaultIterations = 4096;
// PBKDF2 takes about 0.45 µs an iteration on the calling thread (4096: 1.8 ms): this bounds what
// a hostile server costs us to half a second. Event loops log in with keys, not with passwords.
inline constexpr uint32_t kScramMaxIterations = 1'000'000;
inline constexpr size_t kScramMaxMessage = 2048;  // any message of either side
inline constexpr size_t kScramMaxNonce = 512;     // client and server part together
inline constexpr size_t kScramMaxSalt = 256;      // decoded
inline constexpr size_t kScramNonceBytes = 18;    // random bytes to ask for, as PostgreSQL does

using Sha256Key = std::array<uint8_t, 32>;

// What a client can log in with instead of the password: good for one (salt, iterations) pair.
struct ScramKeys {
  Sha256Key client_key{};
  Sha256Key server_key{};
  ScramKeys() = default;
  ScramKeys(const ScramKeys&) = default;
  ScramKeys& operator=(const ScramKeys&) = default;
  ~ScramKeys();
};

// pg_authid.rolpassword: "SCRAM-SHA-256$4096:<salt>$<StoredKey>:<ServerKey>", base64. Not enough to
// log in, but enough to be attacked off line: treat it as a secret.
struct ScramVerifier {
  uint32_t iterations = kScramDefaultIterations;
  std::string salt;  // decoded
  Sha256Key stored_key{};
  Sha256Key server_key{};

  static Result<ScramVerifier> parse(std::string_view text);
  std::string to_string() const;
};
Result<ScramVerifier> make_verifier(std::string_view password, std::string_view salt,
                                    uint32_t iterations = kScramDefaultIterations);
Result<ScramKeys> derive_keys(std::string_view password, std::string_view salt,
                              uint32_t iterations);
// For a user that does not exist: the same salt at each attempt, so that the exchange looks as for
// one that does. `secret`: random, of this installation, stable. No password satisfies it.
ScramVerifier mock_verifier(std::string_view user, std::string_view secret,
                            uint32_t iterations = kScramDefaultIterations);
// Constant time. What auth_query and user lists with clear passwords need.
bool password_matches(const ScramVerifier& verifier, std::string_view password);

// Channel binding of type tls-server-end-point (RFC 5929): `data` is the hash of the server's
// certificate, computed by whoever owns the TLS connection. Empty: none.
struct ChannelBinding {
  std::string data = {};
  // Client only: we could bind, the server did not offer -PLUS: "y,,", which lets a server that
  // did offer it notice that somebody between us removed the offer.
  enum class Support { kNo, kClientSupports } support = Support::kNo;
};

class ScramClient {
 public:
  using Credential = std::variant<std::string /* password */, ScramKeys>;
  // `nonce`: printable ASCII without ',', 1 to 256 bytes (make_nonce()). If `binding.data` is not
  // empty the mechanism is kScramSha256Plus.
  ScramClient(Credential credential, std::string nonce, ChannelBinding binding = {},
              uint32_t max_iterations = kScramMaxIterations);
  ~ScramClient();
  ScramClient(ScramClient&&) = default;
  ScramClient& operator=(ScramClient&&) = default;

  std::string_view mechanism() const;
  // Data of SASLInitialResponse. Once.
  Result<std::string> first();
  // Data of AuthenticationSASLContinue -> data of SASLResponse. Runs PBKDF2 for a password.
  Result<std::string> on_continue(std::string_view server_first);
  // Data of AuthenticationSASLFinal: proves that the server knows the verifier. An AuthenticationOk
  // before this succeeded must be refused (a server that skips it may be anybody).
  Status on_final(std::string_view server_final);
  bool done() const { return state_ == State::kDone; }
  // After on_continue(): what to log in with next time instead of the password (same verifier).
  const ScramKeys& keys() const { return keys_; }

 private:
  enum class State { kStart, kSentFirst, kSentFinal, kDone, kFailed };
  State state_ = State::kStart;
  Credential credential_;
  std::string nonce_;
  ChannelBinding binding_;
  uint32_t max_iterations_;
  std::string first_bare_;
  ScramKeys keys_;
  Sha256Key expected_server_signature_{};
};

// What a failed login was, so that the answer to the client is the right one: kProtocol -> 08P01,
// kRefused -> 28P01 "password authentication failed for user ...", same text for a mock verifier.
enum class ScramFailure { kNone, kProtocol, kRefused };

class ScramServer {
 public:
  // `nonce`: as for the client, from the caller's generator. `binding.data` not empty: -PLUS is
  // offered, and a client that says "y,," (thinks we don't) is refused as a downgrade.
  ScramServer(ScramVerifier verifier, std::string nonce, ChannelBinding binding = {});
  ~ScramServer();
  ScramServer(ScramServer&&) = default;
  ScramServer& operator=(ScramServer&&) = default;

  // SASLInitialResponse -> data of AuthenticationSASLContinue. The user name inside the message is
  // ignored, as in PostgreSQL: the one of the start-up packet counts.
  Result<std::string> on_first(std::string_view mechanism, std::string_view client_first);
  // SASLResponse -> data of AuthenticationSASLFinal; the client is authenticated.
  Result<std::string> on_final(std::string_view client_final);
  bool done() const { return state_ == State::kDone; }
  ScramFailure failure() const { return failure_; }
  // Only if done(): ClientKey recovered from the proof and ServerKey of the verifier, which log in
  // to any server with the same verifier.
  const ScramKeys& keys() const { return keys_; }

 private:
  enum class State { kStart, kSentFirst, kDone, kFailed };
  Result<std::string> refuse(ScramFailure failure, std::string_view message);
  State state_ = State::kStart;
  ScramFailure failure_ = ScramFailure::kNone;
  ScramVerifier verifier_;
  std::string nonce_;
  ChannelBinding binding_;
  std::string gs2_header_;
  std::string first_bare_;
  std::string server_first_;
  std::string full_nonce_;
  ScramKeys keys_;
};

// base64 of `random` (kScramNonceBytes from the operating system): a nonce as above.
std::string make_nonce(std::string_view random);

}  // namespace bascule::pgwire
