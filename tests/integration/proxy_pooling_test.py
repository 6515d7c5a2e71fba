"""Transaction and statement pooling against a real PostgreSQL: what a client may expect although
the server connection behind it is another one at every transaction."""

import os
import socket
import subprocess
import time

import psycopg2
import pytest
import proxy_wire as pw
from proxy_wire import SYNC, FLUSH, bind, close, codes, connect, describe, execute, parse, query
from proxy_support import PASSWORD, one_postgres, proxies, run, wait_for
from proxy_test import in_thread, resident_kb


@pytest.fixture(scope="module")
def server():
    with one_postgres("create table t (id int primary key, note text)",
                      "create schema other; create table other.t (id text, more int)") as server:
        yield server


@pytest.fixture
def make_proxy(server):
    server.query("truncate t")
    with proxies(server) as make:
        yield make


@pytest.fixture
def one(make_proxy):
    """Transaction pooling with one server connection: every client gets what the last one left."""
    return make_proxy("mode=transaction", "pool=1")


# ---- Sharing -------------------------------------------------------------------------------------

def test_many_clients_share_one_server_between_transactions(one):
    clients = [one.connect() for _ in range(5)]
    pids = {run(c, "select pg_backend_pid()")[0][0] for c in clients for _ in range(3)}
    assert len(pids) == 1
    assert one.stats["servers"] == 1


def test_server_stays_for_the_length_of_a_transaction(one):
    c, d = one.connect(), one.connect()
    run(c, "begin")
    run(c, "insert into t values (1, 'x')")
    waiting = in_thread(lambda: run(d, "select count(*) from t"))
    wait_for(lambda: one.stats["held"] == 1, what="waiter")
    run(c, "commit")
    assert waiting() == [(1,)]


def test_waiting_clients_are_served_in_turn(one):
    first = one.connect()
    run(first, "begin")
    waiting = []
    for i in range(5):
        c = one.connect()
        waiting.append(in_thread(lambda c=c: run(
            c, "insert into t select count(*), %s from t", (i,))))
        wait_for(lambda i=i: one.stats["held"] == i + 1, what="waiter")
    run(first, "commit")
    for w in waiting:
        w()
    assert run(first, "select note from t order by id") == [(str(i),) for i in range(5)]


def test_client_that_leaves_in_a_transaction_takes_its_server_along(one, server):
    c, d = one.connect(), one.connect()
    run(c, "begin")
    run(c, "insert into t values (1, 'x')")
    c.close()
    assert run(d, "select count(*) from t") == [(0,)]


# ---- Settings ------------------------------------------------------------------------------------

def test_set_holds_for_its_client_and_for_no_other(one):
    c, d = one.connect(), one.connect()
    run(c, "set work_mem = '9MB'")
    run(c, "set search_path to other, public")
    assert run(d, "show work_mem") == [("4MB",)]
    assert run(d, "show search_path") == [('"$user", public',)]
    assert run(c, "show work_mem") == [("9MB",)]
    assert run(c, "show search_path") == [("other, public",)]
    run(c, "reset work_mem")
    assert run(d, "show work_mem") == [("4MB",)]
    assert run(c, "show work_mem") == [("4MB",)]


def test_startup_parameters_and_reset_to_them(one):
    c = one.connect(options="-c work_mem=7MB -c search_path=other,public", application_name="c")
    d = one.connect(application_name="d")
    for _ in range(2):
        assert run(c, "show work_mem") == [("7MB",)]
        assert run(c, "show search_path") == [("other,public",)]
        assert run(c, "show application_name") == [("c",)]
        assert run(d, "show work_mem") == [("4MB",)]
        assert run(d, "show application_name") == [("d",)]
        run(c, "set work_mem = '9MB'")
        assert run(c, "show work_mem") == [("9MB",)]
        run(c, "reset all")
    run(c, "begin")
    run(c, "set work_mem = '11MB'")
    run(c, "reset work_mem")
    assert run(c, "show work_mem") == [("7MB",)]
    run(c, "commit")
    assert run(c, "show work_mem") == [("7MB",)]
    run(c, "set work_mem to default")
    run(c, "discard all")
    assert run(c, "show work_mem") == [("7MB",)]
    assert run(c, "show application_name") == [("c",)]


def test_wrong_startup_parameter_is_refused_as_by_postgresql(one):
    with pytest.raises(psycopg2.OperationalError, match='unrecognized configuration parameter "nix"'):
        one.connect(options="-c nix=1")
    assert run(one.connect(), "select 1") == [(1,)]


def test_setting_of_a_rolled_back_transaction_is_gone(one):
    c, d = one.connect(), one.connect()
    run(c, "begin")
    run(c, "set work_mem = '9MB'")
    run(c, "rollback")
    assert run(d, "show work_mem") == [("4MB",)]
    assert run(c, "show work_mem") == [("4MB",)]


def test_set_local_ends_with_its_transaction_and_does_not_pin(one):
    c, d = one.connect(), one.connect()
    run(c, "begin")
    run(c, "set local work_mem = '9MB'")
    assert run(c, "show work_mem") == [("9MB",)]
    run(c, "commit")
    assert run(d, "show work_mem") == [("4MB",)]
    assert run(c, "show work_mem") == [("4MB",)]


def test_set_role_is_restored_before_anything_else_runs(one, server):
    server.query("drop role if exists r; create role r")
    c, d = one.connect(), one.connect()
    run(c, "set role r")
    assert run(d, "select current_user") == [("app",)]
    assert run(c, "select current_user") == [("r",)]
    run(d, "drop role r")
    with pytest.raises(psycopg2.Error):
        run(c, "select current_user")
    assert run(d, "select current_user") == [("app",)]


def test_reported_setting_that_a_function_changes_is_followed(one):
    c, d = one.connect(), one.connect()
    run(c, "create or replace function zone() returns void language plpgsql as "
           "$$ begin perform set_config('TimeZone', 'Asia/Tokyo', false); end $$")
    run(c, "select zone()")
    assert c.get_parameter_status("TimeZone") == "Asia/Tokyo"
    assert run(d, "show timezone") != [("Asia/Tokyo",)]
    assert run(c, "show timezone") == [("Asia/Tokyo",)]


def test_client_encoding_is_the_clients_own(one):
    c, d = one.connect(client_encoding="LATIN1"), one.connect()
    for _ in range(2):
        assert run(c, "select 'ü' || chr(228)") == [("üä",)]
        assert run(d, "select 'ü' || chr(228)") == [("üä",)]
    d.set_client_encoding("WIN1252")
    assert run(c, "show client_encoding") == [("LATIN1",)]
    assert run(d, "show client_encoding") == [("WIN1252",)]


# ---- What can't be moved ---------------------------------------------------------------------------

@pytest.mark.parametrize("sql", [
    "create temp table mine (a int)", "select pg_advisory_lock(4711)",
    "declare c cursor with hold for select 1",
])
def test_session_with_state_of_its_own_keeps_its_server(make_proxy, sql):
    proxy = make_proxy("mode=transaction", "pool=2")
    c, d = proxy.connect(), proxy.connect()
    run(c, sql)
    pid = run(c, "select pg_backend_pid()")
    assert run(d, "select pg_backend_pid()") != pid
    assert run(c, "select pg_backend_pid()") == pid
    c.close()
    wait_for(lambda: proxy.stats["servers_idle"] == 2, what="reset")
    run(d, "select 1")
    for _ in range(3):
        assert run(d, "select count(*) from pg_locks where locktype = 'advisory'") == [(0,)]
        assert run(d, "select to_regclass('mine')") == [(None,)]


def test_discard_all_gives_a_pinned_server_back(one):
    c, d = one.connect(), one.connect()
    run(c, "create temp table mine (a int)")
    run(c, "discard all")
    assert run(d, "select 1") == [(1,)]


# ---- Prepared statements -------------------------------------------------------------------------

def test_statement_prepared_by_a_message_is_there_at_every_transaction(one):
    c, d = connect(one.port), connect(one.port)
    c.prepare("s", "select 1 + $1::int")
    d.prepare("s", "select 'd' || $1::text")
    for i in range(3):
        assert c.call("s", i) == [(str(1 + i),)]
        assert d.call("s", i) == [(f"d{i}",)]
    c.send(describe("S", "s"), SYNC)
    assert codes(c.until_ready()) == "t T Z(I)"
    c.send(close("S", "s"), SYNC)
    assert codes(c.until_ready()) == "3 Z(I)"
    c.send(bind("s", [1]), execute(), SYNC)
    assert codes(c.until_ready()) == "E(26000) Z(I)"
    assert d.call("s", 9) == [("d9",)]
    assert one.stats["servers_total"] == 1


def test_names_taken_and_unknown_are_errors_with_the_clients_name(one):
    c = connect(one.port)
    c.prepare("s", "select 1")
    c.send(parse("s", "select 2"), SYNC)
    answer = c.until_ready()
    assert codes(answer) == "E(42P05) Z(I)"
    assert pw.fields_of(answer[0][1])["M"] == 'prepared statement "s" already exists'
    assert c.call("s") == [("1",)]
    c.send(parse("s", "selec 2"), SYNC)
    assert codes(c.until_ready()) == "E(42601) Z(I)"
    assert c.call("s") == [("1",)]
    c.send(bind("nix"), execute(), SYNC)
    answer = c.until_ready()
    assert pw.fields_of(answer[0][1])["M"] == 'prepared statement "nix" does not exist'
    c.send(bind("s", [1, 2]), execute(), SYNC)
    answer = c.until_ready()
    assert 'prepared statement "s" requires 0' in pw.fields_of(answer[0][1])["M"]
    assert c.call("s") == [("1",)]


def test_second_client_with_the_same_text_uses_the_same_server_statement(one):
    c, d = connect(one.port), connect(one.port)
    c.prepare("a", "select 42")
    d.prepare("b", "select 42")
    assert c.call("a") == d.call("b") == [("42",)]
    assert d.run("select count(*) from pg_prepared_statements") == [("1",)]


def test_server_keeps_so_many_statements_and_no_more(make_proxy):
    proxy = make_proxy("mode=transaction", "pool=1", "prepared=5")
    c = connect(proxy.port)
    for i in range(20):
        c.prepare(f"s{i}", f"select {i}")
    for i in range(20):
        assert c.call(f"s{i}") == [(str(i),)]
    assert int(c.one("select count(*) from pg_prepared_statements")) <= 5


def test_pipeline_with_an_error_skips_to_its_sync_and_no_further(one):
    c = connect(one.port)
    c.send(parse("a", "select 1"), bind("a"), execute(), SYNC,
           parse("b", "select 1/0"), bind("b"), execute(), parse("c", "select 3"), SYNC,
           bind("a"), execute(), parse("d", "select 4"), bind("d"), execute(), SYNC,
           bind("c"), execute(), SYNC)
    got = " | ".join(codes(c.until_ready()) for _ in range(4))
    assert got == "1 2 D C Z(I) | 1 E(22012) Z(I) | 2 D C 1 2 D C Z(I) | E(26000) Z(I)"
    assert c.call("a") == [("1",)] and c.call("d") == [("4",)]


def test_unnamed_statement_lives_across_syncs(one):
    c, d = connect(one.port), connect(one.port)
    c.send(parse("", "select $1::int + 1"), describe("S"), SYNC)
    assert codes(c.until_ready()) == "1 t T Z(I)"
    d.send(parse("", "select 'other'"), SYNC)
    d.until_ready()
    c.send(bind("", [4]), execute(), SYNC)
    assert c.rows() == [("5",)]
    d.send(bind(""), execute(), SYNC)
    assert d.rows() == [("other",)]
    d.run("select 1")
    d.send(bind(""), execute(), SYNC)
    assert codes(d.until_ready()) == "E(26000) Z(I)"
    e = connect(one.port)
    e.send(bind(""), execute(), SYNC)
    assert codes(e.until_ready()) == "E(26000) Z(I)"


def test_cached_plan_of_somebody_else_is_prepared_again(one):
    c, d = connect(one.port), connect(one.port)
    c.run("drop table if exists changes; create table changes (a int)")
    c.prepare("s", "select * from changes")
    d.prepare("s", "select * from changes")
    c.run("alter table changes add b text")
    d.send(bind("s"), describe("P"), execute(), SYNC)
    assert codes(d.until_ready()) == "2 T C Z(I)"
    c.run("alter table changes add c text")
    e = connect(one.port)
    e.send(parse("s", "select * from changes"), describe("S", "s"), bind("s"), execute(), SYNC)
    assert codes(e.until_ready()) == "1 t T 2 C Z(I)"


def test_cached_plan_with_other_columns_than_the_client_was_told_is_an_error(one):
    c, d = connect(one.port), connect(one.port)
    d.run("drop table if exists told; create table told (a int); insert into told values (1)")
    c.send(parse("s", "select * from told"), describe("S", "s"), SYNC)
    assert codes(c.until_ready()) == "1 t T Z(I)"
    d.run("alter table told add b text")
    c.send(bind("s"), execute(), SYNC)  # the columns that it knows are not these
    error = c.until_ready()
    assert codes(error) == "E(0A000) Z(I)"
    assert pw.fields_of(error[0][1])["R"] == "RevalidateCachedQuery"  # drivers look at that
    c.send(close("S", "s"), parse("s", "select * from told"), describe("S", "s"), SYNC)
    assert codes(c.until_ready()) == "3 1 t T Z(I)"
    c.send(bind("s"), execute(), SYNC)
    assert codes(c.until_ready()) == "2 D C Z(I)"


def test_statement_means_what_its_clients_search_path_says(one):
    c, d = connect(one.port), connect(one.port, options="-c search_path=other")
    for _ in range(2):
        c.send(parse("", "select * from t"), describe("S"), SYNC)
        d.send(parse("s", "select * from t"), describe("S", "s"), close("S", "s"), SYNC)
        assert b"note" in dict(c.until_ready())["T"]
        assert b"more" in dict(d.until_ready())["T"]


def test_sql_level_execute_and_deallocate_of_a_protocol_statement(one):
    c, d = connect(one.port), connect(one.port)
    c.prepare("s1", "select 1 + $1::int")
    d.run("select 1")
    assert c.run("execute s1 (4)") == [("5",)]
    assert c.run("EXECUTE \"s1\"(5);") == [("6",)]
    c.send(parse("", "execute s1(6)"), bind(""), describe("P"), execute(), SYNC)
    assert c.rows() == [("7",)]
    c.send(parse("", "deallocate s1"), bind(""), execute(), SYNC)
    assert codes(c.until_ready()) == "1 2 C Z(I)"
    c.send(query("execute s1 (4)"))
    assert codes(c.until_ready()) == "E(26000) Z(I)"
    c.prepare("s1", "select 7")
    d.prepare("s1", "select 8")
    c.run("deallocate all")
    c.send(bind("s1"), execute(), SYNC)
    assert codes(c.until_ready()) == "E(26000) Z(I)"
    assert d.call("s1") == [("8",)]
    d.run("discard all")
    d.send(bind("s1"), execute(), SYNC)
    assert codes(d.until_ready()) == "E(26000) Z(I)"


def test_prepared_in_a_transaction_that_fails(one):
    c, d = connect(one.port), connect(one.port)
    d.prepare("x", "select 5")
    c.run("begin")
    c.send(query("select 1/0"))
    c.until_ready()
    c.send(parse("x", "select 5"), SYNC)
    assert codes(c.until_ready()) == "E(25P02) Z(E)"
    c.run("rollback")
    c.prepare("x", "select 5")
    assert c.call("x") == [("5",)]
    c.run("begin")
    c.send(query("select 1/0"))
    c.until_ready()
    for name in ("x", "y"):
        c.send(parse(name, "select 6"), SYNC)  # "x" is taken, and stays
        assert codes(c.until_ready()) == "E(25P02) Z(E)"
    c.send(bind("x", ["1"]), execute(), SYNC)
    assert codes(c.until_ready()) == "E(08P01) Z(E)"
    c.run("rollback")
    c.run("set search_path to nowhere; begin")
    c.send(bind("x", ["1"]), execute(), SYNC)
    assert codes(c.until_ready()) == "E(08P01) Z(E)"
    c.send(bind("x", ["1"]), execute(), SYNC)
    assert codes(c.until_ready()) == "E(08P01) Z(E)"
    c.run("rollback")
    assert c.call("x") == [("5",)]


def test_portals_of_a_transaction(one):
    c = connect(one.port)
    c.run("begin")
    c.send(parse("s", "select generate_series(1, 5)"), bind("s", portal="p"), execute("p", 2), FLUSH)
    got = [c.receive()[0] for _ in range(5)]
    assert got == ["1", "2", "D", "D", "s"]
    c.send(execute("p", 2), SYNC)
    assert codes(c.until_ready()) == "D D s Z(T)"
    c.send(execute("p"), SYNC)
    assert codes(c.until_ready()) == "D C Z(T)"
    c.run("commit")
    c.send(execute("p"), SYNC)
    assert codes(c.until_ready()) == "E(34000) Z(I)"


# ---- Statement mode --------------------------------------------------------------------------------

def test_statement_mode_refuses_transactions_and_goes_on(make_proxy):
    proxy = make_proxy("mode=statement", "pool=1")
    c = connect(proxy.port)
    c.send(query("begin"))
    answer = c.until_ready()
    assert codes(answer) == "E(0A000) Z(I)"
    assert "statement pooling" in pw.fields_of(answer[0][1])["M"]
    c.send(parse("", "start transaction"), bind(""), execute(), SYNC, query("select 1"))
    assert codes(c.until_ready()) == "E(0A000) Z(I)"
    assert codes(c.until_ready()) == "T D C Z(I)"
    assert c.run("begin; select 2; commit") == [("2",)]


# ---- The rest of the protocol ----------------------------------------------------------------------

def test_fifty_queries_and_a_terminate_in_one_segment(one, server):
    c = connect(one.port)
    c.send(*(query(f"insert into t values ({i}, 'x')") for i in range(50)), pw.TERMINATE)
    wait_for(lambda: server.query("select count(*) from t") == [(50,)], what="all of them")
    assert [codes(c.until_ready()) for _ in range(50)] == ["C Z(I)"] * 50
    with pytest.raises(pw.wire.Closed):
        c.receive()


def test_what_waited_unread_and_was_no_statement_keeps_no_server(one):
    """Behind others an engine may leave a client unread until it has a server: here, for nothing."""
    holder, waiter, stray, leaver = one.connect(), one.connect(), connect(one.port), connect(one.port)
    for client in (stray, leaver):
        assert client.run("select 1") == [("1",)]
    run(holder, "begin")
    waiting = in_thread(lambda: run(waiter, "select 2"))
    wait_for(lambda: one.stats["held"] == 1, what="waiter")
    stray.send(pw.copy_data(b"of a COPY that has failed"))
    leaver.send(pw.TERMINATE)
    last = in_thread(lambda: stray_last(one))
    wait_for(lambda: one.stats["held"] >= 2, what="the last one")
    run(holder, "commit")
    assert waiting() == [(2,)]
    assert last() == [(3,)]
    with pytest.raises(pw.wire.Closed):
        leaver.receive()
    assert stray.run("select 4") == [("4",)]


def stray_last(proxy):
    return run(proxy.connect(), "select 3")


def test_cancel_hits_its_own_query_and_never_the_next_clients(make_proxy):
    proxy = make_proxy("mode=transaction", "pool=1", "workers=2")
    c, d = connect(proxy.port), connect(proxy.port)
    stop = time.monotonic() + 3
    cancelled = turn = 0
    while time.monotonic() < stop:
        turn += 1
        c.send(query(f"select pg_sleep({0.003 if turn % 4 else 0.3})"))
        d.send(query("select pg_sleep(0.004)"))
        time.sleep(0.002)
        c.cancel()
        first = codes(c.until_ready())
        # PostgreSQL heeds a cancel before the first row, and once more when it looks for a second one.
        assert first in ("T D C Z(I)", "T D E(57014) Z(I)", "T E(57014) Z(I)", "E(57014) Z(I)")
        cancelled += "E" in first
        assert codes(d.until_ready()) == "T D C Z(I)"
    assert cancelled > 0


def test_who_sends_a_statement_byte_by_byte_keeps_no_server(one):
    slow, d = connect(one.port), connect(one.port)
    statement = query("select 'slow'")
    for part in (statement[:1], statement[1:7], statement[7:-1]):
        slow.send(part)
        assert d.run("select 1") == [("1",)]
        time.sleep(0.05)  # it is to be read, which nothing shows
        assert d.run("select 2") == [("2",)]
    slow.send(statement[-1:])
    assert codes(slow.until_ready()) == "T D C Z(I)"


def test_copy_both_ways_and_in_pipelines(one):
    c, d = connect(one.port), connect(one.port)
    c.send(query("copy t from stdin"))
    assert c.receive()[0] == "G"
    c.send(*(pw.copy_data(f"{i}\tx\n".encode()) for i in range(1000)), pw.COPY_DONE)
    assert codes(c.until_ready()) == "C Z(I)"
    d.send(query("copy t to stdout"))
    assert codes(d.until_ready()).count("d") == 1000
    c.send(query("copy t from stdin"))
    assert c.receive()[0] == "G"
    c.send(pw.message("f", b"no\0"))
    assert codes(c.until_ready()) == "E(57014) Z(I)"
    assert d.run("select count(*) from t") == [("1000",)]


def test_statements_sent_before_a_copy_is_over_are_the_clients_own(one):
    c, d = connect(one.port), connect(one.port)
    c.send(parse("s", "select 1"), SYNC)
    assert codes(c.until_ready()) == "1 Z(I)"
    c.send(query("copy (select repeat('x', 1000) from generate_series(1, 40000)) to stdout"))
    assert c.receive()[0] == "H"
    c.send(bind("s"), execute(), parse("n", "select 2"), SYNC)
    assert codes(c.until_ready()).endswith("d c C Z(I)")
    assert codes(c.until_ready()) == "2 D C 1 Z(I)"
    c.send(query("copy t from stdin"))
    assert c.receive()[0] == "G"
    c.send(pw.COPY_DONE, bind("s"), execute(), SYNC)
    assert codes(c.until_ready()) == "C Z(I)"
    assert codes(c.until_ready()) == "2 D C Z(I)"
    d.send(parse("n", "select 3"), SYNC)
    assert codes(d.until_ready()) == "1 Z(I)"


def test_replication_connection_passes_through(one, server):
    server.query("alter system set wal_level = replica")
    c = connect(one.port, replication="true")
    c.send(query("IDENTIFY_SYSTEM"))
    assert codes(c.until_ready()) == "T D C Z(I)"
    c.socket.close()
    assert run(one.connect(), "select 1") == [(1,)]


def test_pgbench_in_every_protocol_mode_with_fewer_servers(make_proxy):
    proxy = make_proxy("mode=transaction", "pool=4", "workers=2")
    env = os.environ | {"PGPASSWORD": PASSWORD, "PGHOST": "127.0.0.1", "PGUSER": "app",
                        "PGDATABASE": "postgres", "PGPORT": str(proxy.port)}
    subprocess.run(["pgbench", "-i", "-q"], env=env, check=True, capture_output=True, timeout=60)
    for mode in ("simple", "extended", "prepared"):
        # With "prepared" pgbench waits for each PREPARE in its one thread, while others of its clients
        # hold all servers in transactions.
        out = subprocess.run(["pgbench", "-n", "-M", mode, "-c", "50", "-t", "20"], env=env,
                             check=True, capture_output=True, text=True, timeout=60).stdout
        assert "number of transactions actually processed: 1000/1000" in out
    assert proxy.stats["servers"] <= 4


def test_row_of_200_mb_needs_little_memory(one):
    c = connect(one.port, timeout=60)
    c.run("select 1")
    before = resident_kb(one)
    c.send(query("select repeat('x', 200000000)"))
    size, peak = 0, 0
    while size < 200_000_000:
        size += len(c.socket.recv(1 << 20))
        peak = max(peak, resident_kb(one) - before) if size % 7 == 0 else peak
    assert max(peak, resident_kb(one) - before) < 8_000


# ---- Limits and time-outs --------------------------------------------------------------------------

def test_each_pool_has_its_own_size_and_the_error_names_it(make_proxy, server):
    server.query("drop database if exists second")
    server.query("create database second")
    proxy = make_proxy("mode=transaction", "pool=10", "pool_each=1", "hold_ms=300", "workers=2")
    c, d, e = proxy.connect(), proxy.connect(), proxy.connect(dbname="second")
    run(c, "begin")
    with pytest.raises(psycopg2.Error) as error:
        run(d, "select 1")
    assert error.value.pgcode == "53300"
    assert 'all 1 server connections of pool "app"/"postgres" are in use' in str(error.value)
    assert run(e, "select 1") == [(1,)]
    waiting = in_thread(lambda: run(d, "select 2"))
    run(c, "commit")
    assert waiting() == [(2,)]
    e.close()


def test_error_of_a_full_pool_says_who_holds_it(make_proxy):
    proxy = make_proxy("mode=transaction", "pool_each=1", "hold_ms=300")
    c, d = proxy.connect(), proxy.connect()
    run(c, "begin")
    with socket.socket(fileno=os.dup(c.fileno())) as s:
        port = s.getsockname()[1]
    with pytest.raises(psycopg2.Error, match=rf"one for 0\.\d s by 127\.0\.0\.1:{port}"):
        run(d, "select 1")


def test_reserve_is_used_after_its_time(make_proxy):
    proxy = make_proxy("mode=transaction", "pool_each=1", "reserve=1", "reserve_ms=300")
    c, d = proxy.connect(), proxy.connect()
    run(c, "begin")
    begun = time.monotonic()
    assert run(d, "select 1") == [(1,)]
    assert time.monotonic() - begun >= 0.3
    assert proxy.stats["servers_total"] == 2


@pytest.mark.parametrize("limit", ["db_max=2", "user_max=2"])
def test_connections_of_a_database_or_user_are_limited(make_proxy, limit):
    proxy = make_proxy("mode=transaction", "pool=10", limit, "hold_ms=300", "workers=2")
    clients = [proxy.connect() for _ in range(3)]
    run(clients[0], "begin")
    run(clients[1], "begin")
    with pytest.raises(psycopg2.Error, match="all 2 server connections of (database|user)"):
        run(clients[2], "select 1")
    run(clients[0], "commit")
    assert run(clients[2], "select 1") == [(1,)]


def test_mode_of_one_database_differs(make_proxy, server):
    proxy = make_proxy("mode=transaction", "session_pool=template1", "pool=2")
    c = proxy.connect(dbname="template1")
    d, e = proxy.connect(), proxy.connect()
    pid = run(c, "select pg_backend_pid()")
    assert run(d, "select pg_backend_pid()") == run(e, "select pg_backend_pid()")
    assert run(c, "select pg_backend_pid()") == pid
    c.close()


@pytest.mark.parametrize("limit, prepare, code", [
    ("query_ms=300", "select pg_sleep(20)", "57014"),
    ("transaction_ms=300", "begin; select 1", "25P04"),
    ("idle_transaction_ms=300", "begin", "25P03"),
    ("client_idle_ms=300", "select 1", "57P05"),
])
def test_what_takes_too_long_ends_with_an_error(make_proxy, server, limit, prepare, code):
    proxy = make_proxy("mode=transaction", limit)
    c = connect(proxy.port)
    c.send(query(prepare))
    seen = []
    try:
        while True:
            seen.append(c.receive())
    except pw.wire.Closed:
        pass
    assert seen[-1][0] == "E" and pw.fields_of(seen[-1][1])["C"] == code
    sleeping = "select count(*) from pg_stat_activity where query = 'select pg_sleep(20)' and state = 'active'"
    wait_for(lambda: server.query(sleeping) == [(0,)], what="end of the statement")


def test_old_servers_are_replaced(make_proxy):
    proxy = make_proxy("mode=transaction", "lifetime_ms=300", "pool=1")
    c = proxy.connect()
    pids = set()
    wait_for(lambda: (pids.add(run(c, "select pg_backend_pid()")[0][0]), len(pids) > 2)[1],
             what="three servers")


def test_two_workers_share_a_small_pool_without_connecting_all_the_time(make_proxy, server):
    proxy = make_proxy("mode=transaction", "pool=4", "workers=2")
    env = os.environ | {"PGPASSWORD": PASSWORD, "PGHOST": "127.0.0.1", "PGUSER": "app",
                        "PGDATABASE": "postgres"}
    subprocess.run(["pgbench", "-i", "-q", "-p", str(server.port)], env=env, check=True, timeout=60,
                   capture_output=True)
    out = subprocess.run(["pgbench", "-n", "-c", "16", "-T", "3", "-p", str(proxy.port)], env=env,
                         check=True, capture_output=True, text=True, timeout=60).stdout
    assert "number of failed transactions: 0" in out
    assert proxy.stats["servers_total"] < 200
