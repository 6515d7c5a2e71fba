"""Scenarios of `./dev test --full` with broken disks, a wiped store, strangers and cancelled waits, on hosts of their own.
The number in a name is the scenario's.
"""
import contextlib
import json
import os
import pathlib
import pwd
import shutil
import signal
import struct
import subprocess
import threading
import time
import urllib.request

import psycopg2
import pytest

import netns
from harness import send, tell, wait_for
from namespaces import API_PORT, PG_PORT, USER, HostCluster

WALL_CLOCK = os.path.abspath(os.environ.get("WALL_CLOCK", "build/dev/tests/libwall_clock.so"))
TTL_S = 5.0
FAST = {"timing": "fast"}
FAST_TTL_S = 2.0


class DiskCluster(HostCluster):
    """Every member's data directory is a file system of its own (ext4 in a file), which can be full or hang."""

    def __init__(self, megabytes, **options):
        super().__init__(**options)
        self.megabytes, self.frozen = megabytes, set()

    def write_files(self):
        super().write_files()
        owner = pwd.getpwnam(USER)
        for member in self.members:
            image, data = self.dir / f"{member}.img", self.data(member)
            with open(image, "wb") as file:
                file.truncate(self.megabytes << 20)
            data.mkdir()
            netns.run("mkfs.ext4", "-q", "-m", "0", str(image))
            netns.run("mount", "-o", "loop", str(image), str(data))
            (data / "lost+found").rmdir()
            os.chown(data, owner.pw_uid, owner.pw_gid)
            data.chmod(0o700)

    def fill(self, member, leave_bytes):
        """Until only so much is left. Returns the file to be removed."""
        ballast = self.data(member) / "ballast"
        with contextlib.suppress(OSError), open(ballast, "wb", buffering=0) as file:
            while (left := free_bytes(self.data(member)) - leave_bytes) > 0:
                file.write(bytes(min(left, 1 << 20)))
        return ballast

    def wait_seen_full(self, member):
        wait_for(lambda: self.noted(member, "disk full"), 20, "its agent has seen that the disk is full")

    def freeze(self, member):
        netns.run("fsfreeze", "--freeze", str(self.data(member)))
        self.frozen.add(member)

    def thaw(self, member):
        netns.run("fsfreeze", "--unfreeze", str(self.data(member)))
        self.frozen.discard(member)

    def destroy(self, keep=None):
        for member in list(self.frozen):
            with contextlib.suppress(OSError):
                self.thaw(member)
        for member in self.members:
            if member in self.network.hosts:
                self.host(member).kill()
            subprocess.run(["umount", str(self.data(member))], capture_output=True, timeout=30)
        super().destroy(keep)


def free_bytes(path):
    found = os.statvfs(path)
    return found.f_bavail * found.f_frsize


def reason_by_its_api(cluster, host):
    """'': nobody answers there."""
    with contextlib.suppress(OSError), urllib.request.urlopen(
            f"http://{cluster.host(host).address}:{API_PORT}/patroni", timeout=2) as answer:
        return json.load(answer)["reason"]
    return ""


def reason_of(cluster, member):
    return (cluster.record(f"members/{member}") or {}).get("reason", "")


# ---------------------------------------------------------------------------------------- failure

def test_09_hosts_a_disk_that_hangs_is_found_and_failed_over():
    with DiskCluster(400, defaults=FAST) as cluster, cluster.ledger() as ledger:
        ledger.wait_acks(50)
        old, epoch = cluster.primary(), cluster.epoch()
        cluster.freeze(old)  # writes and fsyncs wait, in a state that not even SIGKILL ends
        cluster.wait_primary(timeout=60, other_than=old, epoch_above=epoch)
        ledger.wait_acks(50)
        found = [n["why"] for n in cluster.noted(old, "detected")]
        assert any("storage does not take writes" in why for why in found), f"not found by the write probe: {found}"
        cluster.thaw(old)
        cluster.whole_again(ledger, "09", found=found)


def test_10_hosts_a_full_disk_of_the_primary_loses_nothing():
    with DiskCluster(400, defaults=FAST) as cluster, cluster.ledger() as ledger:
        ledger.wait_acks(50)
        old, epoch = cluster.primary(), cluster.epoch()
        ballast = cluster.fill(old, 0)
        cluster.wait_seen_full(old)
        with contextlib.suppress(psycopg2.Error):  # what is left of the segment is written full
            cluster.query(old, "SELECT pg_switch_wal()")
        cluster.wait_primary(timeout=60, other_than=old, epoch_above=epoch)
        ledger.wait_acks(50)
        said = [n["why"] for n in cluster.notes(old) if "no room for another segment" in n["why"]]
        assert said, "it did not say why"
        ballast.unlink(missing_ok=True)
        cluster.whole_again(ledger, "10", said=said[:1])


def test_10_hosts_a_disk_that_is_nearly_full_is_handed_over_in_order():
    with DiskCluster(400, defaults=FAST) as cluster, cluster.ledger() as ledger:
        ledger.wait_acks(50)
        old, epoch = cluster.primary(), cluster.epoch()
        ballast = cluster.fill(old, 8 << 20)  # less than a segment of WAL; PostgreSQL goes on
        new = cluster.wait_primary(timeout=100, other_than=old, epoch_above=epoch)
        ledger.wait_acks(50)
        request, change = cluster.record("request"), cluster.record(f"history/{epoch + 1:020}")
        assert request["by"] == "on_disk_full" and change["trigger"] == "switchover", (request, change)
        wait_for(lambda: cluster.record("request")["outcome"] == "done", 20, "the request is done")
        assert cluster.record(f"members/{old}")["diskFull"] == "wal"
        alerts = json.load(urllib.request.urlopen(
            f"http://{cluster.host(new).address}:{API_PORT}/api/database/alerts", timeout=5))
        assert any(a["type"] == "disk_full" and a["endpoint"] == old for a in alerts["active"]), alerts
        ballast.unlink()
        cluster.whole_again(ledger, "10", request=request)


def test_10_hosts_a_full_disk_stays_where_the_policy_says_so():
    with DiskCluster(400, defaults={**FAST, "on_disk_full": "stay"}) as cluster, cluster.ledger() as ledger:
        ledger.wait_acks(50)
        old, epoch = cluster.primary(), cluster.epoch()
        ballast = cluster.fill(old, 0)
        cluster.wait_seen_full(old)
        with contextlib.suppress(psycopg2.Error):
            cluster.query(old, "SELECT pg_switch_wal()")
        wait_for(lambda: "no room for another segment" in reason_of(cluster, old), 30, "it says why")
        time.sleep(4 * FAST_TTL_S)
        assert cluster.epoch() == epoch and cluster.leader()["holder"] == old
        said = reason_of(cluster, old)
        ballast.unlink()
        ledger.wait_acks(50)
        assert cluster.primary() == old
        cluster.whole_again(ledger, "10", said=said)


def test_11_hosts_a_data_directory_that_is_gone_is_replaced_by_a_clone():
    with HostCluster(defaults=FAST) as cluster, cluster.ledger() as ledger:
        ledger.wait_acks(50)
        old, epoch = cluster.primary(), cluster.epoch()
        shutil.rmtree(cluster.data(old))
        cluster.wait_primary(timeout=120, other_than=old, epoch_above=epoch)
        ledger.wait_acks(50)
        change = cluster.record(f"history/{epoch + 1:020}")
        assert change["trigger"] == "vacant", f"the record was not released: {change}"
        cluster.whole_again(ledger, "11", why=change["reason"], cloned=len(cluster.noted(old, "cloned")))


class ClockCluster(HostCluster):
    """The wall clock of every member's and the proxy's processes, PostgreSQL's too, can be moved; no other clock."""

    def agent_service(self, name):
        service = super().agent_service(name)
        service["argv"] = [*self.preloading(name), *service["argv"]]
        return service

    def preloading(self, name):
        return ["env", f"LD_PRELOAD={WALL_CLOCK}", f"WALL_CLOCK_FILE={self.clock(name)}"]

    def member_config(self, name):
        """PostgreSQL's programs get an environment of their own: its server is started by way of a script."""
        config = super().member_config(name)
        programs = self.dir / "bin" / name
        programs.mkdir(parents=True)
        for program in pathlib.Path(self.info["binDir"]).iterdir():
            (programs / program.name).symlink_to(program)
        server = programs / "postgres"
        server.unlink()
        server.write_text(f"#!/bin/sh\nexec {' '.join(self.preloading(name))} {self.info['binDir']}/postgres \"$@\"\n")
        server.chmod(0o755)
        config["node"]["postgresql"]["bin_dir"] = str(programs)
        return config

    def write_files(self):
        super().write_files()
        for name in [*self.members, self.proxy_name]:
            self.clock(name).write_bytes(struct.pack("q", 0))
            self.clock(name).chmod(0o644)

    def clock(self, name):
        return self.home(name) / "wall_clock"

    def move_clock(self, name, seconds):
        with open(self.clock(name), "r+b") as file:
            file.write(struct.pack("q", seconds))

    def clock_is_off_by(self, name):
        return self.query(name, "SELECT extract(epoch FROM clock_timestamp())::float8")[0][0] - time.time()


def test_14_hosts_a_wall_clock_that_jumps_an_hour_changes_nothing():
    with ClockCluster() as cluster, cluster.ledger() as ledger:
        ledger.wait_acks(50)
        before = (cluster.primary(), cluster.epoch())
        for jumps in ({before[0]: 3600}, {before[0]: -3600}, {name: 3600 for name in cluster.others(before[0])},
                      {name: -3600 for name in [*cluster.members, cluster.proxy_name]}):
            for name, seconds in jumps.items():
                cluster.move_clock(name, seconds)
            member, seconds = next(iter(jumps.items()))
            assert abs(cluster.clock_is_off_by(member) - seconds) < 60, "the clock has not moved"
            deadline = time.monotonic() + 1.5 * TTL_S
            while time.monotonic() < deadline:  # nothing may happen in all this time
                assert (cluster.primary(), cluster.epoch()) == before
                time.sleep(0.1)
            ledger.wait_acks(50)
        assert cluster.status()["leader"]
        cluster.whole_again(ledger, "14", max_gap_ms=1000, errors_by_client_max=0)


# ------------------------------------------------------------------------------------------ store

def test_28_hosts_a_wiped_store_initialises_nothing_again():
    with HostCluster() as cluster, cluster.ledger() as ledger:
        ledger.wait_acks(50)
        bootstraps = sum(len(cluster.noted(m, "bootstrapping")) for m in cluster.members)
        for name in cluster.etcd_names:
            cluster.host(name).kill()
            shutil.rmtree(cluster.dir / "etcd" / name)
        for name in cluster.etcd_names:
            cluster.host(name).boot()
        time.sleep(3 * TTL_S)  # whatever they do about it, it is not a new cluster
        reasons = {m: reason_of(cluster, m) for m in cluster.members}
        assert sum(len(cluster.noted(m, "bootstrapping")) for m in cluster.members) == bootstraps
        for member in cluster.members:
            text = (cluster.data(member) / "PG_VERSION").read_text()
            assert text.strip() == "15", f"{member} has lost its data directory"
        cluster.whole_again(ledger, "28", reasons=reasons)


# ------------------------------------------------------------------------------------- durability

def test_36_hosts_a_cancelled_wait_for_the_standby_is_no_success_through_the_proxy():
    with HostCluster(defaults={"sync_strict": True}) as cluster:
        with cluster.ledger() as ledger:
            ledger.wait_acks(50)
        primary = cluster.primary()
        with cluster.host("c1").inside():
            session = psycopg2.connect(cluster.dsn())
            session.autocommit = True
            cluster.cut_between([primary], cluster.others(primary))
            result = {}

            def insert():
                try:
                    with session.cursor() as cursor:
                        cursor.execute("INSERT INTO ledger VALUES (5000, 1)")
                    result["acked"] = True
                except psycopg2.Error as error:
                    result["code"], result["error"] = error.pgcode, str(error)
            thread = threading.Thread(target=insert, daemon=True)
            thread.start()
            wait_for(lambda: cluster.query(primary, "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'")
                     [0][0], 10, "the commit waits for its standby")
            session.cancel()
            thread.join(timeout=10)
        kept = cluster.query(primary, "SELECT count(*) FROM ledger WHERE client = 5000", database="app")[0][0]
        tell("36", errors=int("code" in result), acknowledged=int("acked" in result), kept=kept, **result)
        assert result.get("code") == "08007", result
        cluster.heal(primary)
        cluster.wait_healthy()


# ----------------------------------------------------------------------------------------- rejoin

def test_41_hosts_the_source_of_a_rewind_dies_in_the_middle():
    with HostCluster(defaults=FAST) as cluster, cluster.ledger() as ledger:
        ledger.wait_acks(50)
        old, epoch = cluster.primary(), cluster.epoch()
        # Rows that only the old primary has make a rewind necessary.
        send(cluster.backends(old, "walsender"), signal.SIGSTOP)
        with contextlib.suppress(psycopg2.Error), contextlib.closing(cluster.superuser(old, "app")) as session:
            session.cursor().execute("SET LOCAL synchronous_commit = local; INSERT INTO ledger VALUES (6000, 1)")
            session.commit()
        cluster.kill_host(old)
        second = cluster.wait_primary(timeout=20, other_than=old, epoch_above=epoch)
        ledger.wait_acks(50)
        cluster.wait_healthy(streaming=1)
        cluster.boot(old)
        wait_for(lambda: cluster.noted(old, "rewinding"), 30, "the rewind begins", poll_s=0.002)
        epoch = cluster.epoch()
        cluster.kill_host(second)
        cluster.wait_primary(timeout=30, other_than=second, epoch_above=epoch)
        ledger.wait_acks(50)
        cluster.boot(second)
        cluster.whole_again(ledger, "41", done=[n["what"] for n in cluster.notes(old)][-4:])


def test_45_hosts_a_foreign_data_directory_is_refused():
    with HostCluster() as cluster, cluster.ledger() as ledger:
        ledger.wait_acks(50)
        primary = cluster.primary()
        member = cluster.others(primary)[0]
        cluster.host(member).kill()
        own, data = cluster.home(member) / "own", cluster.data(member)
        os.rename(data, own)
        netns.run("setpriv", f"--reuid={USER}", f"--regid={USER}", "--init-groups",
                  f"{cluster.info['binDir']}/initdb", "-D", str(data), "-A", "trust",
                  "--no-sync")
        cluster.boot(member)
        wait_for(lambda: "another cluster" in reason_of(cluster, member), 30, "it says why it is refused")
        ledger.wait_acks(50)
        assert (data / "PG_VERSION").exists(), "a stranger's data was wiped"
        cluster.host(member).kill()
        shutil.rmtree(data)
        os.rename(own, data)
        cluster.boot(member)
        cluster.whole_again(ledger, "45", max_gap_ms=2500)


def boot_stranger(cluster, name):
    """A host x1 that says it is the member `name`."""
    cluster.network.add_host("x1")
    home = cluster.home("x1")
    home.mkdir()
    config = cluster.member_config(name)
    here = cluster.host("x1").address
    config["node"] |= {"data_dir": str(home / "data"), "run_dir": str(home / "run"), "host": here}
    config |= {"pid_file": str(home / "agent.pid"), "api": {**config["api"], "listen": f"{here}:{API_PORT}"}}
    (home / "bascule.yaml").write_text(json.dumps(config))
    owner = pwd.getpwnam(USER)
    for path in (home, home / "bascule.yaml"):
        os.chown(path, owner.pw_uid, owner.pw_gid)
    cluster.host("x1").boot([cluster.agent_service("x1")])


@pytest.mark.parametrize("whose", ["primary", "standby"])
def test_45_hosts_a_second_member_of_the_same_name_is_refused(whose):
    """A copied configuration file: name of a member that lives, on another host."""
    with HostCluster() as cluster, cluster.ledger() as ledger:
        ledger.wait_acks(50)
        primary, epoch = cluster.primary(), cluster.epoch()
        name = primary if whose == "primary" else cluster.others(primary)[0]
        boot_stranger(cluster, name)
        reason = wait_for(lambda: reason_by_its_api(cluster, "x1"), 20, "the stranger runs and says what it does")
        time.sleep(3 * TTL_S)  # it must not take part in all this time: absence has no event
        ledger.wait_acks(50)
        reason = reason_by_its_api(cluster, "x1")
        assert (cluster.primary(), cluster.epoch()) == (primary, epoch)
        assert cluster.record(f"members/{name}")["host"] == cluster.host(name).address
        assert not (cluster.home("x1") / "data" / "PG_VERSION").exists(), "the stranger was given a copy"
        cluster.host("x1").kill()
        cluster.whole_again(ledger, f"45 same name as the {whose}", max_gap_ms=1500, errors_by_client_max=0,
                            refused_because=reason)


# ------------------------------------------------------------------------------------ adversarial

def test_71_hosts_a_second_receiver_of_the_same_name_in_other_case_is_ended():
    with HostCluster() as cluster, cluster.ledger() as ledger:
        ledger.wait_acks(50)
        primary = cluster.primary()
        name = cluster.query(primary, "SELECT application_name FROM pg_stat_replication WHERE sync_state = 'sync'")[0][0]
        password = (cluster.dir / "secrets/replication").read_text().strip()
        folder = cluster.base / "stranger"
        folder.mkdir()
        with cluster.host("c1").inside():
            stranger = subprocess.Popen(
                [f"{cluster.info['binDir']}/pg_receivewal", "-D", str(folder), "--no-loop", "-d",
                 f"host={cluster.host(primary).address} port={PG_PORT} user=bascule_replication password={password} "
                 f"application_name={name.upper()}"], stderr=subprocess.PIPE, text=True)
        try:
            said = stranger.communicate(timeout=30)[1]
        finally:
            stranger.kill()
        assert "terminat" in said, said
        cluster.whole_again(ledger, "71", max_gap_ms=2500, said=said.strip()[-120:])
