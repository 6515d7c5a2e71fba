"""A new process takes over from a running proxy: nobody is refused, nobody is cut off."""

import os
import signal
import socket
import subprocess
import threading
import time

import psycopg2
import pytest
from proxy_support import PASSWORD, PG_BIN, free_port, initialize_pgbench, one_postgres, run, wait_for

BASCULE = os.environ.get("BASCULE", "build/dev/bascule")


class Daemon:
    """`bascule run` with a proxy and nothing else."""

    def __init__(self, config, *options):
        self.log = config.parent / f"log-{time.monotonic_ns()}"
        self.process = subprocess.Popen([BASCULE, "run", "-c", config, *options],
                                        stdout=subprocess.DEVNULL, stderr=open(self.log, "wb"))

    def said(self, what):
        return what in self.log.read_text()

    def close(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        self.process.wait(20)


class Site:
    def __init__(self, root, server):
        self.root, self.server, self.port, self.daemons = root, server, free_port(), []
        self.folder = root / f"site-{self.port}"
        self.folder.mkdir()
        (self.folder / "users").write_text(f'"app" "{PASSWORD}"\n')
        (self.folder / "users").chmod(0o600)
        self.config = self.folder / "bascule.yaml"
        self.configure()
        if os.geteuid() == 0:
            subprocess.run(["chown", "-R", "postgres", str(self.folder)], check=True)

    def configure(self, workers=2, more=""):
        self.config.write_text(f"""
pid_file: {self.folder}/pid
proxy:
  writer: "127.0.0.1:{self.port}"
  socket_dir: {self.folder}
  userlist_file: users
  handover_socket: take-over
  pool_mode: transaction
  workers: {workers}
  pool_size: 20
  console: {{admins: [app]}}
  servers: [{{host: 127.0.0.1, port: {self.server.port}, role: primary}}]
{more}""")

    def start(self, *options):
        daemon = Daemon(self.config, *options)
        self.daemons.append(daemon)
        wait_for(lambda: daemon.said("] running ") or daemon.process.poll() is not None, what="start")
        assert daemon.process.poll() is None, daemon.log.read_text()
        return daemon

    def connect(self, **kwargs):
        c = psycopg2.connect(host=kwargs.pop("host", "127.0.0.1"), port=self.port, user="app",
                             password=PASSWORD, dbname=kwargs.pop("dbname", "postgres"),
                             connect_timeout=10, **kwargs)
        c.autocommit = True
        return c


@pytest.fixture(scope="module")
def server():
    with one_postgres() as server:
        initialize_pgbench(server)
        yield server.root, server


@pytest.fixture
def site(server):
    site = Site(*server)
    yield site
    for daemon in site.daemons:
        daemon.close()


def pgbench(site, seconds, *options):
    return subprocess.Popen([PG_BIN / "pgbench", "-n", "-S", "-c", "8", "-j", "2", "-T", str(seconds),
                             *options, "-h", "127.0.0.1", "-p", str(site.port), "-U", "app", "postgres"],
                            env=os.environ | {"PGPASSWORD": PASSWORD}, stdout=subprocess.PIPE,
                            stderr=subprocess.STDOUT, text=True)


def cancels(site, c):
    """Whether a cancel request of `c` ends what it runs."""
    ended = []

    def work():
        try:
            run(c, "select pg_sleep(30)")
        except psycopg2.errors.QueryCanceled as error:
            ended.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    wait_for(lambda: site.server.query("select 1 from pg_stat_activity where query = 'select pg_sleep(30)' "
                                       "and state = 'active'"), what="the statement")
    c.cancel()
    thread.join(10)
    return len(ended) == 1


def test_pgbench_with_a_connection_a_transaction_runs_through_take_overs(site):
    site.start()
    load = pgbench(site, 8, "-C")
    for workers in (1, 3):  # fewer workers than sockets, then more
        time.sleep(2)
        site.configure(workers)
        old = site.daemons[-1]
        site.start("--take-over")
        assert old.process.wait(20) == 0
    output = load.communicate(timeout=60)[0]
    assert load.returncode == 0, output
    assert "number of failed transactions: 0" in output, output
    assert int(output.split("number of transactions actually processed: ")[1].split()[0].split("/")[0]) > 100


def test_clients_stay_until_they_leave_and_their_cancels_find_them(site):
    old = site.start()
    c = site.connect()
    run(c, "begin")
    site.start("--take-over")
    assert (site.folder / "pid").read_text().strip() == str(site.daemons[-1].process.pid)
    assert run(site.connect(), "select 1") == [(1,)]
    assert cancels(site, c)
    run(c, "rollback")
    assert old.process.poll() is None
    c.close()
    assert old.process.wait(20) == 0
    assert run(site.connect(host=str(site.folder)), "select 1") == [(1,)], "the unix socket lives"


def test_cancels_pass_through_a_process_without_clients(site):
    first = site.start()
    c = site.connect()
    run(c, "begin")
    middle = site.start("--take-over")
    site.start("--take-over")
    wait_for(lambda: middle.said("taken over"), what="the second take-over")
    time.sleep(0.5)  # nothing tells that it stays
    assert cancels(site, c)
    c.close()
    assert first.process.wait(20) == 0
    assert middle.process.wait(20) == 0


def test_who_stays_too_long_is_told_and_closed(site):
    site.configure(more="  leave_timeout: 1s\n")
    old = site.start()
    c = site.connect()
    run(c, "select 1")
    site.start("--take-over")
    assert old.process.wait(20) == 0
    with pytest.raises(psycopg2.OperationalError):
        run(c, "select 1")


def test_a_take_over_that_fails_changes_nothing(site):
    old = site.start()
    (site.folder / "take-over").stat()
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as s:
        s.connect(str(site.folder / "take-over"))
        s.send(b"take 2")
        assert s.recv(1000).startswith(b"socket ")
    wait_for(lambda: old.said("went away"), what="end of the attempt")
    assert run(site.connect(), "select 1") == [(1,)]
    assert (site.folder / "pid").read_text().strip() == str(old.process.pid)
    for nonsense in (b"take 1", b"accepting", b"cancel 1 00", b"x" * 5000):
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as s:
            s.connect(str(site.folder / "take-over"))
            s.send(nonsense)
            assert s.recv(1000) == b""
    site.start("--take-over")
    assert old.process.wait(20) == 0


def test_without_anybody_to_take_over_from_it_starts_as_usual(site):
    site.start("--take-over")
    assert run(site.connect(), "select 1") == [(1,)]
