// Verdicts of the longer texts that come again and again, byte by byte the same: prepared
// statements and what an ORM writes. Asked before a text is scanned, which takes 0.7 ns a byte;
// this takes less than a tenth. A text has one place, which others may take: that it is scanned
// again then is all that a hostile choice of texts can do.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include "sql/analysis.h"

namespace bascule::proxy {

class ExactVerdicts {
 public:
  // Null: not known. Valid until the next call.
  const sql::Analysis* find(std::string_view sql) {
    asked_ = nullptr;
    if (sql.size() < kBytesMin || sql.size() > kBytesMax) return nullptr;
    if (!places_) places_ = std::make_unique<Places>();
    mark_ = mark_of(sql);
    asked_ = &(*places_)[mark_ >> kPlaceShift];
    if (asked_->text != sql) return nullptr;
    asked_->needed = kNeededMin;
    return &asked_->analysis;
  }
  // Of the text that find() was asked for last. Kept when its mark has come often enough: texts
  // with ever new literals don't come again, and of those that have one mark ever fewer are tried.
  void learn(std::string_view sql, const sql::Analysis& analysis) {
    if (asked_ == nullptr) return;
    Place& place = *asked_;
    if (std::exchange(place.mark, mark_) != mark_) {
      place.seen = 0;
      place.needed = kNeededMin;
    }
    if (++place.seen < place.needed) return;
    place.seen = 0;
    place.needed = std::min(2 * place.needed, kNeededMax);
    place.text = sql;
    place.analysis = analysis;
  }
  void clear() {
    places_.reset();
    asked_ = nullptr;
  }

 private:
  // Shorter ones are scanned as quickly. 128 KiB of text at most.
  static constexpr size_t kBytesMin = 128, kBytesMax = 2'048, kPlaces = 64;
  static constexpr int kPlaceShift = 58;  // the upper bits are those that every word has a part in
  static constexpr uint32_t kNeededMin = 2, kNeededMax = 1'024;
  struct Place {
    uint64_t mark = 0;  // of the last one that was not found here
    uint32_t seen = 0;  // how often in turn
    uint32_t needed = kNeededMin;
    std::string text;
    sql::Analysis analysis;
  };
  using Places = std::array<Place, kPlaces>;

  // Of eight words spread over the text: which place it has need not be right, only quick.
  static uint64_t mark_of(std::string_view sql) {
    constexpr size_t kWords = 8;
    uint64_t mark = sql.size();
    for (size_t i = 0; i < kWords; ++i) {
      uint64_t word = 0;
      std::memcpy(&word, sql.data() + i * (sql.size() - sizeof(word)) / (kWords - 1), sizeof(word));
      mark = (mark ^ word) * 0x9E3779B97F4A7C15u;
      mark ^= mark >> 32;
    }
    return mark;
  }

  std::unique_ptr<Places> places_;  // null until there is such a text
  Place* asked_ = nullptr;          // null: not for here
  uint64_t mark_ = 0;
};

}  // namespace bascule::proxy
