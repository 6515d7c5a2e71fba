"""Further scenarios of `./dev test --full` on a local cluster: faults between two steps of the control plane, and old records
that turn up again. The number in a name is the scenario's.
"""
import base64
import contextlib
import json
import shutil
import signal
import threading
import time

import psycopg2

from harness import Cluster, wait_for

FAST = ["--timing", "fast"]
FAST_TTL_S = 2.0


def whole_again(cluster, ledger, scenario, **checks):
    cluster.wait_healthy(timeout=90)
    ledger.wait_acks(30)
    ledger.stop()
    cluster.finish(ledger, scenario, **checks)
    cluster.assert_same_rows_everywhere()
    assert cluster.writable_members() == [cluster.primary()]


def reason_of(cluster, member):
    return (cluster.record(f"members/{member}") or {}).get("reason", "")


# ------------------------------------------------------------------------------------- durability

def test_35_a_new_standby_counts_only_once_it_has_flushed_beyond_the_change():
    with Cluster(up_options=FAST) as cluster, cluster.ledger() as ledger:
        cluster.run_cli("config", "set", "sync_strict=true")
        ledger.wait_acks(30)
        primary, epoch = cluster.primary(), cluster.epoch()
        before = cluster.sync_standby(primary)
        new = cluster.others(primary, before)[0]
        receiver = cluster.backends(new, "walreceiver")
        cluster.kill_host(before)
        wait_for(lambda: cluster.voters() == sorted([before, new]), 10, "the change is recorded", poll_s=0.001)
        cluster.stop(*receiver)  # before it can have flushed what was written after the change
        time.sleep(FAST_TTL_S)  # it must not be confirmed in all this time: absence has no event
        assert cluster.voters() == sorted([before, new]) and cluster.generations()[-1]["quorum"] == 2
        cluster.kill_host(primary)
        cluster.cont(*receiver)
        wait_for(lambda: "needs ballots of 2" in reason_of(cluster, new), 20, f"{new} says whom it needs")
        reason = reason_of(cluster, new)
        assert cluster.epoch() == epoch and cluster.writable_members() == []
        cluster.release(before)
        cluster.wait_primary(timeout=30, epoch_above=epoch)
        cluster.release(primary)
        whole_again(cluster, ledger, "35", refused_because=reason)


def commits_that_wait_are_not_shown(cluster, ledger, crash):
    """Committed on the primary, not yet on its standby, when the primary crashes and recovers: they are committed there now,
    and would be gone with it."""
    cluster.run_cli("config", "set", "on_crash=restart", "sync_strict=true")
    ledger.wait_acks(30)
    primary, epoch = cluster.primary(), cluster.epoch()
    receivers = [pid for m in cluster.others(primary) for pid in cluster.backends(m, "walreceiver")]
    cluster.stop(*receivers)
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
    wait_for(lambda: cluster.query(primary, waiting)[0][0] == len(ledger.clients), 10, "commits wait for the standby")
    recovered = cluster.postmaster(primary)
    crash(primary)
    wait_for(lambda: "clients wait until" in reason_of(cluster, primary), 20, "the primary is recovered and waits")
    assert cluster.postmaster(primary) != recovered
    seen = {}

    def look():
        with contextlib.closing(psycopg2.connect(cluster.dsn())) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT count(*) FROM ledger")
            seen["rows"], seen["at"] = cursor.fetchone()[0], time.monotonic()
    reader = threading.Thread(target=look, daemon=True)
    reader.start()
    reader.join(timeout=1.5)
    assert not seen, f"a client saw {seen} while no standby had it"
    let_go = time.monotonic()
    cluster.cont(*receivers)
    reader.join(timeout=30)
    assert seen["rows"] >= ledger.acked_count_at(let_go), seen
    assert cluster.epoch() == epoch


def test_15_waiting_commits_are_not_shown_after_a_backend_was_killed():
    with Cluster() as cluster, cluster.ledger() as ledger:
        backend = "SELECT pid FROM pg_stat_activity WHERE usename = %s AND wait_event = 'SyncRep' LIMIT 1"
        commits_that_wait_are_not_shown(
            cluster, ledger, lambda primary: cluster.kill(cluster.query(primary, backend, cluster.info["appUser"])[0][0]))
        whole_again(cluster, ledger, "15", errors_by_client_max=1)


def test_37_restarted_with_waiters_clients_are_kept_out_until_the_standby_has_what_was_recovered():
    with Cluster() as cluster, cluster.ledger() as ledger:
        commits_that_wait_are_not_shown(cluster, ledger, lambda primary: cluster.kill(cluster.postmaster(primary)))
        whole_again(cluster, ledger, "37", errors_by_client_max=1)


# ---------------------------------------------------------------------------------------- rejoin

def test_66_two_members_promoted_to_the_same_timeline_id():
    """A person promotes a dead primary's directory, which takes the id that its successor has."""
    with Cluster(up_options=FAST) as cluster, cluster.ledger() as ledger:
        ledger.wait_acks(30)
        old, epoch = cluster.primary(), cluster.epoch()
        cluster.kill_host(old)
        new = cluster.wait_primary(timeout=20, other_than=old, epoch_above=epoch)
        ledger.wait_acks(30)
        cluster.start_like_a_service(old)
        cluster.query(old, "SELECT pg_promote()")
        with contextlib.closing(cluster.superuser(old, cluster.info["database"])) as session, session.cursor() as cursor:
            cursor.execute("SET synchronous_commit = local")
            cursor.execute("INSERT INTO ledger SELECT 999, n FROM generate_series(1, 1000) n")
            session.commit()
        cluster.query(old, "CHECKPOINT")
        cluster.query(new, "CHECKPOINT")
        assert cluster.timeline(old) == cluster.timeline(new), "the ids are the same"
        cluster.kill(cluster.postmaster(old), number=signal.SIGINT)
        wait_for(lambda: not cluster.backends(old, ""), 20, "the stray primary is stopped")
        cluster.release(old)
        whole_again(cluster, ledger, "66", timeline=cluster.timeline(new),
                    rejoined_by=[n["what"] for n in cluster.notes(old) if n["what"] in ("rewinding", "cloning")][-1:])
        assert cluster.query(old, "SELECT count(*) FROM ledger WHERE client = 999",
                             database=cluster.info["database"])[0][0] == 0


# ------------------------------------------------------------------------------------ adversarial

def test_64_the_set_of_any_k_grows_and_shrinks_and_the_primary_dies_between_any_two_steps():
    """Steps: the record, the setting, and (confirmed) the record again."""
    def recorded(cluster, session, k):
        return cluster.generations()[-1]["quorum"] == 2

    def in_force(cluster, session, k):
        with session.cursor() as cursor:
            cursor.execute("SHOW synchronous_standby_names")
            return cursor.fetchone()[0].startswith(f"ANY {k} ")

    def confirmed(cluster, session, k):
        return in_force(cluster, session, k) and cluster.generations()[-1]["quorum"] == 3 - k
    with Cluster(up_options=[*FAST, "--sync", "quorum"]) as cluster, cluster.ledger() as ledger:
        crashes = []
        cluster.wait_for_voters(2)
        for count, moments in ((2, (in_force, confirmed)), (1, (recorded, in_force))):
            for reached in moments:
                ledger.wait_acks(30)
                old, epoch = cluster.primary(), cluster.epoch()
                with contextlib.closing(cluster.superuser(old)) as session:
                    session.autocommit = True
                    cluster.run_cli("config", "set", f"sync_count={count}")
                    wait_for(lambda: reached(cluster, session, count), 20, reached.__name__, poll_s=0)
                    cluster.kill_host(old)
                crashes.append({"k": count, "after": reached.__name__, "generations": len(cluster.generations()),
                                "quorum": cluster.generations()[-1]["quorum"]})
                cluster.wait_primary(timeout=30, other_than=old, epoch_above=epoch)
                cluster.release(old)
                cluster.run_cli("config", "set", f"sync_count={3 - count}")
                cluster.wait_for_voters(2, k=3 - count, timeout=60)
            cluster.run_cli("config", "set", f"sync_count={count}")
            cluster.wait_for_voters(2, k=count, timeout=60)
        whole_again(cluster, ledger, "64", crashes=crashes)
