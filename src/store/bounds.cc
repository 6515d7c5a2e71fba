#include "store/bounds.h"

#include <fmt/format.h>

#include <set>

namespace bascule::store {
namespace {

Status check_key(std::string_view key) {
  if (key.empty()) return fail(ErrorCode::kInvalid, "store: empty key");
  if (key.size() > kKeyBytesMax) {
    return fail(ErrorCode::kInvalid, fmt::format("store: key of {} bytes, at most {} are allowed",
                                                 key.size(), kKeyBytesMax));
  }
  return {};
}

}  // namespace

Status check_bounds(const Txn& txn) {
  const size_t items = txn.compares.size() + txn.writes.size();
  if (items > kTxnItemsMax) {
    return fail(ErrorCode::kInvalid,
                fmt::format("store: transaction of {} compares and writes, at most {} are allowed",
                            items, kTxnItemsMax));
  }
  for (const auto& compare : txn.compares) {
    if (auto ok = check_key(compare.key); !ok) return ok;
  }
  std::set<std::string_view> written;
  for (const auto& write : txn.writes) {
    if (auto ok = check_key(write.key); !ok) return ok;
    if (write.value && write.value->size() > kValueBytesMax) {
      return fail(ErrorCode::kInvalid,
                  fmt::format("store: value of {} bytes for key \"{}\", at most {} are allowed",
                              write.value->size(), write.key, kValueBytesMax));
    }
    if (!written.insert(write.key).second) {
      return fail(ErrorCode::kInvalid,
                  fmt::format("store: key \"{}\" written twice in one transaction", write.key));
    }
  }
  return {};
}

Status check_prefix(std::string_view prefix) {
  if (prefix.size() <= kKeyBytesMax) return {};
  return fail(ErrorCode::kInvalid, fmt::format("store: prefix of {} bytes, at most {} are allowed",
                                               prefix.size(), kKeyBytesMax));
}

std::optional<std::string> prefix_end(std::string_view prefix) {
  std::string end(prefix);
  while (!end.empty() && static_cast<unsigned char>(end.back()) == 0xff) end.pop_back();
  if (end.empty()) return std::nullopt;
  end.back() = static_cast<char>(static_cast<unsigned char>(end.back()) + 1);
  return end;
}

}  // namespace bascule::store
