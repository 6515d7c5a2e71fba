"""What depends on PostgreSQL's major version. The core scenarios run on other versions too: integration.postgresql_* of CTest."""
import contextlib
import json
import re
import threading

import psycopg2
import pytest

from harness import Cluster, of_version, tell, wait_for

FAILOVER_SLOTS = ["parameters.wal_level=logical", "parameters.hot_standby_feedback=on", "parameters.sync_replication_slots=on"]
CHANGES = "SELECT lsn::text, data FROM pg_logical_slot_peek_changes('cdc', NULL, 500)"


class Consumer(threading.Thread):
    """Reads the slot `cdc` of whoever leads, as its kind do: what it has is confirmed afterwards. It may see a change twice."""

    def __init__(self, cluster):
        super().__init__(daemon=True)
        self.cluster, self.seen, self.enough = cluster, set(), threading.Event()
        self.start()

    def run(self):
        while not self.enough.is_set():
            leader = self.cluster.primary()
            try:
                connection = leader and self.cluster.superuser(leader, self.cluster.info["database"])
            except psycopg2.Error:
                connection = None
            if not connection:
                continue
            connection.autocommit = True
            try:
                with connection.cursor() as cursor:
                    while not self.enough.wait(0.01):
                        self.turn(cursor)
            except psycopg2.Error:
                pass  # whoever leads now has the slot, too
            finally:
                connection.close()

    def turn(self, cursor):
        cursor.execute(CHANGES)
        changes = cursor.fetchall()
        found = (re.match(r"table public.ledger: INSERT: client\[integer\]:(\d+) seq\[bigint\]:(\d+)$", data) for _, data in changes)
        self.seen |= {(int(match[1]), int(match[2])) for match in found if match}
        if changes:
            cursor.execute("SELECT pg_replication_slot_advance('cdc', %s)", (changes[-1][0],))


def slot(cluster, member, columns):
    rows = cluster.query(member, f"SELECT {columns} FROM pg_replication_slots WHERE slot_name = 'cdc'")
    return rows[0] if rows else None


def wait_until_carried(cluster):
    """Every standby has a copy of the slot that would survive its promotion."""
    for member in cluster.others(cluster.primary()):
        wait_for(lambda m=member: slot(cluster, m, "synced, temporary") == (True, False), 90, f"{member} has the slot")


def with_slot(cluster, parameters):
    cluster.run_cli("config", "set", *parameters)
    wait_for(lambda: all(m["pendingRestart"] for m in cluster.status()["members"]), 15, "wal_level waits")
    cluster.run_cli("restart", timeout=120)
    cluster.run_cli("config", "set", f"slots.cdc=logical:{cluster.info['database']}:test_decoding")
    wait_for(lambda: slot(cluster, cluster.primary(), "true"), 15, "the slot at the primary")


def fail_over_in_every_way(cluster, carried):
    """The consumer goes on from its slot after each of them; every row of the table was seen."""
    with cluster.ledger() as ledger:
        consumer = Consumer(cluster)
        for fault in ("postmaster", "switchover", "host"):
            carried(cluster)
            ledger.wait_acks(100)
            old, epoch = cluster.primary(), cluster.epoch()
            if fault == "postmaster":
                cluster.kill(cluster.postmaster(old))
            elif fault == "switchover":
                cluster.run_cli("switchover")
            else:
                cluster.kill_host(old)
            cluster.wait_primary(timeout=30, other_than=old, epoch_above=epoch)
            cluster.release(old)
            ledger.wait_acks(100)
            cluster.wait_healthy(timeout=120)
        cluster.whole_again(ledger, "55")
        rows = set(cluster.query(cluster.primary(), "SELECT client, seq FROM ledger", database=cluster.info["database"]))
        wait_for(lambda: rows <= consumer.seen, 30, "the consumer has seen every row")
        consumer.enough.set()
        consumer.join(timeout=10)
        return rows, consumer.seen


def test_a_consumer_is_not_shown_what_no_synchronous_standby_has():
    with Cluster(up_options=[*of_version(17), "--sync", "on"]) as cluster:
        cluster.run_cli("config", "set", "sync_strict=on")  # nobody is given up for being stopped
        with_slot(cluster, FAILOVER_SLOTS)
        primary = cluster.primary()
        cluster.wait_for_voters(1)
        waited_for = [(f"bascule_{cluster.voters()[0]}",)]
        wait_for(lambda: cluster.query(primary, "SHOW synchronized_standby_slots") == waited_for, 15, "the slot is named")
        receivers = [pid for member in cluster.others(primary) for pid in cluster.backends(member, "walreceiver")]
        connection = cluster.superuser(primary, cluster.info["database"])
        connection.autocommit = True
        with contextlib.closing(connection), connection.cursor() as cursor:
            cursor.execute("CREATE TABLE hasty (id int)")
            cluster.stop(*receivers)
            cursor.execute("SET synchronous_commit = local")
            cursor.execute("INSERT INTO hasty VALUES (1)")
            cursor.execute("SET statement_timeout = '1s'")
            with pytest.raises(psycopg2.errors.QueryCanceled):
                cursor.execute(CHANGES)
            cluster.cont(*receivers)
            cursor.execute("SET statement_timeout = '30s'")
            cursor.execute(CHANGES)
            assert any("table public.hasty: INSERT" in data for _, data in cursor.fetchall())


def test_55_failover_slots_go_on_without_a_gap_after_failovers_and_a_switchover():
    with Cluster(up_options=of_version(17)) as cluster:
        with_slot(cluster, FAILOVER_SLOTS)
        rows, seen = fail_over_in_every_way(cluster, wait_until_carried)
        tell("55", rows=len(rows), lost=len(rows - seen), seen_and_not_there=len(seen - rows))
        assert seen == rows, f"seen, and not there: {sorted(seen - rows)[:10]}"


# ---- 13 to 16: Bascule keeps the copies (ADR 0028)

COPIED_SLOTS = ["parameters.wal_level=logical", "parameters.hot_standby_feedback=on"]


def wait_until_copies_are_sound(cluster):
    def sound(member):
        ledger = json.loads((cluster.home(member) / "run" / "slots.json").read_text())
        return ledger["timeline"] == cluster.leader()["timeline"] and ledger["copies"]["cdc"]["sound"]
    for member in cluster.others(cluster.primary()):
        wait_for(lambda m=member: sound(m), 90, f"{member} has a sound copy")


def with_copied_slot(cluster):
    with_slot(cluster, COPIED_SLOTS)
    replicas = cluster.others(cluster.primary())
    wait_for(lambda: all(m["pendingRestart"] for m in cluster.status()["members"] if m["name"] in replicas), 15, "copies wait")
    cluster.run_cli("restart", "--pending", timeout=120)


@pytest.mark.parametrize("version", [13, 14, 15, 16])
def test_logical_slots_go_on_without_a_gap_after_failovers_and_a_switchover(version):
    with Cluster(up_options=of_version(version)) as cluster:
        with_copied_slot(cluster)
        fail_over_in_every_way(cluster, wait_until_copies_are_sound)
        anew = [m for m in cluster.members for n in cluster.notes(m) if n["what"] == "slot dropped"]
        assert not anew, f"dropped at {anew}"
        wait_until_copies_are_sound(cluster)
        wait_for(lambda: all("cdc" in m["slots"] for m in cluster.status()["members"]), 15, "status says how each copy is")
        assert "slot cdc: " in cluster.run_cli("status").stdout


def test_a_copy_that_is_not_proven_is_dropped_before_the_promotion():
    with Cluster(up_options=of_version(15)) as cluster:
        with_copied_slot(cluster)
        old = cluster.primary()
        for member in cluster.others(old):
            assert slot(cluster, member, "active") == (False,), f"no copy at {member}"
        cluster.kill(cluster.postmaster(old))  # before a checkpoint has written down what it holds for its standbys
        new = cluster.wait_primary(timeout=30, other_than=old)
        assert cluster.noted(new, "slot dropped")
        wait_for(lambda: slot(cluster, new, "active") == (False,), 15, "made anew")


def test_a_standby_behind_a_relay_keeps_no_copy():
    with Cluster(up_options=of_version(15)) as cluster:
        with_copied_slot(cluster)
        relay, last = cluster.others(cluster.primary())
        config = cluster.home(last) / "bascule.yaml"
        config.write_text(config.read_text().replace("  superuser:\n", f"  replicatefrom: {relay}\n  superuser:\n", 1))
        cluster.kill(cluster.agent(last))
        wait_for(lambda: slot(cluster, last, "true") is None, 120, "its copy, which nobody would move on, is gone")
        assert slot(cluster, relay, "true"), "the relay's own is another matter"
