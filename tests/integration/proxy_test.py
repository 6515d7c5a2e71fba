"""The proxy by itself against real PostgreSQL servers. Two independent servers with the same
contents stand for a primary and its successor: what replication does is not the proxy's matter."""

import io
import os
import socket
import struct
import subprocess
import threading
import time

import psycopg2
import pytest
from proxy_support import (PASSWORD, Postgres, Proxy, make_template, run, temporary_root, wait_for)


@pytest.fixture(scope="module")
def servers():
    with temporary_root() as root:
        template = make_template(root)
        a, b = Postgres(root, "a", template), Postgres(root, "b", template)
        for server in (a, b):
            server.start()
            server.query("create table t (id int primary key, note text)")
        yield a, b
        for server in (a, b):
            if server.running:
                server.stop("immediate")


@pytest.fixture
def pair(servers):
    """Both servers up and empty."""
    for server in servers:
        if not alive(server):
            server.start()
        server.query("truncate t")
    return servers


def alive(server):
    try:
        server.query("select 1")
        return True
    except psycopg2.Error:
        return False


@pytest.fixture
def make_proxy():
    proxies = []

    def make(*options, **kwargs):
        proxies.append(Proxy(*options, **kwargs))
        return proxies[-1]

    yield make
    for proxy in proxies:
        proxy.close()


@pytest.fixture
def proxy(make_proxy, pair):
    p = make_proxy("workers=2")
    p.route(pair[0])
    return p


def server_name(connection, pair):
    port = run(connection, "select current_setting('port')::int")[0][0]
    return next(s.name for s in pair if s.port == port)


def in_thread(function):
    """Runs `function`; returns a function that waits for its result or raises its error."""
    box = {}

    def body():
        try:
            box["result"] = function()
        except Exception as error:  # handed to the waiting test
            box["error"] = error

    thread = threading.Thread(target=body, daemon=True)
    thread.start()

    def result(timeout=15):
        thread.join(timeout)
        assert not thread.is_alive(), "still waiting"
        if "error" in box:
            raise box["error"]
        return box["result"]

    return result


# ---- Log-in --------------------------------------------------------------------------------------

def test_password_is_checked_before_any_server_is_needed(make_proxy):
    proxy = make_proxy()
    for user, password in (("app", "wrong"), ("nobody", PASSWORD)):
        with pytest.raises(psycopg2.OperationalError, match="password authentication failed"):
            proxy.connect(user=user, password=password)
    assert proxy.stats["logins_failed"] == 2
    assert proxy.stats["servers_total"] == 0


def test_verifier_alone_logs_in_to_the_server_with_the_clients_proof(make_proxy, pair):
    proxy = make_proxy(users=(f"app:{pair[0].verifier()}",))
    proxy.route(pair[0])
    assert run(proxy.connect(), "select 1") == [(1,)]


def test_error_of_the_servers_log_in_reaches_the_client(proxy):
    with pytest.raises(psycopg2.OperationalError, match='database "missing" does not exist'):
        proxy.connect(dbname="missing")


def test_startup_parameters_reach_the_server(proxy):
    c = proxy.connect(options="-c work_mem=7MB", application_name="probe")
    assert run(c, "show work_mem") == [("7MB",)]
    assert run(c, "show application_name") == [("probe",)]
    d = proxy.connect()
    assert run(d, "show work_mem") != [("7MB",)]


def test_reported_parameters_reach_the_client(proxy):
    c = proxy.connect()
    assert c.server_version >= 150000
    assert c.get_parameter_status("in_hot_standby") == "off"


# ---- Protocol ------------------------------------------------------------------------------------

def test_errors_transactions_and_savepoints_pass_through(proxy):
    c = proxy.connect(autocommit=False)
    run(c, "insert into t values (1, 'a')")
    run(c, "savepoint s")
    with pytest.raises(psycopg2.errors.UniqueViolation):
        run(c, "insert into t values (1, 'b')")
    run(c, "rollback to s")
    c.commit()
    assert run(c, "select * from t") == [(1, "a")]
    c.rollback()


def test_copy_in_both_directions(proxy):
    c = proxy.connect()
    data = "".join(f"{i}\tnote {i}\n" for i in range(50_000))
    with c.cursor() as cursor:
        cursor.copy_expert("copy t from stdin", io.StringIO(data))
        out = io.StringIO()
        cursor.copy_expert("copy (select * from t order by id) to stdout", out)
    assert out.getvalue() == data


def test_failed_copy_leaves_the_session_usable(proxy):
    c = proxy.connect()
    with pytest.raises(psycopg2.errors.InvalidTextRepresentation):
        with c.cursor() as cursor:
            cursor.copy_expert("copy t from stdin", io.StringIO("x\ty\n" * 30_000))
    assert run(c, "select count(*) from t") == [(0,)]


def test_rows_of_20_mb_in_both_directions(proxy):
    c = proxy.connect()
    text = "x" * 20_000_000
    assert run(c, "select %s || repeat('y', 20000000)", (text,))[0][0] == text + "y" * 20_000_000


def test_rows_of_sizes_that_a_worker_waits_for_arrive_whole(proxy):
    c = proxy.connect()
    for kib in (64, 128, 192, 256, 512, 1024):
        sizes = [kib * 1024 + more for more in (-7, -6, -1, 0, 1, 8192)]
        rows = run(c, "select repeat('x', size) from unnest(%s) size", (sizes,))
        assert [len(row[0]) for row in rows] == sizes


def test_slow_reader_does_not_grow_the_proxy(proxy):
    c = proxy.connect()
    run(c, "select 1")
    before = resident_kb(proxy)
    with socket.create_connection(("127.0.0.1", proxy.port)) as s:
        # An authenticated raw client is more than this test needs: psycopg2's socket serves.
        s.close()
    c.close()
    psql = subprocess.Popen(
        ["psql", "-h", "127.0.0.1", "-p", str(proxy.port), "-U", "app", "-d", "postgres", "-qAt",
         "-c", "select repeat('z', 1000) from generate_series(1, 300000)"],
        env=os.environ | {"PGPASSWORD": PASSWORD}, stdout=subprocess.PIPE)
    psql.stdout.read(100)  # it writes into a pipe that nobody reads: so psql stops reading
    time.sleep(1.0)        # as much as a proxy without back-pressure needs to swallow 300 MB
    grown = resident_kb(proxy) - before
    psql.kill()
    psql.wait()
    assert grown < 8_000, f"{grown} kB"


def resident_kb(proxy):
    with open(f"/proc/{proxy.process.pid}/status", encoding="ascii") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))


def test_cancel_reaches_the_statement_across_workers(proxy):
    # Each cancel comes on a connection of its own, which either worker may accept.
    for _ in range(6):
        c = proxy.connect()
        waiting = in_thread(lambda c=c: run(c, "select pg_sleep(20)"))
        wait_for(lambda: proxy.stats["active"] == 1, what="statement in flight")
        time.sleep(0.05)  # the statement must have reached its execution, which nothing shows
        c.cancel()
        with pytest.raises(psycopg2.errors.QueryCanceled):
            waiting()
        assert run(c, "select 1") == [(1,)]
        c.close()
    assert proxy.stats["cancels"] == 6


def test_prepared_pgbench_runs_in_every_protocol_mode(proxy, pair):
    env = os.environ | {"PGPASSWORD": PASSWORD, "PGHOST": "127.0.0.1", "PGUSER": "app",
                        "PGDATABASE": "postgres", "PGPORT": str(proxy.port)}
    subprocess.run(["pgbench", "-i", "-q"], env=env, check=True, capture_output=True, timeout=60)
    for mode in ("simple", "extended", "prepared"):
        out = subprocess.run(["pgbench", "-n", "-M", mode, "-c", "8", "-t", "50"], env=env,
                             check=True, capture_output=True, text=True, timeout=60).stdout
        assert "number of transactions actually processed: 400/400" in out
    out = subprocess.run(["pgbench", "-n", "-S", "-C", "-c", "4", "-t", "25"], env=env, check=True,
                         capture_output=True, text=True, timeout=60).stdout
    assert "100/100" in out


def test_pipelines_pass_through(proxy, tmp_path):
    script = tmp_path / "pipeline.sql"
    script.write_text("\\startpipeline\n" + "select 1;\n" * 200 + "\\endpipeline\n")
    for mode in ("extended", "prepared"):
        out = subprocess.run(["pgbench", "-n", "-M", mode, "-c", "4", "-t", "20", "-f", str(script),
                              "-h", "127.0.0.1", "-p", str(proxy.port), "-U", "app", "postgres"],
                             env=os.environ | {"PGPASSWORD": PASSWORD}, check=True,
                             capture_output=True, text=True, timeout=60).stdout
        assert "80/80" in out


# ---- Pool ----------------------------------------------------------------------------------------

def test_nothing_of_a_session_leaks_to_the_next_client(make_proxy, pair):
    proxy = make_proxy()
    proxy.route(pair[0])
    c = proxy.connect()
    pid = run(c, "select pg_backend_pid()")
    run(c, "set work_mem = '9MB'")
    run(c, "create temp table leak (a int)")
    c.close()
    wait_for(lambda: proxy.stats["servers_idle"] == 1, what="reset")
    d = proxy.connect()
    assert run(d, "select pg_backend_pid()") == pid
    assert run(d, "show work_mem") != [("9MB",)]
    with pytest.raises(psycopg2.errors.UndefinedTable):
        run(d, "select * from leak")


def test_client_that_leaves_in_a_transaction_takes_its_server_along(proxy, pair):
    c = proxy.connect(autocommit=False)
    run(c, "insert into t values (1, 'open')")
    c.close()
    wait_for(lambda: proxy.stats["servers"] == 0, what="server closed")
    assert pair[0].query("select * from t") == []


def test_client_that_vanishes_stops_its_statement(proxy, pair):
    psql = subprocess.Popen(["psql", "-h", "127.0.0.1", "-p", str(proxy.port), "-U", "app", "-d",
                             "postgres", "-c", "select pg_sleep(60)"],
                            env=os.environ | {"PGPASSWORD": PASSWORD})
    sleeping = "select count(*) from pg_stat_activity where query like 'select pg_sleep(60)%'"
    wait_for(lambda: pair[0].query(sleeping) == [(1,)], what="statement runs")
    psql.kill()
    psql.wait()
    wait_for(lambda: pair[0].query(sleeping) == [(0,)], what="statement ends")


def test_clients_beyond_the_pool_wait_in_turn(make_proxy, pair):
    proxy = make_proxy("workers=2", "pool=2")
    proxy.route(pair[0])
    first, second = proxy.connect(), proxy.connect()
    run(first, "select 1")
    run(second, "select 1")
    others = [proxy.connect() for _ in range(4)]
    waiting = []
    for i, c in enumerate(others):
        waiting.append(in_thread(lambda c=c: run(c, "select 1")))
        wait_for(lambda i=i: proxy.stats["held"] == i + 1, what="waiter")
    for finished, c in zip([first, second, *others], [*others, None, None]):
        finished.close()
        if c is not None:
            assert waiting.pop(0)() == [(1,)]
    assert proxy.stats["servers"] <= 2


def test_waiting_for_the_pool_ends_with_an_error_that_says_why(make_proxy, pair):
    proxy = make_proxy("pool=1", "hold_ms=300")
    proxy.route(pair[0])
    c, d = proxy.connect(), proxy.connect()
    run(c, "select 1")
    with pytest.raises(psycopg2.Error, match="all 1 server connections .* in use") as error:
        run(d, "select 1")
    assert error.value.pgcode == "53300"
    c.close()
    assert run(d, "select 2") == [(2,)]


# ---- Without a primary ---------------------------------------------------------------------------

def test_statement_without_a_primary_is_held_until_there_is_one(make_proxy, pair):
    proxy = make_proxy()
    proxy.route(pair[0])
    c = proxy.connect()
    proxy.route(None)
    waiting = in_thread(lambda: run(c, "insert into t values (1, 'held') returning id"))
    wait_for(lambda: proxy.stats["held"] == 1, what="held")
    proxy.route(pair[1])
    assert waiting() == [(1,)]
    assert pair[1].query("select note from t") == [("held",)]


def test_client_may_log_in_while_there_is_no_primary(make_proxy, pair):
    proxy = make_proxy()
    waiting = in_thread(lambda: run(proxy.connect(), "select 1"))
    wait_for(lambda: proxy.stats["held"] == 1, what="held")
    proxy.route(pair[0])
    assert waiting() == [(1,)]


def test_hold_ends_with_an_error_and_the_session_goes_on(make_proxy, pair):
    proxy = make_proxy("hold_ms=300")
    proxy.route(pair[0])
    c = proxy.connect()
    run(c, "select 1")
    proxy.route(None)
    with pytest.raises(psycopg2.Error, match="waited 0.3 s for a server, nothing was sent") as e:
        run(c, "select 1")
    assert e.value.pgcode == "57P03"
    proxy.route(pair[1])
    assert run(c, "select 3") == [(3,)]


def test_number_of_held_statements_is_bounded(make_proxy, pair):
    proxy = make_proxy("hold_count=1")
    proxy.route(pair[0])
    c, d = proxy.connect(), proxy.connect()
    proxy.route(None)
    waiting = in_thread(lambda: run(c, "select 1"))
    wait_for(lambda: proxy.stats["held"] == 1, what="held")
    with pytest.raises(psycopg2.Error) as error:
        run(d, "select 1")
    assert error.value.pgcode == "53300"
    proxy.route(pair[0])
    assert waiting() == [(1,)]


def test_held_statement_can_be_cancelled(make_proxy, pair):
    proxy = make_proxy()
    proxy.route(pair[0])
    c = proxy.connect()
    proxy.route(None)
    waiting = in_thread(lambda: run(c, "select 1"))
    wait_for(lambda: proxy.stats["held"] == 1, what="held")
    c.cancel()
    with pytest.raises(psycopg2.errors.QueryCanceled):
        waiting()


def test_server_that_starts_late_is_found_at_once(make_proxy, pair):
    proxy = make_proxy()
    pair[0].stop("immediate")
    proxy.route(pair[0])
    waiting = in_thread(lambda: run(proxy.connect(), "select 1"))
    wait_for(lambda: proxy.stats["held"] == 1, what="held")
    pair[0].start()
    assert waiting() == [(1,)]


# ---- Failover ------------------------------------------------------------------------------------

def test_idle_session_moves_to_the_new_primary_without_an_error(proxy, pair):
    c = proxy.connect()
    run(c, "set application_name = 'moved'")
    run(c, "set work_mem = '9MB'")
    assert server_name(c, pair) == "a"
    pair[0].kill()
    waiting = in_thread(lambda: server_name(c, pair))
    wait_for(lambda: proxy.stats["held"] == 1, what="held")
    proxy.route(pair[1])
    assert waiting() == "b"
    assert run(c, "show work_mem") == [("9MB",)]
    assert run(c, "show application_name") == [("moved",)]
    assert proxy.stats["moved"] >= 1
    assert proxy.stats["errors_outage"] == 0


def test_named_prepared_statements_move_along(proxy, pair, tmp_path):
    # libpq's own client for prepared statements at protocol level.
    path = tmp_path / "script.sql"
    path.write_text("\\set n 1\nselect :n + count(*) from t;\n")
    env = os.environ | {"PGPASSWORD": PASSWORD}
    bench = subprocess.Popen(["pgbench", "-n", "-M", "prepared", "-c", "4", "-T", "3", "-R", "40",
                              "-f", path, "-h", "127.0.0.1", "-p", str(proxy.port), "-U", "app",
                              "postgres"], env=env, stdout=subprocess.PIPE,
                             stderr=subprocess.PIPE, text=True)
    wait_for(lambda: proxy.stats["transactions"] > 20, what="traffic")
    proxy.route(pair[0], state="draining", new_epoch=False)
    wait_for(lambda: proxy.command("drained") == "yes", what="drained")
    proxy.route(pair[1])
    out, err = bench.communicate(timeout=30)
    assert bench.returncode == 0 and "aborted" not in err, err
    assert "number of failed transactions: 0" in out
    assert proxy.stats["moved"] == 4


@pytest.mark.parametrize("sql, code", [
    ("insert into t select 1, pg_sleep(20)::text", "08007"),
    ("select pg_sleep(20)", "08006"),
])
def test_statement_in_flight_gets_one_error_and_the_session_goes_on(proxy, pair, sql, code):
    c = proxy.connect()
    waiting = in_thread(lambda: run(c, sql))
    wait_for(lambda: proxy.stats["active"] == 1, what="in flight")
    time.sleep(0.1)
    pair[0].kill()
    with pytest.raises(psycopg2.Error) as error:
        waiting()
    assert error.value.pgcode == code
    proxy.route(pair[1])
    assert server_name(c, pair) == "b"
    assert proxy.stats["errors_outage"] == 1


def test_open_transaction_gets_40001_and_stays_failed_until_rolled_back(proxy, pair):
    c = proxy.connect()
    run(c, "begin")
    run(c, "insert into t values (1, 'lost')")
    pair[0].kill()
    proxy.route(pair[1])
    with pytest.raises(psycopg2.errors.SerializationFailure):
        run(c, "insert into t values (2, 'lost')")
    # The rest of the transaction must not run on its own.
    with pytest.raises(psycopg2.errors.InFailedSqlTransaction):
        run(c, "insert into t values (3, 'lost')")
    run(c, "rollback")
    run(c, "insert into t values (4, 'kept')")
    assert pair[1].query("select * from t") == [(4, "kept")]


def test_commit_of_a_lost_transaction_is_an_error(proxy, pair):
    c = proxy.connect()
    run(c, "begin")
    run(c, "insert into t values (1, 'lost')")
    pair[0].kill()
    proxy.route(pair[1])
    wait_for(lambda: proxy.stats["active"] == 0, what="loss noticed")
    with pytest.raises(psycopg2.errors.SerializationFailure):
        run(c, "commit")
    assert run(c, "select * from t") == []


def test_rollback_of_a_lost_transaction_is_no_error(proxy, pair):
    c = proxy.connect(autocommit=False)
    run(c, "insert into t values (1, 'lost')")
    pair[0].kill()
    wait_for(lambda: proxy.stats["active"] == 0, what="loss noticed")
    c.rollback()  # answered without any server
    proxy.route(pair[1])
    assert run(c, "select * from t") == []
    c.rollback()


def test_commit_in_flight_is_reported_as_unknown(proxy, pair):
    c = proxy.connect()
    run(c, "create table if not exists d (a int unique deferrable initially deferred)")
    run(c, "create or replace function slow() returns trigger language plpgsql as "
           "$$ begin perform pg_sleep(20); return null; end $$")
    run(c, "drop trigger if exists slow on d")
    run(c, "create constraint trigger slow after insert on d deferrable initially deferred "
           "for each row execute function slow()")
    run(c, "begin")
    run(c, "insert into d values (1)")
    waiting = in_thread(lambda: run(c, "commit"))
    wait_for(lambda: pair[0].query("select count(*) from pg_stat_activity where query = 'commit'"
                                   " and state = 'active'") == [(1,)], what="commit runs")
    pair[0].kill()
    with pytest.raises(psycopg2.Error) as error:
        waiting()
    assert error.value.pgcode == "08007"
    proxy.route(pair[1])
    assert run(c, "select 1") == [(1,)]


def test_session_with_temporary_tables_is_closed_and_told_why(proxy, pair):
    c = proxy.connect()
    run(c, "create temp table mine (a int)")
    pair[0].kill()
    proxy.route(pair[1])
    # psycopg2 does not show what a server said before it closed (PostgreSQL's own farewell neither).
    with socket.socket(fileno=os.dup(c.fileno())) as s:
        farewell = s.recv(4096)
    assert b"C57P01\0" in farewell and b"it has temporary tables" in farewell
    with pytest.raises(psycopg2.OperationalError):
        run(c, "select 1")
    assert proxy.stats["clients_dropped"] == 1


def test_fast_shutdown_of_the_old_primary_is_not_seen_by_idle_clients(proxy, pair):
    clients = [proxy.connect() for _ in range(8)]
    for c in clients:
        run(c, "select 1")
    proxy.route(pair[0], state="draining", new_epoch=False)
    wait_for(lambda: proxy.command("drained") == "yes", what="drained")
    pair[0].stop("fast")
    waiting = [in_thread(lambda c=c: server_name(c, pair)) for c in clients]
    wait_for(lambda: proxy.stats["held"] == 8, what="held")
    proxy.route(pair[1])
    assert [w() for w in waiting] == ["b"] * 8
    assert proxy.stats["errors_outage"] == 0 and proxy.stats["clients_dropped"] == 0


def test_draining_lets_transactions_end_and_holds_new_ones(proxy, pair):
    c, d = proxy.connect(), proxy.connect()
    run(c, "begin")
    run(c, "insert into t values (1, 'old')")
    run(d, "select 1")
    proxy.route(pair[0], state="draining", new_epoch=False)
    proxy.settle()
    assert proxy.command("drained") == "no"
    waiting = in_thread(lambda: run(d, "insert into t values (2, 'new')"))
    wait_for(lambda: proxy.stats["held"] == 1, what="held")
    run(c, "insert into t values (3, 'old')")
    run(c, "commit")
    wait_for(lambda: proxy.command("drained") == "yes", what="drained")
    proxy.route(pair[1])
    waiting()
    assert pair[0].query("select id from t order by id") == [(1,), (3,)]
    assert pair[1].query("select id from t") == [(2,)]


def test_drained_table_opened_again_lets_held_statements_run_where_they_are(proxy, pair):
    c = proxy.connect()
    run(c, "select 1")
    proxy.route(pair[0], state="draining", new_epoch=False)
    waiting = in_thread(lambda: server_name(c, pair))
    wait_for(lambda: proxy.stats["held"] == 1, what="held")
    proxy.route(pair[0], new_epoch=False)
    assert waiting() == "a"


def test_statement_that_meets_the_shutdown_is_sent_again(make_proxy, pair):
    proxy = make_proxy()
    proxy.route(pair[0])
    clients = [proxy.connect() for _ in range(4)]
    stop = threading.Event()
    counts = [0] * len(clients)

    def work(i):
        while not stop.is_set():
            run(clients[i], "insert into t values (%s, 'x')", (i * 1_000_000 + counts[i],))
            counts[i] += 1

    workers = [in_thread(lambda i=i: work(i)) for i in range(len(clients))]
    wait_for(lambda: sum(counts) > 100, what="traffic")
    pair[0].stop("fast")  # without any warning to the proxy
    proxy.route(pair[1])
    before = sum(counts)
    wait_for(lambda: sum(counts) > before + 100, what="traffic after")
    stop.set()
    for worker in workers:
        worker()
    assert proxy.stats["errors_outage"] == 0
    pair[0].start()
    assert sum(s.query("select count(*) from t")[0][0] for s in pair) == sum(counts)


def test_old_epoch_is_dropped_at_once_even_if_its_server_lives(proxy, pair):
    c, d = proxy.connect(), proxy.connect()
    run(c, "begin")
    run(d, "select 1")
    proxy.route(pair[1])
    proxy.settle()
    with pytest.raises(psycopg2.errors.SerializationFailure):
        run(c, "insert into t values (1, 'x')")
    assert server_name(d, pair) == "b"


def test_answer_after_the_permit_ran_out_is_withheld(make_proxy, pair):
    proxy = make_proxy()
    proxy.route(pair[0], permit_ms=10_000)
    c = proxy.connect()
    waiting = in_thread(lambda: run(c, "insert into t select 1, pg_sleep(0.5)::text"))
    wait_for(lambda: proxy.stats["active"] == 1, what="in flight")
    proxy.command("permit 1 0")
    with pytest.raises(psycopg2.Error) as error:
        waiting()
    assert error.value.pgcode == "08007"
    proxy.command("permit 1 10000")
    assert run(c, "select 2") == [(2,)]


def test_statements_wait_while_the_primary_is_not_known_to_be_in_office(make_proxy, pair):
    proxy = make_proxy()
    proxy.route(pair[0], permit_ms=10_000)
    c = proxy.connect()
    run(c, "select 1")
    proxy.command("permit 1 0")
    waiting = in_thread(lambda: run(c, "insert into t values (1, 'x') returning id"))
    wait_for(lambda: proxy.stats["held"] == 1, what="held")
    proxy.command("permit 1 10000")
    assert waiting() == [(1,)]
    assert proxy.stats["errors_outage"] == 0


def test_kill_under_load_costs_each_client_one_error_at_most(proxy, pair):
    clients = [proxy.connect() for _ in range(8)]
    stop = threading.Event()
    errors, written = [0] * 8, [0] * 8

    def work(i):
        n = 0
        while not stop.is_set():
            n += 1
            try:
                run(clients[i], "insert into t values (%s, 'x')", (i * 1_000_000 + n,))
                written[i] += 1
            except psycopg2.Error as error:
                assert error.pgcode == "08007", error
                errors[i] += 1

    workers = [in_thread(lambda i=i: work(i)) for i in range(8)]
    wait_for(lambda: sum(written) > 200, what="traffic")
    pair[0].kill()
    proxy.route(None)
    proxy.route(pair[1])
    before = sum(written)
    wait_for(lambda: sum(written) > before + 200, what="traffic after")
    stop.set()
    for worker in workers:
        worker()
    assert max(errors) <= 1
    assert proxy.stats["clients"] == 8


# ---- Readers -------------------------------------------------------------------------------------

def test_reader_port_prefers_replicas_and_falls_back_to_the_primary(make_proxy, pair):
    proxy = make_proxy()
    proxy.route(pair[0], replicas=[pair[1]])
    c = proxy.connect(reader=True)
    assert server_name(c, pair) == "b"
    d = proxy.connect()
    assert server_name(d, pair) == "a"
    pair[1].kill()
    assert server_name(c, pair) == "a"
    proxy.route(pair[0], new_epoch=False)
    e = proxy.connect(reader=True)
    assert server_name(e, pair) == "a"


# ---- Hostile -------------------------------------------------------------------------------------

def raw(proxy):
    return socket.create_connection(("127.0.0.1", proxy.port), timeout=10)


def test_garbage_before_authentication_is_refused(proxy):
    oversized = struct.pack("!I", 20_000) + b"\0" * 100
    for packet in (oversized, b"\0\0\0\3", b"GET / HTTP/1.0\r\n\r\n",
                   struct.pack("!II", 8, 99 << 16), struct.pack("!II", 8, 196608),
                   struct.pack("!II", 12, 80877102) + b"\0\0\0\1"):
        with raw(proxy) as s:
            s.sendall(packet)
            answer = b""
            while chunk := s.recv(4096):
                answer += chunk
            assert answer == b"" or answer[:1] == b"E"
    wait_for(lambda: proxy.stats["clients"] == 0, what="all gone")
    assert run(proxy.connect(), "select 1") == [(1,)]


def test_silent_client_is_closed_after_the_authentication_timeout(make_proxy):
    proxy = make_proxy("auth_ms=200")
    with raw(proxy) as s:
        s.sendall(b"\0\0")
        answer = s.recv(4096)
        assert b"57014" in answer
        assert s.recv(10) == b""


def test_encryption_is_declined(proxy):
    with raw(proxy) as s:
        s.sendall(struct.pack("!II", 8, 80877103))
        assert s.recv(10) == b"N"


def test_clients_beyond_the_limit_get_53300(make_proxy, pair):
    proxy = make_proxy("clients=2")
    proxy.route(pair[0])
    kept = [proxy.connect() for _ in range(2)]
    with pytest.raises(psycopg2.OperationalError, match="too many clients"):
        proxy.connect()
    kept.pop().close()
    wait_for(lambda: proxy.stats["clients"] == 1, what="client gone")
    assert run(proxy.connect(), "select 1") == [(1,)]
