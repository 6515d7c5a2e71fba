"""A cluster that follows another one as a whole. Real servers."""
import contextlib

import psycopg2
import pytest

from harness import Cluster, wait_for
from test_operations import call


class StandbyCluster(Cluster):
    def standby_leader(self):
        leader = self.leader()
        return leader.get("holder", "") if leader.get("phase") == "following" else ""

    def wait_following(self, timeout=60, streaming=None, other_than=""):
        want = len(self.members) if streaming is None else streaming

        def all_stream():
            leader = self.standby_leader()
            shown = [m["name"] for m in self.status()["members"] if m["state"] == "streaming"]
            return leader if leader and leader != other_than and len(shown) >= want else ""
        return wait_for(all_stream, timeout, f"a standby cluster with {want} streaming members", poll_s=0.2)

    def wait_healthy(self, timeout=60, streaming=None):
        if self.primary():
            return super().wait_healthy(timeout, streaming)
        return self.wait_following(timeout, streaming)


@contextlib.contextmanager
def pair(nodes=2):
    with Cluster(nodes=nodes) as main, \
            StandbyCluster(nodes=nodes, up_options=["--standby-of", str(main.dir), "--timing", "fast"],
                           up_timeout=120) as standby:
        yield main, standby


def write(cluster, value):
    with contextlib.closing(psycopg2.connect(cluster.dsn())) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute("CREATE TABLE IF NOT EXISTS followed (v int)")
            cursor.execute("INSERT INTO followed VALUES (%s)", (value,))


def values(cluster, member):
    try:
        return [row[0] for row in cluster.query(member, "SELECT v FROM followed ORDER BY v", database="app")]
    except psycopg2.Error:
        return []


def arrives(standby, expected):
    wait_for(lambda: all(values(standby, m) == expected for m in standby.members), 20, f"{expected} at every member")


def test_everything_arrives_by_way_of_the_standby_leader_and_nobody_writes_there():
    with pair() as (main, standby):
        write(main, 1)
        arrives(standby, [1])
        leader = standby.standby_leader()
        other = next(m for m in standby.members if m != leader)
        members = {m["name"]: m for m in standby.status()["members"]}
        assert members[leader]["role"] == "standby leader" and members[other]["upstream"] == leader
        assert "standby cluster of" in standby.run_cli("status").stdout
        with contextlib.closing(psycopg2.connect(standby.dsn())) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT v FROM followed")
            assert cursor.fetchall() == [(1,)]
            with pytest.raises(psycopg2.errors.ReadOnlySqlTransaction):
                cursor.execute("INSERT INTO followed VALUES (2)")
        ports = {n["name"]: n["apiPort"] if "apiPort" in n else n["api"]["port"] for n in standby.info["nodes"]}
        assert call(standby, "GET", "/standby-leader", port=ports[leader])[0] == 200
        assert call(standby, "GET", "/leader", port=ports[leader])[0] == 200
        assert call(standby, "GET", "/primary", port=ports[leader])[0] == 503
        assert call(standby, "GET", "/standby-leader", port=ports[other])[0] == 503
        refused = standby.run_cli("reinit", leader, "--yes", check=False)
        assert refused.returncode != 0 and "leader" in refused.stderr


def test_failover_of_either_cluster_keeps_following():
    with pair() as (main, standby):
        write(main, 1)
        arrives(standby, [1])
        old = standby.standby_leader()
        standby.kill_host(old)
        standby.wait_following(30, streaming=1, other_than=old)
        write(main, 2)
        survivor = standby.standby_leader()
        wait_for(lambda: values(standby, survivor) == [1, 2], 20, "the survivor goes on")
        standby.release(old)
        standby.wait_following(60)
        arrives(standby, [1, 2])
        primary = main.primary()
        main.kill(main.postmaster(primary))
        main.wait_primary(30, other_than=primary)
        main.wait_healthy()
        write(main, 3)
        arrives(standby, [1, 2, 3])
        wait_for(lambda: standby.leader().get("timeline") == main.leader()["timeline"], 20, "its timeline too")


def test_taking_the_key_away_makes_it_an_ordinary_cluster():
    with pair() as (main, standby):
        write(main, 1)
        arrives(standby, [1])
        leader = standby.standby_leader()
        standby.run_cli("config", "set", "standby_cluster=false")
        assert standby.wait_primary(20) == leader
        standby.wait_healthy()
        write(standby, 10)
        arrives(standby, [1, 10])
        write(main, 2)
        assert values(main, main.primary()) == [1, 2], "two clusters from now on"
        refused = standby.run_cli("config", "set", "standby_cluster.host=127.0.0.1", check=False)
        assert refused.returncode != 0 and "leads itself" in refused.stderr
        standby.kill(standby.postmaster(leader))
        standby.wait_primary(20, other_than=leader)
