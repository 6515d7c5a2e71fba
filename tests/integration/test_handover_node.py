"""A daemon with a PostgreSQL is replaced (`bascule run --take-over`): its agent leaves its place to the
new process', PostgreSQL and its guard go on, nobody is promoted, and no client hears of it."""

import os
import re
import socket
import subprocess
import threading
import time

import psycopg2
from harness import BASCULE, Cluster, wait_for
from ledger import Ledger


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Member:
    """A member of a local cluster in a daemon with a proxy of its own, outside of the supervisor."""

    def __init__(self, cluster, name):
        self.cluster, self.name, self.port, self.daemons = cluster, name, free_port(), []
        self.home = cluster.home(name)
        self.config = self.home / "with-proxy.yaml"
        text = next(self.home.glob("*.yaml")).read_text()
        self.config.write_text(f"""{text}
proxy:
  writer: 127.0.0.1:{self.port}
  userlist_file: "{cluster.dir}/secrets/users"
  handover_socket: take-over
  pool_mode: transaction
  pool_size: 20
""")
        self.config.chmod(0o644)
        cluster.hold(name)
        cluster.kill(cluster.agent(name))
        wait_for(self.started_by_hand, 20, "a daemon in the place of the supervisor's", poll_s=0.1)

    def started_by_hand(self):
        """Again, as a supervisor does: what a killed process held may take the kernel a moment."""
        first = self.start()
        if first.poll() is None:
            return True
        print(self.daemons.pop().log.read_text())
        return False

    def start(self, *options, config=None):
        log = self.home / f"daemon-{len(self.daemons)}.log"
        daemon = subprocess.Popen([BASCULE, "run", "-c", config or self.config, *options],
                                  stdout=subprocess.DEVNULL, stderr=open(log, "wb"))
        daemon.log = log
        self.daemons.append(daemon)
        wait_for(lambda: b"running config" in log.read_bytes() or daemon.poll() is not None, 30, "start")
        return daemon

    @property
    def daemon(self):
        return self.daemons[-1]

    def dsn(self):
        return re.sub(r"host=\S+ port=\S+", f"host=127.0.0.1 port={self.port}", self.cluster.dsn())

    def state(self):
        """What a take-over must not change."""
        return (self.cluster.primary(), self.cluster.epoch(), self.cluster.postmaster(self.name),
                self.cluster.guard(self.name), self.cluster.timeline(self.name))

    def acts(self):
        """The newest agent has begun, and leads if it is the primary's."""
        wait_for(lambda: (self.home / "run" / "agent.pid").read_text().strip() == str(self.daemon.pid), 20,
                 "the new agent")
        if self.cluster.primary() == self.name:
            wait_for(self.cluster.leader_renewed_by_now, 20, "the record is renewed")

    def pgbench(self, seconds):
        """With a connection for each transaction; on tables of its own."""
        info = self.cluster.info
        script = self.home / "script.sql"
        script.write_text("insert into churn values (1)\n")
        return subprocess.Popen(
            [f"{info['binDir']}/pgbench", "-n", "-C", "-c", "4", "-j", "2", "-T", str(seconds), "-f", script,
             "-h", "127.0.0.1", "-p", str(self.port), "-U", info["appUser"], info["database"]],
            env=os.environ | {"PGPASSFILE": info["pgpass"]}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True)

    def run(self, sql):
        with psycopg2.connect(self.dsn()) as c, c.cursor() as cursor:
            cursor.execute(sql)


def test_the_primarys_daemon_is_replaced_under_load():
    with Cluster() as cluster:
        member = Member(cluster, cluster.primary())
        member.acts()
        before = member.state()
        member.run("create table churn (n int)")
        with Ledger(member.dsn(), clients=4) as ledger:
            ledger.wait_acks(50)
            load = member.pgbench(12)
            for _ in range(2):
                time.sleep(2)
                new = member.start("--take-over")
                assert new.poll() is None, new.log.read_text()
                member.acts()
                ledger.wait_acks(50)
                assert member.daemons[0].poll() is None, "the ledger's connections are its, and stay"
            output = load.communicate(timeout=60)[0]
            assert load.returncode == 0 and "number of failed transactions: 0" in output, output
        cluster.finish(ledger, "daemon replaced", errors_by_client_max=0)
        assert member.state() == before
        for old in member.daemons[:-1]:
            assert old.wait(30) == 0, old.log.read_text()
        cluster.assert_same_rows_everywhere()
        assert cluster.writable_members() == [cluster.primary()]


def test_a_replicas_daemon_is_replaced_and_goes_on_following():
    with Cluster() as cluster:
        member = Member(cluster, cluster.others(cluster.primary())[0])
        member.acts()
        before = member.state()
        with cluster.ledger() as ledger:
            ledger.wait_acks(50)
            old = member.daemon
            assert member.start("--take-over").poll() is None, member.daemon.log.read_text()
            assert old.wait(30) == 0, old.log.read_text()
            member.acts()
            ledger.wait_acks(50)
        cluster.finish(ledger, "replica's daemon replaced", errors_by_client_max=0)
        assert member.state() == before
        cluster.assert_same_rows_everywhere()


def test_a_new_process_that_fails_leaves_the_old_one_leading():
    with Cluster() as cluster:
        member = Member(cluster, cluster.primary())
        member.acts()
        before = member.state()
        with Ledger(member.dsn(), clients=2) as ledger, socket.socket() as taken:
            ledger.wait_acks(50)
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            wrong = member.home / "wrong.yaml"
            wrong.write_text(re.sub(r"api:\n  listen: \S+", f"api:\n  listen: 127.0.0.1:{taken.getsockname()[1]}",
                                    member.config.read_text()))
            wrong.chmod(0o644)
            old = member.daemon
            assert member.start("--take-over", config=wrong).wait(30) != 0
            member.daemons.remove(member.daemon)
            assert old.poll() is None
            member.acts()
            ledger.wait_acks(50)
            with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as s:  # takes, and says no more
                s.connect(str(member.home / "take-over"))
                s.send(b"take 2")
                s.settimeout(20)
                while (said := s.recv(1000)).startswith(b"socket "):
                    pass
                assert said == b"end"
                assert s.recv(1000) == b"late"
            member.acts()
            ledger.wait_acks(50)
        cluster.finish(ledger, "take-over failed", errors_by_client_max=0)
        assert member.state() == before


def test_in_the_midst_of_a_switchover_nothing_is_handed_over():
    with Cluster() as cluster:
        member = Member(cluster, cluster.primary())
        member.acts()
        cluster.run_cli("config", "set", "drain_timeout=20s")
        direct = psycopg2.connect(cluster.dsn(member.name))
        with direct.cursor() as cursor:
            cursor.execute("create table busy (n int)")
        switchover = threading.Thread(target=cluster.run_cli, args=("switchover",), kwargs={"timeout": 60})
        switchover.start()
        wait_for(lambda: cluster.record("leader").get("phase") == "draining", 10, "draining")
        refused = member.start("--take-over")
        assert refused.wait(30) != 0
        assert "draining" in refused.log.read_text() and "try again" in refused.log.read_text()
        member.daemons.remove(refused)
        direct.rollback()
        switchover.join(60)
        assert cluster.wait_primary(30) != member.name
        cluster.wait_healthy()
        assert member.start("--take-over").poll() is None, member.daemon.log.read_text()
        member.acts()
