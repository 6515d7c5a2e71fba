// Reading of pg_hba.conf and pg_ident.conf: words, lists, lines; then rules.
#include <fmt/format.h>
#include <algorithm>

#include <algorithm>
#include <array>
#include <utility>

#include "proxy/hba.h"

namespace bascule::proxy {
namespace {

constexpr size_t kTextMax = 1 << 20;
constexpr size_t kLinesMax = 10'000;
constexpr size_t kListMax = 1'000;

struct Word {
  std::string text;
  bool quoted = false;  // its first character was: keywords lose their meaning
};
using Field = std::vector<Word>;  // what commas join

struct Line {
  std::vector<Field> fields;
  int number = 0;
  std::string problem;
};

bool is_space(char c) { return c == ' ' || c == '\t' || c == '\r' || c == '\f' || c == '\v'; }

// One logical line: quotes, lists, comments.
class Splitter {
 public:
  Splitter(std::string_view text, Line& line) : text_(text), line_(line) {}

  void run() {
    while (skip_space(), at_ < text_.size() && text_[at_] != '#') {
      Field field;
      do {
        skip_space();
        Word word;
        if (!read_word(word)) return;
        field.push_back(std::move(word));
        if (field.size() > kListMax) {
          line_.problem = "the list is too long";
          return;
        }
      } while (at_ < text_.size() && text_[at_] == ',' && ++at_ > 0);
      line_.fields.push_back(std::move(field));
    }
  }

 private:
  void skip_space() {
    while (at_ < text_.size() && is_space(text_[at_])) ++at_;
  }
  bool read_word(Word& word) {
    bool inside = false;
    const size_t start = at_;
    for (; at_ < text_.size(); ++at_) {
      const char c = text_[at_];
      if (c == '\0') return bad("a NUL byte");
      if (!inside && (is_space(c) || c == ',' || c == '#')) break;
      if (c == '"') {
        if (inside && at_ + 1 < text_.size() && text_[at_ + 1] == '"') {
          word.text += '"';
          ++at_;
          continue;
        }
        if (at_ == start) word.quoted = true;
        inside = !inside;
        continue;
      }
      word.text += c;
    }
    if (inside) return bad("a quote that is not closed");
    if (word.text.empty() && !word.quoted) return bad("an empty word in a list");
    return true;
  }
  bool bad(std::string what) {
    line_.problem = std::move(what);
    return false;
  }
  std::string_view text_;
  Line& line_;
  size_t at_ = 0;
};

std::vector<Line> split_lines(std::string_view text) {
  std::vector<Line> lines;
  int number = 0;
  while (!text.empty()) {
    Line line;
    line.number = number + 1;
    std::string logical;
    for (bool more = true; more && !text.empty();) {
      const size_t end = std::min(text.find('\n'), text.size());
      std::string_view physical = text.substr(0, end);
      text.remove_prefix(std::min(end + 1, text.size()));
      ++number;
      if (physical.ends_with('\r')) physical.remove_suffix(1);
      more = physical.ends_with('\\');
      if (more) physical.remove_suffix(1);
      logical += physical;
    }
    Splitter(logical, line).run();
    if (!line.fields.empty() || !line.problem.empty()) lines.push_back(std::move(line));
  }
  return lines;
}

std::optional<HbaRule::Connection> connection_of(const std::string& word) {
  if (word == "local") return HbaRule::Connection::kLocal;
  if (word == "host") return HbaRule::Connection::kHost;
  if (word == "hostssl") return HbaRule::Connection::kHostSsl;
  if (word == "hostnossl") return HbaRule::Connection::kHostNoSsl;
  return std::nullopt;
}

constexpr std::array<std::pair<std::string_view, AuthMethod>, 7> kMethods = {
    {{"trust", AuthMethod::kTrust},
     {"reject", AuthMethod::kReject},
     {"scram-sha-256", AuthMethod::kScram},
     {"md5", AuthMethod::kMd5},
     {"password", AuthMethod::kPassword},
     {"cert", AuthMethod::kCert},
     {"peer", AuthMethod::kPeer}}};
constexpr std::array<std::string_view, 9> kOtherMethods = {"gss", "sspi", "ident", "ldap", "radius",
                                                           "pam", "bsd",  "oauth", "krb5"};

}  // namespace

class HbaParser {
 public:
  HbaParser(HbaRules& rules, std::string& problems) : rules_(rules), problems_(problems) {}

  void read_rules(std::string_view text, const std::string& file) {
    file_ = &file;
    for (const Line& line : lines(text)) {
      HbaRule rule;
      rule.line = line.number;
      if (read_rule(line, rule)) rules_.rules_.push_back(std::move(rule));
    }
  }

  void read_maps(std::string_view text, const std::string& file) {
    file_ = &file;
    for (const Line& line : lines(text)) {
      if (line.fields.size() != 3 || has_list(line)) {
        problem(line.number, "expected three words: map, name of the system, user");
        continue;
      }
      HbaRules::MapEntry entry;
      const bool ok = read_name(line, line.fields[1][0], NameOf::kSystem, entry.system) &&
                      read_name(line, line.fields[2][0], NameOf::kMapped, entry.user);
      if (ok) rules_.maps_[line.fields[0][0].text].push_back(std::move(entry));
    }
  }

  void check_maps(const std::string& file) {
    file_ = &file;
    for (const HbaRule& rule : rules_.rules_) {
      if (!rule.map.empty() && !rules_.maps_.contains(rule.map)) {
        problem(rule.line, fmt::format("map \"{}\" is not defined", rule.map));
      }
    }
  }

 private:
  enum class NameOf { kDatabase, kUser, kSystem, kMapped };

  std::vector<Line> lines(std::string_view text) {
    if (text.size() > kTextMax) {
      problem(0, "larger than 1 MB");
      return {};
    }
    std::vector<Line> all = split_lines(text);
    if (all.size() > kLinesMax) {
      problem(0, "more than 10,000 lines");
      return {};
    }
    std::erase_if(all, [this](const Line& line) {
      if (!line.problem.empty()) problem(line.number, line.problem);
      return !line.problem.empty();
    });
    return all;
  }

  static bool has_list(const Line& line) {
    for (const Field& field : line.fields) {
      if (field.size() > 1) return true;
    }
    return false;
  }

  bool problem(int line, std::string_view what) {
    if (!problems_.empty()) problems_ += '\n';
    problems_ += line > 0 ? fmt::format("{}:{}: {}", *file_, line, what)
                          : fmt::format("{}: {}", *file_, what);
    return false;
  }

  bool read_rule(const Line& line, HbaRule& rule) {
    const std::string& first = line.fields[0][0].text;
    if (first.starts_with("include")) {
      return problem(line.number, "included files are not read: put their lines here");
    }
    if (first == "hostgssenc" || first == "hostnogssenc") {
      return problem(line.number, "GSSAPI encryption is not offered by the proxy");
    }
    const auto connection = connection_of(first);
    if (!connection || line.fields[0].size() > 1) {
      return problem(line.number, "expected local, host, hostssl or hostnossl as the first word");
    }
    rule.connection = *connection;
    if (line.fields.size() < (rule.connection == HbaRule::Connection::kLocal ? 4 : 5)) {
      return problem(line.number,
                     "the line is too short: database, user, address (not for "
                     "local), method");
    }
    if (!read_names(line, line.fields[1], NameOf::kDatabase, rule.databases) ||
        !read_names(line, line.fields[2], NameOf::kUser, rule.users)) {
      return false;
    }
    size_t at = 3;
    if (rule.connection != HbaRule::Connection::kLocal && !read_network(line, at, rule)) {
      return false;
    }
    if (at >= line.fields.size()) return problem(line.number, "the method is missing");
    return read_method(line, line.fields[at][0].text, rule) && read_options(line, at + 1, rule);
  }

  bool read_names(const Line& line, const Field& field, NameOf what, std::vector<HbaName>& names) {
    for (const Word& word : field) {
      HbaName name;
      if (!read_name(line, word, what, name)) return false;
      names.push_back(std::move(name));
    }
    return true;
  }

  bool read_name(const Line& line, const Word& word, NameOf what, HbaName& name) {
    using Kind = HbaName::Kind;
    name.text = word.text;
    if (word.quoted) return true;
    if (word.text.starts_with('@')) {
      return problem(line.number, "lists in other files (@file) are not read: put the names here");
    }
    if (word.text.starts_with('/')) {
      auto pattern = NamePattern::compile(word.text.substr(1));
      if (!pattern) return problem(line.number, pattern.error().message);
      name.kind = Kind::kPattern;
      name.pattern = std::move(*pattern);
      return true;
    }
    if (what == NameOf::kSystem) return true;
    if (word.text == "all") name.kind = Kind::kAll;
    if (what == NameOf::kDatabase) {
      if (word.text == "sameuser") name.kind = Kind::kSameUser;
      if (word.text == "samerole" || word.text == "samegroup") name.kind = Kind::kSameRole;
      if (word.text == "replication") name.kind = Kind::kReplication;
    } else if (word.text.starts_with('+')) {
      if (what == NameOf::kMapped) {
        return problem(line.number, "members of a role (+role) can't be used in a map");
      }
      name.kind = Kind::kRole;
      name.text = word.text.substr(1);
    }
    if (name.kind == Kind::kSameRole || name.kind == Kind::kRole) rules_.needs_roles_ = true;
    return true;
  }

  bool read_network(const Line& line, size_t& at, HbaRule& rule) {
    const Field& field = line.fields[at++];
    const std::string& text = field[0].text;
    if (field.size() > 1) return problem(line.number, "expected one address, not a list");
    if (text == "all" && !field[0].quoted) return true;
    if (text == "samehost" || text == "samenet") {
      return problem(line.number, text + " is not offered by the proxy: give addresses");
    }
    auto network = Network::parse(text);
    if (!network) {
      return problem(line.number,
                     "expected an address like 10.0.0.0/8 or ::1/128 (host names are "
                     "not looked up by the proxy)");
    }
    if (text.find('/') != std::string::npos) {
      rule.network = network;
      return true;
    }
    // PostgreSQL's older form: the mask is a word of its own.
    if (at < line.fields.size()) {
      if (const auto mask = parse_address(line.fields[at][0].text)) {
        ++at;
        return read_mask(line, text, *mask, *network, rule);
      }
    }
    return problem(line.number, "the address needs a length (/32) or a mask");
  }

  bool read_mask(const Line& line, const std::string& text, const IpAddress& mask, Network network,
                 HbaRule& rule) {
    const bool v6 = text.find(':') != std::string::npos;
    int bits = 0;
    bool ended = false;
    for (size_t i = v6 ? 0 : 12; i < mask.size(); ++i) {
      for (int bit = 7; bit >= 0; --bit) {
        const bool set = (mask[i] >> bit & 1) != 0;
        if (set && ended) return problem(line.number, "the mask has holes");
        ended = ended || !set;
        bits += set ? 1 : 0;
      }
    }
    network.bits = v6 ? bits : 96 + bits;
    rule.network = network;
    return true;
  }

  bool read_method(const Line& line, const std::string& word, HbaRule& rule) {
    for (const std::string_view other : kOtherMethods) {
      if (word == other) {
        return problem(line.number, fmt::format("method {} is not offered by the proxy", word));
      }
    }
    const auto* found = std::find_if(kMethods.begin(), kMethods.end(),
                                     [&](const auto& m) { return m.first == word; });
    if (found == kMethods.end()) {
      return problem(line.number,
                     "expected a method: trust, reject, scram-sha-256, md5, password, "
                     "cert or peer");
    }
    rule.method = found->second;
    if (rule.method == AuthMethod::kPeer && rule.connection != HbaRule::Connection::kLocal) {
      return problem(line.number, "method peer is for local connections only");
    }
    if (rule.method == AuthMethod::kCert && rule.connection != HbaRule::Connection::kHostSsl) {
      return problem(line.number, "method cert is for hostssl only");
    }
    return true;
  }

  bool read_options(const Line& line, size_t at, HbaRule& rule) {
    for (; at < line.fields.size(); ++at) {
      if (line.fields[at].size() > 1) return problem(line.number, "an option can't be a list");
      const std::string& text = line.fields[at][0].text;
      const size_t equal = text.find('=');
      const std::string name = text.substr(0, equal);
      const std::string value = equal == std::string::npos ? "" : text.substr(equal + 1);
      if (!read_option(line, name, value, rule)) return false;
    }
    return true;
  }

  bool read_option(const Line& line, const std::string& name, const std::string& value,
                   HbaRule& rule) {
    const bool mapped = rule.method == AuthMethod::kCert || rule.method == AuthMethod::kPeer;
    if (name == "map" && mapped && !value.empty()) {
      rule.map = value;
      return true;
    }
    const bool tls = rule.connection == HbaRule::Connection::kHostSsl;
    if (name == "clientcert" && tls && (value == "verify-ca" || value == "verify-full")) {
      if (rule.method == AuthMethod::kCert && value == "verify-ca") {
        return problem(line.number, "method cert always means clientcert=verify-full");
      }
      rule.client_cert =
          value == "verify-ca" ? HbaRule::ClientCert::kVerifyCa : HbaRule::ClientCert::kVerifyFull;
      return true;
    }
    if (name == "clientname" && tls && (value == "CN" || value == "DN")) {
      rule.match_subject = value == "DN";
      return true;
    }
    return problem(line.number,
                   fmt::format("option {} with this value is not known or does not fit here: map "
                               "(cert, peer), clientcert=verify-ca|verify-full and "
                               "clientname=CN|DN (hostssl)",
                               name));
  }

  HbaRules& rules_;
  std::string& problems_;
  const std::string* file_ = nullptr;
};

Result<HbaRules> HbaRules::parse(std::string_view text, const std::string& file,
                                 std::string_view ident, const std::string& ident_file) {
  HbaRules rules;
  std::string problems;
  HbaParser parser(rules, problems);
  parser.read_rules(text, file);
  parser.read_maps(ident, ident_file);
  parser.check_maps(file);
  if (!problems.empty()) return fail(ErrorCode::kInvalid, std::move(problems));
  return rules;
}

}  // namespace bascule::proxy
