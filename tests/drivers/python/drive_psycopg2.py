"""psycopg2: libpq's simple protocol, server-side cursors, COPY, LISTEN, cancel."""
import contextlib
import datetime
import decimal
import io
import json
import select
import threading
import time
import uuid

import psycopg2
import psycopg2.extras
import psycopg2.errors as errors

from checks import (DATABASE, HOST, LEAKY, PASSWORD, PORT, SHOW_LEAKY, TRANSACTION_MODE, USER, check,
                    equal, expect, in_threads, main, raises, until)


@contextlib.contextmanager
def connected(autocommit=True, **more):
    connection = psycopg2.connect(host=HOST, port=PORT, user=USER, password=PASSWORD, dbname=DATABASE,
                                  connect_timeout=15, **more)
    connection.autocommit = autocommit
    try:
        yield connection
    finally:
        connection.close()


def run(connection, sql, args=None):
    with connection.cursor() as cursor:
        cursor.execute(sql, args)
        return cursor.fetchall() if cursor.description else None


def one(connection, sql, args=None):
    return run(connection, sql, args)[0][0]


def fresh(connection, name, columns="id int primary key, t text"):
    run(connection, f"drop table if exists {name}; create table {name} ({columns})")


@check
def connect():
    with connected() as c:
        equal(one(c, "select current_user || '/' || current_database()"), f"{USER}/{DATABASE}")
        equal(c.server_version // 10000, int(one(c, "show server_version_num")) // 10000)
        equal(c.get_parameter_status("server_encoding"), "UTF8")
        equal(c.get_parameter_status("integer_datetimes"), "on")
        expect(c.info.backend_pid > 0, "no backend pid")


@check
def types():
    values = (
        7, 2**62, decimal.Decimal("12345678901234567890.123456789"), 1.5e300, "Grüße, 世界 🐘 '\\", True,
        datetime.date(2024, 2, 29), datetime.datetime(2024, 2, 29, 23, 59, 59, 123456),
        datetime.timedelta(days=3, seconds=5), [1, 2, 3], ["a", None, "ä"], None)
    with connected() as c:
        got = run(c, "select %s::int, %s::bigint, %s::numeric, %s::float8, %s::text, %s::bool, %s::date, "
                     "%s::timestamp, %s::interval, %s::int[], %s::text[], %s::text", values)[0]
        equal(got, values)
        equal(bytes(one(c, "select %s::bytea", (psycopg2.Binary(bytes(range(256))),))), bytes(range(256)))
        equal(one(c, "select %s::jsonb", (json.dumps({"a": [1, None, "x"]}),)), {"a": [1, None, "x"]})
        psycopg2.extras.register_uuid(conn_or_curs=c)
        u = uuid.UUID(int=7)
        equal(one(c, "select %s", (u,)), u)


@check
def time_zone():
    moment = datetime.datetime(2024, 7, 1, 12, tzinfo=datetime.timezone.utc)
    with connected(options="-c TimeZone=America/New_York") as c:
        got = one(c, "select %s::timestamptz", (moment,))
        equal(got, moment)
        equal(got.utcoffset(), datetime.timedelta(hours=-4), "offset")
        run(c, "set time zone 'Asia/Kathmandu'")
        equal(one(c, "select %s::timestamptz", (moment,)).utcoffset(), datetime.timedelta(hours=5.75))
        equal(c.get_parameter_status("TimeZone"), "Asia/Kathmandu")


@check
def transactions():
    with connected() as observer, connected(autocommit=False) as c:
        fresh(observer, "p2_tx")
        run(c, "insert into p2_tx values (1, 'a')")
        equal(one(observer, "select count(*) from p2_tx"), 0, "seen before the commit")
        c.commit()
        equal(one(observer, "select count(*) from p2_tx"), 1)
        run(c, "insert into p2_tx values (2, 'b')")
        c.rollback()
        equal(one(observer, "select count(*) from p2_tx"), 1, "after the rollback")
        c.set_session(isolation_level="SERIALIZABLE", readonly=True)
        equal(one(c, "show transaction_isolation"), "serializable")
        raises(errors.ReadOnlySqlTransaction, run, c, "insert into p2_tx values (3, 'c')")
        c.rollback()


@check
def savepoints():
    with connected(autocommit=False) as c:
        fresh(c, "p2_sp")
        for i in range(5):
            run(c, "savepoint s")
            run(c, "insert into p2_sp values (%s, 'x')", (i,))
            raises(errors.UniqueViolation, run, c, "insert into p2_sp values (%s, 'y')", (i,))
            run(c, "rollback to savepoint s")
            run(c, "insert into p2_sp values (%s, 'z')", (i,))
            run(c, "release savepoint s")
        c.commit()
        equal(run(c, "select count(*), min(t), max(t) from p2_sp"), [(5, "z", "z")])


@check
def errors_in_transaction():
    with connected(autocommit=False) as c:
        raises(errors.DivisionByZero, run, c, "select 1/0")
        raises(errors.InFailedSqlTransaction, run, c, "select 1")
        c.rollback()
        equal(one(c, "select 2"), 2)
        c.commit()
        c.autocommit = True
        for _ in range(3):
            raises(errors.UndefinedTable, run, c, "select * from no_such_table")
            raises(errors.SyntaxError, run, c, "selec 1")
            equal(one(c, "select 3"), 3)


@check
def error_fields():
    with connected() as c:
        fresh(c, "p2_fields", "id int constraint p2_positive check (id > 0)")
        e = raises(errors.CheckViolation, run, c, "insert into p2_fields values (-1)")
        equal((e.diag.constraint_name, e.diag.table_name, e.diag.sqlstate), ("p2_positive", "p2_fields", "23514"))
        e = raises(psycopg2.Error, run, c, "do $$ begin raise exception 'no' using errcode = 'U1234', "
                                           "hint = 'h', detail = 'd', column = 'c'; end $$")
        equal((e.pgcode, e.diag.message_hint, e.diag.message_detail, e.diag.column_name), ("U1234", "h", "d", "c"))


@check
def notices():
    with connected() as c:
        run(c, "do $$ begin for i in 1..30 loop raise notice 'number %', i; end loop; end $$")
        equal(len(c.notices), 30)
        expect("number 30" in c.notices[-1], c.notices[-1])


@check
def cursor():
    with connected(autocommit=False) as c:
        with c.cursor("named") as named:
            named.itersize = 100
            named.execute("select generate_series(1, 5000)")
            equal(sum(row[0] for row in named), 5000 * 5001 // 2)
        with c.cursor("scrolling", scrollable=True) as named:
            named.execute("select generate_series(1, 100)")
            named.scroll(50)
            equal(named.fetchone()[0], 51)
            named.scroll(-10)
            equal(named.fetchone()[0], 42)
        c.commit()


@check
def cursors_interleaved():
    """Named cursors of several clients with one name: each reads its own."""
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(connected(autocommit=False)) for _ in range(3)]
        cursors = [c.cursor("same_name") for c in clients]
        for i, k in enumerate(cursors):
            k.execute("select %s * 1000 + generate_series(1, 60)", (i,))
        for part in range(6):
            for i, k in enumerate(cursors):
                equal([row[0] for row in k.fetchmany(10)], [i * 1000 + part * 10 + n for n in range(1, 11)])


@check
def copy():
    rows = "".join(f"{i}\tline {i} ä\n" for i in range(20000))
    with connected() as c, c.cursor() as k:
        fresh(c, "p2_copy")
        k.copy_expert("copy p2_copy from stdin", io.StringIO(rows))
        equal(k.rowcount, 20000)
        out = io.StringIO()
        k.copy_expert("copy (select * from p2_copy order by id) to stdout", out)
        expect(out.getvalue() == rows, "what came out is not what went in")
        equal(one(c, "select count(*) from p2_copy"), 20000)


@check
def copy_error():
    with connected() as c, c.cursor() as k:
        fresh(c, "p2_copyerr")
        raises(errors.InvalidTextRepresentation, k.copy_expert, "copy p2_copyerr from stdin",
               io.StringIO("1\ta\n" * 1 + "x\tb\n" + "".join(f"{i}\tc\n" for i in range(2, 50000))))
        equal(one(c, "select count(*) from p2_copyerr"), 0)

        class Breaks(io.StringIO):
            def read(self, *_):
                raise RuntimeError("client's own failure")

        raises(psycopg2.Error, k.copy_expert, "copy p2_copyerr from stdin", Breaks())
        equal(one(c, "select count(*) from p2_copyerr"), 0)


@check
def cancel():
    """The cancelled one is cancelled, its neighbours and its next statement are not."""
    with connected() as victim, connected() as neighbour:
        done = []
        thread = threading.Thread(target=lambda: done.append(one(neighbour, "select 5 from pg_sleep(1.5)")))
        thread.start()
        timer = threading.Timer(0.4, victim.cancel)
        timer.start()
        started = time.monotonic()
        raises(errors.QueryCanceled, run, victim, "select pg_sleep(20)")
        expect(time.monotonic() - started < 5, "cancelled too late")
        equal(one(victim, "select 6"), 6)
        victim.cancel()  # nothing runs: nothing happens, to nobody
        equal(one(victim, "select 7 from pg_sleep(0.3)"), 7)
        thread.join()
        equal(done, [5], "the neighbour's answer")


@check
def big_row():
    with connected() as c:
        size = 20 * 1024 * 1024
        equal(len(one(c, "select repeat('x', %s)", (size,))), size)
        value = "y" * size
        equal(one(c, "select length(%s)", (value,)), size)
        equal(one(c, "select %s || 'z'", (value,)) == value + "z", True)
        equal(one(c, "select 1"), 1)


@check
def large_result():
    with connected() as c:
        rows = run(c, "select i, md5(i::text) from generate_series(1, 300000) i")
        equal((len(rows), rows[-1][0]), (300000, 300000))


@check
def prepared_sql_interleaved():
    """PREPARE of one name with different texts by more clients than there are servers."""
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(connected()) for _ in range(10)]
        for i, c in enumerate(clients):
            run(c, f"prepare same(int) as select {i} * 100 + $1")
        for turn in range(20):
            for i, c in enumerate(clients):
                equal(one(c, "execute same(%s)", (turn,)), i * 100 + turn)
        for c in clients[:5]:
            run(c, "deallocate same")
            raises(errors.InvalidSqlStatementName, run, c, "execute same(1)")
        for i, c in enumerate(clients[5:], 5):
            equal(one(c, "execute same(1)"), i * 100 + 1)
        with connected() as stranger:
            raises(errors.InvalidSqlStatementName, run, stranger, "execute same(1)")


@check
def discard_all():
    with connected() as c, connected() as other:
        run(other, "set timezone to 'Asia/Tokyo'")
        run(other, "prepare kept as select 11")
        run(c, "prepare gone as select 1")
        run(c, "set timezone to 'Europe/Paris'")
        run(c, "discard all")
        raises(errors.InvalidSqlStatementName, run, c, "execute gone")
        expect(one(c, "show timezone") not in ("Europe/Paris", "Asia/Tokyo"), "timezone survived")
        equal(one(other, "show timezone"), "Asia/Tokyo")
        equal(one(other, "execute kept"), 11)


@check
def deallocate_all():
    with connected() as c, connected() as other:
        run(c, "prepare gone as select 1")
        run(other, "prepare gone as select 2")
        run(c, "deallocate all")
        raises(errors.InvalidSqlStatementName, run, c, "execute gone")
        equal(one(other, "execute gone"), 2)
        run(c, "prepare gone as select 3")
        equal(one(c, "execute gone"), 3)


@check
def rapid_connects():
    for i in range(60):
        with connected() as c:
            equal(one(c, "select %s", (i,)), i)
    in_threads(20, lambda i: [one_connection(i) for _ in range(5)])


def one_connection(i):
    with connected() as c:
        equal(one(c, "select %s", (i,)), i)


@check
def listen_notify():
    with connected() as listener, connected() as sender, connected() as bystander:
        run(listener, "listen p2_channel")
        run(sender, "notify p2_channel, 'one'")
        run(sender, "select pg_notify('p2_channel', 'two')")

        def arrived():
            select.select([listener], [], [], 0.1)
            listener.poll()
            return len(listener.notifies) >= 2

        until(arrived, "two notifications")
        equal([(n.channel, n.payload) for n in listener.notifies], [("p2_channel", "one"), ("p2_channel", "two")])
        run(listener, "unlisten p2_channel")
        run(sender, "notify p2_channel, 'three'")
        run(bystander, "select 1")
        bystander.poll()
        equal(bystander.notifies, [], "a bystander's notifications")
        run(listener, "select 1")
        equal(len(listener.notifies), 2, "after UNLISTEN")


@check
def temp_tables():
    with connected() as c, connected() as other:
        c.autocommit = not TRANSACTION_MODE
        run(c, "create temp table p2_temp (a int) on commit " + ("drop" if TRANSACTION_MODE else "preserve rows"))
        run(c, "insert into p2_temp values (1), (2)")
        equal(one(c, "select count(*) from p2_temp"), 2)
        raises(errors.UndefinedTable, run, other, "select * from p2_temp")
        if TRANSACTION_MODE:
            c.commit()
        else:
            equal(one(c, "select sum(a) from p2_temp"), 3)


@check
def temp_tables_over_transactions():
    """In any mode: either it works for its own client or it is refused; nobody else ever sees it."""
    with contextlib.ExitStack() as stack:
        c = stack.enter_context(connected())
        run(c, "create temp table p2_stays (a int)")
        run(c, "insert into p2_stays values (1)")
        equal(one(c, "select count(*) from p2_stays"), 1)
        for _ in range(8):
            other = stack.enter_context(connected())
            raises(errors.UndefinedTable, run, other, "select * from p2_stays")
        equal(one(c, "select count(*) from p2_stays"), 1)


@check
def set_isolation():
    """Everything that one client sets is unseen by clients on every server connection."""
    with contextlib.ExitStack() as stack:
        with connected() as fresh_one:
            baseline = run(fresh_one, SHOW_LEAKY)
        before = [stack.enter_context(connected()) for _ in range(5)]
        setters = [stack.enter_context(connected()) for _ in range(3)]
        for c in setters:
            for name, value in LEAKY.items():
                run(c, f"set {name} = {value}")
        for c in before:
            equal(run(c, SHOW_LEAKY), baseline, "a client connected before")
        for c in setters:
            run(c, "begin")
        with connected() as c:
            equal(run(c, SHOW_LEAKY), baseline, "a client beside")
        for c in setters:
            run(c, "rollback")
            c.close()
        after = [stack.enter_context(connected(autocommit=False)) for _ in range(3)]
        for c in after:  # at once, so that they have several servers
            equal(run(c, SHOW_LEAKY), baseline, "a client connected after")
        for c in after:
            c.rollback()


@check
def set_persists():
    """SET of a session, SET LOCAL of a transaction, RESET; with others' statements in between."""
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(connected()) for _ in range(8)]
        for i, c in enumerate(clients):
            run(c, f"set statement_timeout = {i + 1}000; set timezone = 'Etc/GMT+{i + 1}'; set search_path = s{i}")
            run(c, f"set application_name = 'client {i}'; set my.own = 'v{i}'")
        want = "select current_setting('statement_timeout'), current_setting('timezone'), " \
               "current_setting('search_path'), current_setting('application_name'), current_setting('my.own')"
        for _ in range(3):
            for i, c in enumerate(clients):
                equal(run(c, want), [(f"{i + 1}s", f"Etc/GMT+{i + 1}", f"s{i}", f"client {i}", f"v{i}")])
        for i, c in enumerate(clients):
            run(c, "begin; set local timezone = 'Asia/Tokyo'")
            equal(one(c, "show timezone"), "Asia/Tokyo")
            run(c, "commit")
            equal(one(c, "show timezone"), f"Etc/GMT+{i + 1}", "after SET LOCAL")
            run(c, "begin; set timezone = 'Asia/Tokyo'; rollback")
            equal(one(c, "show timezone"), f"Etc/GMT+{i + 1}", "after a rolled back SET")


@check
def set_config():
    """set_config() is a SET that only the server sees: kept for its client, unseen by all others."""
    with contextlib.ExitStack() as stack:
        for _ in range(3):
            c, other = connected(), connected()
            c, other = stack.enter_context(c), stack.enter_context(other)
            equal(one(c, "select set_config('my.config', 'mine', false)"), "mine")
            equal(one(c, "select set_config('work_mem', '9MB', false)"), "9MB")
            equal(one(other, "select set_config('my.local', 'x', true)"), "x")
            for show in ("select coalesce(current_setting('my.config', true), '')", "show work_mem"):
                expect(one(other, show) in ("", "4MB"), "another's")
            equal(one(c, "select current_setting('my.config')"), "mine")
            equal(one(c, "show work_mem"), "9MB")
            run(c, "discard all")  # nothing of the session is left: a server that was kept for it is free
            equal(one(c, "show work_mem"), "4MB")


@check
def set_role():
    with connected() as c, connected() as other:
        run(c, "set role pg_monitor")
        equal(one(c, "select current_user"), "pg_monitor")
        equal(one(other, "select current_user"), USER, "another's role")
        run(c, "reset role")
        equal(one(c, "select current_user"), USER)


@check
def startup_parameters():
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(connected(
            application_name=f"app {i}",
            options=f"-c search_path=path{i},public -c statement_timeout={i + 1}s -c my.start=\\ {i}"))
            for i in range(6)]
        show = "select current_setting('application_name'), current_setting('search_path'), " \
               "current_setting('statement_timeout'), current_setting('my.start', true)"
        for _ in range(3):
            for i, c in enumerate(clients):
                got = run(c, show)[0]
                equal(got[:3], (f"app {i}", f"path{i},public", f"{i + 1}s"))
        with connected() as plain:
            expect("path" not in one(plain, "show search_path").replace("$user", ""), "search_path leaked")
            equal(one(plain, "show statement_timeout"), "0", "statement_timeout of a client without")


@check
def startup_reset():
    """RESET leads back to what the start-up packet said, RESET ALL as well."""
    with connected(application_name="mine", options="-c search_path=a,b -c statement_timeout=77s") as c, \
            connected() as other:
        for back in ("reset search_path; reset statement_timeout; reset application_name", "reset all", "discard all",
                     "set search_path to default; set statement_timeout to default; set application_name to default"):
            run(c, "set search_path = x")
            run(c, "set statement_timeout = 5")
            run(c, "set application_name = 'changed'")
            run(other, "select 1")
            run(c, back)
            run(other, "select 1")
            equal(one(c, "show search_path").replace(" ", ""), "a,b", f"search_path after {back}")
            equal(one(c, "show statement_timeout"), "77s", f"statement_timeout after {back}")
            equal(one(c, "show application_name"), "mine", f"application_name after {back}")


@check
def startup_wrong():
    """A parameter that the server refuses is an error that says so, and costs nobody else anything."""
    e = raises(psycopg2.OperationalError, lambda: connected(options="-c no_such_parameter=1").__enter__())
    expect("no_such_parameter" in str(e), str(e))
    e = raises(psycopg2.OperationalError, lambda: connected(options="-c statement_timeout=abc").__enter__())
    expect("statement_timeout" in str(e), str(e))
    one_connection(1)


@check
def wrong_login():
    def attempt(**more):
        psycopg2.connect(**({"host": HOST, "port": PORT, "user": USER, "password": PASSWORD,
                             "dbname": DATABASE, "connect_timeout": 15} | more)).close()

    expect("password authentication failed" in str(raises(psycopg2.OperationalError, lambda: attempt(password="no"))),
           "text of a wrong password")
    expect("password authentication failed" in str(raises(psycopg2.OperationalError, lambda: attempt(user="nobody"))),
           "text of an unknown user")
    e = raises(psycopg2.OperationalError, lambda: (attempt(dbname="no_such_db")))
    expect('database "no_such_db" does not exist' in str(e), str(e))


@check
def vanishing_client():
    """A client that goes without a word in a transaction: its locks and rows are gone."""
    with connected() as c:
        fresh(c, "p2_gone")
        run(c, "insert into p2_gone values (1, 'a')")
        with connected(autocommit=False) as vanishing:
            run(vanishing, "update p2_gone set t = 'b'")
            run(vanishing, "insert into p2_gone values (2, 'b')")
        run(c, "set lock_timeout = '5s'")
        run(c, "update p2_gone set t = 'c' where id = 1")
        equal(run(c, "select * from p2_gone"), [(1, "c")])


@check
def advisory_locks():
    with connected(autocommit=False) as c, connected() as other:
        if TRANSACTION_MODE:
            run(c, "select pg_advisory_xact_lock(4711)")
        else:
            run(c, "select pg_advisory_lock(4711)")
            c.commit()
        equal(one(other, "select pg_try_advisory_xact_lock(4711)"), False)
        if not TRANSACTION_MODE:
            run(c, "select pg_advisory_unlock(4711)")
        c.commit()
        equal(one(other, "select pg_try_advisory_xact_lock(4711)"), True)


@check
def client_encoding():
    with connected() as c, connected() as other:
        c.set_client_encoding("LATIN1")
        equal(one(other, "select 'ü€'"), "ü€")
        equal(one(c, "select 'ü'"), "ü")
        equal(one(c, "select octet_length('ü')"), 2)
        raises(errors.UntranslatableCharacter, run, c, "select U&'\\20AC'")
        equal(one(other, "select 'ü€'"), "ü€")
        equal(one(c, "show client_encoding"), "LATIN1")


@check
def many_statements():
    with connected() as c:
        sql = "; ".join(f"select {i}" for i in range(2000))
        equal(one(c, sql), 1999)
        raises(errors.DivisionByZero, run, c, "select 1; select 1/0; select 2")
        equal(one(c, "begin; select 1; commit; select 4"), 4)


@check
def two_phase():
    """PREPARE TRANSACTION is refused by the server's default; the refusal comes through."""
    with connected() as c:
        run(c, "begin")
        e = raises(psycopg2.Error, run, c, "prepare transaction 'x'")
        equal(e.pgcode, "55000")
        equal(one(c, "select 1"), 1)


@check
def concurrent_load():
    """More clients than servers, transactions of several statements, nothing lost or mixed up."""
    with connected() as c:
        fresh(c, "p2_load", "client int, n int, primary key (client, n)")

    def work(i):
        with connected(autocommit=False) as mine:
            for n in range(40):
                run(mine, "insert into p2_load values (%s, %s)", (i, n))
                equal(run(mine, "select max(n), count(*) from p2_load where client = %s", (i,)), [(n, n + 1)])
                mine.commit()

    in_threads(12, work)
    with connected() as c:
        equal(one(c, "select count(*) from p2_load"), 480)


main()
