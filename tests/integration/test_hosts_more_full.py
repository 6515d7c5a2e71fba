"""Further scenarios of `./dev test --full` on hosts of their own: failing processes, rejoin, operations. The number in a
name is the scenario's.
"""
import os
import signal
import subprocess
import sys
import time

import psycopg2
import pytest

from harness import send, wait_for
from namespaces import HostCluster

TTL_S = 5.0
FAST = {"timing": "fast"}
FAST_TTL_S = 2.0


def whole_again(cluster, ledger, scenario, **checks):
    cluster.wait_healthy(timeout=90)
    ledger.wait_acks(50)
    ledger.stop()
    cluster.finish(ledger, scenario, **checks)
    cluster.assert_same_rows_everywhere()


def switch_over(cluster, candidate):
    cluster.run_cli("switchover", "--candidate", candidate)
    wait_for(lambda: cluster.primary() == candidate, 20, f"{candidate} leads")


# ---------------------------------------------------------------------------------------- failure

def test_03_hosts_a_crash_loop_ends_in_a_failover_without_ping_pong():
    with HostCluster(defaults={"on_crash": "restart_then_failover"}) as cluster, cluster.ledger() as ledger:
        ledger.wait_acks(50)
        old, epoch = cluster.primary(), cluster.epoch()
        killed = 0
        deadline = time.monotonic() + 60
        while cluster.epoch() == epoch and time.monotonic() < deadline:
            try:
                pid = cluster.postmaster(old) if cluster.primary() == old else 0
            except OSError:
                pid = 0
            if pid and send([pid], signal.SIGKILL):
                killed += 1
            time.sleep(0.3)
        assert cluster.wait_primary(timeout=20, epoch_above=epoch) != old
        cluster.wait_healthy(timeout=60)
        settled = cluster.epoch()
        time.sleep(TTL_S)  # no ping-pong: absence has no event
        assert cluster.epoch() == settled
        whole_again(cluster, ledger, "03", crashes=killed, epochs=settled - epoch)


def test_07_hosts_a_stopped_postmaster_is_found_and_failed_over():
    with HostCluster(defaults=FAST) as cluster, cluster.ledger() as ledger:
        ledger.wait_acks(50)
        old, epoch = cluster.primary(), cluster.epoch()
        stopped = cluster.backends(old, "")
        send(stopped, signal.SIGSTOP)
        cluster.wait_primary(timeout=30, other_than=old, epoch_above=epoch)
        ledger.wait_acks(50)
        whole_again(cluster, ledger, "07", max_gap_ms=2 * FAST_TTL_S * 1000 + 1500)


def test_13_hosts_full_processor_load_causes_no_failover():
    with HostCluster() as cluster, cluster.ledger() as ledger:
        ledger.wait_acks(50)
        before = (cluster.primary(), cluster.epoch())
        burners = [subprocess.Popen([sys.executable, "-c", "while True: pass"], start_new_session=True)
                   for _ in range(8 * os.cpu_count())]
        try:
            time.sleep(4 * TTL_S)
        finally:
            for burner in burners:
                burner.kill()
                burner.wait()
        assert (cluster.primary(), cluster.epoch()) == before
        whole_again(cluster, ledger, "13", errors_by_client_max=0)


def test_15_hosts_a_killed_backend_exposes_no_commit_that_waits():
    with HostCluster(defaults={"on_crash": "restart"}) as cluster, cluster.ledger() as ledger:
        ledger.wait_acks(50)
        old = cluster.primary()
        victim = cluster.query(old, "SELECT pid FROM pg_stat_activity WHERE usename = 'app' LIMIT 1")[0][0]
        send([cluster.host(old).outer_pid(victim)], signal.SIGKILL)
        ledger.wait_acks(50, timeout=60)
        whole_again(cluster, ledger, "15")


# ------------------------------------------------------------------------------------- durability

def test_39_hosts_a_replica_too_far_behind_is_not_promoted_unless_forced():
    with HostCluster(nodes=2, defaults={**FAST, "sync": "off", "maximum_lag": "1MB"}) as cluster:
        old, epoch = cluster.primary(), cluster.epoch()
        behind = cluster.others(old)[0]
        cluster.cut_between([old], [behind])
        cluster.query(old, "CREATE TABLE ballast AS SELECT repeat('x', 1000) FROM generate_series(1, 8000)", database="app")
        time.sleep(FAST_TTL_S)  # the record carries the position of the last renewal
        cluster.host(old).power_off()
        time.sleep(3 * FAST_TTL_S)
        assert cluster.epoch() == epoch and cluster.writable_members() == []
        reason = cluster.record(f"members/{behind}")["reason"]
        assert "behind" in reason or "lag" in reason, reason
        cluster.run_cli("failover", "--force", "--candidate", behind)
        cluster.wait_primary(timeout=20, other_than=old, epoch_above=epoch)
        history = cluster.history()
        print({"scenario": "39", "refused_because": reason, "history": history[-1] if isinstance(history, list) else history})
        cluster.boot(old)
        cluster.wait_healthy(timeout=90)


# ----------------------------------------------------------------------------------------- rejoin

def test_42_hosts_a_member_whose_wal_is_gone_is_cloned():
    with HostCluster(defaults={"rejoin_timeout": "10s"}, postgresql={"max_slot_wal_keep_size": "1MB",
                                                                     "wal_keep_size": "0"}) as cluster:
        with cluster.ledger() as ledger:
            ledger.wait_acks(50)
            primary = cluster.primary()
            away = cluster.others(primary)[0]
            cluster.host(away).power_off()
            ledger.wait_acks(50)

            def lost():
                cluster.query(primary, "SELECT pg_switch_wal()")
                cluster.query(primary, "CHECKPOINT")
                return cluster.query(primary, "SELECT count(*) FROM pg_replication_slots WHERE wal_status = 'lost'")[0][0]
            wait_for(lost, 60, "the slot of the absent member is given up")
            cluster.boot(away)
            whole_again(cluster, ledger, "42")
            assert len(cluster.noted(away, "cloned")) >= 2, "it came back without a clone"


def test_42_hosts_a_slot_that_somebody_dropped_is_made_again():
    with HostCluster() as cluster, cluster.ledger() as ledger:
        ledger.wait_acks(50)
        primary = cluster.primary()
        away = cluster.others(primary)[0]
        cluster.host(away).power_off()
        dropped = "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE NOT active"
        wait_for(lambda: cluster.query(primary, dropped), 90, "its slot is free and dropped", poll_s=0.5)
        cluster.boot(away)
        whole_again(cluster, ledger, "42 slot dropped")


def test_43_hosts_there_and_back_again_is_followed_by_ancestry():
    with HostCluster(defaults=FAST) as cluster, cluster.ledger() as ledger:
        first = cluster.primary()
        for _ in range(2):
            ledger.wait_acks(50)
            old, epoch = cluster.primary(), cluster.epoch()
            cluster.kill_host(old)
            cluster.wait_primary(timeout=30, other_than=old, epoch_above=epoch)
            ledger.wait_acks(30)
            cluster.boot(old)
            cluster.wait_healthy(timeout=90)
            if cluster.primary() != first:
                switch_over(cluster, first)
                cluster.wait_healthy(timeout=60)
        whole_again(cluster, ledger, "43", epochs=cluster.epoch())


# ------------------------------------------------------------------------------------- operations

def test_48_hosts_the_candidate_dies_in_the_middle_of_a_switchover():
    with HostCluster() as cluster, cluster.ledger() as ledger:
        ledger.wait_acks(50)
        old, epoch = cluster.primary(), cluster.epoch()
        candidate = cluster.sync_standby(old)
        command = subprocess.Popen([*cluster.cli_argv("switchover", "--candidate", candidate)], stdout=subprocess.PIPE,
                                   stderr=subprocess.STDOUT, text=True)
        wait_for(lambda: cluster.leader().get("phase") in ("draining", "stopping", "vacant"), 10, "it has begun",
                 poll_s=0.002)
        cluster.host(candidate).power_off()
        said, _ = command.communicate(timeout=60)
        cluster.wait_primary(timeout=40, other_than=candidate)
        ledger.wait_acks(50)
        cluster.boot(candidate)
        whole_again(cluster, ledger, "48", said=said.strip()[-200:], leads=cluster.primary() == old)


def test_49_hosts_a_broken_archive_command_does_not_stop_a_switchover():
    with HostCluster(postgresql={"archive_mode": "on", "archive_command": "false"}) as cluster, cluster.ledger() as ledger:
        ledger.wait_acks(50)
        old = cluster.primary()
        cluster.query(old, "SELECT pg_switch_wal()")
        cluster.run_cli("switchover", timeout=90)
        cluster.wait_primary(timeout=60, other_than=old)
        ledger.wait_acks(50)
        whole_again(cluster, ledger, "49")


@pytest.mark.parametrize("how", ["SIGTERM", "SIGKILL"])
def test_53_hosts_daemons_are_restarted_one_after_the_other(how):
    """SIGTERM is an orderly leave: the primary stops and hands over, which a statement under way does not survive. After
    SIGKILL the next daemon adopts PostgreSQL: nobody notices."""
    with HostCluster() as cluster, cluster.ledger() as ledger:
        before = (cluster.primary(), cluster.epoch())
        for member in sorted(cluster.members, key=lambda m: m == before[0]):
            ledger.wait_acks(50)
            agent = cluster.agent(member)
            send([agent], getattr(signal, how))
            wait_for(lambda m=member, a=agent: cluster.agent(m) not in (0, a), 30, f"the daemon of {member} is back")
            cluster.wait_healthy(timeout=60)
        if how == "SIGKILL":
            assert (cluster.primary(), cluster.epoch()) == before
        whole_again(cluster, ledger, f"53 {how}", max_gap_ms=3500 if how == "SIGTERM" else 1500,
                    errors_by_client_max=1 if how == "SIGTERM" else 0)
