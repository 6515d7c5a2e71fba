#include "cli/pgbouncer_ini.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <utility>

namespace bascule::cli {
namespace {

constexpr size_t kFileBytesMax = 1 << 20;
constexpr size_t kLineBytesMax = 16 * 1024;
constexpr size_t kEntriesMax = 100'000;
constexpr size_t kProblemsMax = 1'000;
constexpr int kFilesMax = 20;
constexpr int kLevelsMax = 10;

bool blank(char c) { return c == ' ' || c == '\t' || c == '\r' || c == '\f' || c == '\v'; }

std::string_view trim(std::string_view text) {
  while (!text.empty() && blank(text.front())) text.remove_prefix(1);
  while (!text.empty() && blank(text.back())) text.remove_suffix(1);
  return text;
}

bool key_char(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
         c == '-' || c == '.' || c == '*';
}

class Parser {
 public:
  explicit Parser(const ReadText& read) : read_(read) {}

  void file(std::string_view text, const std::string& name, int level) {
    if (++files_ > kFilesMax) return problem(name, 0, "too many files are included");
    if (text.size() > kFileBytesMax) return problem(name, 0, "is larger than 1 MB");
    int number = 0;
    while (!text.empty()) {
      const size_t end = text.find('\n');
      const std::string_view one = trim(text.substr(0, end));
      text = end == std::string_view::npos ? std::string_view() : text.substr(end + 1);
      line(one, name, ++number, level);
    }
  }
  Ini take() { return std::move(ini_); }

 private:
  void problem(const std::string& file, int line, std::string what) {
    if (ini_.problems.size() < kProblemsMax) {
      ini_.problems.push_back({file, line, std::move(what)});
    }
  }

  void line(std::string_view text, const std::string& file, int number, int level) {
    if (text.empty() || text.front() == ';' || text.front() == '#') return;
    if (text.size() > kLineBytesMax) return problem(file, number, "the line is too long");
    if (text.front() == '%') return include(text, file, number, level);
    if (text.front() == '[') {
      if (text.back() != ']') return problem(file, number, "a section without its ]");
      section_ = trim(text.substr(1, text.size() - 2));
      return;
    }
    entry(text, file, number);
  }

  void entry(std::string_view text, const std::string& file, int number) {
    std::string key;
    size_t at = 0;
    if (text.front() == '"') {  // a name of database or user: "" is one quote
      for (at = 1; at < text.size(); ++at) {
        if (text[at] != '"') {
          key += text[at];
        } else if (at + 1 < text.size() && text[at + 1] == '"') {
          key += text[at++];
        } else {
          break;
        }
      }
      if (at >= text.size()) return problem(file, number, "a name without its closing quote");
      ++at;
    } else {
      // Bytes beyond ASCII are letters of a name.
      while (at < text.size() && (key_char(text[at]) || (text[at] & 0x80) != 0)) key += text[at++];
    }
    const std::string_view rest = trim(text.substr(at));
    if (key.empty() || rest.empty() || rest.front() != '=') {
      return problem(file, number, "expected key = value");
    }
    if (section_.empty()) return problem(file, number, "stands before any [section]");
    if (ini_.entries.size() >= kEntriesMax) return problem(file, number, "too many entries");
    ini_.entries.push_back({file, number, section_, key, std::string(trim(rest.substr(1)))});
  }

  void include(std::string_view text, const std::string& file, int number, int level) {
    constexpr std::string_view kInclude = "%include";
    if (!text.starts_with(kInclude) || text.size() == kInclude.size() ||
        !blank(text[kInclude.size()])) {
      return problem(file, number, "unknown directive; known: %include FILE");
    }
    if (level >= kLevelsMax) return problem(file, number, "%include goes too deep");
    std::filesystem::path path(trim(text.substr(kInclude.size())));
    if (path.is_relative()) path = std::filesystem::path(file).parent_path() / path;
    const auto content = read_(path.string());
    if (!content) return problem(file, number, content.error().to_string());
    this->file(*content, path.string(), level + 1);
  }

  const ReadText& read_;
  Ini ini_;
  std::string section_;
  int files_ = 0;
};

}  // namespace

Ini parse_pgbouncer_ini(std::string_view text, const std::string& file, const ReadText& read) {
  Parser parser(read);
  parser.file(text, file, 0);
  return parser.take();
}

Result<std::vector<std::pair<std::string, std::string>>> parse_connect_string(
    std::string_view text) {
  std::vector<std::pair<std::string, std::string>> out;
  const auto skip_blanks = [&] {
    while (!text.empty() && blank(text.front())) text.remove_prefix(1);
  };
  for (skip_blanks(); !text.empty(); skip_blanks()) {
    std::string key, value;
    while (!text.empty() && key_char(text.front())) {
      key += text.front();
      text.remove_prefix(1);
    }
    skip_blanks();
    if (key.empty() || text.empty() || text.front() != '=') {
      return fail(ErrorCode::kInvalid, "expected key=value key=value ...");
    }
    text.remove_prefix(1);
    skip_blanks();
    if (!text.empty() && text.front() == '\'') {
      size_t at = 1;
      for (;; ++at) {
        if (at >= text.size()) return fail(ErrorCode::kInvalid, "a value without its closing '");
        if (text[at] == '\'') {
          if (at + 1 >= text.size() || text[at + 1] != '\'') break;
          ++at;
        }
        value += text[at];
      }
      text.remove_prefix(at + 1);
    } else {
      while (!text.empty() && !blank(text.front())) {
        value += text.front();
        text.remove_prefix(1);
      }
    }
    const auto before = std::ranges::find(out, key, &std::pair<std::string, std::string>::first);
    if (before != out.end()) {
      before->second = std::move(value);
    } else {
      out.emplace_back(std::move(key), std::move(value));
    }
  }
  return out;
}

}  // namespace bascule::cli
