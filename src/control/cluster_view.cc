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
Result<T> ClusterParser::decode(const store::Entry& entry, Result<T> (*decoder)(std::string_view)) {
  while (next_ != decoded_.end() && next_->first < entry.key) next_ = decoded_.erase(next_);
  if (next_ == decoded_.end() || next_->first != entry.key) {
    next_ = decoded_.emplace_hint(next_, entry.key, Decoded{});
  }
  Decoded& last = (next_++)->second;
  if (last.text == entry.value) {
    if (const T* value = std::get_if<T>(&last.value)) return *value;
  }
  Result<T> result = decoder(entry.value);
  if (result) last = Decoded{entry.value, *result};
  return result;
}

Result<ClusterView> ClusterParser::parse(Result<store::Snapshot> read) {
  if (!read) return std::unexpected(std::move(read).error());
  return parse(*read);
}

ClusterView ClusterParser::parse(const store::Snapshot& snapshot) {
  const Keys& keys = keys_;
  next_ = decoded_.begin();
  ClusterView view;
  view.identity = snapshot.identity;
  view.revision = snapshot.revision;
  const auto take = [&](auto decoded, const store::Entry& entry, auto use) {
    if (decoded) {
      use(*std::move(decoded));
    } else {
      view.problems.push_back(
          fmt::format("store key {}: {}", entry.key, decoded.error().to_string()));
    }
  };
  const auto versioned = [](auto& slot, const store::Entry& entry) {
    return [&slot, &entry](auto value) { slot = {std::move(value), entry.revision}; };
  };
  const MonitorKeys monitor(keys.prefix);
  for (const store::Entry& e : snapshot.entries) {
    const std::string_view key = e.key;
    if (key == names_.leader) {
      view.leader_revision = e.revision;
      take(decode(e, &decode_leader), e, versioned(view.leader, e));
      view.leader_unreadable = !view.leader;
    } else if (key == names_.config) {
      take(decode(e, &decode_config), e, versioned(view.config, e));
    } else if (key == names_.init) {
      take(decode(e, &decode_init), e, versioned(view.init, e));
    } else if (key == names_.roster) {
      take(decode(e, &decode_roster), e, versioned(view.roster, e));
    } else if (key == names_.sync) {
      take(decode(e, &decode_sync), e, versioned(view.sync, e));
      if (!view.sync) view.leader_unreadable = true;  // nobody can be shown to be safe
    } else if (key == names_.request) {
      take(decode(e, &decode_request), e, versioned(view.request, e));
    } else if (key == names_.seed) {
      take(decode(e, &decode_seed), e, versioned(view.seed, e));
    } else if (key == names_.pause) {
      view.paused = true;
    } else if (key.starts_with(names_.members)) {
      take(decode(e, &decode_member), e,
           [&](MemberRecord m) { view.members[m.name] = std::move(m); });
    } else if (key.starts_with(names_.ballots)) {
      take(decode(e, &decode_ballot), e, [&](Ballot b) {
        if (key == keys.ballot(b.member)) view.ballots[b.member] = {b, e.revision};
      });
    } else if (key.starts_with(names_.history)) {
      take(decode(e, &decode_history), e, [&](HistoryRecord h) {
        if (key == keys.history(h.epoch)) view.history[h.epoch] = std::move(h);
      });
    } else if (key.starts_with(names_.tasks)) {
      take(decode(e, &decode_task), e, [&](TaskRecord t) {
        if (key == keys.task(t.id)) view.tasks[t.id] = {t, e.revision};
      });
    } else if (key.starts_with(names_.removed)) {
      const auto name = NodeName::parse(key.substr(names_.removed.size()));
      take(decode(e, &decode_removed), e, [&](RemovedRecord r) {
        if (name) view.removed[*name] = {std::move(r), e.revision};
      });
    } else if (key.starts_with(monitor.prefix)) {
      if (!view.monitor) view.monitor.emplace();
      auto status = read_monitor_entry(monitor, e, *view.monitor);
      if (!status) view.problems.push_back(status.error().to_string());
    }
  }
  return view;
}

}  // namespace bascule::control
