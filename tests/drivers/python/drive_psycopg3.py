"""psycopg 3: extended protocol, statements prepared by itself, pipelines, binary COPY, asyncio."""
import asyncio
import contextlib
import datetime
import decimal
import os
import socket
import threading
import uuid

import psycopg
from psycopg import errors
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from checks import (DATABASE, HOST, LEAKY, PASSWORD, PORT, SHOW_LEAKY, TRANSACTION_MODE, USER, check, equal, expect,
                    in_threads, main, raises, until)

TLS = "DRIVER_TLS" in os.environ
ARGUMENTS = {"host": HOST, "port": PORT, "user": USER, "password": PASSWORD, "dbname": DATABASE, "connect_timeout": 15}


@contextlib.contextmanager
def connected(autocommit=True, prepare_threshold=5, **more):
    connection = psycopg.connect(**ARGUMENTS, autocommit=autocommit, prepare_threshold=prepare_threshold, **more)
    try:
        yield connection
    finally:
        connection.close()


def one(connection, sql, args=None, **more):
    return connection.execute(sql, args, **more).fetchone()[0]


def fresh(connection, name, columns="id int primary key, t text"):
    connection.execute(f"drop table if exists {name}")
    connection.execute(f"create table {name} ({columns})")


@check
def connect():
    with connected() as c:
        equal(one(c, "select current_user || '/' || current_database()"), f"{USER}/{DATABASE}")
        equal(c.info.encoding, "utf-8")
        equal(c.info.parameter_status("server_encoding"), "UTF8")


@check
def types():
    values = (7, 2**62, decimal.Decimal("12345678901234567890.123456789"), 1.5e300, "Grüße, 世界 🐘 '\\", True,
              datetime.date(2024, 2, 29), datetime.datetime(2024, 2, 29, 23, 59, 59, 123456),
              datetime.timedelta(days=3, seconds=5), [1, 2, 3], ["a", None, "ä"], None, uuid.UUID(int=7), bytes(range(256)))
    names = "int bigint numeric float8 text bool date timestamp interval int[] text[] text uuid bytea".split()
    sql = "select " + ", ".join(f"%s::{name}" for name in names)
    with connected() as c:
        for binary in (False, True):
            for _ in range(2):
                equal(c.cursor(binary=binary).execute(sql, values, prepare=True).fetchone(), values)
        equal(one(c, "select %s", (Jsonb({"a": [1, None]}),)), {"a": [1, None]})
        equal(c.cursor(row_factory=dict_row).execute("select 1 as a").fetchone(), {"a": 1})
        equal(one(c, "select daterange(%s, %s)", (datetime.date(2024, 1, 1), datetime.date(2024, 2, 1))).upper,
              datetime.date(2024, 2, 1))


@check
def time_zone():
    moment = datetime.datetime(2024, 7, 1, 12, tzinfo=datetime.timezone.utc)
    with connected(options="-c TimeZone=America/New_York") as c, connected() as other:
        for _ in range(8):
            got = one(c, "select %s::timestamptz", (moment,))
            equal((got, got.utcoffset()), (moment, datetime.timedelta(hours=-4)))
            equal(one(other, "select %s::timestamptz", (moment,)), moment)
        c.execute("set time zone 'Asia/Kathmandu'")
        equal(one(c, "select %s::timestamptz", (moment,)).utcoffset(), datetime.timedelta(hours=5.75))


@check
def transactions():
    with connected() as observer, connected() as c:
        fresh(observer, "p3_tx")
        with c.transaction():
            c.execute("insert into p3_tx values (1, 'a')")
            equal(one(observer, "select count(*) from p3_tx"), 0)
        with c.transaction(force_rollback=True):
            c.execute("insert into p3_tx values (2, 'a')")
        equal(one(observer, "select count(*) from p3_tx"), 1)
        c.isolation_level, c.read_only = psycopg.IsolationLevel.SERIALIZABLE, True
        with contextlib.suppress(errors.ReadOnlySqlTransaction), c.transaction():
            equal(one(c, "show transaction_isolation"), "serializable")
            c.execute("insert into p3_tx values (3, 'a')")
            raise AssertionError("written in a read-only transaction")
        equal(one(observer, "select count(*) from p3_tx"), 1)


@check
def savepoints():
    with connected() as c:
        fresh(c, "p3_sp")
        with c.transaction():
            for i in range(10):
                with c.transaction():
                    c.execute("insert into p3_sp values (%s, 'x')", (i,))
                with contextlib.suppress(errors.UniqueViolation), c.transaction():
                    c.execute("insert into p3_sp values (%s, 'y')", (i,))
        equal(c.execute("select count(*), min(t), max(t) from p3_sp").fetchone(), (10, "x", "x"))


@check
def errors_in_transaction():
    with connected(autocommit=False) as c:
        raises(errors.DivisionByZero, c.execute, "select 1/%s", (0,))
        raises(errors.InFailedSqlTransaction, c.execute, "select 1")
        c.rollback()
        for _ in range(8):
            equal(one(c, "select %s::int", (2,)), 2)
            raises(errors.DivisionByZero, c.execute, "select 1/%s::int", (0,))
            c.rollback()
        raises(errors.UndefinedTable, c.execute, "select * from no_such_table where a = %s", (1,))
        c.rollback()
        equal(one(c, "select 3"), 3)


@check
def prepared_interleaved():
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(connected(prepare_threshold=0)) for _ in range(12)]
        for turn in range(12):
            for i, c in enumerate(clients):
                equal(one(c, f"select %s::int + {i}", (turn,)), turn + i)
                equal(one(c, "select %s::int * 2", (turn,)), turn * 2)
        for c in clients:  # each drops the statements that it has
            c.prepared_max = 1
            for n in range(5):
                equal(one(c, f"select {n}, %s::int", (1,)), n)


@check
def prepared_rolled_back():
    """Statements prepared within a transaction that is rolled back: PostgreSQL keeps them."""
    with contextlib.ExitStack() as stack:
        for c in [stack.enter_context(connected(autocommit=False, prepare_threshold=0)) for _ in range(6)]:
            for n in range(6):
                equal(one(c, "select %s::int + 5", (n,)), n + 5)
                c.rollback()


@check
def replan():
    with contextlib.ExitStack() as stack:
        owner = stack.enter_context(connected())
        fresh(owner, "p3_replan", "a int")
        owner.execute("insert into p3_replan values (1)")
        clients = [stack.enter_context(connected(prepare_threshold=0)) for _ in range(6)]
        for c in clients:
            equal(c.execute("select * from p3_replan where a = %s", (1,)).fetchone(), (1,))
        owner.execute("alter table p3_replan add b int default 2")
        for c in clients:
            try:
                equal(c.execute("select * from p3_replan where a = %s", (1,)).fetchone(), (1, 2))
            except errors.FeatureNotSupported:
                pass  # as PostgreSQL
        for _ in range(8):
            newcomer = stack.enter_context(connected(prepare_threshold=0))
            equal(newcomer.execute("select * from p3_replan where a = %s", (1,)).fetchone(), (1, 2))


@check
def cursor():
    with connected(autocommit=False) as c:
        with c.cursor("named") as named:
            named.itersize = 100
            named.execute("select generate_series(1, %s)", (5000,))
            equal(sum(row[0] for row in named), 5000 * 5001 // 2)
        c.commit()
        equal(sum(row[0] for row in c.cursor().stream("select generate_series(1, %s)", (20000,))), 20000 * 20001 // 2)


@check
def cursor_with_hold():
    if TRANSACTION_MODE:
        return
    with connected(autocommit=True) as c, connected() as other:
        with c.cursor("held", withhold=True) as named:
            named.execute("select generate_series(1, 10)")
            equal(one(other, "select 1"), 1)
            equal(len(named.fetchall()), 10)


@check
def copy():
    rows = [(i, f"zeile {i} ä\t\n\\", datetime.datetime(2024, 1, 1) + datetime.timedelta(seconds=i)) for i in range(5000)]
    with connected() as c:
        for binary in ("", " (format binary)"):
            fresh(c, "p3_copy", "a int4, b text, c timestamp")
            with c.cursor() as k:
                with k.copy(f"copy p3_copy from stdin{binary}") as copying:
                    copying.set_types(["int4", "text", "timestamp"])
                    for row in rows:
                        copying.write_row(row)
                with k.copy(f"copy (select * from p3_copy order by a) to stdout{binary}") as copying:
                    copying.set_types(["int4", "text", "timestamp"])
                    expect(list(copying.rows()) == rows, "rows differ")


@check
def copy_error():
    with connected() as c:
        fresh(c, "p3_copyerr", "a int")
        try:
            with c.cursor().copy("copy p3_copyerr from stdin") as copying:
                copying.write("1\n")
                raise KeyError("mine")
        except (KeyError, errors.QueryCanceled):
            pass
        equal(one(c, "select count(*) from p3_copyerr"), 0)
        try:
            with c.cursor().copy("copy p3_copyerr from stdin") as copying:
                for _ in range(300):
                    copying.write("x\n" * 1000)
            raise AssertionError("nonsense was accepted")
        except errors.InvalidTextRepresentation:
            pass
        equal(one(c, "select count(*) from p3_copyerr"), 0)
        equal(one(c, "select 1"), 1)


@check
def cancel():
    with connected() as victim, connected() as neighbour:
        done = []
        thread = threading.Thread(target=lambda: done.append(one(neighbour, "select 5 from pg_sleep(1.5)")))
        thread.start()
        threading.Timer(0.4, victim.cancel).start()
        raises(errors.QueryCanceled, victim.execute, "select pg_sleep(%s)", (20,))
        equal(one(victim, "select 6"), 6)
        thread.join()
        equal(done, [5], "the neighbour's answer")


@check
def big_row():
    size = 20 << 20
    with connected() as c:
        value = bytes(range(256)) * (size // 256)
        for binary in (False, True):
            expect(c.cursor(binary=binary).execute("select %b::bytea", (value,)).fetchone()[0] == value, "bytes differ")


@check
def pipeline():
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(connected()) for _ in range(6)]
        fresh(clients[0], "p3_pipe", "c int, n int")
        for i, c in enumerate(clients):
            with c.pipeline() as p:
                cursors = [c.execute("insert into p3_pipe values (%s, %s) returning n", (i, n)) for n in range(100)]
                p.sync()
                equal([k.fetchone()[0] for k in cursors], list(range(100)))
            with c.cursor() as k:
                k.executemany("insert into p3_pipe values (%s, %s)", [(i, n) for n in range(100, 400)])
        equal(one(clients[0], "select count(*) from p3_pipe"), 2400)


@check
def pipeline_error():
    with connected() as c:
        fresh(c, "p3_pipeerr", "n int primary key")
        try:
            with c.pipeline() as p:
                c.execute("insert into p3_pipeerr values (%s)", (1,))
                p.sync()
                c.execute("insert into p3_pipeerr values (%s)", (2,))
                c.execute("insert into p3_pipeerr values (%s)", (1,))
                c.execute("insert into p3_pipeerr values (%s)", (3,))
        except errors.UniqueViolation:
            pass
        equal(one(c, "select count(*) from p3_pipeerr"), 1)
        with c.pipeline(), c.transaction():
            for n in range(10, 20):
                c.execute("insert into p3_pipeerr values (%s)", (n,), prepare=True)
        equal(one(c, "select count(*) from p3_pipeerr"), 11)


@check
def rapid_connects():
    def work(i):
        for _ in range(5):
            with connected() as c:
                equal(one(c, "select %s::int", (i,)), i)

    in_threads(20, work)


@check
def listen_notify():
    with connected() as listener, connected() as sender:
        listener.execute("listen p3_channel")
        sender.execute("select pg_notify('p3_channel', 'one')")
        sender.execute("notify p3_channel, 'two'")
        got = []

        def wait():
            for n in listener.notifies():
                got.append((n.channel, n.payload))
                if len(got) == 2:
                    return

        thread = threading.Thread(target=wait, daemon=True)
        thread.start()
        thread.join(5)
        equal(got, [("p3_channel", "one"), ("p3_channel", "two")])


@check
def set_isolation():
    with contextlib.ExitStack() as stack:
        with connected() as c:
            baseline = c.execute(SHOW_LEAKY).fetchall()
        setters = [stack.enter_context(connected(prepare_threshold=0)) for _ in range(2)]
        for c in setters:
            for name, value in LEAKY.items():
                c.execute(f"select set_config(%s, {value if value[0] == chr(39) else repr(value)}, false)", (name,))
        for _ in range(6):
            other = stack.enter_context(connected())
            equal(other.execute(SHOW_LEAKY).fetchall(), baseline)
        for c in setters:
            c.close()
        for c in [stack.enter_context(connected(autocommit=False)) for _ in range(4)]:
            equal(c.execute(SHOW_LEAKY).fetchall(), baseline, "after the setters' end")


@check
def temp_tables():
    with connected() as c, connected() as other:
        with c.transaction():
            c.execute("create temp table p3_temp (a int) on commit drop")
            c.cursor().executemany("insert into p3_temp values (%s)", [(i,) for i in range(10)])
            equal(one(c, "select count(*) from p3_temp"), 10)
            raises(errors.UndefinedTable, other.execute, "select * from p3_temp")
        raises(errors.UndefinedTable, c.execute, "select * from p3_temp")


@check
def startup_parameters():
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(connected(application_name=f"app{i}", options=f"-c search_path=path{i} -c "
                                                 f"statement_timeout={i + 1}s", prepare_threshold=0)) for i in range(6)]
        for _ in range(3):
            for i, c in enumerate(clients):
                equal(c.execute("select current_setting('application_name'), current_setting('search_path'), "
                                "current_setting('statement_timeout')").fetchone(), (f"app{i}", f"path{i}", f"{i + 1}s"))
        for i, c in enumerate(clients):
            c.execute("set search_path = x")
            c.execute("reset all")
            equal(one(c, "show search_path"), f"path{i}", "after RESET ALL")


@check
def discard_all():
    """DISCARD ALL of one client takes no statement from another."""
    with connected(prepare_threshold=None) as c, connected(prepare_threshold=0) as other:
        for _ in range(5):
            equal(one(other, "select %s::int + 1", (1,)), 2)
            c.execute("discard all")
            equal(one(c, "select %s::int + 1", (1,)), 2)


@check
def channel_binding_prefer():
    with connected(channel_binding="prefer", sslmode="prefer") as c:
        equal(one(c, "select 1"), 1)
        equal(c.pgconn.ssl_in_use, TLS)
    if TLS:
        with connected(channel_binding="require", sslmode="require") as c:
            equal(one(c, "select 1"), 1)
    else:
        e = raises(psycopg.OperationalError, connected(channel_binding="require").__enter__)
        expect("channel binding" in str(e), str(e))


@check
def asyncio_tasks():
    async def work(i):
        connection = await psycopg.AsyncConnection.connect(**ARGUMENTS, autocommit=True, prepare_threshold=0)
        async with connection:
            for n in range(20):
                cursor = await connection.execute("select %s::int, pg_sleep(0.001)", (i * 100 + n,))
                equal((await cursor.fetchone())[0], i * 100 + n)

    async def everybody():
        await asyncio.gather(*(work(i) for i in range(25)))

    asyncio.run(everybody())


@check
def vanishing_client():
    """The socket is closed under libpq, in the middle of a transaction."""
    with connected() as c:
        fresh(c, "p3_gone")
        vanishing = psycopg.connect(**ARGUMENTS)
        vanishing.execute("insert into p3_gone values (1, 'x')")
        socket.socket(fileno=os.dup(vanishing.fileno())).shutdown(socket.SHUT_RDWR)
        c.execute("set lock_timeout = '5s'")
        c.execute("insert into p3_gone values (1, 'y')")
        until(lambda: c.execute("select t from p3_gone").fetchall() == [("y",)], "only one row")
        with contextlib.suppress(psycopg.Error):
            vanishing.close()


main()
