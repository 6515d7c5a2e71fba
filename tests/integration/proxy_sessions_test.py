"""What a client of a transaction pool may do without keeping a server: statements in one text, SQL
PREPARE, state that is undone, LISTEN; and protocol 3.2."""

import pytest
import proxy_wire as pw
from proxy_wire import FLUSH, SYNC, bind, close, codes, connect, describe, execute, parse, query
from proxy_test import resident_kb
from proxy_support import Proxy, one_postgres, proxies, wait_for


@pytest.fixture(scope="module")
def server():
    with one_postgres() as server:
        yield server


@pytest.fixture
def make_proxy(server):
    with proxies(server) as make:
        yield make


@pytest.fixture(scope="module")
def proxy(server):
    proxy = Proxy("mode=transaction", "pool=1", "workers=1")
    proxy.route(server)
    yield proxy
    proxy.close()


@pytest.mark.parametrize("sql", [
    "set timezone='Asia/Tokyo'; set search_path=a",
    "begin; set timezone='Asia/Tokyo'; rollback",
    "begin; set local timezone='Asia/Tokyo'; commit",
    "select set_config('my.x', 'y', true)",
    "select set_config('my.x', 'y', false), set_config('work_mem', '9MB', false)",
    "prepare p as select 1",
    "prepare p as select 1; deallocate p",
    "/* a comment */ prepare p (int) as select $1; execute p(1)",
    "create temp table mine (a int); drop table mine",
    "begin; create temp table mine on commit drop as select 1; commit",
    "begin; create temp table mine (a int); rollback",
    "begin; declare c cursor with hold for select 1; close c; commit",
    "select pg_advisory_lock(1, 2); select pg_advisory_unlock(1, 2)",
    "listen x; unlisten *",
    "listen x",
])
def test_what_leaves_nothing_behind_keeps_no_server(proxy, sql):
    c, d = connect(proxy.port), connect(proxy.port)
    before = d.run("select name, setting from pg_settings order by 1")
    c.run(sql)
    d.run("set statement_timeout = '5s'")
    assert d.run("select count(*) from pg_locks where locktype = 'advisory'") == [("0",)]
    assert d.run("select count(*) from pg_listening_channels()") == [("0",)]
    d.run("reset statement_timeout")
    assert d.run("select name, setting from pg_settings order by 1") == before
    c.socket.close()
    d.socket.close()


def test_settings_of_one_text_hold_for_their_client(proxy):
    c, d = connect(proxy.port), connect(proxy.port)
    c.run("set datestyle = 'German'; select 1; set datestyle = 'ISO'; /* ; */ set my.x = 'a;b'")
    c.run("begin; set work_mem = '7MB'; savepoint s; set work_mem = '8MB'; rollback to s; commit")
    d.run("set datestyle = 'SQL, MDY'; set work_mem = '3MB'")
    for _ in range(2):
        assert c.run("show datestyle") == [("ISO, DMY",)]
        assert c.run("show work_mem") == [("7MB",)]
        assert c.run("show my.x") == [("a;b",)]
        assert d.run("show datestyle") == [("SQL, MDY",)]
        assert d.run("show work_mem") == [("3MB",)]
    c.send(query("set work_mem = '1MB'; select 1/0; set work_mem = '2MB'"))
    assert codes(c.until_ready()) == "C E(22012) Z(I)"
    d.run("select 1")
    assert c.run("show work_mem") == [("7MB",)]


def test_prepare_of_sql_follows_its_client(proxy):
    clients = [connect(proxy.port) for _ in range(4)]
    for i, c in enumerate(clients):
        c.run(f"prepare p (int) as select {i} + $1")
    for i, c in enumerate(clients):
        assert c.run("execute p(10)") == [(str(i + 10),)]
        c.send(parse("", "execute p(20)"), describe("S", ""), bind(""), execute(), SYNC)
        assert c.rows() == [(str(i + 20),)]
        c.send(bind("p", ["30"]), execute(), SYNC)
        assert c.rows() == [(str(i + 30),)]
    a, b = clients[:2]
    a.send(query("prepare p as select 1"))
    assert codes(a.until_ready()) == "E(42P05) Z(I)"
    a.send(query("deallocate p; prepare p as select 'new'; execute p; select 1/0"))
    assert codes(a.until_ready()) == "C C T D C E(22012) Z(I)"
    b.run("select 1")
    assert a.run("execute p") == [("new",)]  # no rollback takes it back
    a.send(parse("", "deallocate p"), bind(""), execute(), SYNC)
    assert codes(a.until_ready()) == "1 2 C Z(I)"
    a.send(query("execute p"))
    assert codes(a.until_ready()) == "E(26000) Z(I)"
    a.send(parse("", "prepare p as select 'again'"), bind(""), execute(), SYNC)
    assert codes(a.until_ready()) == "1 2 C Z(I)"
    b.run("execute p(1)")
    assert a.run("explain (costs off) execute p") == [("Result",)]
    assert a.run("execute p") == [("again",)]


def test_statement_that_can_not_be_prepared_again_says_why(server):
    proxy = Proxy("mode=transaction", "pool=2", "workers=1")
    proxy.route(server)
    try:
        c, d = connect(proxy.port), connect(proxy.port)
        c.run("create table gone (a int); prepare p as select * from gone")
        c.prepare("q", "select * from gone")
        d.run("begin")  # it has the server that knows them, or c gets that one
        c.run("begin")
        c.run("rollback; drop table gone")
        d.run("commit")
        for name in ("p", "q"):
            for _ in range(3):
                c.send(query(f"execute {name}"))
                assert codes(c.until_ready()) == "E(42P01) Z(I)"
                assert d.run("select 1") == [("1",)]
        c.run("deallocate p; deallocate q")
    finally:
        proxy.close()


def test_preparing_without_a_sync_keeps_no_server(proxy):
    c, d = connect(proxy.port), connect(proxy.port)
    for turn in range(3):
        c.send(parse("s", "select 1 + $1::int"), describe("S", "s"), FLUSH)
        assert [c.receive()[0] for _ in range(3)] == ["1", "t", "T"]
        assert d.run("select 1") == [("1",)]
        c.send(bind("s", ["1"]), execute(), SYNC)
        assert c.rows() == [("2",)]
        c.send(close("S", "s"), SYNC)
        c.until_ready()




def notification(wire):
    while True:
        kind, body = wire.receive()
        if kind == "A":
            channel, payload = body[4:].split(b"\0")[:2]
            return channel.decode(), payload.decode()


def test_notifications_go_to_every_listener_without_a_server(proxy, server):
    listeners = [connect(proxy.port) for _ in range(5)]
    sender = connect(proxy.port)
    for w in listeners:
        w.run('listen news; listen "Other"')
    for i in range(20):
        sender.run(f"""notify news, '{i}'; notify "Other", '{i}'""")
    for w in listeners:
        assert [notification(w) for _ in range(40)] == [
            (c, str(i)) for i in range(20) for c in ("news", "Other")]
    w = listeners[0]
    w.run("unlisten news")
    w.run("begin")
    server.query("notify \"Other\", 'late'; notify news, 'unheard'")
    assert notification(listeners[1]) == ("Other", "late")
    w.send(query("select 1"))
    assert codes(w.until_ready()) == "T D C Z(T)"  # not within the transaction
    w.send(query("commit"))
    assert codes(w.until_ready()) == "C Z(I)"
    assert notification(w) == ("Other", "late")
    for w in listeners:
        w.socket.close()
    wait_for(lambda: server.query("select count(*) from pg_stat_activity where application_name = "
                                  "'bascule listener'") == [(0,)], what="the end of the listener")


def test_listen_that_is_rolled_back_hears_nothing(proxy, server):
    w, other = connect(proxy.port), connect(proxy.port)
    w.run("begin; listen never; rollback")
    other.run("listen never")
    server.query("notify never, 'x'")
    assert notification(other) == ("never", "x")
    w.send(query("select 1"))
    assert codes(w.until_ready()) == "T D C Z(I)"


def test_listener_that_is_lost_is_replaced_and_clients_are_told(proxy, server):
    w = connect(proxy.port)
    w.run("listen news")
    server.query("select pg_terminate_backend(pid) from pg_stat_activity "
                 "where application_name = 'bascule listener'")
    wait_for(lambda: (w.run("select 1"), w.notices)[1], what="the warning")
    assert w.notices[0]["C"] == "01000"
    server.query("notify news, 'again'")
    assert notification(w) == ("news", "again")


def test_who_listens_with_a_server_of_its_own_knows_its_own_notifications(make_proxy):
    proxy = make_proxy("mode=session", "workers=2")
    with connect(proxy.port) as w, connect(proxy.port) as other:
        w.run("listen own")
        texts = ["notify own, 'mine'", "begin; select 1", f"notify own, '{'x' * 7000}'; commit"]
        w.send(*(query(text) for text in texts))
        answers = [m for _ in texts for m in w.until_ready()]
        assert [body[:4] for kind, body in answers if kind == "A"] == [w.key[:4]] * 2
        other.run("notify own")
        kind, body = w.receive()
        assert kind == "A" and body[:4] not in (w.key[:4], other.key[:4])


def test_a_notification_is_never_taken_for_ones_own_where_another_listens(make_proxy):
    proxy = make_proxy("mode=transaction", "workers=2")
    for w in [connect(proxy.port) for _ in range(4)]:
        # No process id of a server on Linux has so many bits.
        assert int.from_bytes(w.key[:4], "big") >= 1 << 24
        w.socket.close()


def test_who_listens_and_does_not_read_costs_bounded_memory(make_proxy, server):
    proxy = make_proxy("mode=transaction", "workers=1")
    deaf, other = connect(proxy.port), connect(proxy.port)
    for w in (deaf, other):
        w.run("listen flood")
    run = server.connect()
    before = resident_kb(proxy)
    with run.cursor() as cursor:
        for i in range(60):  # 60 MB; the kernel keeps up to 38 of them
            cursor.execute("select pg_notify('flood', %s || g || repeat('x', 7900)) from generate_series(1, 130) g", (str(i),))
            for _ in range(130):
                notification(other)
    assert proxy.stats["clients"] == 1
    assert resident_kb(proxy) - before < 16_000
    assert other.run("select 1") == [("1",)]
    run.close()


def test_protocol_3_2_has_long_cancel_keys(proxy):
    with connect(proxy.port, version=pw.wire.PROTOCOL_3_2) as w:
        assert w.negotiated is None
        assert len(w.key) == 4 + 32
        w.send(query("select pg_sleep(20)"))
        wrong = w.key
        w.key = w.key[:-1] + bytes([w.key[-1] ^ 1])
        w.cancel()
        w.key = wrong
        w.cancel()
        assert "E(57014)" in codes(w.until_ready())


# ---- Nothing that a client leaves meets another --------------------------------------------------

STATE = """select (select json_agg(array[name, setting] order by name) from pg_settings where name !~ '^plpgsql'),
  current_user, session_user, (select count(*) from pg_locks where locktype = 'advisory' and pid = pg_backend_pid()),
  (select count(*) from pg_listening_channels()),
  (select count(*) from pg_prepared_statements where name !~ '^_bascule_'), (select count(*) from pg_cursors),
  (select count(*) from pg_class where relnamespace = pg_my_temp_schema())"""
# Fastpath: pg_advisory_lock(7).
ADVISORY_LOCK = pw.message("F", b"\0\0\x0b\x40" + b"\0\0" + b"\0\1" + b"\0\0\0\1" + b"7" + b"\0\0")


@pytest.mark.parametrize("sent", [
    ["set role pg_monitor"], ["begin", "set role pg_monitor", "rollback"], ["set session authorization pg_monitor"],
    ["begin", "set local work_mem = '9MB'", "select 1/0", "rollback"],
    ["begin", "set local work_mem = '9MB'", "select 1/0", "commit"],
    ["begin", "set work_mem = '9MB'", "savepoint a", "set work_mem = '8MB'; select 1/0", "rollback to a", "commit"],
    ["set schema 'nowhere'"], ["set names 'latin1'"], ["set time zone interval '-08:00' hour to minute"],
    ["set session characteristics as transaction read only"], ["begin", "set transaction read only", "commit"],
    ["set xml option document"], ["set work_mem = '9MB'", "reset all"], ["set work_mem = '9MB'", "discard all"],
    ["alter role app set work_mem = '9MB'", "alter role app reset work_mem"],
    ["prepare z as select 1"], ["begin", "declare h cursor with hold for select 1", "commit"], ["listen x"],
    ["create temp table mine (a int)"], ["select 1 as a into temp mine"], ["select 1 as a into pg_temp.mine"],
    ["create table pg_temp.mine (a int)"], ["explain analyze create temp table mine as select 1"],
    ["select pg_advisory_lock(7)"], ['select "pg_advisory_lock"(7)'], [ADVISORY_LOCK],
    ["select set_config('work_mem', '9MB', false)"], ["select \"set_config\"('work_mem', '9MB', false)"],
    ["update pg_settings set setting = '9999' where name = 'work_mem'"],
    ["do $$ begin set work_mem = '9MB'; end $$"], ["do 'begin listen y; end'"],
    ["do $$ begin execute 'prepare z as select 1'; end $$"],
    ["do $$ begin perform pg_advisory_lock(7); end $$"],
    ["do language plpgsql $x$ begin create temp table mine (a int); end $x$"],
], ids=lambda sent: str(sent[-1])[:40])
def test_nothing_that_a_client_leaves_meets_another(server, sent):
    with proxies(server) as make:
        proxy = make("mode=transaction", "pool=2", "workers=1")
        c, d, e = (connect(proxy.port) for _ in range(3))
        before = d.run(STATE)
        for message in sent:
            c.send(query(message) if isinstance(message, str) else message)
            c.until_ready()
        left = c.run(STATE)
        assert d.run(STATE) == before
        if sent[-1] not in ("rollback", "commit") and c.run(STATE) != before:
            assert c.run(STATE) == left, "the client itself has lost it"
        c.socket.close()
        d.run("begin")
        e.run("begin")  # each has a server now
        assert d.run(STATE) == before and e.run(STATE) == before


# ---- Commits that did not wait for their standby -------------------------------------------------

@pytest.fixture
def awaited(server):
    """Commits wait for a standby that is not there."""
    server.query("create table if not exists waits (a int)")
    server.query("alter system set synchronous_standby_names = 'nobody'")
    server.query("select pg_reload_conf()")
    yield server
    server.query("alter system reset synchronous_standby_names")
    server.query("select pg_reload_conf()")


@pytest.mark.parametrize("mode", ["session", "transaction"])
@pytest.mark.parametrize("message, answer", [
    (query("insert into waits values (1)"), "E(08007) Z(I)"),
    (query("begin; insert into waits values (1); commit; select 1"), "C C C T D C E(08007) Z(I)"),
    (query("insert into waits values (1); commit; select 1/0"), "C C E(08007) Z(I)"),
    (parse("", "insert into waits values (1)") + bind("") + execute() + SYNC, "1 2 C E(08007) Z(I)"),
    (query("begin; insert into waits values (1); commit and chain"), "C C C E(08007) Z(T)"),
])
def test_cancelled_wait_for_the_standby_is_no_success(awaited, mode, message, answer):
    with proxies(awaited) as make:
        proxy = make(f"mode={mode}", "pool=2")
        c, d = connect(proxy.port), connect(proxy.port)
        c.send(message)
        wait_for(lambda: d.run("select count(*) from pg_stat_activity where wait_event = 'SyncRep'")
                 == [("1",)], what="the commit waits")
        c.cancel()
        assert codes(c.until_ready()) == answer
        assert "synchronous replication" in c.notices[-1]["M"]
        assert proxy.stats["unreplicated"] == 1
        assert c.run("select 1") == [("1",)]
