#include "cli/layout.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

namespace bascule::cli {
namespace {

using nlohmann::json;

json to_json(const HostPort& address) { return {{"host", address.host}, {"port", address.port}}; }

HostPort address_of(const json& value) {
  return {value.at("host").get<std::string>(), value.at("port").get<int>()};
}

}  // namespace

std::string Layout::home(std::string_view process) const {
  if (process == kProxyProcess) return dir + "/proxy";
  if (process.starts_with(kEtcdPrefix)) return fmt::format("{}/etcd/{}", dir, process);
  return fmt::format("{}/nodes/{}", dir, process);
}

StoreAt LocalCluster::store() const {
  if (etcd.empty()) return StoreAt::file(layout().store());
  StoreAt at;
  at.etcd.emplace();
  for (const LocalEtcd& member : etcd) {
    at.etcd->endpoints.push_back("http://" + member.client.to_string());
  }
  return at;
}

std::string LocalCluster::psql_line() const {
  return fmt::format("PGPASSFILE={} psql -h {} -p {} -U {} {}", layout().secret("pgpass"),
                     writer.host, writer.port, app_user, database);
}

std::vector<std::string> LocalCluster::processes() const {
  std::vector<std::string> names;
  for (const LocalNode& node : nodes) names.push_back(node.name);
  names.emplace_back(kProxyProcess);
  return names;
}

std::string encode(const LocalCluster& cluster) {
  json nodes = json::array();
  for (const LocalNode& node : cluster.nodes) {
    json entry = to_json(node.address);
    entry["name"] = node.name;
    entry["api"] = to_json(node.api);
    nodes.push_back(entry);
  }
  json etcd = json::array();
  for (const LocalEtcd& member : cluster.etcd) {
    etcd.push_back({{"name", member.name},
                    {"client", to_json(member.client)},
                    {"peer", to_json(member.peer)}});
  }
  const nlohmann::ordered_json all = {{"cluster", cluster.cluster},
                                      {"dir", cluster.dir},
                                      {"user", cluster.user},
                                      {"nodes", nodes},
                                      {"etcd", etcd},
                                      {"writer", to_json(cluster.writer)},
                                      {"reader", to_json(cluster.reader)},
                                      {"api", to_json(cluster.api)},
                                      {"superuser", cluster.superuser},
                                      {"appUser", cluster.app_user},
                                      {"database", cluster.database},
                                      {"pgpass", cluster.layout().secret("pgpass")},
                                      {"binDir", cluster.bin_dir},
                                      {"psql", cluster.psql_line()}};
  return all.dump(2) + "\n";
}

Result<LocalCluster> decode_local_cluster(std::string_view text) {
  try {  // nlohmann throws at missing keys and wrong types: the exception ends here
    const json all = json::parse(text);
    LocalCluster cluster;
    cluster.cluster = all.at("cluster").get<std::string>();
    cluster.dir = all.at("dir").get<std::string>();
    cluster.user = all.at("user").get<std::string>();
    cluster.bin_dir = all.at("binDir").get<std::string>();
    for (const json& node : all.at("nodes")) {
      cluster.nodes.push_back(
          {node.at("name").get<std::string>(), address_of(node), address_of(node.at("api"))});
    }
    for (const json& member : all.value("etcd", json::array())) {
      cluster.etcd.push_back({member.at("name").get<std::string>(), address_of(member.at("client")),
                              address_of(member.at("peer"))});
    }
    cluster.writer = address_of(all.at("writer"));
    cluster.reader = address_of(all.at("reader"));
    cluster.api = address_of(all.at("api"));
    cluster.superuser = all.at("superuser").get<std::string>();
    cluster.app_user = all.at("appUser").get<std::string>();
    cluster.database = all.at("database").get<std::string>();
    return cluster;
  } catch (const json::exception& error) {
    return fail(ErrorCode::kInvalid, fmt::format("cluster.json: {}", error.what()),
                "It was written by `bascule up`; restore it or make the cluster anew");
  }
}

}  // namespace bascule::cli
