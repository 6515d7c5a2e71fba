"""What depends on PostgreSQL's major version. The core scenarios run on other versions too: integration.postgresql_* of CTest."""
import re
import threading

import psycopg2

from harness import Cluster, of_version, wait_for

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


def test_55_failover_slots_go_on_without_a_gap_after_failovers_and_a_switchover():
    with Cluster(up_options=of_version(17)) as cluster:
        cluster.run_cli("config", "set", *FAILOVER_SLOTS)
        wait_for(lambda: all(m["pendingRestart"] for m in cluster.status()["members"]), 15, "wal_level waits")
        cluster.run_cli("restart", timeout=120)
        cluster.run_cli("config", "set", f"slots.cdc=logical:{cluster.info['database']}:test_decoding")
        wait_for(lambda: slot(cluster, cluster.primary(), "failover") == (True,), 15, "the slot at the primary")
        with cluster.ledger() as ledger:
            consumer = Consumer(cluster)
            for fault in ("postmaster", "switchover", "host"):
                wait_until_carried(cluster)
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
            rows = cluster.query(cluster.primary(), "SELECT client, seq FROM ledger", database=cluster.info["database"])
            wait_for(lambda: set(rows) <= consumer.seen, 30, "the consumer has seen every row")
            consumer.enough.set()
            consumer.join(timeout=10)
            assert consumer.seen == set(rows), f"seen, and not there: {sorted(consumer.seen - set(rows))[:10]}"
