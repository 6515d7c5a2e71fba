"""Further scenarios of `./dev test --full` on a local cluster: faults between two steps of the control plane, and old records
that turn up again. The number in a name is the scenario's.
"""
import base64
import contextlib
import json
import os
import shutil
import signal
import threading
import time
import urllib.request

import psycopg2

from harness import Cluster, tell, wait_for

FAST = ["--timing", "fast"]
FAST_TTL_S = 2.0


def reason_of(cluster, member):
    return (cluster.record(f"members/{member}") or {}).get("reason", "")


def reason_by_its_api(cluster, member):
    api = cluster.address(member)["api"]
    with urllib.request.urlopen(f"http://{api['host']}:{api['port']}/patroni", timeout=3) as answer:
        return json.load(answer)["reason"]


# --------------------------------------------------------------------------------------- failure

def test_03_beyond_the_limit_of_failovers_a_crash_is_repaired_in_place():
    with Cluster(up_options=FAST) as cluster, cluster.ledger() as ledger:
        cluster.run_cli("config", "set", "failover_limit=1")
        ledger.wait_acks(30)
        first, epoch = cluster.primary(), cluster.epoch()
        cluster.kill(cluster.postmaster(first))
        second = cluster.wait_primary(timeout=20, epoch_above=epoch)
        cluster.wait_healthy()
        ledger.wait_acks(30)
        cluster.kill(cluster.postmaster(second))
        wait_for(lambda: any("automatic failovers within" in n["why"] for n in cluster.notes(second)), 20, "it says why")
        ledger.wait_acks(30)
        assert (cluster.primary(), cluster.epoch()) == (second, epoch + 1) and second != first
        cluster.whole_again(ledger, "03")


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
        cluster.whole_again(ledger, "35", refused_because=reason)


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
        cluster.whole_again(ledger, "15", errors_by_client_max=1)


def test_37_restarted_with_waiters_clients_are_kept_out_until_the_standby_has_what_was_recovered():
    with Cluster() as cluster, cluster.ledger() as ledger:
        commits_that_wait_are_not_shown(cluster, ledger, lambda primary: cluster.kill(cluster.postmaster(primary)))
        cluster.whole_again(ledger, "37", errors_by_client_max=1)


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
        cluster.whole_again(ledger, "66", timeline=cluster.timeline(new),
                    rejoined_by=[n["what"] for n in cluster.notes(old)][-20:])
        assert cluster.query(old, "SELECT count(*) FROM ledger WHERE client = 999",
                             database=cluster.info["database"])[0][0] == 0


# ------------------------------------------------------------------------------------ adversarial

def primary_dies_when(cluster, reached, act):
    """act() begins a change of the synchronous set; the primary's host dies once reached(names in force, newest generation)."""
    old = cluster.primary()
    with contextlib.closing(cluster.superuser(old)) as session, session.cursor() as cursor:
        session.autocommit = True

        def there():
            cursor.execute("SHOW synchronous_standby_names")
            return reached(cursor.fetchone()[0], cluster.generations()[-1])
        act()
        wait_for(there, 20, "the step", poll_s=0)
        cluster.stop(cluster.agent(old))  # the next step is its
        cluster.kill_host(old)
    return old


def test_64_the_set_of_any_k_grows_and_shrinks_and_the_primary_dies_between_any_two_steps():
    """Steps: the record, the setting, and (confirmed) the record again. One that does not change is none."""
    with Cluster(up_options=[*FAST, "--sync", "quorum"]) as cluster, cluster.ledger() as ledger:
        def count(k):
            cluster.run_cli("config", "set", f"sync_count={k}", check=False)  # 3: it is so already

        def lose():
            cluster.kill_host(cluster.others(cluster.primary())[0])

        def give_back():
            for member in cluster.members:
                cluster.release(member)
        # What is done before (and waited for), what is done then, at which step the primary dies.
        steps = {
            "k grows: setting": (lambda: count(1), lambda: count(2), lambda names, g: names.startswith("ANY 2")),
            "k grows: record": (lambda: count(1), lambda: count(2), lambda names, g: g["quorum"] == 1),
            "k shrinks: record": (lambda: count(2), lambda: count(1), lambda names, g: g["quorum"] == 2),
            "k shrinks: setting": (lambda: count(2), lambda: count(1), lambda names, g: names.startswith("ANY 1")),
            "set shrinks: setting": (lambda: count(1), lose, lambda names, g: names.count("_") == 1),
            "set shrinks: record": (lambda: count(1), lose, lambda names, g: len(g["voters"]) == 1),
            "set grows: record": (lose, give_back, lambda names, g: len(g["voters"]) == 2),
            "set grows: setting": (lose, give_back, lambda names, g: names.count("_") == 2),
        }
        found = {}
        for step, (before, act, reached) in steps.items():
            before()
            cluster.wait_for_voters(1 if before is lose else 2, k=2 if "shrinks" in step and "k" in step.split()[0] else 1)
            ledger.wait_acks(30)
            epoch = cluster.epoch()
            primary_dies_when(cluster, reached, act)
            newest = cluster.generations()[-1]
            found[step] = {"voters": len(newest["voters"]), "quorum": newest["quorum"]}
            if act is lose and newest["quorum"] == 2:  # the other one alone may lack something
                time.sleep(2 * FAST_TTL_S)
                assert cluster.epoch() == epoch and cluster.writable_members() == []
                give_back()
                cluster.wait_primary(timeout=40)  # also the old one, under its old epoch
            else:
                cluster.wait_primary(timeout=40, epoch_above=epoch)
                give_back()
            ledger.wait_acks(30)
            count(1)
            cluster.wait_for_voters(2, timeout=90)
        cluster.whole_again(ledger, "64", steps=found)


def test_65_a_ballot_from_before_a_renewal_elects_nobody():
    with Cluster(up_options=FAST, etcd=1) as cluster, cluster.ledger() as ledger:
        ledger.wait_acks(30)
        old, epoch = cluster.primary(), cluster.epoch()
        voter = cluster.sync_standby(old)
        third = cluster.others(old, voter)[0]
        answered, row = cluster.etcd.row(cluster.key("leader"))
        renewed_later = int(row["mod_revision"])
        ledger.wait_acks(50)  # acknowledged by the voter, perhaps never seen by the third
        cluster.stop(*cluster.backends(third, "walreceiver"))
        ledger.wait_acks(50)
        cluster.kill_host(voter)
        cluster.kill_host(old)
        cluster.cont(*cluster.backends(third, "walreceiver"))
        own = wait_for(lambda: cluster.record(f"ballots/{third}"), 20, f"the ballot of {third}")
        assert own["answers"] > renewed_later
        # As if the voter had seen silence before that renewal, and its ballot had been left lying.
        sync_name = cluster.generations()[-1]["voters"][0]
        cluster.etcd.put(cluster.key(f"ballots/{voter}"),
                         json.dumps({**own, "member": voter, "syncName": sync_name, "answers": renewed_later}))
        time.sleep(3 * FAST_TTL_S)  # nobody may be elected in all this time: absence has no event
        reason = reason_of(cluster, third)
        assert cluster.epoch() == epoch and cluster.writable_members() == [], reason
        assert f"needs ballots of 1 of [{sync_name}]" in reason and ": 0 there" in reason, reason
        cluster.release(voter)
        cluster.wait_primary(timeout=30, epoch_above=epoch)
        cluster.release(old)
        cluster.whole_again(ledger, "65 stale ballot", refused_because=reason)


def test_65_a_take_over_that_arrives_when_another_leads_changes_nothing():
    with Cluster(up_options=FAST, etcd=1) as cluster:
        old = cluster.primary()
        late = cluster.sync_standby(old)
        other = cluster.others(old, late)[0]
        relay, = cluster.put_relays_between(late)
        cluster.wait_healthy()
        wait_for(lambda: cluster.voters() == [late], 30, f"{late} is the one that commits wait for")
        with cluster.ledger() as ledger:
            ledger.wait_acks(30)
            epoch = cluster.epoch()
            slow = cluster.agent(other)
            cluster.stop(slow)
            relay.hold(base64.b64encode(cluster.key(f"history/{epoch + 1:020}").encode()).decode())
            cluster.kill_host(old)
            wait_for(lambda: relay.is_cut.is_set(), 20, "its take-over is on its way", poll_s=0.001)
            assert cluster.record(f"ballots/{late}") and cluster.epoch() == epoch
            cluster.cont(slow)
            assert cluster.wait_primary(timeout=30, epoch_above=epoch) == other
            ledger.wait_acks(30)
            taken = cluster.epoch()
            relay.heal()
            cluster.wait_healthy(streaming=1)
            ledger.wait_acks(30)
            assert (cluster.primary(), cluster.epoch()) == (other, taken)
            cluster.release(old)
            cluster.whole_again(ledger, "65 late take-over")


def restore_etcd(cluster, change):
    """Its data as at the call; between that and the restore, change() happens."""
    cluster.stop_etcd()
    homes = [cluster.etcd_home(name) for name in cluster.etcd.names]
    for home in homes:
        shutil.copytree(next(home.glob("data*")), home / "backup")
    cluster.start_etcd()
    wait_for(cluster.leader_renewed_by_now, 30, "renewed again")
    change()
    cluster.stop_etcd()
    for home in homes:
        data = next(home.glob("data*"))
        owner = data.stat()
        shutil.rmtree(data)
        shutil.copytree(home / "backup", data)
        for path in [data, *data.rglob("*")]:
            os.chown(path, owner.st_uid, owner.st_gid)


def fail_over(cluster, ledger):
    ledger.wait_acks(30)
    old, epoch = cluster.primary(), cluster.epoch()
    cluster.kill_host(old)
    cluster.wait_primary(timeout=30, other_than=old, epoch_above=epoch)
    cluster.release(old)
    cluster.wait_healthy(timeout=60)
    ledger.wait_acks(30)


def test_68_a_store_restored_from_an_older_backup_is_filled_again_by_the_leader():
    with Cluster(up_options=FAST, etcd=1) as cluster, cluster.ledger() as ledger:
        restore_etcd(cluster, lambda: fail_over(cluster, ledger))
        primary = next(m for m in cluster.members if m in cluster.writable_members())
        cluster.start_etcd()
        wait_for(lambda: cluster.epoch() >= 2 and cluster.leader_renewed_by_now(), 60, "the store has today's record again")
        assert cluster.wait_primary(timeout=20) == primary
        cluster.whole_again(ledger, "68 leader alive", epochs=cluster.epoch())


def test_68_a_store_restored_from_an_older_backup_elects_nobody_without_the_leader():
    with Cluster(up_options=FAST, etcd=1) as cluster:
        with cluster.ledger() as ledger:
            before = cluster.primary()
            restore_etcd(cluster, lambda: fail_over(cluster, ledger))
            primary, = cluster.writable_members()
            cluster.kill_host(primary)
            ledger.stop()
            cluster.start_etcd()
            assert cluster.leader()["holder"] == before, "what the backup says"
            time.sleep(4 * FAST_TTL_S)  # nobody may lead in all this time: absence has no event
            reasons = {m: reason_by_its_api(cluster, m) for m in cluster.others(primary)}  # not written to such a store
            tell("68 leader dead", acked=ledger.acked_count(), errors=[len(c.errors) for c in ledger.clients], reasons=reasons)
            assert cluster.writable_members() == [] and cluster.leader()["epoch"] == 1
            assert all("went back" in reason for reason in reasons.values()), reasons


# ------------------------------------------------------------------------------------- operations

def test_50_a_scheduled_switchover_is_refused_and_put_off_while_the_cluster_is_paused():
    with Cluster() as cluster, cluster.ledger() as ledger:
        ledger.wait_acks(30)
        old, epoch = cluster.primary(), cluster.epoch()
        cluster.run_cli("pause")
        refused = cluster.run_cli("switchover", "--at", "+1min", check=False)
        assert refused.returncode != 0 and "paused" in refused.stderr, refused.stderr
        cluster.run_cli("resume")
        due = time.time() + 4
        cluster.run_cli("switchover", "--at", time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(due)))
        cluster.run_cli("pause")
        while time.time() < due + 2:  # nothing may happen in all this time
            assert (cluster.primary(), cluster.epoch()) == (old, epoch)
            time.sleep(0.1)
        cluster.run_cli("resume")
        cluster.wait_primary(timeout=20, other_than=old, epoch_above=epoch)
        assert time.time() > due
        cluster.whole_again(ledger, "50", errors_by_client_max=0)


class Watch(threading.Thread):
    """Notes who shows which max_connections first, as an application sees it."""

    def __init__(self, cluster):
        super().__init__(daemon=True)
        self.cluster, self.seen, self.done = cluster, [], threading.Event()

    def run(self):
        while not self.done.is_set():
            for member in self.cluster.members:
                with contextlib.suppress(psycopg2.Error), \
                        contextlib.closing(psycopg2.connect(self.cluster.dsn(member))) as session, session.cursor() as cursor:
                    cursor.execute("SHOW max_connections")
                    shown = (member, int(cursor.fetchone()[0]))
                    if shown not in self.seen:
                        self.seen.append(shown)
            self.done.wait(0.05)


def test_52_max_connections_is_lowered_on_the_primary_first():
    """A replica that has less than its primary does not start."""
    with Cluster() as cluster, cluster.ledger() as ledger:
        ledger.wait_acks(30)
        primary, epoch = cluster.primary(), cluster.epoch()
        watch = Watch(cluster)
        watch.start()
        cluster.run_cli("config", "set", "parameters.max_connections=150")

        def waiting():
            return [m["name"] for m in cluster.status()["members"] if m["pendingRestart"]]
        wait_for(lambda: waiting() == cluster.members, 20, "everybody waits for a restart")
        ledger.wait_acks(30)
        cluster.run_cli("restart", "--pending", timeout=120)
        wait_for(lambda: not waiting(), 20, "one rolling restart is enough")
        cluster.wait_healthy()
        ledger.wait_acks(30)
        watch.done.set()
        watch.join()
        lowered = [member for member, value in watch.seen if value == 150]
        assert sorted(lowered) == cluster.members and lowered[0] == primary, watch.seen
        assert (cluster.primary(), cluster.epoch()) == (primary, epoch)
        cluster.whole_again(ledger, "52", order=lowered, errors_by_client_max=1)
