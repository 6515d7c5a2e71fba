#include "cli/demo_ledger.h"

#include <algorithm>
#include <set>

namespace bascule::cli {

Nanos Ledger::longest_gap(Window window, std::optional<int> client) const {
  std::vector<MonoTime> times;
  for (const Acknowledged& write : writes_) {
    if (!client || write.client == *client) times.push_back(write.at);
  }
  std::ranges::sort(times);
  const auto inside = std::ranges::upper_bound(times, window.from);
  MonoTime last = inside == times.begin() ? window.from : *(inside - 1);
  Nanos longest{0};
  for (auto at = inside; at != times.end() && *at <= window.to; ++at) {
    longest = std::max(longest, *at - last);
    last = *at;
  }
  return std::max(longest, window.to - std::min(last, window.to));
}

Nanos Ledger::longest_client_gap(Window window) const {
  std::set<int> clients;
  for (const Acknowledged& write : writes_) clients.insert(write.client);
  Nanos longest{0};
  for (const int client : clients) longest = std::max(longest, longest_gap(window, client));
  return longest;
}

std::vector<ClientError> Ledger::errors(Window window) const {
  std::vector<ClientError> out;
  std::ranges::copy_if(errors_, std::back_inserter(out), [&](const ClientError& error) {
    return error.at >= window.from && error.at < window.to;
  });
  return out;
}

std::optional<MonoTime> Ledger::first_write_after(MonoTime time) const {
  std::optional<MonoTime> first;
  for (const Acknowledged& write : writes_) {
    if (write.at > time && (!first || write.at < *first)) first = write.at;
  }
  return first;
}

Verdict Ledger::verdict(const RowCounts& rows) const {
  Verdict verdict;
  std::set<std::pair<int, int64_t>> acknowledged;
  for (const Acknowledged& write : writes_) acknowledged.emplace(write.client, write.seq);
  verdict.acknowledged = acknowledged.size();
  for (const auto& key : acknowledged) {
    if (!rows.contains(key)) verdict.lost.push_back(key);
  }
  for (const auto& [key, count] : rows) {
    if (count > 1) verdict.duplicated.push_back(key);
    if (!acknowledged.contains(key)) ++verdict.unacknowledged_present;
  }
  return verdict;
}

Statistics statistics(std::vector<double> values) {
  if (values.empty()) return {};
  std::ranges::sort(values);
  const size_t middle = values.size() / 2;
  const double median =
      values.size() % 2 == 1 ? values[middle] : (values[middle - 1] + values[middle]) / 2;
  return {median, values.back()};
}

}  // namespace bascule::cli
