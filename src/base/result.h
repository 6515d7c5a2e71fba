// Errors as values. An Error says what happened, where, and what to do about it, in one line that
// can be shown to the person who runs the program. Exceptions are for programming errors and
// out-of-memory only (ADR 0001).
#pragma once

#include <expected>
#include <string>
#include <utility>

namespace bascule {

enum class ErrorCode {
  kInternal,
  kInvalid,  // input that can never succeed: configuration, malformed data
  kNotFound,
  kConflict,     // somebody else changed it first
  kUnavailable,  // may succeed later: connection refused, busy, starting
  kTimeout,
  kUnknown,  // the outcome is not known: the request may have been carried out
};

struct Error {
  ErrorCode code = ErrorCode::kInternal;
  std::string message;  // what and where: `primary_conninfo: host "db1" not found (node n2)`
  std::string hint;     // what to do, may be empty

  // "message. hint" for people.
  std::string to_string() const { return hint.empty() ? message : message + ". " + hint; }
};

template <typename T>
using Result = std::expected<T, Error>;
using Status = Result<void>;

inline std::unexpected<Error> fail(ErrorCode code, std::string message, std::string hint = {}) {
  return std::unexpected(Error{code, std::move(message), std::move(hint)});
}

}  // namespace bascule
