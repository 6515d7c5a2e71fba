"""psqlODBC through pyodbc: server-side prepare on (variant "server") and off ("client")."""
import contextlib
import datetime
import decimal
import os

import pyodbc

from checks import (DATABASE, HOST, LEAKY, PASSWORD, PORT, SHOW_LEAKY, USER, VARIANT, check, equal, in_threads, main,
                    raises)

pyodbc.pooling = False


@contextlib.contextmanager
def connected(autocommit=True, more=""):
    server_side = 0 if VARIANT == "client" else 1
    connection = pyodbc.connect(
        f"Driver={{PostgreSQL Unicode}};Server={HOST};Port={PORT};Uid={USER};Pwd={{{PASSWORD}}};Database={DATABASE};"
        f"SSLmode={'require' if 'DRIVER_TLS' in os.environ else 'disable'};"
        f"UseServerSidePrepare={server_side};MaxLongVarcharSize=30000000;MaxVarcharSize=8000;ByteaAsLongVarBinary=1;"
        f"BoolsAsChar=0;{more}", autocommit=autocommit)
    try:
        yield connection
    finally:
        with contextlib.suppress(pyodbc.ProgrammingError):  # closed already
            connection.close()


def one(connection, sql, *args):
    return connection.execute(sql, *args).fetchone()[0]


def fresh(connection, name, columns="id int primary key, t text"):
    connection.execute(f"drop table if exists {name}")
    connection.execute(f"create table {name} ({columns})")


def state(error):
    return error.args[0]


@check
def connect():
    with connected() as c:
        equal(one(c, "select current_user || '/' || current_database()"), f"{USER}/{DATABASE}")


@check
def types():
    values = [7, 2**62, decimal.Decimal("123456789.123456789"), 1.5, "Grüße, 世界 🐘", True, datetime.date(2024, 2, 29),
              datetime.datetime(2024, 2, 29, 23, 59, 59, 123456), bytes(range(256)), None]
    names = "int bigint numeric(20,9) float8 text bool date timestamp bytea text".split()
    with connected() as c:
        for value, name in zip(values, names):
            got = one(c, f"select ?::{name}", value)
            equal(got, value, name)


@check
def transactions():
    with connected() as observer, connected(autocommit=False) as c:
        fresh(observer, "o_tx")
        c.execute("insert into o_tx values (?, ?)", 1, "a")
        equal(one(observer, "select count(*) from o_tx"), 0)
        c.commit()
        c.execute("insert into o_tx values (?, ?)", 2, "b")
        c.rollback()
        equal(one(observer, "select count(*) from o_tx"), 1)


@check
def savepoints():
    with connected(autocommit=False) as c:
        fresh(c, "o_sp")
        for i in range(4):
            c.execute("insert into o_sp values (?, 'x')", i)
            c.execute("savepoint s")
            equal(state(raises(pyodbc.Error, c.execute, "insert into o_sp values (?, 'y')", i)), "23505")
            c.execute("rollback to savepoint s")
        c.commit()
        equal(one(c, "select count(*) from o_sp"), 4)


@check
def errors_in_transaction():
    with connected(autocommit=False) as c:
        for _ in range(3):
            equal(state(raises(pyodbc.Error, c.execute, "select 1 / ?::int", 0)), "22012")
            c.rollback()
            equal(one(c, "select ?::int", 2), 2)
            equal(state(raises(pyodbc.Error, c.execute, "select * from no_such_table")), "42P01")
            c.rollback()
        equal(one(c, "select 3"), 3)


@check
def prepared_interleaved():
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(connected()) for _ in range(10)]
        cursors = [c.cursor() for c in clients]
        for turn in range(10):
            for i, k in enumerate(cursors):
                equal(k.execute(f"select ?::int + {i}", turn).fetchone()[0], turn + i)
        for turn in range(5):
            for k in cursors:
                equal(k.execute("select ?::int * 2", turn).fetchone()[0], turn * 2)


@check
def prepared_failed_in_transaction():
    """A statement prepared in a transaction that fails; used again afterwards."""
    with contextlib.ExitStack() as stack:
        for c in [stack.enter_context(connected(autocommit=False)) for _ in range(5)]:
            k = c.cursor()
            for _ in range(3):
                equal(k.execute("select 10 / ?::int", 5).fetchone()[0], 2)
                raises(pyodbc.Error, k.execute, "select 10 / ?::int", 0)
                c.rollback()


@check
def cursor():
    """UseDeclareFetch: the driver declares a cursor for each query."""
    with connected(autocommit=False, more="UseDeclareFetch=1;Fetch=50;") as c:
        equal(sum(r[0] for r in c.execute("select generate_series(1, 3000)")), 3000 * 3001 // 2)
        c.commit()


@check
def pipeline():
    with connected(autocommit=False) as c:
        fresh(c, "o_many")
        c.cursor().executemany("insert into o_many values (?, ?)", [(i, f"t{i}") for i in range(500)])
        c.commit()
        equal(one(c, "select count(*) from o_many"), 500)


@check
def big_row():
    with connected() as c:
        size = 20 << 20
        equal(len(one(c, f"select repeat('x', {size})")), size)
        equal(one(c, "select length(?::text)", "y" * size), size)


@check
def catalog():
    with connected() as c:
        fresh(c, "o_catalog")
        equal([r.column_name for r in c.cursor().columns(table="o_catalog")], ["id", "t"])
        equal([r.column_name for r in c.cursor().primaryKeys(table="o_catalog")], ["id"])


@check
def rapid_connects():
    def work(i):
        for _ in range(3):
            with connected() as c:
                equal(one(c, "select ?::int", i), i)

    in_threads(15, work)


@check
def connection_settings():
    """ConnSettings, what every ODBC user sets: SQL right after the log-in."""
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(connected(more=f"ConnSettings=set search_path to path{i};")) for i in range(5)]
        for _ in range(3):
            for i, c in enumerate(clients):
                equal(one(c, "show search_path"), f"path{i}")


@check
def set_isolation():
    with contextlib.ExitStack() as stack:
        with connected() as c:
            baseline = tuple(c.execute(SHOW_LEAKY).fetchone())
        setters = [stack.enter_context(connected()) for _ in range(3)]
        for c in setters:
            for name, value in LEAKY.items():
                if name not in ("client_encoding", "standard_conforming_strings", "bytea_output"):
                    c.execute(f"set {name} = {value}")
        for _ in range(5):
            equal(tuple(stack.enter_context(connected()).execute(SHOW_LEAKY).fetchone()), baseline)
        for c in setters:
            c.close()
        for c in [stack.enter_context(connected(autocommit=False)) for _ in range(4)]:
            equal(tuple(c.execute(SHOW_LEAKY).fetchone()), baseline, "after the setters' end")
            c.execute("select 1")


@check
def temp_tables():
    with connected(autocommit=False) as c, connected() as other:
        c.execute("create temp table o_temp (a int) on commit drop")
        c.execute("insert into o_temp values (?)", 1)
        equal(one(c, "select count(*) from o_temp"), 1)
        equal(state(raises(pyodbc.Error, other.execute, "select * from o_temp")), "42P01")
        c.commit()


main()
