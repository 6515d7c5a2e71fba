"""The fault catalogue over etcd: `bascule up --store etcd --store-nodes 3`, faults of etcd itself and of the
way to it. As in test_scenarios.py: real processes, real kills, one line of JSON each, rows checked.
"""
import time

from harness import Cluster, wait_for

TTL_MS = 5000       # the default
CRASH_GAP_MAX_MS = 2000
SWITCHOVER_GAP_MAX_MS = 1500


def etcd_cluster(*up_options):
    return Cluster(etcd=3, up_options=up_options)


def test_02_over_etcd_postmaster_killed_fails_over_at_once():
    with etcd_cluster() as cluster:
        old, epoch = cluster.primary(), cluster.epoch()
        with cluster.ledger() as ledger:
            ledger.wait_acks(50)
            cluster.kill(cluster.postmaster(old))
            new = cluster.wait_primary(timeout=20, epoch_above=epoch)
            ledger.wait_acks(50)
        cluster.finish(ledger, "02 over etcd", max_gap_ms=CRASH_GAP_MAX_MS, errors_by_client_max=1)
        assert new != old
        cluster.wait_healthy()
        cluster.assert_same_rows_everywhere()


def test_25_etcd_leader_killed_causes_no_failover():
    with etcd_cluster() as cluster:
        old, epoch = cluster.primary(), cluster.epoch()
        with cluster.ledger() as ledger:
            ledger.wait_acks(50)
            for _ in range(2):
                leader = wait_for(cluster.etcd.leader, 10, "etcd has a leader")
                (cluster.etcd_home(leader) / "hold").touch()
                cluster.kill(cluster.etcd_process(leader))
                wait_for(lambda gone=leader: cluster.etcd.leader() not in ("", gone), 10, "another leads etcd")
                time.sleep(TTL_MS / 1000)
                ledger.wait_acks(50)
                (cluster.etcd_home(leader) / "hold").unlink()
                time.sleep(2)
        cluster.finish(ledger, "25 etcd leader killed", max_gap_ms=500, errors_by_client_max=0)
        assert (cluster.primary(), cluster.epoch()) == (old, epoch)


def test_27_etcd_without_a_majority_fences_the_primary_and_loses_nothing():
    with etcd_cluster() as cluster:
        cluster.run_cli("config", "set", "failsafe=false")  # with it: test_failsafe.py
        old, epoch = cluster.primary(), cluster.epoch()
        with cluster.ledger() as ledger:
            ledger.wait_acks(50)
            victims = cluster.etcd.names[:2]
            for name in victims:
                (cluster.etcd_home(name) / "hold").touch()
            begun = time.monotonic()
            cluster.kill(*[cluster.etcd_process(name) for name in victims])
            wait_for(lambda: not cluster.backends(old, ""), 10, f"{old} is fenced")
            fenced_after_ms = (time.monotonic() - begun) * 1000
            time.sleep(TTL_MS / 1000 + 1)  # nobody may take over what nobody can see
            assert cluster.writable_members() == []
            for name in victims:
                (cluster.etcd_home(name) / "hold").unlink()
            cluster.wait_primary(timeout=40)
            ledger.wait_acks(50)
        cluster.finish(ledger, "27 no majority of etcd", fenced_after_ms=round(fenced_after_ms),
                       epochs=cluster.epoch() - epoch)
        assert fenced_after_ms < 0.6 * TTL_MS + 1000
        cluster.wait_healthy()
        cluster.assert_same_rows_everywhere()


def test_17_etcd_cut_off_from_the_primary_fails_over_after_it_is_fenced():
    with etcd_cluster() as cluster:
        cluster.run_cli("config", "set", "failsafe=false")
        old = cluster.primary()
        relays = cluster.put_relays_between(old)
        wait_for(lambda: cluster.leader_renewed_by_now() and cluster.primary() == old, 20, "renewed through relays")
        epoch = cluster.epoch()
        with cluster.ledger() as ledger:
            ledger.wait_acks(50)
            for relay in relays:
                relay.cut()
            wait_for(lambda: cluster.epoch() > epoch, 20, "a take-over", poll_s=0.01)
            assert not cluster.backends(old, ""), f"{old} still runs"
            cluster.wait_primary(timeout=20, other_than=old, epoch_above=epoch)
            ledger.wait_acks(50)
            for relay in relays:
                relay.heal()
            cluster.wait_healthy()
            ledger.wait_acks(50)
        cluster.finish(ledger, "17 primary cut off from etcd", max_gap_ms=TTL_MS + 2000, errors_by_client_max=1)
        cluster.assert_same_rows_everywhere()
        assert cluster.writable_members() == [cluster.primary()]


def test_17_etcd_cut_off_from_the_primary_alone_it_goes_on_by_pledges():
    with etcd_cluster() as cluster:
        old = cluster.primary()
        relays = cluster.put_relays_between(old)
        wait_for(lambda: cluster.leader_renewed_by_now() and cluster.primary() == old, 20, "renewed through relays")
        epoch = cluster.epoch()
        with cluster.ledger() as ledger:
            ledger.wait_acks(50)
            for relay in relays:
                relay.cut()
            time.sleep(4 * TTL_MS / 1000)
            ledger.wait_acks(50)
            for relay in relays:
                relay.heal()
            wait_for(cluster.leader_renewed_by_now, 20, "renewed again")
            ledger.wait_acks(50)
        cluster.finish(ledger, "17 failsafe", max_gap_ms=1500, errors_by_client_max=0)
        assert (cluster.primary(), cluster.epoch()) == (old, epoch)


def test_22_etcd_blip_of_a_second_is_no_reason_for_anything():
    with etcd_cluster() as cluster:
        old, epoch = cluster.primary(), cluster.epoch()
        with cluster.ledger() as ledger:
            ledger.wait_acks(50)
            for _ in range(3):
                pids = [cluster.etcd_process(name) for name in cluster.etcd.names]
                cluster.stop(*pids)
                time.sleep(1)
                cluster.cont(*pids)
                time.sleep(4)
            ledger.wait_acks(50)
        cluster.finish(ledger, "22 etcd stopped for 1 s", errors_by_client_max=0)
        assert (cluster.primary(), cluster.epoch()) == (old, epoch)


def test_47_over_etcd_switchover():
    with etcd_cluster() as cluster:
        old = cluster.primary()
        with cluster.ledger() as ledger:
            ledger.wait_acks(50)
            cluster.run_cli("switchover")
            ledger.wait_acks(50)
        cluster.finish(ledger, "47 switchover over etcd", max_gap_ms=SWITCHOVER_GAP_MAX_MS, errors_by_client_max=0)
        assert cluster.primary() != old
        cluster.wait_healthy()
        cluster.assert_same_rows_everywhere()
