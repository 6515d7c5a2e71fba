#include "proxy/statements.h"

#include <utility>

#include "proxy/parsed_texts.h"

namespace bascule::proxy {

StatementRef StatementTable::get(const Settings& plan, std::string_view sql, std::string_view types,
                                 const Effects& effects, const std::vector<StateChange>& changes) {
  key_.assign(reinterpret_cast<const char*>(&plan.plan_id), sizeof plan.plan_id);
  key_.append(sql).append(1, '\0').append(types);
  return table_.get(key_, [&] {
    SharedStatement s;
    s.id = ++next_id_;
    s.plan_id = plan.plan_id;
    s.text = ParsedTexts::key(plan.plan_hash, sql, types);
    s.sql = sql;
    s.types = types;
    s.effects = effects;
    s.changes = changes;
    return s;
  });
}

StatementRef StatementTable::rebind(const SharedStatement& statement, const Settings& plan) {
  return get(plan, statement.sql, statement.types, statement.effects, statement.changes);
}

uint32_t ServerStatements::find(uint32_t id) {
  if (newest_ != kNone && nodes_[newest_].id == id) return nodes_[newest_].serial;
  const auto it = by_id_.find(id);
  if (it == by_id_.end()) return 0;
  unlink(it->second);
  link_newest(it->second);
  return nodes_[it->second].serial;
}

uint32_t ServerStatements::add(uint32_t id, uint32_t& evicted, size_t max) {
  evicted = 0;
  if (const auto it = by_id_.find(id); it != by_id_.end()) {
    Node& n = nodes_[it->second];
    const uint32_t known = n.before != 0 ? n.before : n.serial;
    if (known != n.serial) by_serial_.erase(evicted = n.serial);
    n.before = known;
    n.serial = ++next_serial_;
    n.columns = 0;
    by_serial_[n.serial] = it->second;
    return n.serial;
  }
  if (by_id_.size() >= max && oldest_ != kNone) {
    evicted = nodes_[oldest_].serial;
    free_node(oldest_);
  }
  make_node(id, ++next_serial_);
  return next_serial_;
}

uint32_t ServerStatements::make_node(uint32_t id, uint32_t serial) {
  uint32_t at;
  if (free_.empty()) {
    at = static_cast<uint32_t>(nodes_.size());
    nodes_.emplace_back();
  } else {
    at = free_.back();
    free_.pop_back();
  }
  nodes_[at].id = id;
  nodes_[at].serial = serial;
  by_id_[id] = at;
  by_serial_[serial] = at;
  link_newest(at);
  return at;
}

uint32_t ServerStatements::id_of(uint32_t serial) const {
  const auto it = by_serial_.find(serial);
  return it == by_serial_.end() ? 0 : nodes_[it->second].id;
}

uint64_t ServerStatements::columns(uint32_t id) const {
  const auto it = by_id_.find(id);
  return it == by_id_.end() ? 0 : nodes_[it->second].columns;
}

void ServerStatements::set_columns(uint32_t id, uint64_t columns) {
  const auto it = by_id_.find(id);
  if (it != by_id_.end()) nodes_[it->second].columns = columns;
}

void ServerStatements::drain(std::vector<uint32_t>& serials) {
  doubt();
  for (const Node& n : doubted_) serials.push_back(n.serial);
  clear();
}

void ServerStatements::remove_serial(uint32_t serial) {
  const auto it = by_serial_.find(serial);
  if (it == by_serial_.end()) return;
  Node& n = nodes_[it->second];
  if (n.before == 0) return free_node(it->second);
  if (n.serial == serial) n.serial = n.before;
  n.before = 0;
  by_serial_.erase(it);
}

void ServerStatements::remove(uint32_t id) {
  const auto it = by_id_.find(id);
  if (it != by_id_.end()) free_node(it->second);
}

uint32_t ServerStatements::rename(uint32_t serial, uint32_t id) {
  const auto it = by_serial_.find(serial);
  if (it == by_serial_.end()) return 0;
  const uint32_t at = it->second;
  if (nodes_[at].id == id) {
    if (nodes_[at].serial == serial) by_serial_.erase(nodes_[at].before);
    return nodes_[at].serial == serial ? std::exchange(nodes_[at].before, 0) : 0;
  }
  remove(id);
  by_id_.erase(nodes_[at].id);
  nodes_[at].id = id;
  nodes_[at].columns = 0;
  by_id_[id] = at;
  return 0;
}

void ServerStatements::doubt() {
  for (uint32_t at = oldest_; at != kNone; at = nodes_[at].newer) doubted_.push_back(nodes_[at]);
  forget_nodes();
}

void ServerStatements::believe(std::vector<uint32_t>& closing) {
  for (const Node& n : std::exchange(doubted_, {})) {
    if (by_id_.contains(n.id)) {
      closing.push_back(n.serial);
    } else {
      nodes_[make_node(n.id, n.serial)].columns = n.columns;
    }
  }
}

void ServerStatements::clear() {
  doubted_.clear();
  forget_nodes();
}

void ServerStatements::forget_nodes() {
  by_id_.clear();
  by_serial_.clear();
  nodes_.clear();
  free_.clear();
  oldest_ = newest_ = kNone;
}

void ServerStatements::unlink(uint32_t at) {
  Node& n = nodes_[at];
  (n.older == kNone ? oldest_ : nodes_[n.older].newer) = n.newer;
  (n.newer == kNone ? newest_ : nodes_[n.newer].older) = n.older;
  n.older = n.newer = kNone;
}

void ServerStatements::link_newest(uint32_t at) {
  nodes_[at].older = newest_;
  nodes_[at].newer = kNone;
  (newest_ == kNone ? oldest_ : nodes_[newest_].newer) = at;
  newest_ = at;
}

void ServerStatements::free_node(uint32_t at) {
  unlink(at);
  by_id_.erase(nodes_[at].id);
  by_serial_.erase(nodes_[at].serial);
  by_serial_.erase(nodes_[at].before);
  nodes_[at] = {};
  free_.push_back(at);
}

std::string server_name(uint32_t serial) {
  return std::string(kServerNamePrefix) + std::to_string(serial);
}

bool is_server_name(std::string_view name) { return name.starts_with(kServerNamePrefix); }

}  // namespace bascule::proxy
