"""Scenarios that need hosts of their own (namespaces.py): partitions and lost hosts, on a cluster of three
members, three etcd, a proxy and clients in eight network namespaces. These run in `./dev test`;
test_hosts_full.py has those for `./dev test --full`. The number in a name is the scenario's.
"""
import time

import psycopg2
import pytest

from harness import wait_for
from namespaces import HostCluster

TTL_MS = 5000  # the default
FAST = {"timing": "fast"}
FAST_TTL_MS = 2000
SLACK_MS = 700  # the test machine does other things, too


def test_04_hosts_the_primarys_host_is_killed_and_its_kernel_resets():
    with HostCluster() as cluster:
        with cluster.ledger() as ledger:
            ledger.wait_acks(50)
            old, epoch = cluster.primary(), cluster.epoch()
            cluster.kill_host(old)
            cluster.wait_primary(timeout=20, other_than=old, epoch_above=epoch)
            ledger.wait_acks(50)
            cluster.boot(old)
            cluster.wait_healthy()
            ledger.wait_acks(50)
        cluster.finish(ledger, "04 host killed", max_gap_ms=TTL_MS + 1500, errors_by_client_max=1)
        cluster.assert_same_rows_everywhere()


def test_16_hosts_primary_cut_from_everything_is_fenced_before_another_is_promoted():
    with HostCluster(defaults=FAST) as cluster:
        with cluster.ledger() as ledger:
            ledger.wait_acks(50)
            old, epoch = cluster.primary(), cluster.epoch()
            cluster.isolate(old)
            wait_for(lambda: cluster.epoch() > epoch, 20, "a take-over", poll_s=0.01)
            assert not cluster.backends(old, ""), f"{old} still runs PostgreSQL"
            cluster.wait_primary(timeout=20, other_than=old, epoch_above=epoch)
            ledger.wait_acks(50)
            cluster.heal(old)
            cluster.wait_healthy()
            ledger.wait_acks(50)
        cluster.finish(ledger, "16", max_gap_ms=FAST_TTL_MS + 1500, errors_by_client_max=1)
        cluster.assert_same_rows_everywhere()


def test_22_hosts_a_blip_of_the_primarys_network_is_no_reason_for_a_failover():
    """Up to 1.5 s nobody notices more than a pause. A primary that has not renewed for 3 s (0.6 ttl; the last renewal may
    be a second old when the blip begins, and TCP takes its time to recover) stops itself and goes on: no failover."""
    with HostCluster() as cluster:
        with cluster.ledger() as ledger:
            ledger.wait_acks(50)
            old, epoch = cluster.primary(), cluster.epoch()
            for blip_s, errors in ((1.3, 0), (2.0, 1)):
                cluster.isolate(old)
                time.sleep(blip_s)  # the blip itself: the scenario is its length
                cluster.heal(old)
                ledger.wait_acks(100)
                assert max(len(c.errors) for c in ledger.clients) <= errors
        cluster.finish(ledger, "22 network", errors_by_client_max=1)
        assert (cluster.primary(), cluster.epoch()) == (old, epoch)


def test_12_hosts_exhausted_connections_are_no_reason_for_a_failover():
    with HostCluster() as cluster:
        taken = []
        with cluster.ledger() as ledger:
            ledger.wait_acks(50)
            old, epoch = cluster.primary(), cluster.epoch()
            with cluster.host("c1").inside(), pytest.raises(psycopg2.OperationalError, match="connection slots"):
                while True:
                    taken.append(psycopg2.connect(cluster.dsn(old)))
            deadline = time.monotonic() + 1.5 * TTL_MS / 1000
            while time.monotonic() < deadline:
                assert cluster.epoch() == epoch
                time.sleep(0.1)
            ledger.wait_acks(50)
            for connection in taken:
                connection.close()
        cluster.finish(ledger, "12", errors_by_client_max=0, connections=len(taken))
        assert (cluster.primary(), cluster.epoch()) == (old, epoch)


def test_33_hosts_writes_resume_within_a_second_when_the_synchronous_standby_is_lost():
    with HostCluster() as cluster:
        with cluster.ledger() as ledger:
            ledger.wait_acks(50)
            old, epoch = cluster.primary(), cluster.epoch()
            lost = cluster.sync_standby(old)
            cluster.host(lost).power_off()
            ledger.wait_acks(50)
            cluster.boot(lost)
            cluster.wait_healthy()
            ledger.wait_acks(50)
        cluster.finish(ledger, "33", max_gap_ms=1000 + SLACK_MS, errors_by_client_max=0)
        assert (cluster.primary(), cluster.epoch()) == (old, epoch)
        cluster.assert_same_rows_everywhere()


def test_56_hosts_a_lagging_replica_says_503_and_gets_no_reads():
    with HostCluster(proxy={"routing": {"lag_max": "1MB"}}) as cluster:
        with cluster.ledger() as ledger:
            ledger.wait_acks(50)
            primary = cluster.primary()
            lagging, other = [m for m in cluster.members if m != primary]
            cluster.query(lagging, "SELECT pg_wal_replay_pause()")
            cluster.query(primary, "CREATE TABLE ballast AS SELECT repeat('x', 1000) FROM generate_series(1, 5000)",
                          database="app")

            def answer(member, limit):
                return cluster.http_status(member, f"/replica?lag={limit}")
            wait_for(lambda: answer(lagging, "1MB") == 503, 15, "the lagging replica says 503")
            assert answer(lagging, "1GB") == 200
            wait_for(lambda: answer(other, "1MB") == 200, 15, "the other one has what the load wrote")
            wait_for(lambda: cluster.servers_of_reads(12) == {cluster.host(other).address}, 15,
                     "reads go to the other replica only", poll_s=0.2)
            cluster.query(lagging, "SELECT pg_wal_replay_resume()")
            wait_for(lambda: answer(lagging, "1MB") == 200, 15, "it has caught up")
            wait_for(lambda: cluster.host(lagging).address in cluster.servers_of_reads(12), 15, "it gets reads again",
                     poll_s=0.2)
        cluster.finish(ledger, "56", errors_by_client_max=0)
