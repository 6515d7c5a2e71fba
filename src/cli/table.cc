#include "cli/table.h"

#include <algorithm>

namespace bascule::cli {
namespace {

constexpr std::string_view kGap = "  ";
constexpr std::string_view kEllipsis = "…";

bool continues(char c) { return (static_cast<unsigned char>(c) & 0xC0) == 0x80; }

std::string cut(const std::string& text, size_t width) {
  if (display_width(text) <= width) return text;
  std::string out;
  size_t used = 0;
  for (const char c : text) {
    if (!continues(c) && ++used >= width) break;
    out += c;
  }
  return out + std::string(kEllipsis);
}

}  // namespace

size_t display_width(std::string_view utf8) {
  return static_cast<size_t>(std::ranges::count_if(utf8, [](char c) { return !continues(c); }));
}

void Table::add(std::vector<std::string> cells) {
  cells.resize(columns_.size());
  for (std::string& cell : cells) {
    // What members wrote into the store must not steer the terminal.
    for (char& c : cell) {
      if (static_cast<unsigned char>(c) < 0x20 || c == 0x7F) c = ' ';
    }
  }
  rows_.push_back(std::move(cells));
}

std::string Table::render(size_t width_max) const {
  std::vector<size_t> widths;
  for (size_t i = 0; i < columns_.size(); ++i) {
    size_t width = display_width(columns_[i].title);
    for (const auto& row : rows_) width = std::max(width, display_width(row[i]));
    widths.push_back(width);
  }
  if (width_max > 0) {
    size_t before = 0;
    for (size_t i = 0; i + 1 < widths.size(); ++i) before += widths[i] + kGap.size();
    const size_t least = display_width(columns_.back().title);
    const size_t left = width_max > before ? width_max - before : 0;
    widths.back() = std::min(widths.back(), std::max(least, left));
  }
  std::string out;
  const auto line = [&](auto cell_of) {
    std::string text;
    for (size_t i = 0; i < columns_.size(); ++i) {
      const std::string cell = cut(cell_of(i), widths[i]);
      const std::string padding(widths[i] - display_width(cell), ' ');
      if (i > 0) text += kGap;
      text += columns_[i].align == Align::kRight ? padding + cell : cell + padding;
    }
    text.erase(text.find_last_not_of(' ') + 1);
    out += text + '\n';
  };
  line([&](size_t i) { return columns_[i].title; });
  line([&](size_t i) {
    std::string rule;
    for (size_t n = 0; n < widths[i]; ++n) rule += "─";
    return rule;
  });
  for (const auto& row : rows_) line([&](size_t i) { return row[i]; });
  return out;
}

}  // namespace bascule::cli
