// The snapshot of the store as a value: which key is which record.
#include <fmt/format.h>

#include "control/records.h"

namespace bascule::control {

const MemberRecord* ClusterView::member(const NodeName& name) const {
  const auto it = members.find(name);
  return it == members.end() ? nullptr : &it->second;
}

ClusterView parse_cluster(const Keys& keys, const store::Snapshot& snapshot) {
  return ClusterParser(keys).parse(snapshot);
}

ClusterParser::Names::Names(const Keys& keys)
    : leader(keys.leader()),
      config(keys.config()),
      init(keys.init()),
      roster(keys.roster()),
      sync(keys.sync()),
      request(keys.request()),
      seed(keys.seed()),
      pause(keys.pause()),
      members(keys.prefix + "members/"),
      ballots(keys.prefix + "ballots/"),
      history(keys.prefix + "history/"),
      tasks(keys.prefix + "tasks/"),
      removed(keys.prefix + "removed/") {}

template <typename T>
const T* ClusterParser::decode(const store::Entry& entry, Result<T> (*decoder)(std::string_view),
                               KeyOf<T> key_of) {
  while (next_ != decoded_.end() && next_->first < entry.key) next_ = decoded_.erase(next_);
  if (next_ == decoded_.end() || next_->first != entry.key) {
    next_ = decoded_.emplace_hint(next_, entry.key, Decoded{});
  }
  Decoded& last = (next_++)->second;
  if (last.text != entry.value || entry.value.empty()) {
    Result<T> result = decoder(entry.value);
    if (!result) {
      problems_.push_back(fmt::format("store key {}: {}", entry.key, result.error().to_string()));
      return nullptr;
    }
    last.text = entry.value;
    last.value = std::monostate{};
    if (!key_of || key_of(keys_, *result) == entry.key) last.value = *std::move(result);
  }
  return std::get_if<T>(&last.value);
}

Result<SharedView> ClusterParser::parse(Result<store::Snapshot> read) {
  if (!read) return std::unexpected(std::move(read).error());
  return std::make_shared<ClusterView>(parse(*read));
}

ClusterView ClusterParser::parse(const store::Snapshot& snapshot) {
  next_ = decoded_.begin();
  ClusterView view;
  view.identity = snapshot.identity;
  view.revision = snapshot.revision;
  const MonitorKeys monitor(keys_.prefix);
  for (const store::Entry& e : snapshot.entries) {
    const std::string_view key = e.key;
    const auto take = [&e](auto& slot, const auto* value) {
      if (value) slot.emplace(*value, e.revision);
    };
    if (key == names_.leader) {
      view.leader_revision = e.revision;
      take(view.leader, decode(e, &decode_leader));
      view.leader_unreadable = !view.leader;
    } else if (key == names_.config) {
      take(view.config, decode(e, &decode_config));
    } else if (key == names_.init) {
      take(view.init, decode(e, &decode_init));
    } else if (key == names_.roster) {
      take(view.roster, decode(e, &decode_roster));
    } else if (key == names_.sync) {
      take(view.sync, decode(e, &decode_sync));
      if (!view.sync) view.leader_unreadable = true;  // nobody can be shown to be safe
    } else if (key == names_.request) {
      take(view.request, decode(e, &decode_request));
    } else if (key == names_.seed) {
      take(view.seed, decode(e, &decode_seed));
    } else if (key == names_.pause) {
      view.paused = true;
    } else if (key.starts_with(names_.members)) {
      if (const auto* m = decode(e, &decode_member)) {
        view.members.insert_or_assign(view.members.end(), m->name, *m);
      }
    } else if (key.starts_with(names_.ballots)) {
      const KeyOf<Ballot> own = [](const Keys& k, const Ballot& b) { return k.ballot(b.member); };
      const auto* b = decode(e, &decode_ballot, own);
      if (b) view.ballots.try_emplace(b->member, *b, e.revision);
    } else if (key.starts_with(names_.history)) {
      const KeyOf<HistoryRecord> own = [](const Keys& k, const HistoryRecord& h) {
        return k.history(h.epoch);
      };
      const auto* h = decode(e, &decode_history, own);
      if (h) view.history.try_emplace(view.history.end(), h->epoch, *h);
    } else if (key.starts_with(names_.tasks)) {
      const KeyOf<TaskRecord> own = [](const Keys& k, const TaskRecord& t) { return k.task(t.id); };
      const auto* t = decode(e, &decode_task, own);
      if (t) view.tasks.try_emplace(t->id, *t, e.revision);
    } else if (key.starts_with(names_.removed)) {
      const auto name = NodeName::parse(key.substr(names_.removed.size()));
      const auto* r = decode(e, &decode_removed);
      if (name && r) view.removed.try_emplace(*name, *r, e.revision);
    } else if (key.starts_with(monitor.prefix)) {
      if (!view.monitor) view.monitor.emplace();
      auto status = read_monitor_entry(monitor, e, *view.monitor);
      if (!status) problems_.push_back(status.error().to_string());
    }
  }
  view.problems = std::exchange(problems_, {});
  return view;
}

}  // namespace bascule::control
