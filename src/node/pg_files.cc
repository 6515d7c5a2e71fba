#include "node/pg_files.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cctype>
#include <charconv>
#include <utility>

#include "base/hash.h"

namespace bascule::node {
namespace {

constexpr std::string_view kIncludeLine = "include 'bascule.conf'";
constexpr uint64_t kPageBytes = 8192;
constexpr uint64_t kPageHeader = 24;
constexpr uint64_t kSegmentPageHeader = 40;

uint64_t page_header_at(uint64_t page, uint64_t segment_bytes) {
  return page % segment_bytes == 0 ? kSegmentPageHeader : kPageHeader;
}

std::string_view trim(std::string_view text) {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
  while (!text.empty() && (text.back() == ' ' || text.back() == '\t' || text.back() == '\r')) {
    text.remove_suffix(1);
  }
  return text;
}

// Calls `each` with every line, its newline excluded.
template <typename F>
void for_lines(std::string_view text, F&& each) {
  while (!text.empty()) {
    const size_t end = text.find('\n');
    each(text.substr(0, end));
    if (end == std::string_view::npos) return;
    text.remove_prefix(end + 1);
  }
}

template <typename T>
bool parse_number(std::string_view text, T& out) {
  text = trim(text);
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), out);
  return error == std::errc{} && end == text.data() + text.size();
}

std::string setting(std::string_view name, std::string_view value) {
  return fmt::format("{} = {}\n", name, quote_conf(value));
}

constexpr std::string_view kFirstOfOperations = "wal_retrieve_retry_interval";
constexpr std::string_view kMarkName = "bascule.parameters";

struct Minimum {
  std::string_view key;  // in pg_controldata's output
  std::string_view parameter;
  int otherwise;
};
constexpr Minimum kMinima[] = {
    {"max_connections setting", "max_connections", 100},
    {"max_worker_processes setting", "max_worker_processes", 8},
    {"max_wal_senders setting", "max_wal_senders", 20},  // ours, see defaults()
    {"max_prepared_xacts setting", "max_prepared_transactions", 0},
    {"max_locks_per_xact setting", "max_locks_per_transaction", 64},
};

// With less PostgreSQL does not start, or its standbys can't connect.
struct Least {
  std::string_view parameter;
  int value;
};
constexpr Least kLeast[] = {
    {"max_connections", 20}, {"max_wal_senders", 5}, {"max_replication_slots", 5}};

const Minimum* find_minimum(std::string_view key) {
  const auto found = std::ranges::find(kMinima, key, &Minimum::key);
  return found == std::end(kMinima) ? nullptr : &*found;
}

// May be overridden by the user's parameters.
std::vector<std::pair<std::string, std::string>> defaults(const ConfInputs& in) {
  const std::string timeout = fmt::format("{}ms", in.config.replication_timeout.count());
  return {
      {"wal_level", "replica"},
      {"max_wal_senders", "20"},
      {"max_replication_slots", "20"},
      {"wal_keep_size", "128MB"},
      {"max_slot_wal_keep_size", "8GB"},
      {"superuser_reserved_connections", "5"},
      {"wal_sender_timeout", timeout},
      {"wal_receiver_timeout", timeout},
      {"wal_receiver_status_interval", "1s"},
      {"tcp_keepalives_idle", "5"},
      {"tcp_keepalives_interval", "2"},
      {"tcp_keepalives_count", "3"},
      {"log_line_prefix", "%m [%p] %q%u@%d "},
  };
}

std::string slot_at(const std::optional<control::Upstream>& upstream, const NodeConfig& config) {
  if (!upstream || upstream->without_slot) return {};
  return upstream->member == control::followed_cluster() ? upstream->slot
                                                         : control::slot_name(config.agent.name);
}

// From 17 on: a change is sent to consumers of failover slots once these slots have it, so that no
// consumer has seen what a failover loses. A name that nobody has would stop them all.
std::string slots_of_standbys(const std::vector<std::string>& sync_standbys) {
  std::string out;
  if (sync_standbys == kNobody) return out;
  for (const std::string& sync_name : sync_standbys) {
    const auto member = NodeName::parse(sync_name.substr(0, sync_name.rfind('_')));
    if (member) out += (out.empty() ? "" : ",") + control::slot_name(*member);
  }
  return out;
}

// Ours: correctness depends on each of them.
std::vector<std::pair<std::string, std::string>> owned(const ConfInputs& in,
                                                       const ServerSettings& settings) {
  const NodeConfig& config = in.config;
  std::vector<std::pair<std::string, std::string>> out = {
      {"listen_addresses", config.listen.empty() ? config.agent.host : config.listen},
      {"port", std::to_string(config.agent.port)},
      {"unix_socket_directories", config.run_dir},
      {"unix_socket_permissions", "0700"},
      {"cluster_name", config.agent.name.str()},
      {"hba_file", config.data_dir + "/pg_hba.conf"},
      {"ident_file", config.data_dir + "/pg_ident.conf"},
      {"logging_collector", "off"},
      {"log_destination", "stderr"},
      {"password_encryption", "scram-sha-256"},
      {"hot_standby", "on"},
      {"fsync", "on"},
      {"full_page_writes", "on"},
      // After a crash of a backend the agent decides, not the postmaster.
      {"restart_after_crash", "off"},
      {"recovery_target_timeline", "latest"},
      // From here on what operations set: see with_operations_of().
      // Counted from the last attempt: with a restore_command that takes longer PostgreSQL would
      // never wait, by which it is known to have read everything. It is woken from longer waits.
      {std::string(kFirstOfOperations), settings.cancel_conflicts ? "30s" : "100ms"},
      {"synchronous_standby_names",
       render_sync_standbys(settings.sync_standbys, settings.sync_count)},
      {"primary_conninfo",
       settings.upstream ? render_conninfo(in, *settings.upstream) : std::string()},
      {"primary_slot_name", slot_at(settings.upstream, config)},
      {"bascule.upstream", settings.upstream ? settings.upstream->member.str() : std::string()},
  };
  if (in.version_major >= 17) {
    out.emplace_back("synchronized_standby_slots", slots_of_standbys(settings.sync_standbys));
  }
  if (settings.upstream && !settings.upstream->restore_command.empty()) {
    out.emplace_back("restore_command", settings.upstream->restore_command);
  }
  if (settings.cancel_conflicts) {
    out.emplace_back("max_standby_streaming_delay", "0");
    out.emplace_back("max_standby_archive_delay", "0");
  }
  return out;
}

// Also whether behind the target or before it, and on which timeline. What happens then is decided
// by us: the new cluster begins.
bool ends_recovery(std::string_view name) {
  return name.starts_with("recovery_target") && name != "recovery_target_action";
}

}  // namespace

std::string quote_conf(std::string_view value) {
  std::string out = "'";
  for (const char c : value) {
    if (c == '\'' || c == '\\') out += c;
    out += c == '\n' ? ' ' : c;
  }
  return out + "'";
}

std::string quote_conninfo(std::string_view value) {
  std::string out = "'";
  for (const char c : value) {
    if (c == '\'' || c == '\\') out += '\\';
    out += c;
  }
  return out + "'";
}

Hosts hosts_of(const control::Upstream& upstream) {
  Hosts out;
  for (size_t at = 0; at <= upstream.host.size();) {
    const size_t end = std::min(upstream.host.find(',', at), upstream.host.size());
    std::string one = upstream.host.substr(at, end - at);
    int port = upstream.port;
    const size_t colon = one.find(':');
    if (colon != std::string::npos && parse_number(std::string_view(one).substr(colon + 1), port)) {
      one.resize(colon);
    }
    out.hosts += (at == 0 ? "" : ",") + one;
    out.ports += fmt::format("{}{}", at == 0 ? "" : ",", port);
    at = end + 1;
  }
  if (out.hosts.find(',') != std::string::npos) out.session = "read-write";
  return out;
}

std::string render_hosts(const control::Upstream& upstream) {
  const Hosts of = hosts_of(upstream);
  return fmt::format("host={} port={} target_session_attrs={}", quote_conninfo(of.hosts), of.ports,
                     of.session);
}

std::string render_conninfo(const ConfInputs& in, const control::Upstream& upstream) {
  return fmt::format(
      "{} user={} passfile={} application_name={} connect_timeout=2 "
      "keepalives_idle=1 keepalives_interval=1 keepalives_count=3 tcp_user_timeout={} "
      "sslmode=prefer{}",
      render_hosts(upstream), quote_conninfo(in.config.replication_user),
      quote_conninfo(in.passfile), quote_conninfo(in.sync_name),
      in.config.replication_timeout.count(),
      in.version_major >= 17 ? " dbname=postgres" : "");  // of the worker that keeps slots equal
}

std::string render_sync_standbys(const std::vector<std::string>& names, size_t count) {
  if (names.empty()) return {};
  std::string out = names.size() == 1 ? "FIRST 1 (" : fmt::format("ANY {} (", count);
  for (size_t i = 0; i < names.size(); ++i) {
    if (i != 0) out += ",";
    out += '"';
    for (const char c : names[i]) {
      if (c == '"') out += '"';
      out += c;
    }
    out += '"';
  }
  return out + ")";
}

Result<control::SyncSetting> parse_sync_standbys(std::string_view text) {
  control::SyncSetting out;
  std::vector<std::string>& names = out.names;
  const std::string_view whole = text = trim(text);
  if (text.empty()) return out;
  const size_t open = text.find('(');
  const std::string_view head = text.substr(0, open == std::string_view::npos ? 0 : open + 1);
  const auto foreign = [&] {
    return fail(ErrorCode::kInvalid,
                fmt::format("synchronous_standby_names: not set by Bascule: {}", whole));
  };
  if (head.empty() || !text.ends_with(")")) return foreign();
  text = text.substr(head.size(), text.size() - head.size() - 1);
  while (true) {
    if (!text.starts_with('"')) return foreign();
    text.remove_prefix(1);
    std::string name;
    for (;;) {
      const size_t quote = text.find('"');
      if (quote == std::string_view::npos) return foreign();
      name += text.substr(0, quote);
      text.remove_prefix(quote + 1);
      if (!text.starts_with('"')) break;
      name += '"';
      text.remove_prefix(1);
    }
    names.push_back(std::move(name));
    if (text.empty()) break;
    if (!text.starts_with(',')) return foreign();
    text.remove_prefix(1);
  }
  for (out.count = 1; out.count <= names.size(); ++out.count) {
    if (render_sync_standbys(names, out.count).starts_with(head)) return out;
  }
  return foreign();
}

std::string render_conf(const ConfInputs& in, const ServerSettings& settings) {
  std::string out =
      "# Written by Bascule, replaced at every change. Own settings belong into its "
      "configuration.\n";
  for (const auto& [name, value] : defaults(in)) {
    if (!in.config.parameters.contains(name)) out += setting(name, value);
  }
  out += fmt::format("include_if_exists '{}'\n", kDynamicConfName);
  for (const auto& [name, value] : in.config.parameters) out += setting(name, value);
  for (const auto& [name, value] : settings.floors) out += setting(name, value);
  for (const auto& [name, value] : owned(in, settings)) out += setting(name, value);
  return out;
}

std::string with_operations_of(std::string_view rendered, std::string_view present) {
  const std::string first = fmt::format("\n{} = ", kFirstOfOperations);
  const size_t own = rendered.find(first), theirs = present.find(first);
  if (own == std::string_view::npos || theirs == std::string_view::npos)
    return std::string(present);
  return std::string(rendered.substr(0, own)).append(present.substr(theirs));
}

DynamicConf render_dynamic(const std::map<std::string, std::string>& parameters) {
  DynamicConf out;
  out.text =
      "# Written by Bascule from the cluster's configuration (bascule config set parameters...).\n";
  uint64_t hash = kFnvBasis;
  for (const auto& [name, value] : parameters) {
    const std::string line = setting(name, value);
    hash = fnv1a(line, hash);
    out.text += line;
  }
  out.mark = fmt::format("{:016x}", hash);
  out.text += setting(kMarkName, out.mark);
  return out;
}

std::map<std::string, std::string> parse_dynamic(std::string_view text) {
  std::map<std::string, std::string> out;
  for_lines(text, [&](std::string_view line) {
    const size_t equals = line.find(" = '");
    if (equals == std::string_view::npos || line.starts_with('#') || !line.ends_with('\'')) return;
    const std::string_view quoted = line.substr(equals + 4, line.size() - equals - 5);
    std::string& value = out[std::string(line.substr(0, equals))];
    for (size_t i = 0; i < quoted.size(); ++i) {
      if (quoted[i] == '\'' || quoted[i] == '\\') ++i;
      if (i < quoted.size()) value += quoted[i];
    }
  });
  out.erase(std::string(kMarkName));
  return out;
}

Status check_dynamic(const std::map<std::string, std::string>& parameters) {
  constexpr size_t kValueBytesMax = 8192;
  const auto refuse = [](std::string what, std::string hint) {
    return fail(ErrorCode::kInvalid, std::move(what), std::move(hint));
  };
  for (const auto& [name, value] : parameters) {
    if (!is_parameter_name(name) || name.starts_with("bascule.")) {
      return refuse(
          fmt::format("parameters: \"{}\" is not a parameter of PostgreSQL", name.substr(0, 60)),
          "");
    }
    if (std::ranges::binary_search(owned_parameters(), name)) {
      return refuse(fmt::format("parameters: {} is managed by Bascule", name), "Leave it out");
    }
    if (value.size() > kValueBytesMax ||
        value.find_first_of(std::string_view("\n\r\0", 3)) != std::string::npos) {
      return refuse(fmt::format("parameters: the value of {} is not one line", name), "");
    }
    int number = 0;
    const auto* least = std::ranges::find(kLeast, name, &Least::parameter);
    if (least != std::end(kLeast) && parse_number(value, number) && number < least->value) {
      return refuse(fmt::format("parameters: {} = {} is too few", name, number),
                    fmt::format("At least {}: members and Bascule itself need some", least->value));
    }
    if (name == "wal_level" && value == "minimal") {
      return refuse("parameters: wal_level = minimal ends replication",
                    "Choose replica or logical");
    }
  }
  return {};
}

bool is_parameter_name(std::string_view name) {
  return !name.empty() && name.size() <= 63 && std::ranges::all_of(name, [](unsigned char c) {
    return std::islower(c) != 0 || std::isdigit(c) != 0 || c == '_' || c == '.';
  });
}

const std::vector<std::string>& owned_parameters() {
  static const std::vector<std::string> names = [] {
    const NodeConfig config;
    std::vector<std::string> out;
    for (const auto& [name, value] : owned({config, 17, "", ""}, {{}, {}, true})) {
      out.push_back(name);
    }
    // Never set by us, and never to be set by others: each changes where recovery ends.
    for (const char* name :
         {"recovery_target", "recovery_target_lsn", "recovery_target_name", "recovery_target_time",
          "recovery_target_xid", "recovery_target_action", "recovery_min_apply_delay",
          "promote_trigger_file", "data_directory", "config_file"}) {
      out.push_back(name);
    }
    std::sort(out.begin(), out.end());
    return out;
  }();
  return names;
}

std::string render_hba(const NodeConfig& config) {
  std::string out = "# Written by Bascule.\n";
  out += fmt::format("local all,replication \"{}\" peer map=bascule\n", config.superuser);
  out += "local all all scram-sha-256\n";
  out +=
      fmt::format("host replication,postgres \"{}\" all scram-sha-256\n", config.replication_user);
  if (config.hba.empty()) out += "host all all all scram-sha-256\n";
  for (const std::string& line : config.hba) out += line + "\n";
  return out;
}

std::string render_ident(const NodeConfig& config, std::string_view os_user) {
  return fmt::format("# Written by Bascule.\nbascule \"{}\" \"{}\"\n", os_user, config.superuser);
}

std::string render_passfile(const NodeConfig& config) {
  const auto escape = [](std::string_view text) {
    std::string out;
    for (const char c : text) {
      if (c == ':' || c == '\\') out += '\\';
      out += c;
    }
    return out;
  };
  return fmt::format("*:*:*:{}:{}\n", escape(config.replication_user),
                     escape(config.replication_password));
}

std::string with_include(std::string_view postgresql_conf) {
  std::string_view last;
  for_lines(postgresql_conf, [&](std::string_view line) {
    if (!trim(line).empty()) last = trim(line);
  });
  std::string out(postgresql_conf);
  if (last == kIncludeLine) return out;
  if (!out.empty() && out.back() != '\n') out += '\n';
  return out.append(kIncludeLine) + "\n";
}

std::string without_owned(std::string_view auto_conf, RecoveryTarget target,
                          std::vector<std::string>& removed) {
  std::string out;
  const std::vector<std::string>& names = owned_parameters();
  for_lines(auto_conf, [&](std::string_view line) {
    std::string name(trim(line.substr(0, line.find('='))));
    std::transform(name.begin(), name.end(), name.begin(),
                   [](unsigned char c) { return static_cast<char>(tolower(c)); });
    const bool kept = target == RecoveryTarget::kKeep && ends_recovery(name);
    if (!kept && std::binary_search(names.begin(), names.end(), name)) {
      removed.push_back(name);
    } else {
      out.append(line) += '\n';
    }
  });
  return out;
}

Result<ControlData> parse_controldata(std::string_view output) {
  ControlData out;
  bool valid = true;
  for_lines(output, [&](std::string_view line) {
    const size_t colon = line.find(':');
    if (colon == std::string_view::npos) return;
    const std::string_view key = line.substr(0, colon);
    const std::string_view value = trim(line.substr(colon + 1));
    if (key == "Database system identifier") {
      valid &= parse_number(value, out.system_id);
    } else if (key == "Database cluster state") {
      out.state = value;
    } else if (key == "Latest checkpoint's TimeLineID") {
      valid &= parse_number(value, out.checkpoint_timeline.value);
    } else if (key == "Latest checkpoint location") {
      const auto lsn = Lsn::parse(value);
      valid &= lsn.has_value();
      if (lsn) out.checkpoint = *lsn;
    } else if (const auto* minimum = find_minimum(key)) {
      StandbyMinimum found{0, minimum->otherwise};
      valid &= parse_number(value, found.value);
      out.standby_minima[std::string(minimum->parameter)] = found;
    } else if (key == "Bytes per WAL segment") {
      valid &= parse_number(value, out.segment_bytes);
    }
  });
  if (!valid || out.system_id == 0 || out.state.empty() || out.segment_bytes == 0) {
    return fail(ErrorCode::kInvalid, "pg_controldata: output not understood");
  }
  return out;
}

uint64_t wal_header_bytes(Lsn lsn, uint64_t segment_bytes) {
  constexpr uint64_t kRecordHeader = 24;  // xl_crc is its last part
  const uint64_t page = (lsn.value + kPageBytes - 1) / kPageBytes * kPageBytes;
  const bool within = lsn.value == page || lsn.value + kRecordHeader > page;
  return kRecordHeader + (within ? page_header_at(page, segment_bytes) : 0);
}

Lsn begin_in_history(std::string_view text) {
  Lsn begin;
  for_lines(text, [&](std::string_view line) {
    const size_t first = line.find('\t');
    if (first == line.npos || line.starts_with('#')) return;
    const size_t second = line.find('\t', first + 1);
    if (auto parsed = Lsn::parse(line.substr(first + 1, second - first - 1))) begin = *parsed;
  });
  return begin;
}

Lsn wal_record_end(Lsn start, uint64_t total_bytes, uint64_t segment_bytes) {
  uint64_t at = start.value;
  for (;;) {
    const uint64_t room = kPageBytes - at % kPageBytes;
    if (total_bytes <= room) {
      const uint64_t end = at + total_bytes;
      return Lsn{(end + 7) / 8 * 8};
    }
    total_bytes -= room;
    at += room;
    at += page_header_at(at, segment_bytes);
  }
}

Result<WalRecord> parse_waldump_line(std::string_view output) {
  // rmgr: XLOG        len (rec/tot):    114/   114, tx: …, lsn: …, prev …, desc: CHECKPOINT_…
  const std::string_view line = output.substr(0, output.find('\n'));
  constexpr std::string_view kManager = "rmgr: ", kLength = "len (rec/tot):", kText = "desc: ";
  const size_t manager = line.find(kManager), length = line.find(kLength), text = line.find(kText);
  WalRecord out;
  if (manager == std::string_view::npos || length == std::string_view::npos ||
      text == std::string_view::npos) {
    return fail(ErrorCode::kInvalid, "pg_waldump: output not understood");
  }
  const std::string_view name =
      trim(line.substr(manager + kManager.size(), length - manager - kManager.size()));
  const std::string_view numbers = line.substr(length + kLength.size());
  const size_t slash = numbers.find('/');
  const size_t comma = numbers.find(',');
  if (slash == std::string_view::npos || comma == std::string_view::npos || slash > comma ||
      !parse_number(numbers.substr(slash + 1, comma - slash - 1), out.total_bytes)) {
    return fail(ErrorCode::kInvalid, "pg_waldump: output not understood");
  }
  out.manager = name;
  out.description = trim(line.substr(text + kText.size()));
  return out;
}

std::optional<int> parse_progress(std::string_view piece) {
  const size_t end = piece.rfind("%)");
  if (end == std::string_view::npos) return std::nullopt;
  const size_t begin = piece.rfind('(', end);
  int percent = 0;
  if (begin == std::string_view::npos ||
      !parse_number(piece.substr(begin + 1, end - begin - 1), percent)) {
    return std::nullopt;
  }
  return std::clamp(percent, 0, 100);
}

std::string why_it_ended(std::string_view log) {
  constexpr size_t kTail = 16 << 10, kLineMax = 300, kLinesMax = 3;
  if (log.size() > kTail) log.remove_prefix(log.size() - kTail);
  std::vector<std::string_view> lines;
  for_lines(log, [&](std::string_view line) {
    const bool says_why = line.find(" FATAL:  ") != std::string_view::npos ||
                          line.find(" PANIC:  ") != std::string_view::npos ||
                          line.starts_with("postgres: ") || line.starts_with("guard: ");
    if (says_why) lines.push_back(line.substr(0, kLineMax));
  });
  if (lines.size() > kLinesMax) lines.erase(lines.begin(), lines.end() - kLinesMax);
  return fmt::format("{}", fmt::join(lines, "; "));
}

std::string wal_file_name(const Position& position, uint64_t segment_bytes) {
  const uint64_t number = position.lsn.value / segment_bytes;
  const uint64_t per_part = (uint64_t{1} << 32) / segment_bytes;
  return fmt::format("{:08X}{:08X}{:08X}", position.timeline.value, number / per_part,
                     number % per_part);
}

std::string history_file_name(Timeline timeline) {
  return fmt::format("{:08X}.history", timeline.value);
}

}  // namespace bascule::node
