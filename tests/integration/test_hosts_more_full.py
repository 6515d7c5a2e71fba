"""Further scenarios of `./dev test --full` on hosts of their own: failing processes, rejoin, operations. The number in a
name is the scenario's.
"""
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time

import psycopg2
import pytest

import netns
from harness import send, tell, wait_for
from namespaces import PG_PORT, USER, HostCluster

TTL_S = 5.0
FAST = {"timing": "fast"}
FAST_TTL_S = 2.0


@pytest.fixture
def archive():
    """A directory that PostgreSQL's user may write, in another that it may write."""
    with tempfile.TemporaryDirectory(prefix="bascule-it-") as name:
        folder = pathlib.Path(name) / "archive"
        folder.mkdir()
        for path in (folder.parent, folder):
            path.chmod(0o777)
        yield folder


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
        cluster.whole_again(ledger, "03", crashes=killed, epochs=settled - epoch)


def test_07_hosts_a_stopped_postmaster_is_found_and_failed_over():
    with HostCluster(defaults=FAST) as cluster, cluster.ledger() as ledger:
        ledger.wait_acks(50)
        old, epoch = cluster.primary(), cluster.epoch()
        stopped = cluster.backends(old, "")
        send(stopped, signal.SIGSTOP)
        cluster.wait_primary(timeout=30, other_than=old, epoch_above=epoch)
        ledger.wait_acks(50)
        cluster.whole_again(ledger, "07", max_gap_ms=2 * FAST_TTL_S * 1000 + 1500)


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
        cluster.whole_again(ledger, "13", errors_by_client_max=0)


def test_15_hosts_a_killed_backend_exposes_no_commit_that_waits():
    with HostCluster(defaults={"on_crash": "restart"}) as cluster, cluster.ledger() as ledger:
        ledger.wait_acks(50)
        old = cluster.primary()
        victim = cluster.query(old, "SELECT pid FROM pg_stat_activity WHERE usename = 'app' LIMIT 1")[0][0]
        send([cluster.host(old).outer_pid(victim)], signal.SIGKILL)
        ledger.wait_acks(50, timeout=60)
        cluster.whole_again(ledger, "15")


# ------------------------------------------------------------------------------------- durability

def test_hosts_commits_wait_for_a_standby_of_another_region_where_they_can():
    region = {"n1": "east", "n2": "east", "n3": "west"}
    with HostCluster(defaults={**FAST, "sync_region": "other"},
                     places={name: {"region": where} for name, where in region.items()}) as cluster:
        def voters():
            return [voter.split("_")[0] for voter in cluster.record("sync")["generations"][-1]["voters"]]

        if cluster.primary() == "n3":
            cluster.switch_over("n1")
            cluster.wait_healthy()
        primary = cluster.primary()
        wait_for(lambda: voters() == ["n3"], 30, "the standby of the other region is waited for")
        with cluster.ledger() as ledger:
            ledger.wait_acks(50)
            cluster.host("n3").power_off()
            ledger.wait_acks(50)
            near = cluster.others(primary, "n3")
            wait_for(lambda: voters() == near, 10, "the one of the same region takes its place")
            cluster.boot("n3")
            wait_for(lambda: voters() == ["n3"], 60, "it is waited for again")
            cluster.whole_again(ledger, "regions")


def test_38_hosts_wal_of_a_member_that_may_not_lead_is_fetched_first():
    with HostCluster(defaults={**FAST, "sync": "off", "ballot_window": "2s"}, places={"n3": {"nofailover": True}}) as cluster:
        old, epoch = cluster.primary(), cluster.epoch()
        behind = cluster.others(old, "n3")[0]
        slots = f"SELECT count(*) FROM pg_replication_slots WHERE slot_name = 'bascule_{behind}'"
        wait_for(lambda: cluster.query("n3", slots)[0][0], 30, "n3 has prepared its slots")
        cluster.cut_between([old], [behind])
        cluster.query(old, "CREATE TABLE kept AS SELECT generate_series(1, 2000) AS n", database="app")
        end = cluster.query(old, "SELECT pg_current_wal_lsn()")[0][0]
        wait_for(lambda: cluster.query("n3", f"SELECT pg_last_wal_replay_lsn() >= '{end}'")[0][0], 10, "n3 has it")
        assert not cluster.query(behind, "SELECT FROM pg_class WHERE relname = 'kept'", database="app")
        died = time.monotonic()
        cluster.host(old).power_off()
        assert cluster.wait_primary(timeout=30, other_than=old, epoch_above=epoch) == behind
        gap = time.monotonic() - died
        rows = cluster.query(behind, "SELECT count(*) FROM kept", database="app")[0][0]
        notes = [f"{n['what']}: {n['why']}" for n in cluster.noted(behind, "fetch")]
        tell("38", gap_ms=round(gap * 1000), lost=2000 - rows, notes=notes)
        assert rows == 2000, "what only the member had that may not lead was given up"
        cluster.boot(old)
        cluster.heal(behind)
        cluster.wait_healthy(timeout=90)


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
        forced = time.monotonic()
        cluster.run_cli("failover", "--force", "--yes", "--candidate", behind)
        cluster.wait_primary(timeout=20, other_than=old, epoch_above=epoch)
        gap = time.monotonic() - forced
        logged = cluster.record(f"history/{epoch + 1:020}")
        kept = cluster.query(behind, "SELECT count(*) FROM pg_class WHERE relname = 'ballast'", database="app")[0][0]
        tell("39", gap_after_force_ms=round(gap * 1000), given_up=not kept, refused_because=reason, history=logged)
        assert logged["trigger"] == "forced"
        assert "failover" in cluster.run_cli("audit").stdout
        cluster.boot(old)
        cluster.wait_healthy(timeout=90)


# ----------------------------------------------------------------------------------------- rejoin

def give_up_slot_of_the_absent(cluster, primary):
    def lost():
        cluster.query(primary, "SELECT pg_switch_wal()")
        cluster.query(primary, "CHECKPOINT")
        return cluster.query(primary, "SELECT count(*) FROM pg_replication_slots WHERE wal_status = 'lost'")[0][0]
    wait_for(lost, 60, "the slot of the absent member is given up")


def test_42_hosts_a_member_whose_wal_is_gone_is_cloned():
    with HostCluster(defaults={"rejoin_timeout": "10s"}, postgresql={"max_slot_wal_keep_size": "1MB",
                                                                     "wal_keep_size": "0"}) as cluster:
        with cluster.ledger() as ledger:
            ledger.wait_acks(50)
            primary = cluster.primary()
            away = cluster.others(primary)[0]
            cluster.host(away).power_off()
            ledger.wait_acks(50)
            give_up_slot_of_the_absent(cluster, primary)
            cluster.boot(away)
            cluster.whole_again(ledger, "42")
            assert len(cluster.noted(away, "cloned")) >= 2, "it came back without a clone"


def test_42_hosts_a_member_whose_wal_is_in_the_archive_only_needs_no_clone(archive):
    keeps = {"archive_mode": "on", "archive_command": f"cp %p {archive}/%f", "restore_command": f"cp {archive}/%f %p",
             "max_slot_wal_keep_size": "1MB", "wal_keep_size": "0"}
    with HostCluster(defaults={"rejoin_timeout": "20s"}, postgresql=keeps) as cluster, cluster.ledger() as ledger:
        ledger.wait_acks(50)
        primary = cluster.primary()
        away = cluster.others(primary)[0]
        cloned = len(cluster.noted(away, "cloned"))
        cluster.host(away).power_off()
        give_up_slot_of_the_absent(cluster, primary)
        ledger.wait_acks(50)
        cluster.boot(away)
        cluster.whole_again(ledger, "42 archive")
        assert len(cluster.noted(away, "cloned")) == cloned, "it was cloned although its WAL is in the archive"


def test_42_hosts_a_slot_that_somebody_dropped_is_made_again():
    with HostCluster() as cluster, cluster.ledger() as ledger:
        ledger.wait_acks(50)
        primary = cluster.primary()
        away = cluster.others(primary)[0]
        cluster.host(away).power_off()
        dropped = "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE NOT active"
        wait_for(lambda: cluster.query(primary, dropped), 90, "its slot is free and dropped", poll_s=0.5)
        cluster.boot(away)
        cluster.whole_again(ledger, "42 slot dropped")


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
                cluster.switch_over(first)
                cluster.wait_healthy(timeout=60)
        cluster.whole_again(ledger, "43", epochs=cluster.epoch())


# ------------------------------------------------------------------------------------ adversarial

def test_69_hosts_pledge_and_ballot_of_one_member_race():
    """The primary sees neither store nor members, then the members again: it asks the voter for a pledge just when that begins
    to look for a successor. It gets the one or the other, never both."""
    voter_waits = {"early_takeover": True, "blip_tolerance": "500ms"}
    with HostCluster(defaults={**FAST, **voter_waits}) as cluster, cluster.ledger() as ledger:
        outcomes = {}
        for silent_s in (0.3, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.2):
            ledger.wait_acks(30)
            old, epoch = cluster.primary(), cluster.epoch()
            etcd = [cluster.host(name) for name in cluster.etcd_names]
            members = [cluster.host(name) for name in cluster.others(old)]
            cluster.network.cut(cluster.host(old), *etcd, *members)
            time.sleep(silent_s)  # the length of the silence is what the race is about
            cluster.network.join(cluster.host(old), *members)
            time.sleep(3 * FAST_TTL_S)
            ledger.wait_acks(30)
            outcomes[silent_s] = "another" if cluster.epoch() > epoch else "pledge"
            cluster.heal(old)
            cluster.wait_healthy(timeout=60)
        cluster.whole_again(ledger, "69", outcomes=outcomes)


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
        cluster.whole_again(ledger, "48", said=said.strip()[-200:], leads=cluster.primary() == old)


def test_49_hosts_a_broken_archive_command_does_not_stop_a_switchover():
    with HostCluster(postgresql={"archive_mode": "on", "archive_command": "false"}) as cluster, cluster.ledger() as ledger:
        ledger.wait_acks(50)
        old = cluster.primary()
        cluster.query(old, "SELECT pg_switch_wal()")
        cluster.run_cli("switchover", timeout=90)
        cluster.wait_primary(timeout=60, other_than=old)
        ledger.wait_acks(50)
        cluster.whole_again(ledger, "49")


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
        cluster.whole_again(ledger, f"53 {how}", max_gap_ms=3500 if how == "SIGTERM" else 1500,
                    errors_by_client_max=1 if how == "SIGTERM" else 0)


def test_54_hosts_a_cascade_whose_relay_dies_is_hung_on_the_leader():
    with HostCluster(places={"n3": {"replicatefrom": "n2"}}, relayed=1) as cluster:
        if cluster.primary() != "n1":
            cluster.switch_over("n1")

        def streams_from(upstream):
            try:
                senders = cluster.query(upstream, "SELECT application_name FROM pg_stat_replication WHERE state = 'streaming'")
            except psycopg2.Error:
                return False
            return any(name.startswith("n3_") for name, in senders)
        with cluster.ledger() as ledger:
            wait_for(lambda: streams_from("n2"), 60, "n3 streams from its relay")
            ledger.wait_acks(50)
            epoch = cluster.epoch()
            cluster.host("n2").power_off()
            begun = time.monotonic()
            wait_for(lambda: streams_from("n1"), 60, "n3 streams from the leader")
            parentless_s = time.monotonic() - begun
            ledger.wait_acks(50)
            assert (cluster.primary(), cluster.epoch()) == ("n1", epoch)
            cluster.boot("n2")
            wait_for(lambda: streams_from("n2"), 90, "and from its relay again")
            ledger.wait_acks(50)
        cluster.finish(ledger, "54", max_gap_ms=2500, parentless_s=round(parentless_s, 1))
        cluster.assert_same_rows_everywhere()


def test_hosts_one_stream_goes_to_a_region_and_another_member_relays_when_the_relay_dies():
    west = ["n2", "n3", "n4"]
    places = {"n1": {"region": "east"}, **{name: {"region": "west"} for name in west}}
    with HostCluster(nodes=4, defaults={"region_relays": True}, places=places, relayed=2) as cluster:
        if cluster.primary() != "n1":
            cluster.switch_over("n1")

        def fed_by(upstream):
            try:
                return {name.split("_")[0] for name, in cluster.query(
                    upstream, "SELECT application_name FROM pg_stat_replication WHERE state = 'streaming'")} & set(west)
            except psycopg2.Error:
                return set()

        def relay_of(members):
            """Whoever alone streams from the leader, and feeds the others."""
            direct = fed_by("n1") & set(members)
            only = direct.pop() if len(direct) == 1 else None
            return only if only and fed_by(only) == set(members) - {only} else None
        with cluster.ledger() as ledger:
            relay = wait_for(lambda: relay_of(west), 60, "one stream to the west")
            ledger.wait_acks(50)
            epoch = cluster.epoch()
            cluster.host(relay).power_off()
            left = [name for name in west if name != relay]
            wait_for(lambda: relay_of(left), 60, "another one relays")
            ledger.wait_acks(50)
            assert (cluster.primary(), cluster.epoch()) == ("n1", epoch)
            cluster.boot(relay)
            wait_for(lambda: relay_of(west), 90, "one stream again")
            ledger.wait_acks(50)
        cluster.finish(ledger, "region relays")
        cluster.assert_same_rows_everywhere()


class RestoredCluster(HostCluster):
    """Beside another one, made from a backup of it."""

    def __init__(self, source, command):
        super().__init__(nodes=2, network=source.network, etcd_hosts=[source.host(name) for name in source.etcd_names],
                         prefix="nr", places={name: {"bootstrap": {"command": command}} for name in ("nr1", "nr2")})


def what(cluster, member):
    return [row[0] for row in cluster.query(member, "SELECT what FROM orders ORDER BY 1", database="app")]


def test_59_hosts_a_cluster_made_from_a_backup_to_a_point_in_time_is_one_of_its_own(archive):
    base, restore = archive.parent / "base", archive.parent / "restore"
    keeps = {"archive_mode": "on", "archive_command": f"cp %p {archive}/.%f && mv {archive}/.%f {archive}/%f"}
    with HostCluster(nodes=2, postgresql=keeps) as source, source.ledger() as ledger:
        ledger.wait_acks(30)
        primary, epoch = source.primary(), source.epoch()
        netns.run("setpriv", f"--reuid={USER}", f"--regid={USER}", "--init-groups", f"{source.info['binDir']}/pg_basebackup",
                  "-d", f"host={source.home(primary)}/run port={PG_PORT} user=postgres", "-D", str(base), "-X", "none",
                  "-c", "fast")
        source.query(primary, "CREATE TABLE orders AS SELECT 'before'::text AS what", database="app")
        point = source.query(primary, "SELECT clock_timestamp()")[0][0]
        source.query(primary, "INSERT INTO orders VALUES ('after')", database="app")
        segment = source.query(primary, "SELECT pg_walfile_name(pg_switch_wal())")[0][0]
        wait_for(lambda: (archive / segment).exists(), 30, f"{segment} is archived")
        restore.write_text(f"""#!/bin/sh
set -eu
cp -a {base}/. "$BASCULE_DATA_DIR/"
rm -f "$BASCULE_DATA_DIR/backup_manifest"
cat >> "$BASCULE_DATA_DIR/postgresql.auto.conf" <<END
restore_command = 'cp {archive}/%f %p'
recovery_target_time = '{point.isoformat()}'
END
touch "$BASCULE_DATA_DIR/recovery.signal"
""")
        restore.chmod(0o755)
        archived = {path.name: path.read_bytes() for path in archive.iterdir()}
        with RestoredCluster(source, [str(restore)]) as restored:
            new = restored.primary()
            for member in restored.members:
                wait_for(lambda m=member: what(restored, m) == ["before"], 20, f"{member} ends at the point in time")
            assert restored.info["cluster"] != source.info["cluster"]
            assert restored.timeline(new) > source.timeline(primary), "a line of its own"
            assert not any(m["pendingRestart"] for m in restored.status()["members"])
            restored.query(new, "TRUNCATE ledger", database="app")
            with restored.ledger() as own:
                own.wait_acks(30)
            restored.finish(own, "59 restored", errors_by_client_max=0)
        assert {name: data for name, data in archived.items() if (archive / name).read_bytes() != data} == {}
        assert what(source, primary) == ["after", "before"] and source.epoch() == epoch
        source.whole_again(ledger, "59 source", errors_by_client_max=0)
