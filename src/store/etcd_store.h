// Store over an etcd cluster (3.4 and later) by its JSON gateway, for clusters of several hosts.
// Belongs to one loop's thread. The constructor does no I/O and never fails: whatever is wrong, an
// address, a certificate, a password, each request says.
//
// Keys are those of the interface behind options.prefix. One more key, "bascule-store/identity"
// behind the prefix, holds what makes this store another one than an etcd that was set up again
// with the same name, members and token (its cluster id is the same then). The first user who may
// (options.identity) writes it. Every transaction compares it too: none is applied to a store other
// than the one that was seen.
//
// Order: commits are applied in the order given, one at a time. A read shows the commits answered
// before it was given; it may overtake one in flight.
//
// What is watched is not read from the beginning each time: a read asks for the keys that were
// written since the one before, and how many there are (a deletion shows in that). It has the
// guarantees of any other read, for it is one of the whole range as of one instant. Everything is
// read again every kCopyAgeMax, and as soon as a connection is another one: a store can't have been
// replaced by a backup with the same identity while the same processes answered.
//
// Time: every request is answered within options.timeout. Then
//   read    kTimeout; kInvalid if etcd refuses for good (password, permission)
//   commit  kUnknown. Its error says "not applied" where that is certain; callers must not build on
//           the difference.
// A transaction that compares and writes one key at a known revision can succeed once only, so that
// one is sent to a second member when the first is silent. Others are sent once. (Not where the key
// must be absent: a late copy could bring it back after it was deleted.)
//
// Destroying it drops unanswered requests without calling back; a commit may still be applied.
#pragma once

#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "store/etcd_client.h"
#include "store/etcd_watch.h"
#include "store/store.h"

namespace bascule::store {

// Names the setting that is wrong: scheme and form of the endpoints, prefix, times.
Status validate(const EtcdOptions& options);

class EtcdStore final : public Store {
 public:
  // `http` is destroyed after this object.
  EtcdStore(EtcdOptions options, env::Loop& loop, env::HttpClient& http);
  ~EtcdStore() override;
  EtcdStore(const EtcdStore&) = delete;
  EtcdStore& operator=(const EtcdStore&) = delete;

  static constexpr Millis kCopyAgeMax{1000};

  // Those of one turn of the loop for the same prefix are one request.
  void read(std::string prefix, ReadCallback callback) override;
  void commit(Txn txn, TxnCallback callback) override;
  uint64_t watch(std::string prefix, WatchCallback callback) override;
  void unwatch(uint64_t id) override;

 private:
  struct Identity {
    std::string name;
    Revision revision = 0;  // of its key
    bool operator==(const Identity&) const = default;
  };
  // The keys of a prefix as they were at a revision, as etcd names them.
  struct Copy {
    Identity identity;
    Revision revision = 0;
    std::vector<Entry> entries;  // sorted
    MonoTime complete;           // when the last read of everything was begun
    uint64_t continuity = 0;     // of the client, then
  };
  struct Read {
    std::string prefix;
    MonoTime deadline;
    std::vector<ReadCallback> callbacks;
    std::shared_ptr<const Copy> since;  // null: everything is asked for
    MonoTime begun{};
    uint64_t continuity = 0;
  };
  struct Commit {
    Txn txn;
    MonoTime deadline;
    TxnCallback callback;
  };
  struct Watcher {
    std::string prefix;
    WatchCallback callback;
  };

  std::string identity_key() const;
  std::shared_ptr<const Copy> usable_copy(const std::string& prefix) const;
  void start_read(Read read);
  void on_read(Read read, EtcdClient::Reply reply);
  void answer_read(Read& read, const Result<Snapshot>& result);
  // Null: what has changed since read.since can't be told; everything has to be read.
  std::shared_ptr<const Copy> copy_of(const Read& read, etcd::TxnAnswer& answer,
                                      const Identity& identity) const;
  Result<Snapshot> snapshot(const std::string& prefix, const Copy& copy) const;
  static std::optional<Identity> identity_in(const etcd::TxnAnswer& answer, size_t range);
  // Makes the identity's key unless somebody else does; then reads again.
  void create_identity(Read read);

  void next_commit();
  void send_commit();
  TxnResult outcome(const EtcdClient::Reply& reply);
  void answer_commit(TxnResult result);
  void changed(const std::string& prefix);
  void notify(const std::string& prefix);

  env::Loop& loop_;
  EtcdClient client_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);  // for posted work; loop thread only

  std::optional<Identity> identity_;                           // as last seen
  std::map<std::string, std::vector<ReadCallback>> asked_;     // in this turn of the loop
  std::map<std::string, std::shared_ptr<const Copy>> copies_;  // of what is watched
  int identities_made_ = 0;
  std::deque<Commit> commits_;  // the first is under way if committing_
  bool committing_ = false;

  uint64_t next_watch_ = 1;
  std::map<uint64_t, Watcher> watchers_;
  struct Stream {
    std::unique_ptr<EtcdWatch> watch;
    bool notifying = false;
  };
  std::map<std::string, Stream> streams_;  // by prefix
};

}  // namespace bascule::store
