#include "proxy/parsed_texts.h"

#include "base/hash.h"

namespace bascule::proxy {

uint64_t ParsedTexts::key(uint64_t plan, std::string_view sql, std::string_view types) {
  return fnv1a(types, fnv1a(std::string_view("\0", 1), fnv1a(sql, plan)));
}

void ParsedTexts::add(uint64_t key, uint64_t plans) {
  const std::lock_guard lock(mutex_);
  if (known_.size() >= kMax) known_.clear();
  known_[key] = plans;
}

bool ParsedTexts::has(uint64_t key, uint64_t plans) {
  const std::lock_guard lock(mutex_);
  const auto it = known_.find(key);
  return it != known_.end() && it->second == plans;
}

ParsedTexts& ParsedTextsTable::of(const std::string& user, const std::string& database) {
  const std::lock_guard lock(mutex_);
  auto& texts = known_[{user, database}];
  if (!texts) texts = std::make_unique<ParsedTexts>();
  return *texts;
}

}  // namespace bascule::proxy
