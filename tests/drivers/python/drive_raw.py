"""The protocol itself, message by message: what drivers do rarely and poolers get wrong."""
import contextlib
import os
import socket
import struct
import time

from checks import DATABASE, HOST, PORT, USER, check, equal, expect, in_threads, main, raises, until
from wire import (COPY_DONE, FLUSH, GSS_REQUEST, PROTOCOL_3_0, PROTOCOL_3_2, SSL_REQUEST, SYNC, TERMINATE, Closed, ServerError,
                  Wire, bind, close, copy_data, describe, execute, fields_of, message, parse, query, row_of)


@contextlib.contextmanager
def several(count, **more):
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(Wire(**more)) for _ in range(count)]


def error_code(action, *arguments):
    return raises(ServerError, action, *arguments).code


def fresh(wire, name, columns="id int primary key, t text"):
    wire.run(f"drop table if exists {name}; create table {name} ({columns})")


# ---- start-up -------------------------------------------------------------------------------------
@check
def connect():
    with Wire() as w:
        for name in ("server_version", "server_encoding", "client_encoding", "application_name", "is_superuser",
                     "session_authorization", "DateStyle", "IntervalStyle", "TimeZone", "integer_datetimes",
                     "standard_conforming_strings", "default_transaction_read_only", "in_hot_standby"):
            expect(name in w.parameters, f"no ParameterStatus of {name}")
        equal(w.one("show timezone"), w.parameters["TimeZone"])
        equal(w.one("show server_version"), w.parameters["server_version"])
        equal(len(w.key), 8, "BackendKeyData")
        equal(w.status, "I")


@check
def startup_parameters_reported():
    with Wire(application_name="raw", TimeZone="Asia/Tokyo", DateStyle="German", client_encoding="LATIN1") as w:
        equal([w.parameters[k] for k in ("application_name", "TimeZone", "client_encoding")],
              ["raw", "Asia/Tokyo", "LATIN1"])
        equal(w.parameters["DateStyle"], "German, DMY")
        equal(w.one("select current_date::timestamp::text || current_setting('application_name')")[-3:], "raw")


@check
def protocol_3_2():
    """Negotiated, as PostgreSQL of this version answers; unknown _pq_. options are named."""
    with Wire(version=PROTOCOL_3_2, **{"_pq_.unheard_of": "1"}) as w:
        expect(w.negotiated is not None, "no NegotiateProtocolVersion")
        expect(b"_pq_.unheard_of\0" in w.negotiated, repr(w.negotiated))
        equal(w.one("select 1"), "1")


@check
def encryption_requests():
    """SSLRequest and GSSENCRequest get one byte; after a refusal the same connection goes on."""
    for code, yes in ((GSS_REQUEST, b"G"), (SSL_REQUEST, b"S")):
        with Wire(login=False) as w:
            w.send(struct.pack(">ii", 8, code))
            answer = w.take(1)
            expect(answer in (b"N", yes), repr(answer))
            if answer == b"N" and "DRIVER_TLS" not in os.environ:
                w.login(PROTOCOL_3_0, {"user": USER, "database": DATABASE})
                equal(w.one("select 1"), "1")


@check
def startup_garbage():
    """Nonsense instead of a start-up packet: closed; the others notice nothing."""
    with Wire() as bystander:
        for garbage in (b"GET / HTTP/1.1\r\n\r\n", b"\0\0\0\3", b"\xff" * 64, b"\0\0\0\x08\x7f\x7f\x7f\x7f",
                        struct.pack(">ii", 2**31 - 1, 196608), struct.pack(">ii", 9, 196608) + b"x",
                        struct.pack(">ii", 12, 196608) + b"user", struct.pack(">ii", 8, 131072)):
            with Wire(login=False, timeout=15) as w:
                w.send(garbage)
                w.socket.shutdown(socket.SHUT_WR)
                try:
                    while True:
                        w.take(1)
                except Closed:
                    pass
            equal(bystander.one("select 1"), "1")


@check
def disconnect_at_every_step():
    """Clients that go at any byte of log-in or of a statement."""
    with Wire() as w:
        fresh(w, "raw_gone")
        whole = query("begin; insert into raw_gone values (1, 'x')") + parse("s", "select 1") + bind("s") + SYNC
        for cut in (1, 4, 5, 20, len(whole) - 40, len(whole) - 6, len(whole) - 1, len(whole)):
            with Wire() as victim:
                victim.send(whole[:cut])
        until(lambda: w.one("select count(*) from raw_gone") == "0", "the transactions' end")
        w.run("set lock_timeout = '5s'; insert into raw_gone values (1, 'y')")


# ---- simple protocol --------------------------------------------------------------------------------
@check
def status_letters():
    with Wire() as w:
        for sql, want in (("begin", "T"), ("select 1/0", "E"), ("select 1", "E"), ("rollback", "I"),
                          ("begin; select 1/0", "E"), ("commit", "I"), ("begin; select 1; commit", "I"),
                          ("select 1; begin", "T"), ("rollback; select 1", "I"), ("", "I"), (";", "I")):
            w.send(query(sql))
            w.until_ready()
            equal(w.status, want, f"status after {sql!r}")
        w.send(query(""))
        equal(w.kinds(), "IZ")


@check
def several_statements():
    with Wire() as w:
        w.send(query("select 1; select 2, 3; create temp table raw_x on commit drop as select 1; select 1/0; select 4"))
        equal(w.kinds(), "TDCTDCCEZ")
        w.send(query("select 1;select 1;"))
        equal(w.kinds(), "TDCTDCZ")


@check
def fifty_and_terminate():
    """Fifty queries and a Terminate in one segment: all run, all are answered, then the end."""
    with Wire() as w:
        fresh(w, "raw_fifty", "n int")
    with Wire() as w:
        w.send(*(query(f"insert into raw_fifty values ({i}) returning n") for i in range(50)), TERMINATE)
        for i in range(50):
            equal(w.rows(), [(str(i),)])
        expect(w.at_end(), "more bytes after the Terminate")
    with Wire() as w:
        equal(w.one("select count(*) from raw_fifty"), "50")


@check
def pipelined_queries():
    with several(6) as wires:
        for i, w in enumerate(wires):
            w.send(*(query(f"select {i}, {n}, repeat('x', {n % 7 * 1000})") for n in range(200)))
        for i, w in enumerate(wires):
            for n in range(200):
                equal(w.rows(), [(str(i), str(n), "x" * (n % 7 * 1000))])


@check
def byte_by_byte():
    with Wire() as w:
        for byte in query("select 'slow'") + parse("s", "select $1::int") + bind("s", [5]) + execute() + SYNC:
            w.send(bytes([byte]))
            time.sleep(0.001)
        equal(w.rows(), [("slow",)])
        equal(w.rows(), [("5",)])


# ---- extended protocol ------------------------------------------------------------------------------
@check
def extended():
    with Wire() as w:
        w.send(parse("", "select $1::int + 1 as a, $2::text as b"), describe("S"), bind("", [1, None]), describe("P"),
               execute(), SYNC)
        answer = w.until_ready()
        equal("".join(k for k, _ in answer), "1tT2TDCZ")
        equal(struct.unpack(">hii", answer[1][1]), (2, 23, 25), "parameter types")
        equal(row_of(answer[5][1]), ("2", None))
        w.send(parse("", ""), bind(""), execute(), SYNC)
        equal(w.kinds(), "12IZ")
        w.send(SYNC, SYNC, SYNC)
        equal([w.kinds() for _ in range(3)], ["Z"] * 3)


@check
def flush_without_sync():
    with Wire() as w:
        w.send(parse("", "select 1"), FLUSH)
        equal(w.receive()[0], "1")
        w.send(bind(""), FLUSH)
        equal(w.receive()[0], "2")
        w.send(execute(), FLUSH)
        equal((w.receive()[0], w.receive()[0]), ("D", "C"))
        w.send(SYNC)
        equal(w.kinds(), "Z")


@check
def portals():
    """Row limits; a portal lives to the end of its transaction, over Syncs."""
    with several(3) as wires:
        for w in wires:
            w.run("begin")
            w.send(parse("s", "select generate_series(1, 25)"), bind("s", portal="p"), SYNC)
            equal(w.kinds(), "12Z")
        for part, want in enumerate(("D" * 10 + "sZ", "D" * 10 + "sZ", "D" * 5 + "CZ")):
            for w in wires:
                w.send(execute("p", 10), SYNC)
                equal(w.kinds(), want, f"part {part}")
        for w in wires:
            w.send(close("P", "p"), bind("s", portal="p"), execute("p", 1), close("P", "p"), SYNC)
            equal(w.kinds(), "32Ds3Z")
            w.run("commit")
            w.send(bind("s", portal="p"), SYNC, execute("p"), SYNC)
            equal(w.kinds(), "2Z")
            equal(error_code(w.rows), "34000", "a portal after its transaction")
            equal(w.one("select 1"), "1")


@check
def error_skips_to_sync():
    with Wire() as w:
        w.send(parse("", "select 1/0"), bind(""), execute(), parse("x", "select 1"), query("select 2"), SYNC,
               query("select 3"))
        answer = w.until_ready()
        expect("".join(k for k, _ in answer) in ("12EZ", "1EZ"), str(answer))
        equal(w.rows(), [("3",)])
        equal(error_code(w.call, "x"), "26000", "a statement whose Parse was skipped")
        equal(w.one("select 4"), "4")


@check
def pipeline_with_errors():
    """Many units of a pipeline, some failing: each Sync ends one, the others go on."""
    with several(5) as wires:
        for w in wires:
            w.send(parse("p", "select 100 / $1::int"), SYNC)
            w.rows()
        for w in wires:
            w.send(*(bind("p", [i % 4]) + execute() + SYNC for i in range(100)))
        for w in wires:
            for i in range(100):
                if i % 4 == 0:
                    equal(error_code(w.rows), "22012")
                else:
                    equal(w.rows(), [(str(100 // (i % 4)),)])


@check
def implicit_transaction():
    """What lies between two Syncs is one transaction: an error undoes what was before it."""
    with Wire() as w:
        fresh(w, "raw_implicit")
        w.send(parse("i", "insert into raw_implicit values ($1::int, 'x')"), SYNC)
        w.rows()
        w.send(bind("i", [1]), execute(), bind("i", [2]), execute(), bind("i", [1]), execute(), SYNC)
        equal(error_code(w.rows), "23505")
        equal(w.one("select count(*) from raw_implicit"), "0")
        w.send(bind("i", [1]), execute(), bind("i", [2]), execute(), SYNC)
        w.rows()
        equal(w.one("select count(*) from raw_implicit"), "2")


# ---- prepared statements ----------------------------------------------------------------------------
@check
def prepared_interleaved():
    """The same names with other texts, the same texts with other names, by many clients."""
    with several(12) as wires:
        for i, w in enumerate(wires):
            w.prepare("mine", f"select $1::int + {i}")
            w.prepare(f"shared_{i}", "select $1::int * 2")
        for turn in range(15):
            for i, w in enumerate(wires):
                equal(w.call("mine", turn), [(str(turn + i),)])
                equal(w.call(f"shared_{i}", turn), [(str(turn * 2),)])
        for i, w in enumerate(wires):
            equal(error_code(w.call, f"shared_{(i + 1) % 12}", 1), "26000", "another's statement")


@check
def prepared_many():
    """More statements than any server keeps."""
    with several(3) as wires:
        for i, w in enumerate(wires):
            w.send(*(parse(f"s{n}", f"select {i}, {n}, $1::text") for n in range(400)), SYNC)
            w.rows()
        for _ in range(2):
            for n in range(0, 400, 7):
                for i, w in enumerate(wires):
                    equal(w.call(f"s{n}", "v"), [(str(i), str(n), "v")])


@check
def prepared_errors():
    """42P05 and 26000 are errors as any other: the session goes on."""
    with several(2) as (w, other):
        w.prepare("s", "select 1")
        equal(error_code(w.prepare, "s", "select 2"), "42P05", "a name that is taken")
        equal(w.call("s"), [("1",)])
        equal(error_code(w.call, "nobody"), "26000")
        equal(error_code(other.call, "s"), "26000")
        w.send(describe("S", "nobody"), SYNC)
        equal(error_code(w.rows), "26000")
        w.send(close("S", "nobody"), SYNC)
        equal(w.kinds(), "3Z", "Close of what is not there")
        equal(error_code(w.prepare, "bad", "selec 1"), "42601")
        w.prepare("bad", "select 7")
        equal(w.call("bad"), [("7",)], "a name whose first Parse failed")
        w.send(close("S", "s"), parse("s", "select 3"), bind("s"), execute(), SYNC)
        equal(w.rows(), [("3",)])
        w.send(parse("t", "select 1"), parse("u", "select 1/0 from no_table"), parse("v", "select 1"), SYNC)
        equal(error_code(w.rows), "42P01")
        equal(w.call("t"), [("1",)], "prepared before the error of its pipeline")
        equal(error_code(w.call, "v"), "26000", "skipped after the error of its pipeline")


@check
def prepared_in_failed_transaction():
    with several(6) as wires:
        for w in wires:
            w.prepare("before", "select 1")
            w.run("begin")
            w.prepare("inside", "select 2")
            equal(error_code(w.run, "select 1/0"), "22012")
            equal(error_code(w.call, "before"), "25P02")
            equal(error_code(w.prepare, "failed", "select 3"), "25P02")
            w.run("rollback")
        for w in wires:
            equal((w.call("before"), w.call("inside")), ([("1",)], [("2",)]))
            equal(error_code(w.call, "failed"), "26000")


@check
def unnamed_over_syncs():
    """Parse and Describe, Sync, then Bind of the unnamed statement, as lib/pq does; with others between."""
    with several(8) as wires:
        for turn in range(5):
            for i, w in enumerate(wires):
                w.send(parse("", f"select $1::int + {i * 10 + turn}"), describe("S"), SYNC)
                equal(w.kinds(), "1tTZ")
            for i, w in enumerate(wires):
                w.send(bind("", [1000]), execute(), SYNC)
                equal(w.rows(), [(str(1000 + i * 10 + turn),)])
            for i, w in enumerate(wires):  # it stays until the next Parse or simple query
                w.send(bind("", [2000]), execute(), SYNC)
                equal(w.rows(), [(str(2000 + i * 10 + turn),)])
        wires[0].run("select 1")
        equal(error_code(wires[0].call, "", 1), "26000", "the unnamed statement after a simple query")


@check
def deallocate_protocol_level():
    """SQL DEALLOCATE of a statement that was made by Parse, and the other way round."""
    with several(6) as wires:
        for i, w in enumerate(wires):
            w.prepare("a", f"select {i}")
            w.prepare("b", f"select {i} + 100")
            w.run("deallocate a")
            equal(error_code(w.call, "a"), "26000", "after DEALLOCATE")
            equal(w.call("b"), [(str(i + 100),)])
            equal(error_code(w.run, "deallocate a"), "26000", "DEALLOCATE twice")
            w.prepare("a", f"select {i} + 200")
            equal(w.call("a"), [(str(i + 200),)])
        wires[0].run("deallocate all")
        equal(error_code(wires[0].call, "a"), "26000", "after DEALLOCATE ALL")
        equal(wires[1].call("a"), [("201",)], "another's, after DEALLOCATE ALL")
        wires[1].run("discard all")
        equal(error_code(wires[1].call, "a"), "26000", "after DISCARD ALL")
        equal(wires[2].call("a"), [("202",)], "another's, after DISCARD ALL")


@check
def deallocate_extended():
    """DEALLOCATE, DISCARD ALL and EXECUTE as extended queries, as psycopg 3 sends them."""
    with several(2) as (w, other):
        def extended(sql):
            w.send(parse("", sql), bind(""), describe("P"), execute(), SYNC)
            return w.rows()

        for sql in ("deallocate s", "DEALLOCATE PREPARE \"s\"", "deallocate all", "discard all"):
            w.prepare("s", "select $1::int + 1")
            other.one("select 1")
            equal(w.call("s", 1), [("2",)])
            equal(extended("execute s(5)"), [("6",)])
            equal(extended(sql), [])
            equal(error_code(w.call, "s", 1), "26000", f"after {sql}")


@check
def deallocate_among_others():
    """DEALLOCATE and SET within a query of several statements, as psqlODBC sends them; more clients than servers."""
    with several(6) as wires:
        for w in wires:
            w.run("SET DateStyle = 'German';SET extra_float_digits = 2;show transaction_isolation")
        for turn in range(2):
            for i, w in enumerate(wires):
                w.run("begin")
                w.prepare("_PLAN0x1", f"select $1::int + {i}")
                equal(w.call("_PLAN0x1", turn), [(str(turn + i),)])
                w.run('SAVEPOINT s;DEALLOCATE "_PLAN0x1";RELEASE s')
                equal(error_code(w.call, "_PLAN0x1", 1), "26000")
                w.run("rollback")
                equal(w.one("show datestyle"), "German, DMY")


@check
def one_namespace():
    """SQL EXECUTE of a Parsed statement; Bind and Close of one that SQL prepared."""
    with several(6) as wires:
        for i, w in enumerate(wires):
            w.prepare("parsed", f"select $1::int + {i}")
            w.run(f"prepare sql(int) as select $1 * {i}")
        for i, w in enumerate(wires):
            equal(w.one("execute parsed(10)"), str(10 + i))
            equal(w.call("sql", 10), [(str(10 * i),)])
            equal(error_code(w.run, "prepare parsed as select 1"), "42P05")
            equal(error_code(w.prepare, "sql", "select 1"), "42P05")
            w.send(close("S", "sql"), SYNC)
            equal(w.kinds(), "3Z")
            equal(error_code(w.run, "execute sql(1)"), "26000")


@check
def replan():
    """After ALTER TABLE: who prepared before may be told 0A000 as by PostgreSQL; who prepares now never."""
    with several(8) as wires, Wire() as owner:
        fresh(owner, "raw_replan", "a int")
        owner.run("insert into raw_replan values (1)")
        for w in wires:
            w.prepare("s", "select * from raw_replan")
            equal(w.call("s"), [("1",)])
        owner.run("alter table raw_replan add b int default 2")
        for w in wires:
            try:
                equal(w.call("s"), [("1", "2")])
            except ServerError as error:
                equal(error.code, "0A000")
            w.send(close("S", "s"), parse("s", "select * from raw_replan"), bind("s"), execute(), SYNC)
            equal(w.rows(), [("1", "2")], "prepared again")
        for _ in range(8):
            with Wire() as newcomer:
                newcomer.prepare("n", "select * from raw_replan")
                equal(newcomer.call("n"), [("1", "2")], "a newcomer")
                newcomer.send(parse("", "select * from raw_replan"), bind(""), describe("P"), execute(), SYNC)
                equal(newcomer.rows(), [("1", "2")], "a newcomer's unnamed statement")


@check
def replan_described():
    """Rows always have the columns that the client was told, or the client is told 0A000."""
    with several(5) as wires, Wire() as owner:
        fresh(owner, "raw_described", "a int")
        owner.run("insert into raw_described values (1)")

        def columns(wire, *more):
            wire.send(*more, describe("S", "s"), SYNC)
            return [struct.unpack_from(">h", body)[0] for kind, body in wire.until_ready() if kind == "T"]

        for w in wires:
            equal(columns(w, parse("s", "select * from raw_described")), [1])
            equal(w.call("s"), [("1",)])
        owner.run("alter table raw_described add b int default 2")
        for w in wires:
            try:
                equal(w.call("s"), [("1",)], "rows of a statement that was described before")
            except ServerError as error:
                equal(error.code, "0A000")
        for w in wires:
            equal(columns(w, close("S", "s"), parse("s", "select * from raw_described")), [2])
            equal(w.call("s"), [("1", "2")])
        owner.run("alter table raw_described drop a, add c int default 3, add d int default 4")
        for _ in range(8):
            with Wire() as newcomer:
                equal(columns(newcomer, parse("s", "select * from raw_described")), [3], "described to a newcomer")
                equal(newcomer.call("s"), [("2", "3", "4")], "a newcomer's rows")


@check
def parameter_types_matter():
    """One text with other parameter types is another statement."""
    with several(6) as wires:
        for i, w in enumerate(wires):
            w.send(parse("s", "select pg_typeof($1)", [(23, 25, 1700)[i % 3]]), SYNC)
            w.rows()
        for i, w in enumerate(wires):
            equal(w.call("s", "1"), [(("integer", "text", "numeric")[i % 3],)])


@check
def search_path_matters():
    """One text under other search paths reads other tables."""
    with Wire() as owner:
        owner.run("drop schema if exists raw_s0 cascade; drop schema if exists raw_s1 cascade; create schema raw_s0; "
                  "create schema raw_s1; create table raw_s0.t as select 0 as x; create table raw_s1.t as select 1 as x")
        with contextlib.ExitStack() as stack:
            wires = [stack.enter_context(Wire(search_path=f"raw_s{i % 2}")) for i in range(8)]
            for w in wires:
                w.prepare("s", "select x from t")
            for _ in range(4):
                for i, w in enumerate(wires):
                    equal(w.call("s"), [(str(i % 2),)])
                for i, w in enumerate(wires):
                    equal(w.one("select x from t"), str(i % 2))


# ---- COPY ----------------------------------------------------------------------------------------------
@check
def copy_pipelined():
    """The data in the same segment as its COPY; a query behind it."""
    with several(3) as wires:
        fresh(wires[0], "raw_copy", "a int")
        for w in wires:
            w.send(query("copy raw_copy from stdin"), *(copy_data(b"%d\n" % i) for i in range(1000)), COPY_DONE,
                   query("select 5"))
        for w in wires:
            equal(w.kinds(), "GCZ")
            equal(w.rows(), [("5",)])
        equal(wires[0].one("select count(*) from raw_copy"), "3000")
        wires[0].send(parse("", "copy raw_copy from stdin"), bind(""), execute(), SYNC, copy_data(b"1\n"), COPY_DONE,
                      SYNC)
        equal(wires[0].kinds(), "12GCZ")
        wires[0].send(parse("", "copy (select generate_series(1, 3)) to stdout"), bind(""), execute(), SYNC)
        equal(wires[0].kinds(), "12HdddcCZ")


@check
def copy_failures():
    with Wire() as w:
        fresh(w, "raw_copyfail", "a int")
        w.send(query("copy raw_copyfail from stdin"), copy_data(b"1\n"), message("f", b"no more\0"))
        equal(error_code(w.rows), "57014")
        w.send(query("copy raw_copyfail from stdin"), copy_data(b"x\n"), *[copy_data(b"1\n" * 1000)] * 200, COPY_DONE)
        equal(error_code(w.rows), "22P02")
        w.send(copy_data(b"stray"), COPY_DONE)  # PostgreSQL ignores these outside of a COPY
        equal(w.one("select count(*) from raw_copyfail"), "0")
        with Wire() as vanishing:
            vanishing.send(query("copy raw_copyfail from stdin"), copy_data(b"1\n"))
            equal(vanishing.receive()[0], "G")
        equal(w.one("select count(*) from raw_copyfail"), "0")
        w.send(query("copy raw_copyfail from stdin; select 1/0"), copy_data(b"1\n"), COPY_DONE)
        equal(error_code(w.rows), "22012")
        equal(w.one("select count(*) from raw_copyfail"), "0")


@check
def copy_slow_reader():
    """100 MB to a client that reads late: the proxy does not keep it, the others go on."""
    with Wire() as slow, Wire() as other:
        slow.send(query("copy (select repeat('x', 100000) from generate_series(1, 1000)) to stdout"))
        for _ in range(20):
            equal(other.one("select 1"), "1")
            time.sleep(0.02)
        equal(sum(len(body) for kind, body in slow.until_ready() if kind == "d"), 100_001_000)


# ---- cancel ----------------------------------------------------------------------------------------------
@check
def cancel_hits_only_its_own():
    with several(4) as wires:
        for round_ in range(5):
            for w in wires:
                w.send(query(f"select 'done' from pg_sleep({0.6 if w is not wires[0] else 20})"))
            time.sleep(0.1)
            wires[0].cancel()
            equal(error_code(wires[0].rows), "57014", f"round {round_}")
            for w in wires[1:]:
                equal(w.rows(), [("done",)])


@check
def cancel_of_the_idle():
    """No statement runs: the next one, anybody's, is not cancelled."""
    with several(6) as wires:
        for _ in range(10):
            for w in wires:
                equal(w.one("select 1"), "1")
            wires[0].cancel()
            for w in wires:
                w.send(query("select 'ok' from pg_sleep(0.02)"))
            for w in wires:
                equal(w.rows(), [("ok",)])


@check
def cancel_with_a_wrong_key():
    with Wire() as w:
        w.send(query("select 'ok' from pg_sleep(0.5)"))
        pid, secret = struct.unpack(">iI", w.key)
        for wrong in ((pid, secret ^ 1), (pid + 1, secret), (0, 0), (-1, 2**32 - 1)):
            w.cancel(struct.pack(">iI", *wrong))
        equal(w.rows(), [("ok",)])


@check
def cancel_race():
    """Cancel as early and as late as it gets: each statement ends with its answer or 57014."""
    with several(3) as (w, neighbour, third):
        for i in range(60):
            w.send(query(f"select 'mine' from pg_sleep({i % 5 * 0.002})"))
            neighbour.send(query("select 'neighbour' from pg_sleep(0.004)"))
            w.cancel()
            try:
                equal(w.rows(), [("mine",)])
            except ServerError as error:
                equal(error.code, "57014")
            equal(neighbour.rows(), [("neighbour",)])
            equal(third.one("select 3"), "3")
            equal(w.one("select 'next'"), "next", "the statement after the cancelled one")


@check
def cancel_in_a_transaction():
    with several(2) as (w, _):
        fresh(w, "raw_cancel", "a int")
        w.run("begin; insert into raw_cancel values (1)")
        w.send(query("select pg_sleep(20)"))
        time.sleep(0.1)
        w.cancel()
        equal(error_code(w.rows), "57014")
        equal(w.status, "E")
        w.run("rollback")
        equal(w.one("select count(*) from raw_cancel"), "0")


# ---- the rest ----------------------------------------------------------------------------------------------
@check
def big_messages():
    with Wire() as w:
        value = "v" * (20 << 20)
        w.send(parse("", "select $1::text, length($1)"), bind("", [value]), execute(), SYNC)
        equal(w.rows()[0] == (value, str(20 << 20)), True)
        w.send(query(f"select length('{value}')"))
        equal(w.rows(), [(str(20 << 20),)])
        equal(error_code(w.run, f"select '{value}' from no_such_table"), "42P01")
        equal(w.one("select 1"), "1")


@check
def big_out_while_sending():
    """Both directions full at once: nobody may wait for the other for ever."""
    with Wire() as w:
        row = "x" * 1_000_000

        def send(_):
            w.send(*(parse("", "select $1::text") + bind("", [row]) + execute() for _ in range(40)), SYNC)

        def receive(_):
            equal(sum(len(row_of(b)[0]) for k, b in w.until_ready() if k == "D"), 40_000_000)

        in_threads(2, lambda i: (send, receive)[i](i))


@check
def function_call():
    """FunctionCall, which libpq's large objects still use: abs(int4)."""
    with Wire() as w:
        oid = int(w.one("select 'abs(int4)'::regprocedure::oid"))
        w.send(message("F", struct.pack(">ihhhi", oid, 1, 0, 1, 2) + b"-5" + struct.pack(">h", 0)))
        answer = w.until_ready()
        equal([(k, b[4:] if k == "V" else None) for k, b in answer], [("V", b"5"), ("Z", None)])


@check
def unknown_message():
    """An unknown message type: an error of class 08 and the end, of this client only."""
    with several(2) as (w, other):
        w.send(message("!", b"what?"))
        try:
            kind, body = w.receive()
            equal((kind, fields_of(body)["C"]), ("E", "08P01"))
            expect(w.at_end(), "it goes on")
        except Closed:
            raise AssertionError("closed without an error")
        equal(other.one("select 1"), "1")


@check
def impossible_length():
    with several(2) as (w, other):
        w.send(b"Q" + struct.pack(">i", 3))
        try:
            while w.receive()[0] != "E":
                pass
            expect(w.at_end(), "it goes on")
        except Closed:
            pass
        equal(other.one("select 1"), "1")


@check
def parameter_status():
    with several(6) as wires:
        for i, w in enumerate(wires):
            w.run(f"set timezone = 'Etc/GMT+{i + 1}'")
            equal(w.parameters["TimeZone"], f"Etc/GMT+{i + 1}", "reported at once")
        for turn in range(3):
            for i, w in enumerate(wires):
                equal(w.one("show timezone"), f"Etc/GMT+{i + 1}")
                equal(w.parameters["TimeZone"], f"Etc/GMT+{i + 1}", f"what was reported last, turn {turn}")
        w = wires[0]
        w.run("begin; set timezone = 'Asia/Tokyo'")
        w.run("rollback")
        equal(w.parameters["TimeZone"], "Etc/GMT+1", "after the rollback of a SET")


@check
def notices():
    with Wire() as w:
        w.run("do $$ begin for i in 1..500 loop raise notice 'n %', i; end loop; end $$")
        equal([n["M"] for n in w.notices], [f"n {i}" for i in range(1, 501)])


@check
def idle_in_transaction_ends():
    """The server ends a session by its own time-out: the client is told why."""
    with several(2) as (w, other):
        w.run("set idle_in_transaction_session_timeout = '200ms'")
        w.run("begin")
        kind, body = w.receive()
        equal((kind, fields_of(body)["C"]), ("E", "25P03"))
        expect(w.at_end(), "it goes on")
        equal(other.one("select 1"), "1")


@check
def terminated_by_an_administrator():
    """pg_terminate_backend of one's own server: an error or the end; everybody else goes on."""
    with several(3) as (w, other, third):
        try:
            w.run("select pg_terminate_backend(pg_backend_pid())")
        except ServerError as error:
            expect(error.code in ("57P01", "08006"), str(error))  # 08006: docs/proxy.md, a read was lost
        except Closed:
            pass
        equal((other.one("select 1"), third.one("select 2")), ("1", "2"))


@check
def half_close():
    """A client that shuts its sending side after its query: it may end without an answer, not hang."""
    with Wire() as w:
        w.send(query("select 1"))
        w.socket.shutdown(socket.SHUT_WR)
        try:
            while True:
                w.receive()
        except Closed:
            pass


@check
def connection_storm():
    """Connections that come and say nothing, beside one that works."""
    with Wire() as w:
        silent = [socket.create_connection((HOST, PORT)) for _ in range(50)]
        equal(w.one("select 1"), "1")
        with Wire() as newcomer:
            equal(newcomer.one("select 2"), "2")
        for s in silent:
            s.close()


main()
