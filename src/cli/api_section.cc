#include "cli/api_section.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>

namespace bascule::cli {
namespace {

constexpr size_t kHashDigits = 64;

void read_tokens(MapReader& reader, Problems& problems, std::vector<api::Token>& out) {
  const YAML::Node list = reader.raw("tokens");
  if (!list) return;
  if (!list.IsSequence()) {
    reader.problem("tokens", "expected a list of {name, role, sha256}");
    return;
  }
  std::set<std::string> names;
  for (const auto& item : list) {
    MapReader entry(problems, item, "api.tokens");
    api::Token token;
    int role = 0;
    entry.text("name", token.name, Need::kRequired);
    entry.choice("role", role, {"viewer", "admin"});
    entry.text("sha256", token.sha256, Need::kRequired);
    entry.finish();
    token.role = role == 1 ? api::Role::kAdmin : api::Role::kViewer;
    const bool hex = std::ranges::all_of(
        token.sha256, [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); });
    if (token.sha256.size() != kHashDigits || !hex) {
      entry.problem("sha256", "expected 64 hexadecimal digits in lower case (`bascule token`)");
    }
    if (!names.insert(token.name).second) entry.problem("name", "is there twice");
    out.push_back(std::move(token));
  }
}

void read_networks(MapReader& reader, std::vector<Network>& out) {
  std::vector<std::string> texts;
  reader.text_list("allow", texts);
  for (const auto& text : texts) {
    if (const auto network = Network::parse(text)) {
      out.push_back(*network);
    } else {
      reader.problem(
          "allow", fmt::format("\"{}\" is no network (10.0.0.0/8, fd00::/8) and no address", text));
    }
  }
}

}  // namespace

api::HttpOptions ApiSection::options() const {
  api::HttpOptions out;
  out.host = listen.host;
  out.port = listen.port;
  out.tls = tls;
  out.tokens = tokens;
  out.anonymous = anonymous;
  out.requests_per_second = requests_per_second;
  out.allow = allow;
  return out;
}

std::string ApiSection::url() const {
  return fmt::format("{}://{}", tls ? "https" : "http", listen.to_string());
}

void read_api(MapReader reader, Problems& problems,
              const std::function<std::string(const std::string&)>& resolve, ApiSection& out) {
  reader.address("listen", out.listen);
  if (reader.has("tls")) {
    MapReader map = reader.map("tls");
    api::HttpTls& tls = out.tls.emplace();
    if (map.text("cert", tls.cert_file, Need::kRequired)) tls.cert_file = resolve(tls.cert_file);
    if (map.text("key", tls.key_file, Need::kRequired)) tls.key_file = resolve(tls.key_file);
    if (map.text("client_ca", tls.client_ca_file)) tls.client_ca_file = resolve(tls.client_ca_file);
    map.finish();
  } else {
    reader.raw("tls");
  }
  read_tokens(reader, problems, out.tokens);
  if (reader.text("audit_file", out.audit_file)) out.audit_file = resolve(out.audit_file);
  reader.integer("requests_per_second", out.requests_per_second, {.min = 0, .max = 1'000'000});
  read_networks(reader, out.allow);
  std::optional<int> anonymous;
  if (reader.choice("anonymous", anonymous, {"health", "read"})) {
    out.anonymous = *anonymous == 0 ? api::Anonymous::kHealth : api::Anonymous::kRead;
  }
  reader.finish();
}

std::vector<std::string> notes_about(const ApiSection& api) {
  std::vector<std::string> out;
  if (!api::is_loopback(api.listen.host) && !api.tls && !api.tokens.empty()) {
    out.push_back("api.tokens: without api.tls they travel in clear text");
  }
  return out;
}

}  // namespace bascule::cli
