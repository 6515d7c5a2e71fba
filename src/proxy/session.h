// One client's session, apart from any socket: follows what passes between the client and the
// server that it is attached to, knows at any moment what the loss of that server means, and speaks
// for the server where the protocol allows. Not thread-safe; one worker's.
//
// What a client sees when its server is lost (`docs` of the decision: 08007 and 40001 are what
// drivers and frameworks act on):
//   nothing in flight, no transaction    nothing: it moves to another server at its next statement
//   transaction open, nothing in flight  40001 at its next statement, then as in a failed
//   transaction statement in flight                  sent again if nothing of it can have happened;
//   else one error
//     ... a COMMIT, or an autocommit statement that may write   08007
//     transaction_resolution_unknown
//     ... a statement inside a transaction, or surely not run   40001: nothing of it remains
//     ... an autocommit read                                    08006
//   (not lost, but a commit whose wait for a standby was cancelled: 08007 as well)
//   state that can't be moved (Pin)      FATAL 57P01 that says which, and the connection is closed
//   half a message delivered             the connection is closed
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/rare_string.h"
#include "pgwire/frames.h"
#include "pgwire/session_tracker.h"
#include "proxy/aborted_transaction.h"
#include "proxy/byte_run.h"
#include "proxy/config.h"
#include "proxy/front_queue.h"
#include "proxy/parsed_texts.h"
#include "proxy/rare_vector.h"
#include "proxy/session_memory.h"
#include "proxy/settings.h"
#include "proxy/statement_scanner.h"
#include "proxy/statements.h"
#include "proxy/table_durability.h"
#include "proxy/traffic.h"

namespace bascule::proxy {

enum class Loss {
  kConnection,  // closed or broken without a word
  kShutdown,    // FATAL 57P01, 57P03: what was in flight was rolled back
  kCrash,       // FATAL 57P02
  kEpoch,       // another primary has been elected
  kPermit,      // the primary may not act any more: its answers are not believed
  kProtocol,    // it sent what can't be understood
  kReadOnly,    // it refused to write (25006): a former primary
  kSettings,    // it refused a setting of the session
};
std::string_view describe(Loss loss);

// What is set up on one server connection, as far as the proxy knows. Outlives the sessions that
// use it one after the other.
struct ServerState {
  ParametersRef reported;  // ParameterStatus; never null once logged in
  SettingsRef settings;    // never null once logged in
  ServerStatements statements;
  std::vector<uint32_t> closing;  // serials to close with the next message
  uint64_t plans = 0;             // Workspace::plans that the statements belong to
  // Id of the unnamed statement that it has; 0: none.
  uint64_t unnamed = 0;
  uint32_t pid = 0;  // of its backend
  static constexpr uint64_t kUnknown = UINT64_MAX;
};

// What the sessions of one worker share.
struct Workspace {
  SettingsTable settings;
  StatementTable statements;
  WrittenTexts written;
  uint64_t unnamed_ids = 0;
  // How often a table may have changed since it was planned for. One number for all workers.
  std::atomic<uint64_t> own_plans{0};
  std::atomic<uint64_t>* plans = &own_plans;
  std::string to_server, to_client;  // scratch of ByteRun
  std::string replacement;           // scratch of Session::on_server()
  TrafficCounts uncounted;           // of sessions without a pool
};

// Where a session's bytes go. Views are valid during the call only.
class SessionOutput {
 public:
  virtual ~SessionOutput() = default;
  virtual void to_server(std::string_view bytes) = 0;
  virtual void to_client(std::string_view bytes) = 0;
  // ServerState::reported has changed, and the client has been told.
  virtual void on_parameter(std::string_view name, std::string_view value) = 0;
  // ServerState::reported may have changed without the client's knowledge.
  virtual void on_synced() {}
  // What the client was told to be its backend's.
  virtual uint32_t process_id() const { return 0; }
  // The client is told 08007: its commit stands, but its wait for a standby was cancelled.
  virtual void on_unreplicated() {}
};

class Session {
 public:
  struct Limits {
    size_t retained_bytes = 0;
    SessionMemory::Limits memory;
    size_t server_statements = 200;  // prepared on one server connection, where clients share it
  };
  // `limits` and `workspace` must outlive the session. kSession: the server is the client's alone
  // while it is attached, has its start-up parameters (`base` is empty), and what it sends passes
  // unchanged. Else servers are shared: `base` and prepared statements are set up as needed.
  Session(PortKind port, PoolMode mode, const Limits& limits, Workspace& workspace,
          SettingsRef base);

  // ---- From the client -----------------------------------------------------------------------
  enum class Gate { kOpen, kShut };  // shut: nothing new begins (draining, no primary)
  enum class Next {
    kMore,
    kNeedServer,  // a statement begins at the first byte not consumed: attach, then offer it again
    kBusy,        // too much is unanswered: offer the rest again when pipeline_full() is false
    kTerminate,   // the client said goodbye
    kBroken,      // not the protocol: 08P01 and close
  };
  struct Intake {
    size_t consumed = 0;
    Next next = Next::kMore;
  };
  Intake on_client(std::string_view bytes, Gate gate, SessionOutput& out);
  // The statement that waits (kNeedServer, or a retry) is answered by an error.
  void refuse(std::string_view sqlstate, std::string_view message, SessionOutput& out);

  // ---- From the server -----------------------------------------------------------------------
  enum class Permit { kValid, kExpired };
  enum class Writable { kYes, kNo };
  struct Relayed {
    size_t consumed = 0;
    bool held = false;         // the rest is to be offered again after on_channel()
    std::optional<Loss> lost;  // the caller closes the server, then calls on_lost()
  };
  Relayed on_server(std::string_view bytes, pgwire::FrameScanner& scanner, Permit permit,
                    Writable writable, SessionOutput& out);

  // ---- Servers come and go -------------------------------------------------------------------
  // On a server that script() has been run on. Sends what is to be sent again.
  void attach(ServerState& server, SessionOutput& out);
  // What must have succeeded before anything of the client may be sent to this server.
  SessionMemory::Script script(const ServerState& server) const;
  // All that makes the server as this session's client was promised at log-in.
  SessionMemory::Script full_script(const ServerState& server) const;
  const SettingsRef& wanted() const { return wanted_; }
  // Of its pool; both must outlive it. Without: nothing is counted or remembered for others.
  void set_pool(TrafficCounts& counts, ParsedTexts& parsed) {
    counts_ = &counts;
    parsed_ = &parsed;
  }
  // Rules with tables fit it. Before the first attach().
  // What its database is known to lead to; null: nothing is known. Must outlive the session.
  void set_durability(TableDurability levels, const WriteReachSlot* reach);
  // What the client was told at log-in.
  void set_greeting(ParametersRef told) { greeting_ = std::move(told); }
  enum class After { kKeep, kClose };
  // `who`: the server for messages, "n1, epoch 3". Ignored if not attached.
  After on_lost(Loss loss, std::string_view who, SessionOutput& out);
  // Idle and attached: leaves the server without a trace.
  void detach();
  // The same where releasable(). True: others may have the server.
  bool release();

  // ---- LISTEN, where servers are shared -------------------------------------------------------
  // Channels that the client is about to listen to: somebody else is to do it, and to say so by
  // on_channel(). The client does not hear of its LISTEN before that.
  bool asks_for_channels() const { return !asked_channels_.empty(); }
  std::vector<std::string> take_channels() { return asked_channels_.take(); }
  enum class Channel { kLive, kRefused };
  void on_channel(Channel what);
  // What it listens to, as of the last transaction; nobody else's notifications are for it.
  const std::vector<std::string>& channels() const;

  bool attached() const { return attached_; }
  // No statement, no transaction: may be detached.
  bool idle() const;
  // The client has been told all that it asked for, and no transaction is open.
  bool between_transactions() const {
    return mode_ == Mode::kLive && !client_mid_message_ && retry_.empty() &&
           (!attached_ || (tracker_.idle() && batches_.empty()));
  }
  // Nothing ties the session to its server: others may have it until the next statement.
  bool releasable() const { return mode_ == Mode::kLive && attached_ && idle() && movable(); }
  bool shares() const { return pool_mode_ != PoolMode::kSession; }
  // Nothing is sent beyond the batch or transaction that has begun: the rest waits (kBusy) until
  // the session is released. Until the next attach().
  void set_one_batch(bool on) { one_batch_ = on; }
  // The text of a statement prepared before; "": the unnamed one. Views are valid until the next
  // call of any function. Nothing if it is not known or too large to be kept.
  std::optional<std::string_view> prepared_sql(std::string_view name) const;
  // A statement in flight or a transaction open on the server.
  bool active() const { return attached_ && mode_ == Mode::kLive && !idle(); }
  bool in_flight() const { return attached_ && tracker_.in_flight(); }
  // A number for all that has been sent; whether that has been answered.
  uint64_t sent_count() const { return tracker_.sent_count(); }
  bool answered(uint64_t count) const { return tracker_.answered_count() >= count; }
  // The server is at a SET of ours.
  bool setting_up() const {
    return !edits_.empty() && edits_.front().kind == EditKind::kSettings &&
           edits_.front().message == tracker_.answered_count();
  }
  // A ReadyForQuery is to come for what was sent.
  bool owed_ready() const { return attached_ && tracker_.ready_outstanding() > 0; }
  bool reads_copy() const { return attached_ && tracker_.copy() == pgwire::CopyState::kIn; }
  bool movable() const { return pin() == Pin::kNone; }
  Pin pin() const;
  bool wants_retry() const { return !retry_.empty(); }
  // Something has been sent to the server since attach(): it needs a reset before others use it.
  bool touched() const { return touched_; }
  bool reusable() const { return idle() && tracker_.reusable(); }
  // The server said FATAL about this session, and the client has been told.
  bool fatal_forwarded() const { return fatal_forwarded_; }
  // PostgreSQL keeps up to 8 KiB of answers back, of 5 bytes each at least: a limit below 1,639
  // could wait forever.
  static constexpr uint32_t kPipelineMax = 8'192;
  static constexpr size_t kFailedMax = 64;
  static constexpr size_t kChannelsMax = 1'000;
  static constexpr size_t kBoundMax = 256;  // portals whose execution changes the session
  bool pipeline_full() const { return attached_ && tracker_.pending() >= kPipelineMax; }
  size_t prepared_count() const { return memory_ ? memory_->prepared_count() : 0; }
  // These wrap around.
  uint32_t readies() const { return readies_; }  // ReadyForQuery seen
  bool mid_message() const { return client_mid_message_; }
  uint32_t transactions() const { return transactions_; }
  uint32_t errors() const { return errors_; }

 private:
  enum class Mode : uint8_t {
    kLive,      // relays; attached or waiting to be
    kSkipping,  // an error was reported: throws away until the end of the batch
    kAborted,   // speaks for a transaction that was lost
  };
  // What the client sent up to a Sync or Query, until its ReadyForQuery.
  struct Batch {
    Effects effects;
    bool from_transaction = false;
    bool ended = false;
    bool binds = false;  // or does more than parsing, describing and closing statements
    bool opens() const;  // a transaction is open after it, if all went well
  };
  // The unnamed statement as the client made it.
  struct Unnamed {
    Effects effects;
    std::vector<StateChange> changes;
    std::string message;
    // Hashes of its columns: what the client was told, what this server said to us; 0: nothing.
    uint64_t told = 0, seen = 0;
    uint64_t told_at = 0;  // meanings_now() then
  };
  enum class Text : uint8_t { kNone, kQuery, kParse };

  // A reply that the client does not get as it comes: its message was not the client's, or was
  // changed.
  enum class EditKind : uint8_t {
    kSettings,  // a Query of ours: nothing of its answer is for the client
    kOwnQuery,  // ... that may fail: its error is told instead of what follows from it
    kOwnParse,  // likewise, with a Sync of ours behind it
    kOwnSync,
    kInjectedParse,  // as serial
    kInjectedClose,
    kInjected,      // anything else that has one answer
    kDescribed,     // the client's Describe of `statement`, which it calls `text`
    kOwnDescribe,   // ours
    kPrepared,      // by the client's PREPARE, the `number`th statement of its message, as serial
    kParse,         // the client's, as serial
    kParseTaken,    // the client's of a name that has serial already: that stays
    kParsedBefore,  // the client's Parse of what the server has: a Close that does nothing
    kRefused,       // made to fail: the error is `text`
  };
  struct Edit {
    uint64_t message = 0;
    EditKind kind = EditKind::kSettings;
    uint32_t serial = 0;
    StatementRef statement = nullptr;  // kParse, kParseTaken
    std::string text = {};             // theirs: the client's name; kRefused: "SQLSTATE:message"
    uint16_t number = 0;
    bool own() const { return kind <= EditKind::kOwnSync; }
  };
  // What a statement does to the client's names of prepared statements.
  struct NameAction {
    enum class Kind : uint8_t { kPrepare, kDeallocate, kDeallocateAll } kind = Kind::kPrepare;
    uint16_t number = 0;
    std::string name = {};
    uint32_t serial = 0;
    SessionMemory::Prepared prepared = {};
  };
  // A statement whose text names others.
  struct StatementText {
    std::string_view sql, types;
    const Effects* effects;
    const std::vector<StateChange>* changes;
    StatementRef keep;
  };
  // A portal whose execution changes what is remembered.
  struct Bound {
    std::string portal;
    uint64_t message = 0;
    std::vector<StateChange> changes;
    std::vector<NameAction> actions;
  };
  enum class Reply : uint8_t { kRelay, kSwallow, kReplace, kReplaceStart };
  // What becomes of the client's current message.
  enum class Relay : uint8_t { kForward, kCollect, kDrop };

  // session.cc
  void live_piece(const pgwire::Scan& piece);
  void live_message(const pgwire::Scan& piece);
  void begin_text(const pgwire::Scan& piece);
  void end_text(const pgwire::Scan& piece, Effects effects);
  enum class Of { kQuery, kNamed, kUnnamed };
  bool must_follow(const Effects& effects, Of of) const;
  std::vector<StateChange> changes_of(Effects& effects, std::optional<std::string_view> sql, Of of);
  void on_bind(const pgwire::Scan& piece, std::vector<NameAction> actions = {});
  void apply(const Effects& effects);
  Batch& open_batch();
  void skip_piece(const pgwire::Scan& piece, SessionOutput& out);
  void retain(std::string_view bytes);
  SessionMemory& memory();
  // session_share.cc
  void prepare_server();
  void inject_settings(const std::string& sql);
  bool rewrite(const pgwire::Scan& piece);
  bool rewrite_parse(const pgwire::Scan& piece);
  void rewrite_bind(const pgwire::Scan& piece);
  bool rewrite_target(const pgwire::Scan& piece);
  bool rewrite_query(const pgwire::Scan& piece);
  void finish_parse();
  size_t take_known_parses(std::string_view bytes, SessionOutput& out);
  void parse_named(const pgwire::ParseView& parse, const Effects& effects,
                   std::vector<StateChange> changes);
  void send_parse(uint32_t serial, std::string_view sql, std::string_view types);
  void append_parse(std::string_view name, std::string_view sql, std::string_view types);
  void append_bind(const pgwire::BindView& bind, std::string_view statement);
  std::optional<StatementText> text_with_names(std::string_view name,
                                               const SessionMemory::Prepared* named) const;
  bool refuse_transaction(char type, const Effects& effects);
  void send_refused(char type, std::string error);
  const StatementRef& statement_of(std::string_view name, SessionMemory::Prepared& prepared);
  uint32_t ensure(const StatementRef& statement);
  uint32_t new_serial(uint32_t id);
  void uses(uint32_t serial, std::string_view name);
  bool must_verify(std::string_view bytes);
  bool must_verify_unnamed();
  void look_at(const StatementRef& statement, std::string_view name);
  bool looking_at(const StatementRef& statement) const;
  // Another number: a text may return other columns than before, by DDL or by settings.
  uint64_t meanings_now() const { return *workspace_.plans << 24 ^ wanted_->plan_id; }
  const Unnamed& unnamed() const;
  Unnamed& unnamed_to_change();
  void ensure_unnamed();
  void replace_unnamed(uint64_t id);
  void close_doomed();
  bool surely_healthy() const;
  // session_names.cc
  void follow(uint64_t message, const std::vector<StateChange>& changes,
              std::vector<NameAction>& actions);
  void ask_for_channel(const std::string& name);
  void take_names(uint64_t message, std::vector<NameAction>& actions);
  std::vector<NameAction> names_as_sent(std::string_view sql,
                                        const std::vector<StateChange>& changes,
                                        const Effects& effects);
  enum class Within { kQuery, kBatch };
  void bring_statements(const std::vector<StateChange>& changes, Within within);
  std::string translate(std::string_view sql, const std::vector<StateChange>& changes,
                        const Effects& effects, std::vector<NameAction>& actions);
  std::string server_name_for(const StateChange& change, std::string_view sql,
                              const Effects& effects, std::vector<NameAction>& actions,
                              size_t& placeholders);
  void bring(const StatementRef& statement, Within within);
  void inject_prepare(uint32_t serial, const SharedStatement& statement);
  void run_temporary(std::string_view sql, uint32_t makes);
  void inject_close(std::string_view name);
  void send_temporary(std::string_view name, std::string_view sql, std::string_view types);
  bool bind_translated(const pgwire::BindView& bind, const StatementText& text,
                       std::optional<std::string_view> values, std::vector<NameAction>& actions);
  bool describe_translated(std::string_view name, const StatementText& text);
  void unbind(std::string_view portal);
  void bound(std::string_view portal, const std::vector<StateChange>& changes,
             std::vector<NameAction> actions, std::optional<std::string_view> values);
  void on_execute(std::string_view payload);
  void drop_bound(uint64_t before);
  bool settings_open() const { return memory_ && memory_->settings_open(); }
  // session_durability.cc
  const sql::WriteReach* reach() const;
  bool level_first(std::string_view bytes);
  void idle_level(const sql::Written& written, std::optional<CommitLevel> demand, char type);
  void leave_level_alone(bool idle);
  void set_server_level(CommitLevel level);
  void set_local_level(CommitLevel level, char type);
  void settle_level();
  const SettingsRef& goal();
  SettingsRef leveled(SettingsRef base);
  std::optional<sql::Written> written_by(std::string_view bytes);
  std::string text_of_prepared(std::string_view name) const;
  sql::Strings strings() const;
  bool unnamed_in_flight(std::string_view bytes) const;
  bool keeps_unnamed() const { return shares() || durability_; }
  // session_server.cc
  std::optional<Loss> server_message(const pgwire::Scan& piece, Permit permit, Writable writable,
                                     SessionOutput& out);
  void on_notification(const pgwire::Scan& piece, const SessionOutput& out);
  void on_notice(const pgwire::Scan& piece);
  void tell_unreplicated(const pgwire::Scan& piece, SessionOutput& out);
  std::optional<Loss> server_error(const pgwire::Scan& piece, Writable writable);
  std::optional<Loss> own_reply(const pgwire::Scan& piece, Writable writable, SessionOutput& out);
  void tell_own_error(std::string_view sqlstate);
  void on_tag(uint64_t message, std::string_view payload);
  void on_ready();
  bool only_prepared() const;
  void send_own_sync(SessionOutput& out);
  void unlisten_server(SessionOutput& out);
  void settle();
  void on_parameter(std::string_view payload, SessionOutput& out);
  void edit_reply(const pgwire::Scan& piece);
  void on_described(const pgwire::Scan& piece);
  void name_as_client(const pgwire::Scan& piece);
  void drop_edits(uint64_t next);
  void on_deallocated_all(uint64_t message);
  void unnamed_after_error(uint64_t message);
  bool may_prepare_again() const;
  void send_again(SessionOutput& out);
  // session_loss.cc
  bool may_retry(Loss loss) const;
  void begin_retry();
  After lose_quiet(Loss loss, std::string_view who, SessionOutput& out);
  void report_lost(Loss loss, std::string_view who, SessionOutput& out);
  enum class Whole { kYes, kNo };  // all of the batch was sent
  void append_loss(std::string& reply, const Batch& batch, Whole whole, Loss loss,
                   std::string_view who);
  After close_pinned(Loss loss, std::string_view who, SessionOutput& out);
  void forget_server();

  const Limits& limits_;
  Workspace& workspace_;
  PortKind port_;
  const PoolMode pool_mode_;
  Mode mode_ = Mode::kLive;
  Text text_ = Text::kNone;
  Relay relay_ = Relay::kForward;
  Reply reply_ = Reply::kRelay;  // to the server's current message
  bool attached_ = false;
  bool touched_ = false;
  bool one_batch_ = false;
  bool text_over_ = false;           // the SQL of a Parse has ended, its parameter types follow
  bool retaining_ = false;           // retained_ is all that was sent since the session was idle
  bool answered_ = false;            // ... and something of the answer has gone to the client
  bool answered_before_ = false;     // ... before the on_server() that runs
  bool beyond_parses_ = false;       // ... that depends on more than the statements' texts
  bool again_ = false;               // the answer is thrown away, and then retained_ is sent again
  bool sent_again_ = false;          // ... once
  bool error_forwarded_ = false;     // for the first batch
  bool client_mid_message_ = false;  // half a server message has gone to the client
  bool fatal_forwarded_ = false;
  bool synced_ = false;         // settings were answered: the client is to be told what changed
  bool described_ = false;      // some statement was, to the client
  bool verifying_ = false;      // what the server has for the next Bind is being looked at
  bool stale_bind_ = false;     // the next Bind is of other columns than the client was told
  bool changes_plans_ = false;  // the open transaction changed what statements return
  bool unreplicated_ = false;   // the commit in flight waits for its standby no longer
  // An unnamed statement was replaced that the server did not have, perhaps behind an error.
  bool replaces_absent_ = false;
  bool broken_ = false;         // the client's current message can't be followed
  bool skip_query_ = false;     // kSkipping ends with the current Query
  bool skip_first_ = false;     // kSkipping begins with a message not seen yet
  bool skip_opens_ = false;     // a transaction was open: kAborted follows kSkipping
  bool open_after_ = false;     // a transaction is open once all that was sent has run
  char front_type_ = 0;         // of the client's current message
  uint32_t answers_given_ = 0;  // ParseComplete, ParameterDescription that the client got
  uint32_t answers_again_ = 0;  // ... that it is not to get again
  Pin pin_ = Pin::kNone;
  Pin pin_before_ = Pin::kNone;  // when the session was last idle
  uint32_t transactions_ = 0;
  uint32_t readies_ = 0;
  uint32_t errors_ = 0;
  ServerState* server_ = nullptr;
  TrafficCounts* counts_;
  ParsedTexts* parsed_ = nullptr;
  SettingsRef base_, wanted_;
  ParametersRef greeting_;
  pgwire::FrameScanner front_;
  pgwire::SessionTracker tracker_;
  BriefScanner scanner_;
  FrontQueue<Batch> batches_;
  FrontQueue<Edit> edits_;
  uint64_t doubted_ = 0;  // number of the last DEALLOCATE ALL, plus 1; 0: it has been answered
  // Statements that turned out not to exist, and their names: what was sent meanwhile may use them.
  RareVector<std::pair<uint32_t, std::string>> failed_;
  // How the client calls what it uses, from the message with this number on: several names may mean
  // one statement of the server. The last one first if nothing else is in flight.
  struct UsedName {
    uint64_t from = 0;
    uint32_t serial = 0;
    std::string name;
  };
  RareVector<UsedName> used_;
  ByteRun* to_server_ = nullptr;  // of the on_client() that runs
  std::string& replacement_;      // of the workspace: of the message that is replaced
  std::string retained_;
  RareString retry_;
  RareString parse_message_, parse_name_;
  RareString temporary_for_;  // the client's name of what was translated last
  RareString own_error_;      // of an exchange of ours: an ErrorResponse
  RareVector<Bound> bound_;
  RareVector<std::string> asked_channels_;
  uint32_t channels_awaited_ = 0;
  bool server_listens_ = false;  // it may have channels that are not to stay
  bool shares_channels_ = true;
  // The unnamed statement. Where servers are shared it is kept, to be prepared again elsewhere, and
  // so are the ones before it up to the next ReadyForQuery: the server may skip what replaces them.
  std::unique_ptr<Unnamed> unnamed_;  // null: as if just made; see unnamed()
  uint64_t injected_ = 0;             // number of the last Parse of ours, plus 1
  uint64_t unnamed_id_ = 0;           // 0: there is none
  uint64_t unnamed_sent_ = 0;         // number of the message that made it so, plus 1
  uint64_t unnamed_touched_ = 0;      // of the last one that changed what the server has, plus 1
  struct OlderUnnamed {
    std::unique_ptr<Unnamed> what;
    uint64_t id = 0, sent = 0;
  };
  RareVector<OlderUnnamed> older_unnamed_;
  RareVector<uint32_t> doomed_;  // serials parsed under settings that others do not have
  RareVector<std::pair<std::string, std::string>> observed_;  // parameters as they were when idle
  struct Durability {
    TableDurability levels;
    const WriteReachSlot* reach;
    SettingsRef goal, goal_of;  // goal(), and the wanted_ and level that it is made of
    CommitLevel goal_level = CommitLevel::kDefault;
  };
  std::unique_ptr<Durability> durability_;
  std::unique_ptr<SessionMemory> memory_;
  std::unique_ptr<AbortedTransaction> aborted_;
};

}  // namespace bascule::proxy
