"""Members that come, go and change while the cluster runs; what clients' commits wait for. Real servers."""
import contextlib
import os
import re
import shutil
import signal
import subprocess
import threading
import time

import psycopg2
from harness import BASCULE, Cluster, wait_for
from test_operations import call, replicas, setting, started


def slots(cluster, member):
    return {row[0] for row in cluster.query(member, "SELECT slot_name FROM pg_replication_slots")}


def edit(cluster, member, before, after):
    file = cluster.home(member) / "bascule.yaml"
    file.write_text(file.read_text().replace(before, after, 1))


def agent_pid(cluster, member):
    return int((cluster.home(member) / "agent.pid").read_text())


def test_a_removed_member_is_gone_for_good_and_clients_notice_nothing():
    with Cluster(nodes=3) as cluster:
        leader = cluster.primary()
        waited_for = cluster.voters()[0]
        with cluster.ledger() as ledger:
            ledger.wait_acks(50)
            done = cluster.run_cli("remove", waited_for, "--yes", timeout=60)
            ledger.wait_acks(50)
        assert "stop the daemon" in done.stdout
        assert cluster.primary() == leader and cluster.epoch() == 1
        assert cluster.voters() not in ([], [waited_for])
        assert cluster.record(f"members/{waited_for}") is None
        wait_for(lambda: f"bascule_{waited_for}" not in slots(cluster, leader), 20, "its slot is dropped")
        wait_for(lambda: not cluster.backends(waited_for, "postgres"), 20, "its agent stops PostgreSQL")
        cluster.kill(agent_pid(cluster, waited_for))
        time.sleep(3)  # the new agent of that host has had time to publish, if it would
        assert cluster.record(f"members/{waited_for}") is None
        last = next(m for m in replicas(cluster) if m != waited_for)
        refused = cluster.run_cli("remove", last, "--yes", check=False)
        assert refused.returncode == 3 and "no other member can take its place" in refused.stderr, refused
        refused = cluster.run_cli("remove", leader, "--yes", check=False)
        assert refused.returncode == 3 and "switch over first" in refused.stderr, refused
        status, answer = call(cluster, "DELETE", "/members/nobody")
        assert status == 409, answer


@contextlib.contextmanager
def another_member(cluster, like, name):
    """A daemon with a file of its own, as an operator would add it."""
    home, port = cluster.dir / "nodes" / name, cluster.find_port_base()
    home.mkdir()
    text = (cluster.home(like) / "bascule.yaml").read_text()
    for old, new in ((rf"/nodes/{like}/", f"/nodes/{name}/"), (rf"  name: {like}\n", f"  name: {name}\n"),
                     (r"  port: \d+\n", f"  port: {port}\n"), (r"  listen: .*\n", f"  listen: 127.0.0.1:{port + 1}\n")):
        text, found = re.subn(old, new, text)
        assert found, old
    (home / "bascule.yaml").write_text(text)
    if os.geteuid() == 0:
        shutil.chown(home, cluster.info["user"], cluster.info["user"])
    with (home / "agent.log").open("w") as log:
        daemon = subprocess.Popen([BASCULE, "run", "--config", str(home / "bascule.yaml")], stdout=log, stderr=log)
    try:
        yield
    finally:
        daemon.send_signal(signal.SIGTERM)
        daemon.wait(timeout=60)


def test_a_new_member_joins_is_waited_for_and_leads_and_clients_notice_nothing():
    with Cluster(nodes=2) as cluster, cluster.ledger() as ledger:
        leader, only = cluster.primary(), replicas(cluster)[0]
        ledger.wait_acks(50)
        with another_member(cluster, only, "n9"):
            wait_for(lambda: (cluster.record("members/n9") or {}).get("state") == "streaming", 60, "n9 streams")
            ledger.wait_acks(50)
            assert (cluster.primary(), cluster.epoch()) == (leader, 1)
            cluster.run_cli("remove", only, "--yes", timeout=60)
            wait_for(lambda: cluster.voters() == ["n9"], 20, "commits wait for n9")
            ledger.wait_acks(50)
            cluster.run_cli("switchover", "--candidate", "n9")
            wait_for(lambda: cluster.primary() == "n9", 20, "n9 leads")
            ledger.wait_acks(50)
            wait_for(lambda: cluster.record(f"members/{leader}")["state"] == "streaming", 20, f"{leader} follows")
            cluster.run_cli("switchover", "--candidate", leader)
            wait_for(lambda: cluster.primary() == leader, 20, f"{leader} leads again")
            cluster.finish(ledger, "a new member", errors_by_client_max=0)


def test_a_limit_is_raised_at_the_replicas_first_and_lowered_at_the_primary_first():
    with Cluster(nodes=3) as cluster:
        leader = cluster.primary()

        def change(value):
            cluster.run_cli("config", "set", f"parameters.max_connections={value}")
            wait_for(lambda: all(m["pendingRestart"] for m in cluster.status()["members"] if m["name"] == leader), 20,
                     "a restart is pending")
            wait_for(lambda: (cluster.record(f"members/{leader}") or {}).get("restartFirst") == (value < 200), 10,
                     "the leader knows whether it goes first")
            cluster.run_cli("restart", timeout=120)
            wait_for(lambda: all(setting(cluster, m, "max_connections") == str(value) for m in cluster.members), 20,
                     f"{value} connections everywhere after one restart")
            return {m: started(cluster, m) for m in cluster.members}
        raised = change(300)
        assert max(raised, key=raised.get) == leader
        lowered = change(120)
        assert min(lowered, key=lowered.get) == leader
        assert cluster.primary() == leader and cluster.epoch() == 1


def test_a_daemon_reads_its_own_file_again_at_sighup():
    with Cluster(nodes=2) as cluster:
        member = replicas(cluster)[0]
        before = (agent_pid(cluster, member), cluster.postmaster(member))
        edit(cluster, member, "  superuser:\n", "  priority: 7\n  noloadbalance: true\n  region: moon\n"
                              f"  hooks:\n    on_reload: [/bin/sh, -c, 'echo $BASCULE_EVENT > {cluster.home(member)}/run/said']\n"
                              "  superuser:\n")
        cluster.kill(before[0], number=signal.SIGHUP)

        def shown():
            return cluster.record(f"members/{member}") or {}
        wait_for(lambda: shown().get("priority") == 7 and shown().get("noloadbalance"), 10, "tags are those of the file")
        log = (cluster.dir / "log" / f"{member}.log").read_text()
        assert "node.region" in log and shown()["region"] == "", "what needs a restart is named"
        assert (agent_pid(cluster, member), cluster.postmaster(member)) == before
        cluster.run_cli("reload", member)
        said = cluster.home(member) / "run" / "said"
        wait_for(lambda: said.exists() and said.read_text() == "reload\n", 10, "the hook of the file")
        edit(cluster, member, "priority: 7", "priority: seven")
        cluster.kill(before[0], number=signal.SIGHUP)
        wait_for(lambda: "not reloaded" in (cluster.dir / "log" / f"{member}.log").read_text(), 10, "a mistake is told")
        assert shown()["priority"] == 7


def test_a_member_that_must_have_a_watchdog_and_has_none_is_not_elected():
    with Cluster(nodes=2) as cluster:
        member = replicas(cluster)[0]

        def shown():
            return (cluster.record(f"members/{member}") or {}).get("nofailover")
        assert not shown()
        edit(cluster, member, "    mode: off", f"    device: {cluster.dir}/none\n    mode: required")
        cluster.kill(agent_pid(cluster, member))
        wait_for(shown, 20, "required, and absent: not to be elected")
        log = (cluster.home(member) / "run" / "events.jsonl").read_text()
        assert f"{cluster.dir}/none: No such file or directory" in log, "and it says why"
        edit(cluster, member, "mode: required", "mode: automatic")
        cluster.kill(agent_pid(cluster, member))
        wait_for(lambda: shown() is False, 20, "only wanted, and absent: as without")


DURABILITY = """
  pool_mode: transaction
  durability:
    - {application_name: analytics, synchronous_commit: local}
  pool_size: 100"""


def client(cluster, name):
    connection = psycopg2.connect(cluster.dsn(), application_name=name)
    connection.autocommit = True
    return connection


def test_weak_commits_do_not_wait_for_a_standby_that_is_stopped_and_strong_ones_do():
    with Cluster(nodes=2) as cluster:
        proxy = cluster.dir / "proxy"
        file = proxy / "bascule.yaml"
        file.write_text(file.read_text().replace("\n  pool_size: 100", DURABILITY, 1))
        cluster.kill(int((proxy / "agent.pid").read_text()), number=signal.SIGHUP)
        wait_for(lambda: "reloaded" in (cluster.dir / "log" / "proxy.log").read_text(), 10, "the proxy has its rules")
        cluster.run_cli("config", "set", "sync_degrade_after=60s")
        with contextlib.closing(client(cluster, "game")) as strong, contextlib.closing(client(cluster, "analytics")) as weak:
            strong.cursor().execute("CREATE TABLE durable (v int)")
            with weak.cursor() as cursor:
                cursor.execute("SHOW synchronous_commit")
                assert cursor.fetchone() == ("local",)
            with strong.cursor() as cursor:
                cursor.execute("SHOW synchronous_commit")
                assert cursor.fetchone() == ("on",), "on the same server connections"
            standby = replicas(cluster)[0]
            stopped = cluster.backends(standby, "walreceiver")
            cluster.stop(*stopped)
            begun = time.monotonic()
            with weak.cursor() as cursor:
                for value in range(20):
                    cursor.execute("INSERT INTO durable VALUES (%s)", (value,))
            assert time.monotonic() - begun < 2
            done = threading.Event()

            def insert():
                with strong.cursor() as cursor:
                    cursor.execute("INSERT INTO durable VALUES (100)")
                done.set()
            thread = threading.Thread(target=insert, daemon=True)
            thread.start()
            assert not done.wait(0.7), "it waits for the standby"
            with weak.cursor() as cursor:
                cursor.execute("INSERT INTO durable VALUES (21)")
            assert not done.is_set()
            cluster.cont(*stopped)
            assert done.wait(15), "and is answered once the standby goes on"
            thread.join(5)
