"""Cancel requests at moments that are hard to hit: they end the statement that they were meant for, or nothing."""

import contextlib
import socket
import threading
import time

import proxy_wire as pw
import psycopg2
import pytest
from proxy_support import free_port, one_postgres, proxies, run, wait_for
from proxy_test import in_thread
from proxy_wire import codes, connect, query

CANCEL_REQUEST = b"\x00\x00\x00\x10\x04\xd2\x16\x2e"


@pytest.fixture(scope="module")
def server():
    with one_postgres("create role painter") as server:
        yield server


@pytest.fixture
def make_proxy(server):
    with proxies(server) as make:
        yield make


class LateCancels:
    """Stands before a server; cancel requests reach it only when they are let through."""

    def __init__(self, server):
        self.name, self.server, self.port = server.name, server, free_port()
        self.arrived, self.through = threading.Event(), threading.Event()
        self.listener = socket.create_server(("127.0.0.1", self.port))
        threading.Thread(target=self._accept, daemon=True).start()

    def route(self):
        return f"{self.name}@127.0.0.1:{self.port}"

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                near = self.listener.accept()[0]
                far = socket.create_connection(("127.0.0.1", self.server.port))
                for a, b in ((near, far), (far, near)):
                    threading.Thread(target=self._relay, args=(a, b), daemon=True).start()

    def _relay(self, a, b):
        with contextlib.suppress(OSError):
            while data := a.recv(1 << 16):
                if data.startswith(CANCEL_REQUEST):
                    self.arrived.set()
                    self.through.wait(30)
                b.sendall(data)
        with contextlib.suppress(OSError):
            b.shutdown(socket.SHUT_WR)


@contextlib.contextmanager
def a_fresh_server_for(proxy):
    """The next statement of any other client gets a server that has not seen a client's settings."""
    holders = [proxy.connect(autocommit=False) for _ in range(2)]
    for holder in holders:
        run(holder, "select 1")
    holders[1].rollback()
    yield
    for holder in holders:
        holder.close()


@pytest.mark.parametrize("setting, catalog", [
    ("role = painter", "pg_authid"),                           # confirmed first
    ("default_text_search_config = 'german'", "pg_ts_config"),  # sent in front
])
def test_a_cancel_that_meets_the_clients_settings_ends_its_statement(make_proxy, server, setting, catalog):
    proxy = make_proxy("mode=transaction", "pool=2", "workers=1")
    c = proxy.connect()
    name = setting.split()[0]
    before = run(c, f"set {setting}; show {name}")
    watcher = server.connect()  # whose own look-ups are behind it
    watch = f"select count(*) from pg_locks where not granted and relation = '{catalog}'::regclass"
    run(watcher, watch)
    with a_fresh_server_for(proxy):
        locker = server.connect()
        run(locker, f"begin; lock {catalog}")
        waiting = in_thread(lambda: run(c, "select pg_sleep(20)"))
        wait_for(lambda: run(watcher, watch) == [(1,)], what="the SET")
        c.cancel()
        run(locker, "rollback")
        with pytest.raises(psycopg2.errors.QueryCanceled):
            waiting()
        assert run(c, f"show {name}") == before
        locker.close()


def test_a_cancel_that_may_come_late_never_meets_the_next_client(make_proxy, server):
    proxy = make_proxy("mode=transaction", "pool=1")
    between = LateCancels(server)
    proxy.route(between)
    c, d = connect(proxy.port), connect(proxy.port)
    server_of_c = c.run("select pg_backend_pid()")
    c.send(query("select pg_sleep(1)"))
    time.sleep(0.1)  # it must have been sent on, which nothing shows
    in_thread(c.cancel)
    assert between.arrived.wait(10)
    assert codes(c.until_ready()) == "T D C Z(I)"
    d.send(query("select pg_backend_pid() from pg_sleep(3)"))
    # Not while it may come; when nobody waits for it any longer, by another connection.
    wait_for(lambda: proxy.stats["held"] == 1, what="waiter")
    wait_for(lambda: server.query("select count(*) from pg_stat_activity where query like '%pg_sleep(3)' "
                                  "and state = 'active' and pid <> pg_backend_pid()") == [(1,)],
             what="statement of the next client")
    between.through.set()
    answer = d.until_ready()
    assert codes(answer) == "T D C Z(I)"
    assert pw.row_of(answer[1][1]) != server_of_c[0]


@pytest.mark.parametrize("mode", ["session", "transaction"])
def test_what_ends_meanwhile_is_not_cancelled_and_what_follows_runs(make_proxy, mode):
    proxy = make_proxy(f"mode={mode}", "pool=4", "workers=2")
    clients = [connect(proxy.port) for _ in range(4)]
    stop = time.monotonic() + 3
    turn = 0
    while time.monotonic() < stop:
        turn += 1
        for i, c in enumerate(clients):
            c.send(query(f"select pg_sleep({0.001 * ((turn + i) % 5)})"))
        for c in clients[::2]:
            c.cancel()  # returns when it is over
        for i, c in enumerate(clients):
            got = codes(c.until_ready())
            assert got == "T D C Z(I)" or (i % 2 == 0 and "E(57014) Z(I)" in got)
            assert c.run(f"select {i}") == [(str(i),)]
    assert turn > 5


def test_a_cancel_that_another_proxy_gets_finds_its_client(make_proxy, server):
    first = make_proxy("workers=2")
    second = make_proxy("workers=2", f"peer={first.port}", f"peer={free_port()}")
    for _ in range(4):
        c = connect(first.port)
        c.send(query("select pg_sleep(20)"))
        wait_for(lambda: first.stats["active"] == 1, what="statement in flight")
        time.sleep(0.05)  # it must have been sent on, which nothing shows
        pw.wire.PORT = second.port  # where a balancer leads the next connection
        c.cancel()
        assert codes(c.until_ready()) == "T E(57014) Z(I)"
        assert c.run("select 1") == [("1",)]
        c.socket.close()


def test_proxies_that_name_each_other_and_themselves_do_not_ask_in_circles(make_proxy):
    ports = [free_port(), free_port()]
    peers = [f"peer={p}" for p in ports]
    two = [make_proxy(f"writer={p}", *peers) for p in ports]
    stranger = connect(ports[0])
    stranger.cancel(stranger.key[:4] + b"none")  # waits for its end
    assert [p.stats["clients_total"] for p in two] == [3, 1]
