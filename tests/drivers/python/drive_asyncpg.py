"""asyncpg: its own implementation of the protocol, binary, every statement prepared and cached."""
import asyncio
import contextlib
import datetime
import decimal
import io
import uuid

import asyncpg

from checks import (DATABASE, HOST, LEAKY, PASSWORD, PORT, SHOW_LEAKY, TRANSACTION_MODE, USER, check, equal, expect,
                    main)


def asynchronous(function):
    def synchronous():
        asyncio.run(asyncio.wait_for(function(), 50))

    synchronous.__name__ = function.__name__
    return check(synchronous)


async def connected(stack, **more):
    connection = await asyncpg.connect(host=HOST, port=PORT, user=USER, password=PASSWORD, database=DATABASE,
                                       timeout=15, **more)
    stack.push_async_callback(connection.close)
    return connection


async def several(stack, count, **more):
    return [await connected(stack, **more) for _ in range(count)]


async def fresh(connection, name, columns="id int primary key, t text"):
    await connection.execute(f"drop table if exists {name}; create table {name} ({columns})")


async def fails(kind, awaitable):
    try:
        got = await awaitable
    except kind as error:
        return error
    raise AssertionError(f"no {kind.__name__} but {got!r}")


@asynchronous
async def connect():
    async with contextlib.AsyncExitStack() as stack:
        c = await connected(stack)
        equal(await c.fetchval("select current_user || '/' || current_database()"), f"{USER}/{DATABASE}")
        expect(c.get_server_version().major >= 13, str(c.get_server_version()))
        equal(c.get_settings().server_encoding, "UTF8")


@asynchronous
async def types():
    utc = datetime.timezone.utc
    values = (7, 2**62, decimal.Decimal("12345678901234567890.123456789"), 1.5e300, "Grüße, 世界 🐘", True,
              datetime.date(2024, 2, 29), datetime.datetime(2024, 2, 29, 23, 59, 59, 123456, utc),
              datetime.timedelta(days=3, seconds=5), [1, 2, None], ["a", "ä"], None, uuid.UUID(int=7), bytes(range(256)))
    names = "int bigint numeric float8 text bool date timestamptz interval int[] text[] text uuid bytea".split()
    async with contextlib.AsyncExitStack() as stack:
        c = await connected(stack)
        row = await c.fetchrow("select " + ", ".join(f"${i}::{n}" for i, n in enumerate(names, 1)), *values)
        equal(tuple(row), values)
        equal(await c.fetchval("select '{\"a\": 1}'::jsonb"), '{"a": 1}')
        await c.execute("do $$ begin create type a_mood as enum ('sad', 'ok'); exception when others then null; end $$")
        equal(await c.fetchval("select $1::a_mood", "ok"), "ok")  # asks the catalog for the type first
        equal(tuple(await c.fetchval("select row(1, 'x')")), (1, "x"))


@asynchronous
async def transactions():
    async with contextlib.AsyncExitStack() as stack:
        c, observer = await several(stack, 2)
        await fresh(c, "a_tx")
        async with c.transaction():
            await c.execute("insert into a_tx values (1, 'a')")
            equal(await observer.fetchval("select count(*) from a_tx"), 0)
        transaction = c.transaction(isolation="serializable")
        await transaction.start()
        equal(await c.fetchval("show transaction_isolation"), "serializable")
        await c.execute("insert into a_tx values (2, 'b')")
        await transaction.rollback()
        equal(await observer.fetchval("select count(*) from a_tx"), 1)


@asynchronous
async def savepoints():
    async with contextlib.AsyncExitStack() as stack:
        c = await connected(stack)
        await fresh(c, "a_sp")
        async with c.transaction():
            for i in range(5):
                await c.execute("insert into a_sp values ($1, 'x')", i)
                with contextlib.suppress(asyncpg.UniqueViolationError):
                    async with c.transaction():
                        await c.execute("insert into a_sp values ($1, 'y')", i)
        equal(await c.fetchval("select count(*) from a_sp"), 5)


@asynchronous
async def errors_in_transaction():
    async with contextlib.AsyncExitStack() as stack:
        c = await connected(stack)
        for _ in range(3):
            await c.execute("begin")
            await fails(asyncpg.DivisionByZeroError, c.fetchval("select 1 / $1::int", 0))
            await fails(asyncpg.InFailedSQLTransactionError, c.fetchval("select 1"))
            await c.execute("rollback")
            equal(await c.fetchval("select 1 / $1::int", 1), 1)
            await fails(asyncpg.UndefinedTableError, c.fetch("select * from no_such_table"))


@asynchronous
async def prepared_interleaved():
    async with contextlib.AsyncExitStack() as stack:
        clients = await several(stack, 12)
        for turn in range(12):
            for i, c in enumerate(clients):
                equal(await c.fetchval(f"select $1::int + {i}", turn), turn + i)
                equal(await c.fetchval("select $1::int * 2", turn), turn * 2)


@asynchronous
async def prepared_kept():
    """prepare() is Parse, Describe and Flush without a Sync: kept by more clients than there are servers."""
    async with contextlib.AsyncExitStack() as stack:
        clients = await several(stack, 8)
        statements = [await c.prepare("select $1::int * 3 as x") for c in clients]
        for turn in range(5):
            for s in statements:
                equal(await s.fetchval(turn), turn * 3)
                equal(s.get_attributes()[0].name, "x")


@asynchronous
async def prepared_cache_evicted():
    """A cache of three statements: asyncpg closes what falls out."""
    async with contextlib.AsyncExitStack() as stack:
        for c in await several(stack, 5, statement_cache_size=3):
            for turn in range(3):
                for n in range(8):
                    equal(await c.fetchval(f"select $1::int + {n}", turn), turn + n)


@asynchronous
async def no_cache():
    """statement_cache_size=0, as people use it with PgBouncer: the unnamed statement."""
    async with contextlib.AsyncExitStack() as stack:
        clients = await several(stack, 8, statement_cache_size=0)

        async def work(i, c):
            for n in range(20):
                equal(await c.fetchval(f"select $1::int + {i}", n), n + i)

        await asyncio.gather(*(work(i, c) for i, c in enumerate(clients)))


@asynchronous
async def replan():
    async with contextlib.AsyncExitStack() as stack:
        owner = await connected(stack)
        await fresh(owner, "a_replan", "a int")
        await owner.execute("insert into a_replan values (1)")
        clients = await several(stack, 6)
        for c in clients:
            equal(tuple(await c.fetchrow("select * from a_replan")), (1,))
        await owner.execute("alter table a_replan add b text default 'b'")
        for c in clients:  # asyncpg prepares again by itself outside of a transaction
            equal(tuple(await c.fetchrow("select * from a_replan")), (1, "b"))
        for c in await several(stack, 6):
            equal(tuple(await c.fetchrow("select * from a_replan")), (1, "b"), "a newcomer")


@asynchronous
async def cursor():
    async with contextlib.AsyncExitStack() as stack:
        clients = await several(stack, 3)

        async def work(c):
            async with c.transaction():
                got = [row[0] async for row in c.cursor("select generate_series(1, $1::int)", 1000, prefetch=37)]
                equal(got, list(range(1, 1001)))
                one = await c.cursor("select generate_series(1, 100)")
                equal([r[0] for r in await one.fetch(3)], [1, 2, 3])
                await one.forward(10)
                equal((await one.fetchrow())[0], 14)

        await asyncio.gather(*(work(c) for c in clients))


@asynchronous
async def copy():
    rows = [(i, f"zeile {i} ä\t\\") for i in range(20000)]
    async with contextlib.AsyncExitStack() as stack:
        c = await connected(stack)
        await fresh(c, "a_copy")
        equal(await c.copy_records_to_table("a_copy", records=rows), "COPY 20000")
        out = io.BytesIO()
        await c.copy_from_query("select * from a_copy where id < $1 order by id", 3, output=out, format="csv")
        equal(out.getvalue().decode(), "".join(f"{a},{b}\n" for a, b in rows[:3]))
        out = io.BytesIO()
        await c.copy_from_table("a_copy", output=out, format="binary")
        await c.execute("truncate a_copy")
        out.seek(0)
        await c.copy_to_table("a_copy", source=out, format="binary")
        equal(await c.fetchval("select count(*) from a_copy"), 20000)
        bad = io.BytesIO(b"1,x\nnonsense\n")
        await fails(asyncpg.PostgresError, c.copy_to_table("a_copy", source=bad, format="csv"))
        equal(await c.fetchval("select count(*) from a_copy"), 20000)


@asynchronous
async def cancel():
    async with contextlib.AsyncExitStack() as stack:
        victim, neighbour, third = await several(stack, 3)
        beside = asyncio.create_task(neighbour.fetchval("select 5 from pg_sleep(1.5)"))
        for _ in range(4):
            await fails(asyncio.TimeoutError, victim.fetchval("select pg_sleep(20)", timeout=0.15))
            equal(await victim.fetchval("select 6"), 6)
            equal(await third.fetchval("select 7 from pg_sleep(0.02)"), 7)
        equal(await beside, 5, "the neighbour's answer")


@asynchronous
async def big_row():
    async with contextlib.AsyncExitStack() as stack:
        c = await connected(stack)
        value = bytes(range(256)) * (20 << 12)
        expect(await c.fetchval("select $1::bytea", value) == value, "bytes differ")
        equal(len(await c.fetchval("select repeat('x', 20 * 1024 * 1024)")), 20 << 20)


@asynchronous
async def pipeline():
    """executemany: one unit of many Binds."""
    async with contextlib.AsyncExitStack() as stack:
        clients = await several(stack, 6)
        await fresh(clients[0], "a_many", "c int, n int, primary key (c, n)")
        await asyncio.gather(*(c.executemany("insert into a_many values ($1, $2)", [(i, n) for n in range(2000)])
                               for i, c in enumerate(clients)))
        equal(await clients[0].fetchval("select count(*) from a_many"), 12000)
        await fails(asyncpg.UniqueViolationError,
                    clients[1].executemany("insert into a_many values ($1, $2)", [(9, 1), (9, 2), (9, 1), (9, 3)]))
        equal(await clients[1].fetchval("select count(*) from a_many where c = 9"), 0)
        await clients[1].executemany("insert into a_many values ($1, $2)", [(9, 1), (9, 2)])


@asynchronous
async def rapid_connects():
    async def work(i):
        async with contextlib.AsyncExitStack() as stack:
            equal(await (await connected(stack)).fetchval("select $1::int", i), i)

    for start in range(0, 100, 25):
        await asyncio.gather(*(work(start + i) for i in range(25)))


@asynchronous
async def pool():
    """asyncpg's pool on the proxy's: it resets with SQL (unlisten, close all, reset all) at each release."""
    pool = await asyncpg.create_pool(host=HOST, port=PORT, user=USER, password=PASSWORD, database=DATABASE,
                                     min_size=2, max_size=8)

    async def work(i):
        async with pool.acquire() as c, c.transaction():
            await c.execute("select set_config('my.pooled', $1, false)", str(i))
            await c.execute("select pg_sleep(0.005)")
            equal(await c.fetchval("select current_setting('my.pooled')"), str(i))

    try:
        await asyncio.wait_for(asyncio.gather(*(work(i) for i in range(60))), 40)
        async with pool.acquire() as c:
            expect(await c.fetchval("select current_setting('my.pooled', true)") in (None, ""), "a setting outlived RESET ALL")
    finally:
        pool.terminate()  # also when it hangs: the next checks need the servers


@asynchronous
async def listen_notify():
    async with contextlib.AsyncExitStack() as stack:
        listener, sender = await several(stack, 2)
        got = asyncio.Queue()
        await listener.add_listener("a_channel", lambda c, pid, channel, payload: got.put_nowait(payload))
        await sender.execute("select pg_notify('a_channel', $1)", "one")
        await sender.execute("notify a_channel, 'two'")
        equal([await asyncio.wait_for(got.get(), 5) for _ in range(2)], ["one", "two"])


@asynchronous
async def set_isolation():
    async with contextlib.AsyncExitStack() as stack:
        first = await connected(stack)
        baseline = await first.fetch(SHOW_LEAKY)
        setters = await several(stack, 4)
        for c in setters:
            for name, value in LEAKY.items():
                await c.execute(f"set {name} = {value}")
        for c in await several(stack, 6):
            equal(await c.fetch(SHOW_LEAKY), baseline)
        for c in setters:
            await c.close()
        others = await several(stack, 4)
        for c in others:
            await c.execute("begin")
            equal(await c.fetch(SHOW_LEAKY), baseline, "after the setters' end")
        equal(await first.fetch(SHOW_LEAKY) if not TRANSACTION_MODE else baseline, baseline)


@asynchronous
async def startup_parameters():
    async with contextlib.AsyncExitStack() as stack:
        clients = [await connected(stack, server_settings={
            "application_name": f"app{i}", "search_path": f"path{i}", "statement_timeout": f"{i + 1}s", "jit": "off"})
            for i in range(6)]
        for _ in range(3):
            for i, c in enumerate(clients):
                equal(tuple(await c.fetchrow("select current_setting('application_name'), current_setting('search_path'),"
                                             "current_setting('statement_timeout'), current_setting('jit')")),
                      (f"app{i}", f"path{i}", f"{i + 1}s", "off"))
        for i, c in enumerate(clients):
            await c.execute("set search_path = x; reset all")
            equal(await c.fetchval("show search_path"), f"path{i}", "after RESET ALL")


@asynchronous
async def temp_tables():
    async with contextlib.AsyncExitStack() as stack:
        c, other = await several(stack, 2)
        async with c.transaction():
            await c.execute("create temp table a_temp (a int) on commit drop")
            await c.executemany("insert into a_temp values ($1)", [(i,) for i in range(10)])
            equal(await c.fetchval("select count(*) from a_temp"), 10)
            await fails(asyncpg.UndefinedTableError, other.fetch("select * from a_temp"))


@asynchronous
async def discard_all():
    async with contextlib.AsyncExitStack() as stack:
        c, other = await several(stack, 2)
        for _ in range(3):
            equal(await c.fetchval("select $1::int + 1", 1), 2)
            equal(await other.fetchval("select $1::int + 1", 1), 2)
            await c.execute("discard all")
            await c.reload_schema_state()
        equal(await other.fetchval("select $1::int + 1", 1), 2)


@asynchronous
async def concurrent_load():
    async with contextlib.AsyncExitStack() as stack:
        clients = await several(stack, 20)
        await fresh(clients[0], "a_load", "c int, n int, primary key (c, n)")

        async def work(i, c):
            for n in range(25):
                async with c.transaction():
                    await c.execute("insert into a_load values ($1, $2)", i, n)
                    equal(await c.fetchval("select count(*) from a_load where c = $1", i), n + 1)

        await asyncio.gather(*(work(i, c) for i, c in enumerate(clients)))
        equal(await clients[0].fetchval("select count(*) from a_load"), 500)


main()
