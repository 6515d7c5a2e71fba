// What is known of statement texts, by exact key. One worker's: no lock. Bounded by count and
// bytes: two generations, of which the older is dropped when the younger is full, so that a hit
// writes nothing most of the time.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>

namespace bascule::proxy {

template <class Value>
class TextCache {
 public:
  struct Limits {
    size_t count = 10'000;
    size_t bytes = 8 * 1024 * 1024;
  };
  explicit TextCache(Limits limits) : limits_(limits) {}

  // Null: not known. Valid until the next insert() or clear().
  const Value* find(std::string_view key) {
    if (const auto found = young_.find(key); found != young_.end()) return &found->second;
    const auto found = old_.find(key);
    if (found == old_.end()) return nullptr;
    auto node = old_.extract(found);
    old_bytes_ -= node.key().size() + kEntryBytes;
    make_room(node.key().size() + kEntryBytes);
    return &young_.insert(std::move(node)).position->second;
  }
  // Null: too long to be kept.
  const Value* insert(const std::string& key, Value&& value) {
    const size_t bytes = key.size() + kEntryBytes;
    if (bytes > limits_.bytes / 16) return nullptr;  // one text must not push out all the others
    make_room(bytes);
    return &young_.insert_or_assign(key, std::move(value)).first->second;
  }
  void clear() {
    young_.clear();
    old_.clear();
    young_bytes_ = old_bytes_ = 0;
  }
  size_t size() const { return young_.size() + old_.size(); }
  size_t bytes() const { return young_bytes_ + old_bytes_; }

 private:
  struct Hash {
    using is_transparent = void;
    size_t operator()(std::string_view text) const { return std::hash<std::string_view>{}(text); }
  };
  using Map = std::unordered_map<std::string, Value, Hash, std::equal_to<>>;
  // A node of the map, two small strings' heaps: what an entry takes besides its text.
  static constexpr size_t kEntryBytes = 160;

  void make_room(size_t bytes) {
    if (young_.size() >= limits_.count / 2 || young_bytes_ + bytes > limits_.bytes / 2) {
      old_ = std::exchange(young_, {});
      old_bytes_ = std::exchange(young_bytes_, 0);
    }
    young_bytes_ += bytes;
  }

  const Limits limits_;
  Map young_, old_;
  size_t young_bytes_ = 0, old_bytes_ = 0;
};

}  // namespace bascule::proxy
