"""`synchronous_commit` by the tables that a transaction writes: what a real PostgreSQL has in force when the
transaction commits, told by the server itself."""


import contextlib

import pytest
import proxy_wire as pw
from proxy_wire import SYNC, bind, codes, describe, execute, parse, query
from proxy_support import one_postgres, proxies, run, wait_for

RULES = ["durability=remote_apply;table=payments", "durability=off;table=logs", "durability=local;table=audit.visits"]
LEVEL = "current_setting('synchronous_commit')"
NOW = f"select {LEVEL}"
LEADING = """
create view log_view as select * from logs;
create table watched (v int);
create function on_watched() returns trigger language plpgsql as $$ begin insert into payments values (1); return new; end $$;
create trigger watch after insert on watched for each row execute function on_watched();
create table days (v int) partition by range (v);
create table audit.monday partition of days for values from (0) to (10);
create table owners (v int primary key);
create table owned (v int references owners on delete cascade);
create table logged_by_default (v int, w int default pay());
"""


@pytest.fixture(scope="module")
def server():
    with one_postgres("create table payments (v int); create table logs (v int); create table other (v int)",
                      "create schema audit; create table audit.visits (v int); create table visits (v int)",
                      "create function pay() returns int language sql as 'insert into payments values (1) returning v'",
                      LEADING) as server:
        yield server


@pytest.fixture(params=["transaction", "session"])
def proxy(request, server):
    with proxies(server) as make:
        proxy = make(f"mode={request.param}", "pool=1", *RULES)
        proxy.shares = request.param == "transaction"
        look_up(proxy)
        yield proxy


def look_up(proxy, **client):
    """Until the proxy knows what tables lead to: before, everything is committed as the strictest rule says."""
    with contextlib.closing(proxy.connect(**client)) as c:
        wait_for(lambda: level(c, write("logs")) == "off", what="what is known of the tables")


def write(table, value=1):
    return f"insert into {table} values ({value}) returning {LEVEL}"


def level(client, sql):
    return run(client, sql)[0][0]


def test_a_statement_by_itself_has_the_level_of_its_table(proxy):
    c = proxy.connect()
    for _ in range(2):
        assert level(c, write("payments")) == "remote_apply"
        assert level(c, write("logs")) == "off"
        assert level(c, write("other")) == "on"
        assert level(c, write("audit.visits")) == "local"
        assert level(c, write("visits")) == "on", "perhaps of another schema: not lowered"
        assert level(c, f"update payments set v = 2 returning {LEVEL}") == "remote_apply"
        assert level(c, f"with x as (insert into payments values (1)) {NOW}") == "remote_apply"


def test_a_transaction_is_raised_and_never_lowered(proxy):
    c = proxy.connect()
    for raised in ("payments", "other"):
        run(c, "begin")
        assert level(c, write("logs")) == "off", "nothing stricter has been written"
        wanted = {"payments": "remote_apply", "other": "on"}[raised]
        assert level(c, write(raised)) == wanted
        assert level(c, write("logs")) == wanted
        assert level(c, NOW) == wanted
        run(c, "commit")
    run(c, "begin")
    run(c, "select pay()")
    assert level(c, write("logs")) == "remote_apply", "what a function writes is not known"
    run(c, "rollback")
    assert level(c, write("logs")) == "off"


def test_a_rollback_to_a_savepoint_does_not_take_the_level_away(proxy):
    c = proxy.connect()
    run(c, "begin")
    run(c, write("payments"))
    run(c, "savepoint a")
    run(c, write("other"))
    run(c, "rollback to a")
    assert level(c, write("logs")) == "remote_apply"
    run(c, "rollback")
    run(c, "begin")
    run(c, "savepoint a")
    assert level(c, write("payments")) == "remote_apply"
    run(c, "rollback to a")  # and with it what was set
    assert level(c, write("payments")) == "remote_apply"
    run(c, "commit")


def test_texts_of_several_statements_have_the_strictest_of_their_levels(proxy):
    c = proxy.connect()
    run(c, f"begin; insert into payments values (1); {write('logs')}")
    assert level(c, NOW) == "remote_apply"
    run(c, "commit")
    assert level(c, f"begin isolation level serializable; {write('logs')}") == "off"
    assert level(c, "select current_setting('transaction_isolation')") == "serializable"
    run(c, "commit")


def test_extended_queries_and_pipelines(proxy):
    with pw.connect(proxy.port) as w:
        one = b"".join([parse("", write("payments")), bind(""), describe("P"), execute(), SYNC])
        assert level_of(w, one) == ["remote_apply"]
        ask(w, parse("low", write("logs")) + parse("high", write("payments")) + parse("mid", write("other")) + SYNC)
        for names, levels in ((["low"], ["off"]), (["high"], ["remote_apply"]), (["mid"], ["on"]),
                              (["low", "high", "low"], ["off", "remote_apply", "remote_apply"]),
                              (["mid", "low"], ["on", "on"])):
            batch = b"".join(bind(n) + execute() for n in names) + SYNC
            assert level_of(w, batch) == levels, names
        # Each batch of a pipeline is a transaction of its own.
        pipeline = b"".join(bind(n) + execute() + SYNC for n in ("low", "high", "mid", "low"))
        assert level_of(w, pipeline, ready=4) == ["off", "remote_apply", "on", "off"]
        # What was raised in one is not taken for raised in the next.
        pipeline = bind("mid") + execute() + bind("high") + execute() + SYNC + parse("", "select 1") + bind("high") + execute() + SYNC
        assert level_of(w, pipeline, ready=2) == ["on", "remote_apply", "remote_apply"]
        ask(w, query("begin") + query("select 1/0"), ready=2)
        assert level_of(w, query("rollback") + bind("high") + execute() + SYNC, ready=2) == ["remote_apply"]
        # libpq's pipeline mode: a whole transaction up to one Sync.
        begin, commit = (parse("", s) + bind("") + execute() for s in ("begin", "commit"))
        batch = begin + bind("low") + execute() + bind("high") + execute() + commit + bind("low") + execute()
        assert level_of(w, batch + SYNC) == ["off", "remote_apply", "off"]


def ask(wire, messages, ready=1):
    wire.send(messages)
    return [m for _ in range(ready) for m in wire.until_ready()]


def level_of(wire, messages, ready=1):
    answer = ask(wire, messages, ready)
    assert "E" not in [kind for kind, _ in answer], codes(answer)
    return [pw.row_of(body)[0] for kind, body in answer if kind == "D"]


def test_the_unnamed_statement_survives_what_is_put_in_front_of_it(proxy):
    with pw.connect(proxy.port) as w:
        ask(w, parse("", write("payments")) + SYNC)
        ask(w, parse("low", write("logs")) + SYNC)
        assert level_of(w, bind("low") + execute() + SYNC) == ["off"]
        assert level_of(w, bind("") + execute() + SYNC) == ["remote_apply"]


def test_an_error_in_front_of_a_raised_statement_is_told_as_ever(proxy):
    with pw.connect(proxy.port) as w:
        ask(w, query("begin"))
        ask(w, query("select 1/0"))
        answer = ask(w, query(write("payments")))
        assert codes(answer) == "E(25P02) Z(E)"
        ask(w, query("rollback"))
        batch = [parse("", "select 1/0"), bind(""), execute(), parse("", write("payments")), bind(""), execute(), SYNC]
        assert codes(ask(w, b"".join(batch))) in ("1 E(22012) Z(I)", "1 2 E(22012) Z(I)")
        assert level_of(w, parse("", write("payments")) + bind("") + execute() + SYNC) == ["remote_apply"]


def test_prepared_by_sql_copy_and_truncate(proxy):
    c = proxy.connect()
    run(c, f"prepare p as {write('payments')}")
    assert level(c, "execute p") == "remote_apply"
    run(c, "begin")
    run(c, "truncate payments")
    assert level(c, NOW) == "remote_apply"
    run(c, "commit")
    c.close()
    with pw.connect(proxy.port) as w:
        ask(w, query("begin"))
        w.send(query("copy payments from stdin"))
        assert w.receive()[0] == "G"
        ask(w, pw.copy_data(b"1\n") + pw.COPY_DONE)
        assert level_of(w, query(NOW)) == ["remote_apply"]
        ask(w, query("commit"))


def test_what_the_client_sets_by_itself_counts(proxy):
    c = proxy.connect()
    assert level(c, write("payments")) == "remote_apply"
    run(c, "set synchronous_commit = 'remote_write'")
    assert level(c, write("payments")) == "remote_write"
    assert level(c, write("logs")) == "remote_write"
    run(c, "reset synchronous_commit")
    assert level(c, NOW) == "on"
    assert level(c, write("payments")) == "remote_apply"
    run(c, "begin")
    run(c, "set local synchronous_commit = 'local'")
    assert level(c, write("payments")) == "local"
    run(c, "commit")
    run(c, "begin; insert into payments values (1)")
    run(c, "reset all")
    run(c, "commit")
    assert level(c, write("payments")) == "remote_apply"
    d = proxy.connect(options="-c synchronous_commit=local") if proxy.shares else None
    if d:
        assert level(d, write("payments")) == "local"
        assert level(c, write("payments")) == "remote_apply"


def test_a_rule_for_the_client_is_where_the_tables_begin(server):
    with proxies(server) as make:
        proxy = make("mode=transaction", "pool=1", "durability=local;app=batch", *RULES)
        look_up(proxy)
        c, d = proxy.connect(application_name="batch"), proxy.connect()
        for _ in range(2):
            assert level(c, write("other")) == "local"
            assert level(d, write("other")) == "on"
            assert level(c, write("payments")) == "remote_apply"
            assert level(d, write("logs")) == "off"
            run(c, "begin")
            assert level(c, write("logs")) == "off"
            assert level(c, write("other")) == "local"
            run(c, "commit")


def test_nothing_leaks_to_clients_without_rules(server):
    with proxies(server) as make:
        proxy = make("mode=transaction", "pool=1", "durability=off;table=logs;user=app;app=x")
        look_up(proxy, application_name="x")
        c, d = proxy.connect(application_name="x"), proxy.connect()
        for _ in range(3):
            assert level(c, write("logs")) == "off"
            assert level(d, write("logs")) == "on"


MORE_RULES = ["durability=off;table=watched", "durability=off;table=log_view", "durability=off;table=days",
              "durability=off;table=logged_by_default", "durability=local;table=audit.monday",
              "durability=off;table=owners", "durability=remote_write;table=owned"]


@pytest.mark.parametrize("mode", ["transaction", "session"])
def test_a_rule_relaxes_only_what_leads_nowhere_else(server, mode):
    with proxies(server) as make:
        proxy = make(f"mode={mode}", "pool=2", *RULES, *MORE_RULES, "catalog_ms=200")
        look_up(proxy)
        c = proxy.connect()
        for table, wanted in {"watched": "remote_apply",  # its trigger pays
                              "log_view": "remote_apply", "logged_by_default": "remote_apply",
                              "days": "local",              # by its partition
                              "owners": "remote_write",     # by what refers to it
                              "owned": "remote_write"}.items():
            run(c, "begin")
            run(c, f"delete from {table} where false")
            assert level(c, NOW) == wanted, table
            run(c, "rollback")
        assert level(c, "select current_setting('synchronous_commit') from (select pay()) x") == "remote_apply"
        # A rule that demands more counts as soon as the proxy has seen what leads to its table.
        run(c, "create trigger watch after insert on logs for each row execute function on_watched()")
        assert level(c, write("logs")) == "remote_apply"
        run(c, "drop trigger watch on logs")
        server.query("create trigger watch after insert on logs for each row execute function on_watched()")
        wait_for(lambda: level(c, write("logs")) == "remote_apply", 30, "the trigger is seen")
        server.query("drop trigger watch on logs")


def test_a_client_that_sets_the_level_by_a_function_is_left_alone(proxy):
    c = proxy.connect()
    run(c, "begin")
    run(c, "select set_config('synchronous_commit', 'local', true)")
    assert level(c, write("payments")) == "local"
    run(c, "commit")
    assert level(c, write("payments")) == "remote_apply"
