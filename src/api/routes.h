// The HTTP API without HTTP: request + snapshot -> response, or a command to hand on. Pure except
// for the command callback. Routes and shapes: docs/api.md.
#pragma once

#include <functional>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "api/access.h"
#include "api/snapshot.h"
#include "base/result.h"

namespace bascule::api {

struct Request {
  std::string method;  // upper case
  std::string path;    // decoded, without the query
  std::map<std::string, std::string> query;
  std::string body;
  std::string remote;            // address of the peer, for the audit
  std::string origin;            // header Origin; empty: none
  std::string authorization;     // header Authorization; empty: none
  std::string certificate = {};  // subject of the one that the caller has shown; empty: none
};

struct Response {
  int status = 200;
  std::string content_type = "application/json";
  std::string body;
  std::vector<std::pair<std::string, std::string>> headers;
};

// What an operator asks for. Validated as far as a request alone allows.
struct Command {
  enum class Kind {
    kSwitchover,
    kFailover,
    kPause,
    kResume,
    kConfig,
    kConfigHistory,
    kCheckHealth,  // of every database, now
    kRestart,
    kReload,
    kReinit,
    kRemove,  // takes a member out of the cluster
    kCancel,  // of what is scheduled or under way
    kAudit,   // reads, as kConfigHistory
    // Of this daemon's proxy.
    kReconnect,     // its connections to the servers of `region`; empty: to all
    kAnalyzeQuery,  // reads: what `query` is
  };
  Kind kind = Kind::kSwitchover;
  NodeName candidate;             // empty: the best one
  bool force = false;             // failover: accept losing acknowledged commits
  bool old_primary_dead = false;  // forced: somebody has made sure that it is off
  std::string reason;
  std::map<std::string, std::string> changes;  // kConfig: key and value as `bascule config set`
  bool replace = false;                        // kConfig: what is not named gets its default
  // kRestart, kReload, kReinit: empty: all, one after the other. kRemove: one.
  std::vector<NodeName> members;
  WallTime at{};               // kSwitchover, kRestart: not before; {}: at once
  bool only_pending = false;   // kRestart: those that wait for one
  bool by_switchover = false;  // kRestart: instead of restarting the primary in place
  Millis timeout{0};           // a member that takes longer has failed; 0: the default
  std::string region;          // kSwitchover: to the best of that region
  std::string query;           // kAnalyzeQuery
  std::string id;              // kCancel: empty: scheduled ones of `cancels`
  Kind cancels = Kind::kSwitchover;
  std::string by;  // "api ops 127.0.0.1"
};
// Writes the request into the store and returns its id (kConfigHistory, kAudit, kAnalyzeQuery:
// reads, and returns the document; kReconnect: does it, and returns what); called on a thread of
// the HTTP server, must answer within a few seconds. kConflict: refused, with the reason.
using CommandHandler = std::function<Result<std::string>(Command)>;

// A command that never came so far as to be carried out: for the audit.
struct Refusal {
  enum class Asker { kNobody, kAdmin };  // whether the caller might have asked for it
  Command command;                       // its kind, who asked, and what of it was understood
  Asker asker = Asker::kNobody;
  std::string why;  // "403: Commands are not taken from web pages"
};
// Called on a thread of the HTTP server.
using RefusalHandler = std::function<void(const Refusal&)>;

class Routes {
 public:
  Routes(CommandHandler handler, AccessRules access, RefusalHandler refused = {})
      : handler_(std::move(handler)), refused_(std::move(refused)), access_(std::move(access)) {}

  // Thread-safe as far as the handler is.
  Response handle(const Request& request, const Snapshot& snapshot, MonoTime now) const;
  void set_tokens(std::vector<Token> tokens);  // thread-safe

  // Method and path of every route, as in the OpenAPI document.
  static std::vector<std::pair<std::string, std::string>> all();
  // Whether there is a body worth reading.
  static bool takes_body(std::string_view method, std::string_view path);

 private:
  Response stored(Command::Kind kind) const;  // a document that the handler reads
  Response command(const Request& request, const Snapshot& snapshot, const Caller& caller) const;
  std::optional<Response> not_for_them(const Request& request, const Caller& caller) const;

  CommandHandler handler_;
  RefusalHandler refused_;
  AccessRules access() const;
  mutable std::mutex mutex_;
  AccessRules access_;  // guarded by mutex_
};

// {"error": {"code", "message", "hint"}} with the status that fits the code.
Response error_response(const Error& error);
Response error_response(int status, std::string_view code, const std::string& message,
                        const std::string& hint);

}  // namespace bascule::api
