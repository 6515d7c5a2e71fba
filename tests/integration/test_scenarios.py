"""Scenarios of the fault catalogue against real PostgreSQL: real processes, real kills.

The number in a test's name is the scenario's. Each prints one line of JSON (acknowledged, errors,
lost, duplicates, longest gap) and fails if an acknowledged row is missing or a row is there twice.
Writers go through the proxy, as an application does. The same scenarios run under thousands of
seeds in sim/.
"""
import signal
import statistics
import subprocess
import threading
import time

import psycopg2
import pytest

from harness import Cluster, wait_for

TTL_MS = 5000       # the default
FAST_TTL_MS = 2000  # --timing fast
CRASH_GAP_MAX_MS = 1500
SWITCHOVER_GAP_MAX_MS = 1500
# The figure (median below 500 ms) is measured by `bascule demo --repeat 20`; a test machine shares its cores.
SWITCHOVER_GAP_MEDIAN_MS = 1000


def fenced_at_take_over(cluster, old, epoch, timeout):
    """Waits for the record to change hands; at that moment no PostgreSQL of `old` may be alive."""
    def taken():
        leader = cluster.leader()
        return leader if int(leader.get("epoch", 0)) > epoch and leader.get("holder") else None
    leader = wait_for(taken, timeout, f"a take-over from {old} (epoch {epoch})", poll_s=0.002)
    alive = [p for p in cluster.backends(old, "") if p]
    assert not alive, f"{old} still runs {alive} when {leader['holder']} has taken over"
    return leader


def write_directly(cluster, member, client, result):
    """One row straight to a member, past the proxy. result["acked"] once it is acknowledged."""
    try:
        connection = psycopg2.connect(cluster.dsn(member))
        connection.autocommit = True
        with connection.cursor() as cursor:
            result["sent"] = True
            cursor.execute("INSERT INTO ledger VALUES (%s, 1)", (client,))
        warned = any("canceling wait" in n for n in connection.notices)
        result["acked"] = not warned
    except psycopg2.Error as error:
        result["error"] = str(error).strip()


def in_background(function, *arguments):
    thread = threading.Thread(target=function, args=arguments, daemon=True)
    thread.start()
    return thread


# ---------------------------------------------------------------------------------------- failure

def test_01_postmaster_killed_restart_policy_recovers_in_place():
    with Cluster() as cluster:
        cluster.run_cli("config", "set", "on_crash=restart")
        old, epoch = cluster.primary(), cluster.epoch()
        timeline = cluster.timeline(old)
        with cluster.ledger() as ledger:
            ledger.wait_acks(50)
            cluster.kill(cluster.postmaster(old))
            ledger.wait_acks(50)
        cluster.finish(ledger, "01", errors_by_client_max=1)
        assert (cluster.primary(), cluster.epoch()) == (old, epoch)
        assert cluster.timeline(old) == timeline
        cluster.wait_healthy()


def test_02_postmaster_killed_failover_policy_fails_over_at_once():
    with Cluster() as cluster:
        old, epoch = cluster.primary(), cluster.epoch()
        with cluster.ledger() as ledger:
            ledger.wait_acks(50)
            cluster.kill(cluster.postmaster(old))
            new = cluster.wait_primary(timeout=20, epoch_above=epoch)
            ledger.wait_acks(50)
        cluster.finish(ledger, "02", max_gap_ms=CRASH_GAP_MAX_MS, errors_by_client_max=1)
        assert new != old
        cluster.wait_healthy()  # the old primary has rejoined
        cluster.assert_same_rows_everywhere()


def test_04_host_of_the_primary_killed():
    with Cluster() as cluster:
        old, epoch = cluster.primary(), cluster.epoch()
        with cluster.ledger() as ledger:
            ledger.wait_acks(50)
            cluster.kill_host(old)
            cluster.wait_primary(timeout=20, other_than=old, epoch_above=epoch)
            ledger.wait_acks(50)
        cluster.finish(ledger, "04", max_gap_ms=TTL_MS + 1000, errors_by_client_max=1)
        cluster.release(old)
        cluster.wait_healthy()
        cluster.assert_same_rows_everywhere()


def test_05_agent_killed_and_restarted_adopts_postgresql():
    with Cluster() as cluster:
        old, epoch = cluster.primary(), cluster.epoch()
        postmaster, agent = cluster.postmaster(old), cluster.agent(old)
        with cluster.ledger() as ledger:
            ledger.wait_acks(50)
            cluster.kill(agent)
            wait_for(lambda: cluster.agent(old) != agent, 20, "the agent is started again")
            wait_for(lambda: cluster.leader_renewed_by_now(), 10, "the record is renewed again")
            ledger.wait_acks(50)
        cluster.finish(ledger, "05 adopted", errors_by_client_max=0)
        assert cluster.postmaster(old) == postmaster
        assert (cluster.primary(), cluster.epoch()) == (old, epoch)


def test_05_agent_killed_for_good_is_fenced_before_take_over():
    with Cluster(up_options=["--timing", "fast"]) as cluster:
        old, epoch = cluster.primary(), cluster.epoch()
        with cluster.ledger() as ledger:
            ledger.wait_acks(50)
            cluster.hold(old)
            cluster.kill(cluster.agent(old))
            fenced_at_take_over(cluster, old, epoch, timeout=20)
            ledger.wait_acks(50)
        cluster.finish(ledger, "05 fenced", max_gap_ms=FAST_TTL_MS + 2000)
        cluster.release(old)
        cluster.wait_healthy()
        cluster.assert_same_rows_everywhere()


def test_06_agent_stopped_is_fenced_by_the_guard_before_take_over():
    with Cluster() as cluster:
        old, epoch = cluster.primary(), cluster.epoch()
        with cluster.ledger() as ledger:
            ledger.wait_acks(50)
            agent = cluster.agent(old)
            cluster.stop(agent)
            fenced_at_take_over(cluster, old, epoch, timeout=20)
            ledger.wait_acks(50)
            cluster.cont(agent)
            ledger.wait_acks(50)
        cluster.finish(ledger, "06", max_gap_ms=TTL_MS + 1000)
        cluster.wait_healthy()
        cluster.assert_same_rows_everywhere()


# ---------------------------------------------------------------------------------------- network

@pytest.mark.parametrize("who", ["primary", "standby"])
def test_22_a_blip_shorter_than_the_tolerance_causes_no_failover(who):
    with Cluster() as cluster:
        primary, epoch = cluster.primary(), cluster.epoch()
        member = primary if who == "primary" else next(m for m in cluster.members if m != primary)
        with cluster.ledger() as ledger:
            ledger.wait_acks(50)
            frozen = cluster.host_pids(member)
            cluster.stop(*frozen)
            time.sleep(1.5)  # the blip itself: the scenario is its length
            cluster.cont(*frozen)
            ledger.wait_acks(100)
        cluster.finish(ledger, f"22 {who}", errors_by_client_max=0)
        assert (cluster.primary(), cluster.epoch()) == (primary, epoch)
        cluster.wait_healthy()


# ------------------------------------------------------------------------------------- durability

def test_31_every_acknowledged_row_survives_three_losses_of_the_primary():
    with Cluster(up_options=["--timing", "fast"]) as cluster:
        with cluster.ledger(clients=8) as ledger:
            for how in ("postmaster", "host", "postmaster"):
                ledger.wait_acks(30)
                old, epoch = cluster.primary(), cluster.epoch()
                if how == "host":
                    cluster.kill_host(old)
                else:
                    cluster.kill(cluster.postmaster(old))
                cluster.wait_primary(timeout=20, epoch_above=epoch)
                ledger.wait_acks(30)
                cluster.release(old)
                cluster.wait_healthy()
        cluster.finish(ledger, "31")
        cluster.assert_same_rows_everywhere()


# ----------------------------------------------------------------------------------------- rejoin

def test_40_a_diverged_primary_is_rewound():
    with Cluster(up_options=["--timing", "fast"]) as cluster:
        old, epoch = cluster.primary(), cluster.epoch()
        with cluster.ledger() as ledger:
            ledger.wait_acks(50)
        before = cluster.query(old, "SELECT pg_current_wal_flush_lsn()")[0][0]
        # A commit that is durable on the primary only: it waits for a standby that gets nothing.
        cluster.stop(*cluster.backends(old, "walsender"))
        result = {}
        writer = in_background(write_directly, cluster, old, 999, result)
        wait_for(lambda: cluster.query(
            old, "SELECT pg_current_wal_flush_lsn() > %s::pg_lsn AND EXISTS (SELECT FROM "
                 "pg_stat_activity WHERE wait_event = 'SyncRep')", before)[0][0],
            3, "the unacknowledged commit is flushed on the primary", poll_s=0.005)
        cluster.kill_host(old)
        writer.join(timeout=10)
        assert "acked" not in result
        cluster.wait_primary(timeout=20, other_than=old, epoch_above=epoch)
        cluster.release(old)
        cluster.wait_healthy()
        cluster.finish(ledger, "40")
        cluster.assert_same_rows_everywhere()
        assert cluster.query(old, "SELECT count(*) FROM ledger WHERE client = 999",
                             database=cluster.info["database"])[0][0] == 0
        assert cluster.noted(old, "rewind"), "the old primary came back without a rewind"
        assert not cluster.noted(old, "clone"), "the old primary was cloned, a rewind was enough"


def test_44_double_failover_both_old_primaries_return():
    with Cluster(up_options=["--timing", "fast"]) as cluster:
        dead = []
        with cluster.ledger() as ledger:
            for _ in range(2):
                ledger.wait_acks(50)
                # The survivors form a synchronous pair before the next one is lost.
                cluster.wait_healthy(streaming=len(cluster.members) - 1 - len(dead))
                old, epoch = cluster.primary(), cluster.epoch()
                cluster.kill_host(old)
                dead.append(old)
                cluster.wait_primary(timeout=20, other_than=old, epoch_above=epoch)
            ledger.wait_acks(50)
            for member in dead:
                cluster.release(member)
            cluster.wait_healthy()
            ledger.wait_acks(50)
        cluster.finish(ledger, "44")
        assert len(cluster.writable_members()) == 1
        cluster.assert_same_rows_everywhere()


# ------------------------------------------------------------------------------------- operations

def test_47_switchover_under_load_loses_nothing_and_shows_no_error():
    gaps = []
    with Cluster() as cluster:
        for _ in range(3):
            old, epoch = cluster.primary(), cluster.epoch()
            with cluster.ledger() as ledger:
                ledger.wait_acks(50)
                cluster.run_cli("switchover")
                cluster.wait_primary(timeout=20, other_than=old, epoch_above=epoch)
                ledger.wait_acks(50)
            report = cluster.finish(ledger, "47", max_gap_ms=SWITCHOVER_GAP_MAX_MS,
                                    errors_by_client_max=0)
            gaps.append(report.gap_ms)
            cluster.query(cluster.primary(), "TRUNCATE ledger", database=cluster.info["database"])
            cluster.wait_healthy()
    assert statistics.median(gaps) < SWITCHOVER_GAP_MEDIAN_MS, gaps


def test_51_paused_nothing_happens_and_resume_heals():
    with Cluster(up_options=["--timing", "fast"]) as cluster:
        old, epoch = cluster.primary(), cluster.epoch()
        with cluster.ledger() as ledger:
            ledger.wait_acks(50)
            cluster.run_cli("pause")
            cluster.kill(cluster.postmaster(old))
            wait_for(lambda: not cluster.backends(old, ""), 5, "PostgreSQL is gone")
            deadline = time.monotonic() + 2 * FAST_TTL_MS / 1000
            while time.monotonic() < deadline:  # nothing may happen in all this time
                assert cluster.epoch() == epoch
                assert not [p for p in cluster.backends(old, "")], "PostgreSQL was started in a pause"
                time.sleep(0.05)
            cluster.run_cli("resume")
            ledger.wait_acks(50)
        cluster.finish(ledger, "51")
        cluster.wait_healthy()


# ------------------------------------------------------------------------------------ adversarial

def test_61_a_standby_with_blocked_replay_does_not_acknowledge_after_its_ballot():
    with Cluster(up_options=["--timing", "fast"]) as cluster:
        old, epoch = cluster.primary(), cluster.epoch()
        paused, blocked = [m for m in cluster.members if m != old]
        database = cluster.info["database"]
        with cluster.ledger() as ledger:
            ledger.wait_acks(30)
            cluster.query(paused, "SELECT pg_wal_replay_pause()")
            # The other standby's replay is held up by a query that needs what a vacuum removes.
            reader = cluster.superuser(blocked, database)
            with reader.cursor() as cursor:
                cursor.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
                cursor.execute("SELECT count(*) FROM ledger")
            cluster.query(old, "CREATE TABLE gone AS SELECT generate_series(1, 1000)", database=database)
            cluster.query(old, "DELETE FROM ledger WHERE client < 0", database=database)
            cluster.query(old, "DELETE FROM gone", database=database)
            cluster.query(old, "VACUUM ledger, gone", database=database)
            ledger.wait_acks(30)
            # The primary lives on unfenced: agent and guard are stopped, PostgreSQL is not.
            agent, guard = cluster.agent(old), cluster.guard(old)
            cluster.stop(agent, guard)
            cluster.wait_primary(timeout=30, other_than=old, epoch_above=epoch)
            result = {}
            in_background(write_directly, cluster, old, 999, result)
            ledger.wait_acks(100)
            wait_for(lambda: "sent" in result or "error" in result, 5, "the write to the old primary")
            time.sleep(1)  # absence of an acknowledgement has no event
            assert not result.get("acked"), "the old primary acknowledged after a take-over"
            reader.close()
            cluster.cont(guard, agent)
            ledger.wait_acks(30)
        cluster.finish(ledger, "61")
        cluster.wait_healthy()
        cluster.assert_same_rows_everywhere()
        assert cluster.writable_members() == [cluster.primary()]


def test_62_standbys_restarted_right_after_acknowledging_do_not_under_report():
    with Cluster(up_options=["--timing", "fast"]) as cluster:
        old, epoch = cluster.primary(), cluster.epoch()
        standbys = [m for m in cluster.members if m != old]
        with cluster.ledger() as ledger:
            ledger.wait_acks(30)
            for member in standbys:  # received and acknowledged, but not replayed
                cluster.query(member, "SELECT pg_wal_replay_pause()")
            ledger.wait_acks(50)
            victims = [cluster.postmaster(m) for m in standbys]
            cluster.kill(*victims)
            cluster.kill_host(old)
            cluster.wait_primary(timeout=30, other_than=old, epoch_above=epoch)
            ledger.wait_acks(50)
            cluster.release(old)
        cluster.finish(ledger, "62")
        cluster.wait_healthy()
        cluster.assert_same_rows_everywhere()


def test_63_second_failover_before_the_standbys_have_caught_up():
    with Cluster(up_options=["--timing", "fast"]) as cluster:
        with cluster.ledger() as ledger:
            ledger.wait_acks(50)
            first, epoch = cluster.primary(), cluster.epoch()
            cluster.kill_host(first)
            second = cluster.wait_primary(timeout=20, other_than=first, epoch_above=epoch)
            cluster.kill_host(second)
            # The third may lead only if it has everything of both; if not, it waits for the second.
            try:
                alone = bool(cluster.wait_primary(timeout=8, other_than=second, epoch_above=epoch + 1))
            except AssertionError:
                alone = False
            cluster.release(second)
            cluster.wait_primary(timeout=30, epoch_above=epoch)
            ledger.wait_acks(50)
            cluster.release(first)
            cluster.wait_healthy()
        cluster.finish(ledger, "63", third_led_alone=alone)
        cluster.assert_same_rows_everywhere()
        assert cluster.writable_members() == [cluster.primary()]


def test_67_a_winner_stopped_before_its_confirmation_does_not_promote_late():
    with Cluster(up_options=["--timing", "fast"]) as cluster:
        with cluster.ledger() as ledger:
            ledger.wait_acks(50)
            old, epoch = cluster.primary(), cluster.epoch()
            cluster.kill_host(old)

            def taken():
                leader = cluster.leader()
                return leader if leader.get("holder") not in ("", old) else None
            leader = wait_for(taken, 20, "a take-over", poll_s=0.001)
            winner, agent = leader["holder"], cluster.agent(leader["holder"])
            cluster.stop(agent)
            too_late = time.monotonic() + FAST_TTL_MS / 1000
            hit = cluster.leader()["phase"] == "preparing"
            # Whether a third member may take over meanwhile or not: what it began its guard ends. Where it was
            # stopped before it had begun anything there is nothing to end, and it stays a standby.
            wait_for(lambda: time.monotonic() > too_late or not cluster.backends(winner, ""), 10, "its time is over")
            assert winner not in cluster.writable_members()
            cluster.cont(agent)
            cluster.release(old)
            cluster.wait_primary(timeout=30, epoch_above=epoch + 1 if hit else epoch)
            ledger.wait_acks(50)
        cluster.finish(ledger, "67", hit=hit)
        if hit:  # the epoch that was not confirmed in time never wrote
            assert not [n for n in cluster.notes(winner)
                        if n["what"] == "routed" and n["fields"].get("epoch") == str(epoch + 1)]
        cluster.wait_healthy()
        cluster.assert_same_rows_everywhere()
        assert cluster.writable_members() == [cluster.primary()]


def test_70_a_fenced_directory_started_by_debians_service_takes_no_writes():
    with Cluster(up_options=["--timing", "fast"]) as cluster:
        with cluster.ledger() as ledger:
            ledger.wait_acks(50)
            old, epoch = cluster.primary(), cluster.epoch()
            cluster.kill_host(old)
            cluster.wait_primary(timeout=20, other_than=old, epoch_above=epoch)
            cluster.start_like_a_service(old)
            assert cluster.query(old, "SELECT pg_is_in_recovery()")[0][0] is True
            assert cluster.query(old, "SELECT count(*) FROM pg_stat_wal_receiver")[0][0] == 0
            result = {}
            write_directly(cluster, old, 999, result)
            assert "read-only" in result.get("error", ""), result
            cluster.release(old)
            cluster.wait_healthy()
            ledger.wait_acks(50)
        cluster.finish(ledger, "70")
        cluster.assert_same_rows_everywhere()


@pytest.mark.parametrize("order", ["agent_first", "guard_first"])
def test_72_agent_and_guard_killed_in_either_order(order):
    with Cluster(up_options=["--timing", "fast"]) as cluster:
        with cluster.ledger() as ledger:
            ledger.wait_acks(50)
            old, epoch = cluster.primary(), cluster.epoch()
            agent, guard = cluster.agent(old), cluster.guard(old)
            cluster.hold(old)
            cluster.kill(*((agent, guard) if order == "agent_first" else (guard, agent)))
            fenced_at_take_over(cluster, old, epoch, timeout=20)
            ledger.wait_acks(50)
            cluster.release(old)
            cluster.wait_healthy()
            ledger.wait_acks(50)
        cluster.finish(ledger, f"72 {order}", max_gap_ms=FAST_TTL_MS + 1500)
        cluster.assert_same_rows_everywhere()
        assert cluster.writable_members() == [cluster.primary()]
