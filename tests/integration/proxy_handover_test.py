"""A new process takes over the listening sockets of a proxy at work: nobody is refused, nobody is cut
off. (test_handover.py has the same of `bascule run --take-over`.)"""

import os
import signal
import socket
import subprocess
import threading
import time

import psycopg2
import pytest
from proxy_support import HARNESS, PASSWORD, PG_BIN, Proxy, initialize_pgbench, one_postgres, run, wait_for


@pytest.fixture(scope="module")
def site():
    with one_postgres() as server:
        initialize_pgbench(server)
        yield server.root, server


@pytest.fixture
def start(site):
    root, server = site
    proxies = []

    def begin(*options, after=None):
        if after is None:
            proxy = Proxy("mode=transaction", "pool=20", f"socket_dir={root}", f"handover={root}/take", *options)
        else:
            proxy = Successor(after, "mode=transaction", "pool=20", f"socket_dir={root}",
                              f"handover={root}/take", *options)
        proxies.append(proxy)
        proxy.route(server)
        return proxy

    yield begin
    for proxy in proxies:
        if proxy.process.poll() is None:
            proxy.close()


class Successor(Proxy):
    """On the ports of another one."""

    def __init__(self, before, *options):
        self.port, self.reader_port = before.port, before.reader_port
        self.process = subprocess.Popen(
            [HARNESS, f"writer={self.port}", f"reader={self.reader_port}", *options,
             f"user=app:{PASSWORD}"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout.readline().strip() == "ready"
        self.epoch = 0


def ended(proxy):
    return proxy.process.wait(20) == -signal.SIGTERM  # how the harness ends when it is asked to


def test_pgbench_with_a_connection_a_transaction_runs_through_take_overs(start):
    proxy = start("workers=2")
    load = subprocess.Popen([PG_BIN / "pgbench", "-n", "-S", "-C", "-c", "8", "-j", "2", "-T", "8", "-h",
                             "127.0.0.1", "-p", str(proxy.port), "-U", "app", "postgres"],
                            env=os.environ | {"PGPASSWORD": PASSWORD}, stdout=subprocess.PIPE,
                            stderr=subprocess.STDOUT, text=True)
    for workers in (1, 3, 2):  # fewer workers than sockets, then more
        time.sleep(1.5)
        old, proxy = proxy, start(f"workers={workers}", after=proxy)
        assert ended(old)
    output = load.communicate(timeout=60)[0]
    assert load.returncode == 0, output
    assert "number of failed transactions: 0" in output, output
    done = int(output.split("number of transactions actually processed: ")[1].split()[0].split("/")[0])
    assert done > 100
    assert proxy.stats["clients_total"] > 10


def test_clients_stay_until_they_leave_and_their_cancels_find_them(start, site):
    old = start("workers=2")
    c = old.connect()
    run(c, "begin")
    new = start("workers=2", after=old)
    assert run(new.connect(), "select 1") == [(1,)]
    errors = []

    def work():
        try:
            run(c, "select pg_sleep(30)")
        except psycopg2.Error as error:
            errors.append(error.pgcode)

    thread = threading.Thread(target=work)
    thread.start()
    wait_for(lambda: site[1].query("select count(*) from pg_stat_activity where query like "
                                   "'select pg_sleep(3%'") == [(1,)], what="statement")
    c.cancel()
    thread.join(10)
    assert errors == ["57014"]
    run(c, "rollback")
    for _ in range(50):  # each has been delivered when cancel() returns: it does not meet what comes next
        c.cancel()
        assert run(c, "select 7 from pg_sleep(0.01)") == [(7,)]
    assert old.process.poll() is None
    c.close()
    assert ended(old)
    d = psycopg2.connect(host=str(site[0]), port=new.port, user="app", password=PASSWORD, dbname="postgres")
    d.close()  # the unix socket lives


def test_who_stays_too_long_is_told_and_closed(start):
    old = start("workers=2", "leave_ms=500")
    c = old.connect()
    run(c, "select 1")
    start(after=old)
    assert ended(old)
    with pytest.raises(psycopg2.OperationalError):
        run(c, "select 1")


def test_a_take_over_that_fails_changes_nothing(start, site):
    old = start()
    path = str(site[0] / "take")
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as s:
        s.connect(path)
        s.send(b"take 2")
        assert s.recv(1000).startswith(b"socket ")
    assert run(old.connect(), "select 1") == [(1,)]
    for nonsense in (b"take 1", b"accepting", b"cancel 1 00", b"x" * 5000):
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as s:
            s.connect(path)
            s.send(nonsense)
            s.settimeout(5)
            assert s.recv(1000) == b""
    new = start(after=old)
    assert ended(old)
    assert run(new.connect(), "select 1") == [(1,)]
