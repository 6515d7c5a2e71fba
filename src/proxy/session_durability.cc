// The level of synchronous_commit that a transaction's tables demand (TableDurability), brought to
// the server in front of the statement that demands it, without a round trip:
//   no transaction is open   as a setting of the server connection, which stays until another is
//                            needed, like every other setting that clients differ in
//   one is open              for the rest of it: SET LOCAL before a Query; within a batch of the
//                            extended protocol set_config(), which ends no transaction, does not
//                            complain that there is no BEGIN, and returns no row here
// Where it is not known yet how the transaction before ends, the statement waits for that.
#include <algorithm>
#include <utility>

#include "pgwire/messages.h"
#include "proxy/session.h"

namespace bascule::proxy {

using pgwire::TransactionStatus;

namespace {

constexpr std::string_view kSetting = "synchronous_commit";
// What has been set there is not known.
constexpr std::string_view kUnknownValue = "?";
// Of a Bind this much is here before it is passed on (client_policy()).
constexpr size_t kBindPrefix = 512;

std::string_view until_nul(std::string_view text) { return text.substr(0, text.find('\0')); }

std::string local_sql(CommitLevel level) {
  if (level == CommitLevel::kDefault) return "SET LOCAL synchronous_commit TO DEFAULT";
  return "SET LOCAL synchronous_commit = " + std::string(name_of(level));
}

std::string local_sql_without_rows(CommitLevel level) {
  const std::string value =
      level == CommitLevel::kDefault ? "NULL" : "'" + std::string(name_of(level)) + "'";
  return "SELECT 1 WHERE pg_catalog.set_config('synchronous_commit', " + value + ", true) IS NULL";
}

SettingsRef with_setting(SettingsTable& table, const Settings& base, std::string sql) {
  std::vector<Setting> list = base.list;
  std::erase_if(list, [](const Setting& s) { return s.name == kSetting; });
  list.push_back({std::string(kSetting), std::move(sql)});
  return table.settings(std::move(list));
}

void merge(sql::Written& into, const sql::Written& more) {
  into.tables.insert(into.tables.end(), more.tables.begin(), more.tables.end());
  into.other |= more.other;
  into.unreadable |= more.unreadable;
  into.sets_commit |= more.sets_commit;
}

}  // namespace

void Session::set_durability(TableDurability levels, const WriteReachSlot* reach) {
  durability_ =
      std::make_unique<Durability>(Durability{std::move(levels), reach, nullptr, nullptr});
}

const sql::WriteReach* Session::reach() const {
  const WriteReachSlot* slot = durability_->reach;
  return slot != nullptr && slot->plans == *workspace_.plans ? slot->reach.get() : nullptr;
}

// What the server is to have outside of transactions.
const SettingsRef& Session::goal() {
  if (!durability_) return wanted_;
  Durability& d = *durability_;
  if (d.goal_of != wanted_ || d.goal_level != d.levels.server()) {
    d.goal = leveled(wanted_);
    d.goal_of = wanted_;
    d.goal_level = d.levels.server();
  }
  return d.goal;
}

// `base`, with the level that the server has.
SettingsRef Session::leveled(SettingsRef base) {
  if (!durability_) return base;
  const TableDurability& levels = durability_->levels;
  if (levels.server() == levels.session()) return base;
  return with_setting(workspace_.settings, *base,
                      make_setting(kSetting, name_of(levels.server())).sql);
}

void Session::set_server_level(CommitLevel level) {
  durability_->levels.set_server(level);
  if (shares()) return prepare_server();
  if (server_->settings == goal()) return;
  inject_settings(difference(*server_->settings, *goal()));
  server_->settings = goal();
}

// For the rest of the transaction. `type`: of the message that follows.
void Session::set_local_level(CommitLevel level, char type) {
  durability_->levels.set_in_force(level);
  touched_ = true;
  if (tracker_.quiescent() && type != 'B') return inject_settings(local_sql(level));
  open_batch();
  run_temporary(local_sql_without_rows(level), 0);
}

// What the client's next message writes once it runs. Nothing: none that matters, or it has not
// arrived.
std::optional<sql::Written> Session::written_by(std::string_view bytes) {
  const pgwire::Frame frame = pgwire::peek_frame(bytes, pgwire::kMaxPayload);
  if (!frame.header_known || frame.state == pgwire::FrameState::kBad) return std::nullopt;
  const bool whole = frame.state == pgwire::FrameState::kComplete;
  const std::string_view payload = bytes.substr(
      pgwire::kFrameHeaderSize, std::min(frame.size(), bytes.size()) - pgwire::kFrameHeaderSize);
  if (frame.type == 'F') return sql::Written{.other = true};
  std::optional<std::string_view> text;
  if (frame.type == 'B') {
    if (!whole && payload.size() < kBindPrefix) return std::nullopt;
    const auto bind = pgwire::parse_bind(payload);
    if (bind) text = prepared_sql(bind->statement);
  } else {
    if (!whole && frame.payload_length <= kFollowedMax) return std::nullopt;
    if (frame.type == 'P' && !payload.starts_with('\0')) return std::nullopt;
    if (whole) text = until_nul(frame.type == 'P' ? payload.substr(1) : payload);
  }
  if (!text) return sql::Written{.unreadable = true};
  sql::Written written = workspace_.written.of(*text, strings());
  for (const std::string& name : written.executes) {
    const std::string prepared = text_of_prepared(name);
    merge(written, workspace_.written.of(prepared, strings()));
  }
  return written;
}

sql::Strings Session::strings() const {
  const bool standard = find_parameter(*server_->reported, "standard_conforming_strings") != "off";
  return standard ? sql::Strings::kStandard : sql::Strings::kNonstandard;
}

// Of PREPARE or Parse, as a text by itself; one that can't be read if it is not known.
std::string Session::text_of_prepared(std::string_view name) const {
  const SessionMemory::Prepared* prepared = memory_ ? memory_->find(name) : nullptr;
  if (prepared == nullptr) return "?";
  if (prepared->statement && prepared->statement->by_sql()) {
    return "PREPARE p" + prepared->statement->sql;
  }
  if (const auto sql = prepared_sql(name)) return std::string(*sql);
  const pgwire::Frame frame = pgwire::peek_frame(prepared->message, pgwire::kMaxPayload);
  return frame.type == 'Q' ? std::string(until_nul(frame.payload)) : "?";
}

// Sees to the level for the client's next message. True: that must wait until what was sent before
// it has been answered.
bool Session::level_first(std::string_view bytes) {
  const char type = bytes.front();
  TableDurability& levels = durability_->levels;
  const bool behind = !batches_.empty() && batches_.back().ended;
  // Whatever comes next is in a transaction of its own.
  if (behind && !open_after_ && !levels.left_alone()) levels.on_idle();
  if (type != 'Q' && type != 'P' && type != 'B' && type != 'F') return false;
  if (!tracker_.takes_statements()) return false;
  const bool idle = tracker_.quiescent() && tracker_.transaction() == TransactionStatus::kIdle;
  if (type == 'P' && !idle) return false;
  // Which statement it means is not known yet.
  if (type == 'B' && behind && unnamed_in_flight(bytes)) return true;
  const std::optional<sql::Written> written = written_by(bytes);
  if (!written) return false;
  if (written->sets_commit) {
    if (behind) return true;
    leave_level_alone(idle);
  }
  if (levels.left_alone()) return false;
  const std::optional<CommitLevel> demand = levels.demand(*written, reach());
  if (idle) {
    idle_level(*written, demand, type);
    if (type == 'P') return false;
  } else if (demand && !(open_after_ && tracker_.transaction() == TransactionStatus::kFailed)) {
    const CommitLevel needed = levels.needed(*demand);
    if (levels.in_force() != needed && behind) return true;
    if (levels.in_force() != needed) set_local_level(needed, type);
  }
  levels.sent(*written, demand);
  return false;
}

// No transaction is open.
void Session::idle_level(const sql::Written& written, std::optional<CommitLevel> demand,
                         char type) {
  const TableDurability& levels = durability_->levels;
  // A Query of ours would take the unnamed statement from a client whose server is its own.
  const bool keeps_unnamed = type == 'B' && !shares();
  if (!keeps_unnamed) {
    set_server_level(demand.value_or(written.begins ? levels.session() : levels.server()));
  } else if (demand && *demand != levels.server()) {
    set_local_level(*demand, type);
  }
}

bool Session::unnamed_in_flight(std::string_view bytes) const {
  const pgwire::Frame frame = pgwire::peek_frame(bytes, pgwire::kMaxPayload);
  if (frame.state != pgwire::FrameState::kComplete) return true;
  const auto bind = pgwire::parse_bind(frame.payload);
  return bind && bind->statement.empty();
}

// The client speaks about the setting by itself, and finds it as it would be without rules.
void Session::leave_level_alone(bool idle) {
  TableDurability& levels = durability_->levels;
  if (idle) {
    set_server_level(levels.session());
  } else if (levels.server() != levels.session()) {
    server_->settings =
        with_setting(workspace_.settings, *server_->settings, std::string(kUnknownValue));
    levels.set_server(levels.session());
  }
  levels.leave_alone();
}

// Nothing of the client is in flight, and no transaction is open. `changed`: wanted_ may have.
void Session::settle_level() {
  const SettingsRef now = memory_ && !shares() ? memory_->wanted(workspace_.settings) : wanted_;
  const Setting* own = now->find(kSetting);
  const Setting* given = base_->find(kSetting);
  durability_->levels.always_leave_alone(own != nullptr && (given == nullptr || !(*own == *given)));
  durability_->levels.on_idle();
}

}  // namespace bascule::proxy
