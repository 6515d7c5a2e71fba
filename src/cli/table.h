// Text tables for terminals: columns as wide as their widest cell (in characters, not bytes).
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace bascule::cli {

enum class Align { kLeft, kRight };

class Table {
 public:
  struct Column {
    std::string title;
    Align align = Align::kLeft;
  };
  explicit Table(std::vector<Column> columns) : columns_(std::move(columns)) {}
  // As many cells as columns; line breaks and control characters are shown as spaces.
  void add(std::vector<std::string> cells);
  // Cells of the last column are cut with "…" so that no line is longer; 0: no limit.
  std::string render(size_t width_max = 0) const;

 private:
  std::vector<Column> columns_;
  std::vector<std::vector<std::string>> rows_;
};

size_t display_width(std::string_view utf8);

}  // namespace bascule::cli
