"""PostgreSQL's own tools: pgbench, pg_dump and pg_restore, psql. What psql prints is compared, to the byte,
with what it printed when connected directly (kept in DRIVER_SCRATCH by the run that goes first)."""
import os
import pathlib
import re
import subprocess
import tempfile

from checks import DATABASE, HOST, MODE, PASSWORD, PORT, TRANSACTION_MODE, USER, check, equal, expect, main

BIN = pathlib.Path(os.environ["PG_BIN"])
SCRATCH = pathlib.Path(os.environ["DRIVER_SCRATCH"])
ENVIRONMENT = {**os.environ, "PGHOST": HOST, "PGPORT": str(PORT), "PGUSER": USER, "PGPASSWORD": PASSWORD,
               "PGDATABASE": DATABASE, "PGCONNECT_TIMEOUT": "15", "PGTZ": "UTC", "LC_ALL": "C.UTF-8"}


def tool(name, *arguments, text=None, code=0, timeout=50, **more):
    done = subprocess.run([str(BIN / name), *arguments], input=text, capture_output=True, text=True, timeout=timeout,
                          env={**ENVIRONMENT, **more})
    expect(done.returncode == code, f"{name}: exit {done.returncode}: {(done.stderr or done.stdout).strip()[:400]}")
    return done.stdout if not done.stderr else f"{done.stdout}\n-- standard error\n{done.stderr}"


def psql(script, *arguments, code=0, **more):
    return tool("psql", "-X", "-q", "-A", "-F", "\t", *arguments, text=script, code=code, **more)


def one(sql):
    return psql(sql, "-t", "-v", "ON_ERROR_STOP=1").strip()


def as_directly(name, got):
    """Equal to what the direct run got."""
    reference = SCRATCH / f"{name}.txt"
    if MODE == "direct":
        reference.write_text(got)
    elif reference.exists():
        want = reference.read_text()
        for line_got, line_want in zip(got.splitlines(), want.splitlines()):
            equal(line_got, line_want, "a line")
        equal(len(got), len(want), "length")


def bench(*arguments, clients=8):
    """A thread for each client: PQprepare blocks pgbench's thread, which would keep the clients of the same thread
    in their transactions, and so the servers that it waits for."""
    output = tool("pgbench", "-n", "-c", str(clients), "-j", str(clients), "-T", "2", *arguments)
    expect(int(re.search(r"transactions actually processed: (\d+)", output).group(1)) > 0, output)
    failed = re.search(r"number of failed transactions: (\d+)", output)
    equal(int(failed.group(1)) if failed else 0, 0, "failed transactions")


def balanced():
    """TPC-B's invariant: every table says the same."""
    sums = one("select (select sum(abalance) from pgbench_accounts) || ' ' || (select sum(tbalance) from pgbench_tellers) "
               "|| ' ' || (select sum(bbalance) from pgbench_branches) || ' ' || (select sum(delta) from pgbench_history)")
    equal(len(set(sums.split())), 1, f"different sums: {sums}")


@check
def pgbench_init():
    tool("pgbench", "-i", "-s", "2", "-q")
    equal(one("select count(*) from pgbench_accounts"), "200000")
    tool("pgbench", "-i", "-s", "2", "-q", "-I", "dtGvp")


def tpcb(mode):
    def run():
        bench("-M", mode)
        balanced()

    run.__name__ = f"pgbench_tpcb_{mode}"
    return run


for protocol in ("simple", "extended", "prepared"):
    check(tpcb(protocol))


@check
def pgbench_select():
    for mode in ("simple", "extended", "prepared"):
        bench("-S", "-M", mode, clients=20)


@check
def pgbench_connect():
    bench("-C", "-S", clients=4)


@check
def pgbench_pipeline():
    script = SCRATCH / f"pipeline-{MODE}.sql"
    script.write_text("\\set n random(1, 1000)\n\\startpipeline\nselect :n;\nselect abalance from pgbench_accounts where aid = :n;\n"
                      "begin;\nupdate pgbench_tellers set tbalance = tbalance where tid = 1;\ncommit;\n\\endpipeline\n"
                      "select 1 as one \\gset\n")
    for mode in ("extended", "prepared"):
        bench("-f", str(script), "-M", mode)


@check
def pgbench_retries():
    tool("pgbench", "-n", "-c", "4", "-T", "1", "--max-tries=100", PGOPTIONS="-c default_transaction_isolation=repeatable\\ read")
    equal(one("show default_transaction_isolation"), "read committed")
    balanced()


SCHEMA = """
set client_min_messages = warning;
drop schema if exists shop cascade; create schema shop;
create type shop.color as enum ('red', 'green');
create table shop.item (id serial primary key, name text not null unique, c shop.color default 'red', price numeric(10,2),
  made timestamptz default '2024-02-29 12:00+00', tags text[], data jsonb, raw bytea);
insert into shop.item (name, price, tags, data, raw)
  select 'item ' || i, i * 1.5, array['a', 'ä ' || i], jsonb_build_object('i', i), decode(md5(i::text), 'hex')
  from generate_series(1, 20000) i;
create table shop.part (a int, b text) partition by range (a);
create table shop.part1 partition of shop.part for values from (0) to (100);
insert into shop.part select i, E'tab\\tnewline\\nback\\\\slash' from generate_series(0, 99) i;
create view shop.cheap as select * from shop.item where price < 100;
create function shop.add(a int, b int) returns int language sql immutable as 'select a + b';
create index on shop.item (price);
"""


@check
def dump_and_restore():
    psql(SCHEMA, "-v", "ON_ERROR_STOP=1")
    before = one("select md5(string_agg(i::text, '|' order by id)) from shop.item i")
    plain = tool("pg_dump", "-n", "shop", "--no-owner")
    as_directly("dump", re.sub(r"(?m)^\\(un)?restrict .*$", "", plain))
    file = SCRATCH / f"shop-{MODE}.dump"
    tool("pg_dump", "-n", "shop", "-Fc", "-f", str(file))
    psql("set client_min_messages = warning; drop schema shop cascade")
    tool("pg_restore", "--no-owner", "-d", DATABASE, str(file))
    equal(one("select md5(string_agg(i::text, '|' order by id)) from shop.item i"), before, "after pg_restore")
    equal(one("select count(*) from shop.part"), "100")
    equal(one("show search_path").replace('"', ""), "$user, public", "pg_dump's search_path")


@check
def dump_and_restore_parallel():
    """-j: several connections on one exported snapshot (a transaction each)."""
    folder = pathlib.Path(tempfile.mkdtemp(dir=SCRATCH)) / "shop.dir"
    tool("pg_dump", "-n", "shop", "-Fd", "-j", "3", "-f", str(folder))
    psql("set client_min_messages = warning; drop schema shop cascade")
    tool("pg_restore", "--no-owner", "-j", "3", "-d", DATABASE, str(folder))
    equal(one("select count(*) from shop.item"), "20000")


@check
def dump_as_inserts():
    psql("set client_min_messages = warning; drop schema if exists small cascade; create schema small; "
         "create table small.t as select i, 'v' || i as v from generate_series(1, 500) i")
    text = tool("pg_dump", "-n", "small", "--inserts", "--no-owner")
    psql("set client_min_messages = warning; drop schema small cascade")
    psql(text, "-v", "ON_ERROR_STOP=1")
    equal(one("select count(*) from small.t"), "500")


SCRIPT = r"""
\pset null (null)
set client_min_messages = warning; drop table if exists psql_t; set client_min_messages = notice; create table psql_t (a int primary key, b text, c date);
\copy psql_t from stdin
1	eins	2024-02-29
2	zwei ä	\N
3	\N	2024-03-01
\.
select * from psql_t order by a;
\copy (select * from psql_t order by a) to stdout csv header
copy (select a, b from psql_t order by a) to stdout;
select a, b, c, a * 1.5 as d, now() as e from psql_t \gdesc
select 'select ' || a || ' as x' from psql_t order by a \gexec
select max(a) as top, min(b) as low from psql_t \gset
\echo :top :low
select count(*) from psql_t where a = :top \g
\x on
select * from psql_t where a = 2;
\x off
begin;
savepoint one;
insert into psql_t values (1, 'duplicate');
select 1;
rollback to one;
insert into psql_t values (4, 'vier');
commit;
select * from psql_t order by a desc limit 1;
do $$ begin raise notice 'hello %', 1; raise warning 'careful'; end $$;
select * from no_such_table;
\errverbose
select 1/0; select 'after';
select 1 \; select 2 \; select 3;
prepare p(int) as select b from psql_t where a = $1;
execute p(2);
deallocate p;
begin; declare k cursor for select a from psql_t order by a; fetch 2 from k; move 1 in k; fetch all from k; commit;
\set FETCH_COUNT 2
select a, b from psql_t order by a;
\unset FETCH_COUNT
select b, c, a from psql_t where b is not null order by 1 \crosstabview b c a
\d psql_t
\dt psql_t
\df lower
\echo :ENCODING :SERVER_VERSION_NUM :USER :DBNAME
\encoding LATIN1
select octet_length('x');
\encoding UTF8
set timezone = 'Asia/Tokyo'; show timezone; reset timezone; show timezone;
set search_path = pg_catalog; show search_path; reset search_path; show search_path;
\if :{?top}
select 'conditional';
\endif
select * from psql_t where a = 1 \gx
explain (costs off) select * from psql_t where a = 1;
table psql_t \g (format=unaligned tuples_only=on)
listen nobody; unlisten *;
vacuum psql_t;
analyze psql_t;
select xmlelement(name a, 1)::text, '{"b": [1, 2]}'::jsonb -> 'b', array[1, null], row(1, 'x'), interval '1 day 2 hours', 1e300, 'nan'::float8;
"""


@check
def psql_script():
    as_directly("psql", psql(SCRIPT).replace(f":{PORT}", ":port"))


@check
def psql_stop_on_error():
    as_directly("psql-stop", psql("select 1;\nselect 1/0;\nselect 2;\n", "-v", "ON_ERROR_STOP=1", code=3))
    as_directly("psql-single", psql("drop table if exists psql_s; create table psql_s (a int);\ninsert into psql_s values (1);\n"
                                    "select count(*) from psql_s;\n", "-1", PGOPTIONS="-c client_min_messages=warning"))
    psql("insert into psql_s values (2); insert into psql_s values (3);\nselect 1/0;\n", "-1", "-v", "ON_ERROR_STOP=1", code=3)
    equal(one("select count(*) from psql_s"), "1", "after a failed single transaction")


@check
def psql_commands():
    as_directly("psql-c", tool("psql", "-X", "-A", "-t", "-c", "select 1; select 2", "-c", "select 3", "-c", "create temp table psql_c (a int)"
                               if not TRANSACTION_MODE else "select 4").replace("CREATE TABLE", "4"))
    tool("psql", "-X", "-l")


@check
def psql_watch():
    """\\watch runs until psql is told to stop, here by the statement's own failure."""
    psql("drop sequence if exists psql_seq; create sequence psql_seq maxvalue 3;", PGOPTIONS="-c client_min_messages=warning")
    output = psql("select nextval('psql_seq') \\watch 0.05\n", "-t")
    equal([line for line in output.splitlines() if line.strip().isdigit()], ["1", "2", "3"])
    expect("reached maximum value" in output, output)


@check
def psql_reconnect():
    as_directly("psql-connect", psql("\\connect -reuse-previous=on application_name=second\nshow application_name;\n\\c\nselect 1;\n"))


@check
def psql_large_object():
    file = SCRATCH / f"large-{MODE}.bin"
    file.write_bytes(os.urandom(1_000_000))
    output = psql(f"\\lo_import {file}\n\\lo_export :LASTOID {file}.out\n\\lo_unlink :LASTOID\n")
    expect(file.read_bytes() == pathlib.Path(f"{file}.out").read_bytes(), f"bytes differ {output}")


@check
def maintenance():
    tool("vacuumdb", "-z", "-j", "2", "-t", "pgbench_branches", "-t", "pgbench_tellers", DATABASE)
    tool("reindexdb", "-t", "pgbench_tellers", DATABASE)
    equal(tool("pg_isready").strip().split(" - ")[-1], "accepting connections")


main()
