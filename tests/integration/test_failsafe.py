"""Agent to agent, on real servers: failsafe (the store is away, the primary goes on while its voters pledge to
follow it) and early take-over (all voters find the primary gone and do not wait for ttl).
"""
import shutil
import statistics
import time

from harness import Cluster, wait_for

TTL_MS = 5000
# The figure is a median below 1500 ms; a test machine shares its cores.
EARLY_GAP_MAX_MS = 3000
EARLY_GAP_MEDIAN_MS = 2000


def test_26_all_of_etcd_stopped_the_primary_goes_on():
    with Cluster(etcd=3) as cluster:
        old, epoch = cluster.primary(), cluster.epoch()
        with cluster.ledger() as ledger:
            ledger.wait_acks(50)
            cluster.stop_etcd()
            time.sleep(4 * TTL_MS / 1000)
            ledger.wait_acks(50)
            assert cluster.noted(old, "failsafe")
            assert cluster.writable_members() == [old]
            cluster.start_etcd()
            wait_for(lambda: cluster.etcd.leader() and cluster.leader_renewed_by_now(), 30, "renewed again")
            ledger.wait_acks(50)
        cluster.finish(ledger, "26 etcd stopped", max_gap_ms=1500, errors_by_client_max=0)
        assert (cluster.primary(), cluster.epoch()) == (old, epoch)
        cluster.wait_healthy()
        cluster.assert_same_rows_everywhere()


def test_26_etcd_stopped_and_the_voters_gone_fences_the_primary():
    """Agents that are stopped pledge nothing, as if they were cut off."""
    with Cluster(etcd=3) as cluster:
        old, epoch = cluster.primary(), cluster.epoch()
        agents = [cluster.agent(m) for m in cluster.members if m != old]
        with cluster.ledger() as ledger:
            ledger.wait_acks(50)
            cluster.stop_etcd()
            time.sleep(2 * TTL_MS / 1000)
            assert cluster.writable_members() == [old]
            begun = time.monotonic()
            cluster.stop(*agents)
            wait_for(lambda: not cluster.backends(old, ""), 15, f"{old} is fenced")
            fenced_after_ms = (time.monotonic() - begun) * 1000
            assert cluster.writable_members() == []
            cluster.cont(*agents)
            cluster.start_etcd()
            cluster.wait_primary(timeout=60)
            ledger.wait_acks(50)
        cluster.finish(ledger, "26 etcd stopped, voters gone", fenced_after_ms=round(fenced_after_ms),
                       epochs=cluster.epoch() - epoch)
        assert fenced_after_ms < 0.6 * TTL_MS + 1000
        cluster.wait_healthy()
        cluster.assert_same_rows_everywhere()


def test_04_all_processes_of_the_host_killed_early_takeover():
    gaps = []
    with Cluster() as cluster:
        cluster.run_cli("config", "set", "early_takeover=true")
        for _ in range(3):
            cluster.wait_healthy()
            time.sleep(TTL_MS / 1000 + 1)  # before that an agent that has just started does not suspect anybody
            old, epoch = cluster.primary(), cluster.epoch()
            with cluster.ledger() as ledger:
                ledger.wait_acks(50)
                cluster.stop(cluster.agent(old))  # or it might see PostgreSQL die first, and release the record
                cluster.kill_host(old)
                cluster.wait_primary(timeout=20, other_than=old, epoch_above=epoch)
                ledger.wait_acks(50)
            # One error, or a second from a server of the pool that was killed a moment later.
            report = cluster.finish(ledger, "04 early", max_gap_ms=EARLY_GAP_MAX_MS, errors_by_client_max=2)
            gaps.append(report.gap_global_ms)
            cluster.query(cluster.primary(), "DROP TABLE ledger", database=cluster.info["database"])
            assert cluster.record(f"history/{epoch + 1:020}")["trigger"] == "early"
            cluster.stopped_pids.clear()
            cluster.release(old)
        assert statistics.median(gaps) < EARLY_GAP_MEDIAN_MS, gaps


def test_24_agent_away_but_postgresql_fine_causes_no_early_takeover():
    with Cluster() as cluster:
        cluster.run_cli("config", "set", "early_takeover=true")
        time.sleep(TTL_MS / 1000 + 1)
        old, epoch = cluster.primary(), cluster.epoch()
        with cluster.ledger() as ledger:
            ledger.wait_acks(50)
            cluster.kill(cluster.agent(old))  # started again within a second
            time.sleep(TTL_MS / 1000)
            ledger.wait_acks(50)
        cluster.finish(ledger, "24 early", errors_by_client_max=0)
        assert (cluster.primary(), cluster.epoch()) == (old, epoch)


def test_28_etcd_wiped_under_a_live_primary_is_filled_again():
    with Cluster(etcd=3) as cluster:
        old, epoch = cluster.primary(), cluster.epoch()
        cluster.run_cli("config", "set", "maximum_lag=17MB")  # something that only the store knows
        history = cluster.history()
        with cluster.ledger() as ledger:
            ledger.wait_acks(50)
            cluster.stop_etcd()
            for name in cluster.etcd.names:
                for data in cluster.etcd_home(name).glob("data*"):
                    shutil.rmtree(data)
            cluster.start_etcd()
            wait_for(lambda: cluster.etcd.leader() and cluster.record("seed"), 60, "the store is filled again")
            wait_for(cluster.leader_renewed_by_now, 20, "renewed again")
            ledger.wait_acks(100)
        cluster.finish(ledger, "28 etcd wiped", max_gap_ms=3000, errors_by_client_max=1)
        assert (cluster.primary(), cluster.epoch()) == (old, epoch)
        assert cluster.record("config")["maximumLagBytes"] == 17 << 20
        assert cluster.history() == history
        cluster.wait_healthy()
        with cluster.ledger() as again:  # a store like any other
            again.wait_acks(20)
            cluster.kill_host(old)
            cluster.wait_primary(timeout=30, other_than=old, epoch_above=epoch)
            again.wait_acks(20)
