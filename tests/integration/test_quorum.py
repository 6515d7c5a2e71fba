"""Synchronous mode "quorum" on real servers: a commit waits for any k of the standbys that keep up."""
import json
import time
import urllib.error
import urllib.request

from harness import Cluster, wait_for


def quorum_cluster(*options):
    return Cluster(up_options=["--sync", "quorum", *options])


def setting(cluster):
    return cluster.query(cluster.primary(), "SELECT current_setting('synchronous_standby_names')")[0][0]


def health(cluster, member, route):
    api = cluster.address(member)["api"]
    try:
        with urllib.request.urlopen(f"http://{api['host']}:{api['port']}{route}", timeout=3) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code


def test_31_quorum_any_one_of_two_primary_killed_loses_nothing():
    with quorum_cluster() as cluster:
        cluster.wait_for_voters(2)
        assert setting(cluster).startswith("ANY 1 ("), setting(cluster)
        old, epoch = cluster.primary(), cluster.epoch()
        for member in cluster.members:
            wait_for(lambda m=member: health(cluster, m, "/quorum") == (503 if m == old else 200), 10,
                     f"/quorum of {member}")
            assert health(cluster, member, "/sync") == 503
        assert "quorum" in cluster.run_cli("status").stdout
        assert json.loads(cluster.run_cli("status", "--json").stdout)["sync"]["acknowledgements"] == 1
        with cluster.ledger() as ledger:
            ledger.wait_acks(100)
            cluster.kill_host(old)
            cluster.wait_primary(timeout=30, other_than=old, epoch_above=epoch)
            ledger.wait_acks(100)
            cluster.release(old)
            cluster.wait_for_voters(2, timeout=60)
            ledger.wait_acks(100)
        cluster.finish(ledger, "31 quorum", errors_by_client_max=1)
        cluster.wait_healthy()
        cluster.assert_same_rows_everywhere()


def test_33_quorum_goes_on_when_a_standby_dies():
    """Unlike with one named standby nobody has to be replaced first."""
    with quorum_cluster() as cluster:
        cluster.wait_for_voters(2)
        victim = next(m for m in cluster.members if m != cluster.primary())
        with cluster.ledger() as ledger:
            ledger.wait_acks(100)
            cluster.kill_host(victim)
            ledger.wait_acks(200)
            cluster.wait_for_voters(1)
            cluster.release(victim)
            cluster.wait_for_voters(2, timeout=60)
            ledger.wait_acks(100)
        cluster.finish(ledger, "33 quorum", max_gap_ms=500, errors_by_client_max=0)


def test_34_quorum_and_back_under_load_with_a_crash():
    with Cluster() as cluster:
        with cluster.ledger() as ledger:
            ledger.wait_acks(100)
            cluster.run_cli("config", "set", "sync=quorum")
            cluster.wait_for_voters(2)
            ledger.wait_acks(50)
            cluster.run_cli("config", "set", "sync_count=2")
            cluster.wait_for_voters(2, k=2)
            ledger.wait_acks(50)
            cluster.run_cli("config", "set", "sync=on", "sync_count=1")
            cluster.wait_for_voters(1)
            ledger.wait_acks(50)
            cluster.run_cli("config", "set", "sync=quorum")
            old, epoch = cluster.primary(), cluster.epoch()
            cluster.kill(cluster.postmaster(old))  # in the middle of the change
            cluster.wait_primary(timeout=30, epoch_above=epoch - 1)
            cluster.wait_for_voters(2, timeout=60)
            ledger.wait_acks(100)
        cluster.finish(ledger, "34 quorum", errors_by_client_max=1)
        cluster.wait_healthy()
        cluster.assert_same_rows_everywhere()


def test_33_quorum_strict_blocks_when_no_voter_is_left():
    with quorum_cluster() as cluster:
        cluster.run_cli("config", "set", "sync_strict=true")
        cluster.wait_for_voters(2)
        primary = cluster.primary()
        standbys = [m for m in cluster.members if m != primary]
        with cluster.ledger() as ledger:
            ledger.wait_acks(50)
            for member in standbys:
                cluster.kill_host(member)
            time.sleep(1)
            blocked_from = ledger.acked_count()
            time.sleep(4)
            assert ledger.acked_count() == blocked_from, "strict: nothing is acknowledged without a voter"
            assert cluster.primary() == primary
            for member in standbys:
                cluster.release(member)
            cluster.wait_for_voters(2, timeout=60)
            ledger.wait_acks(50)
        cluster.finish(ledger, "33 quorum strict", errors_by_client_max=1)
        cluster.assert_same_rows_everywhere()
