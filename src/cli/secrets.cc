#include "cli/secrets.h"

#include <fmt/format.h>
#include <sys/stat.h>

#include <optional>

#include "base/log.h"

namespace bascule::cli {
namespace {

constexpr size_t kSecretBytesMax = 4096;

// A quoted word at `at`, which moves behind it.
std::optional<std::string> quoted(std::string_view line, size_t& at) {
  while (at < line.size() && (line[at] == ' ' || line[at] == '\t')) ++at;
  if (at >= line.size() || line[at] != '"') return std::nullopt;
  std::string word;
  for (++at; at < line.size(); ++at) {
    if (line[at] != '"') {
      word += line[at];
    } else if (at + 1 < line.size() && line[at + 1] == '"') {
      word += line[++at];
    } else {
      ++at;
      return word;
    }
  }
  return std::nullopt;
}

std::string quote(std::string_view word) {
  std::string out = "\"";
  for (const char c : word) {
    if (c == '"') out += '"';
    out += c;
  }
  return out + '"';
}

}  // namespace

Result<std::string> read_secret(env::Disk& disk, const std::string& file) {
  auto text = disk.read(file, kSecretBytesMax);
  if (!text) return std::unexpected(text.error());
  struct stat info{};
  if (stat(file.c_str(), &info) == 0 && (info.st_mode & 0077) != 0) {
    log(LogLevel::kWarn, "config", "secret is readable by others",
        {{"file", file}, {"do", "chmod 600"}});
  }
  text->erase(std::min(text->find_first_of("\r\n"), text->size()));
  if (text->empty()) {
    return fail(ErrorCode::kInvalid, fmt::format("{}: its first line is empty", file),
                "Expected a password there");
  }
  return std::move(*text);
}

Result<std::vector<UserEntry>> parse_userlist(std::string_view text, const std::string& file) {
  std::vector<UserEntry> users;
  int number = 0;
  while (!text.empty()) {
    ++number;
    const size_t end = std::min(text.find('\n'), text.size());
    std::string_view line = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    size_t at = 0;
    const size_t first = line.find_first_not_of(" \t\r");
    if (first == std::string_view::npos || line[first] == ';' || line[first] == '#') continue;
    auto name = quoted(line, at);
    auto secret = name ? quoted(line, at) : std::nullopt;
    if (!secret || name->empty() || secret->empty()) {
      return fail(
          ErrorCode::kInvalid,
          fmt::format("{}:{}: expected \"name\" \"password or SCRAM verifier\"", file, number),
          "It is the format of PgBouncer's userlist.txt");
    }
    users.push_back({std::move(*name), std::move(*secret)});
  }
  return users;
}

std::string render_userlist(const std::vector<UserEntry>& users) {
  std::string out;
  for (const UserEntry& user : users) {
    out += fmt::format("{} {}\n", quote(user.name), quote(user.secret));
  }
  return out;
}

}  // namespace bascule::cli
