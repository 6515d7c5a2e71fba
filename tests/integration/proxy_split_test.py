"""The splitting port against a real primary with streaming replicas: reads that are proven to be reads
go anywhere, everything else to the primary. Each server says by its `port` setting who answered; a
replica's log would show every write that reached it."""

import os
import random
import select
import subprocess

import psycopg2
import pytest
import proxy_wire as pw
from proxy_wire import SYNC, bind, codes, execute, parse, query
from proxy_support import (PASSWORD, PG_BIN, Postgres, Proxy, as_postgres, free_port, make_template, run,
                           temporary_root, wait_for)

WHO = "select current_setting('port')::int"


class Replica(Postgres):
    def __init__(self, root, name, primary):
        self.name, self.root, self.port = name, root, free_port()
        self.data = root / name
        as_postgres([PG_BIN / "pg_basebackup", "-D", self.data, "-R", "-c", "fast", "-X", "stream",
                     "-d", f"host=127.0.0.1 port={primary.port} user=app"],
                    env={**os.environ, "PGPASSWORD": PASSWORD})

    @property
    def refused(self):
        """What was sent here and needs a primary."""
        log = (self.data / "log").read_text()
        return [line for line in log.splitlines() if "read-only transaction" in line
                or "during recovery" in line or "recovery is in progress" in line]


class SplitProxy(Proxy):
    def __init__(self, *options, **kwargs):
        self.split_port = free_port()
        super().__init__(f"split={self.split_port}", *options, **kwargs)

    def split(self, autocommit=True, **kwargs):
        c = psycopg2.connect(**{"host": "127.0.0.1", "port": self.split_port, "user": "app",
                                "password": PASSWORD, "dbname": "postgres"} | kwargs)
        c.autocommit = autocommit
        return c


@pytest.fixture(scope="module")
def cluster():
    with temporary_root() as root:
        primary = Postgres(root, "a", make_template(root)).start()
        replicas = [Replica(root, name, primary).start() for name in ("b", "c")]
        primary.query("create table t (id int primary key, note text);"
                      "insert into t select g, 'x' from generate_series(1, 100) g;"
                      "create sequence s; create table log (n int);"
                      "create view numbered as select nextval('s') as n;"
                      "create function plain() returns int language sql stable as 'select 1';"
                      "create function writes() returns int language plpgsql as "
                      "  'begin insert into log values (1); return 1; end';"
                      "create function lies() returns int language plpgsql stable as "
                      "  $$ begin return nextval('s'); end $$;"
                      "create type pair as (a int, b int);"
                      "create function sneaky(pair) returns bigint language sql volatile as "
                      "  $$ select nextval('s') $$;"
                      "create table pairs of pair; insert into pairs values (1, 2);")
        yield primary, replicas
        for server in (*replicas, primary):
            server.stop("immediate")


def caught_up(primary, replicas):
    lsn = primary.query("select pg_current_wal_lsn()")[0][0]
    for replica in replicas:
        wait_for(lambda r=replica: r.query(f"select pg_last_wal_replay_lsn() >= '{lsn}'")[0][0],
                 what="replay")


@pytest.fixture
def make_proxy(cluster):
    primary, replicas = cluster
    proxies = []

    def make(*options, using=replicas, **kwargs):
        caught_up(primary, replicas)
        proxy = SplitProxy("mode=transaction", "primary_share=0", *options, **kwargs)
        proxies.append(proxy)
        proxy.route(primary, replicas=using)
        wait_until_known(proxy)
        return proxy

    for r in replicas:
        r.expected = len(r.refused)
    yield make
    for proxy in proxies:
        proxy.close()
    assert [len(r.refused) for r in replicas] == [r.expected for r in replicas], (
        "a write reached a replica")


def wait_until_known(proxy):
    """Until the catalog has been fetched: then the first read goes to a replica."""
    c = proxy.split()
    before = proxy.stats["split_replica"]

    def known():
        run(c, "select 1")
        return proxy.stats["split_replica"] > before
    wait_for(known, what="catalog")
    c.close()


def ports(connection, sql=WHO, times=20):
    return {run(connection, sql)[0][0] for _ in range(times)}


def test_reads_go_to_replicas_and_writes_to_the_primary(cluster, make_proxy):
    primary, replicas = cluster
    c = make_proxy().split()
    assert ports(c, times=60) == {r.port for r in replicas}
    run(c, "insert into t values (1000, 'new')")
    assert run(c, "delete from t where id = 1000 returning current_setting('port')::int") == [
        (primary.port,)]
    assert run(c, "select current_setting('port')::int from t where id = 1 for update") == [
        (primary.port,)]


def test_the_primary_keeps_its_share(cluster, make_proxy):
    primary, replicas = cluster
    c = make_proxy("primary_share=0.3").split()
    answers = [run(c, WHO)[0][0] for _ in range(400)]
    assert 0.2 < answers.count(primary.port) / 400 < 0.4


def test_what_may_write_goes_to_the_primary(cluster, make_proxy):
    primary, _ = cluster
    c = make_proxy().split()
    for sql in ("select writes(), current_setting('port')::int",
                "select nextval('s'), current_setting('port')::int",
                "select n, current_setting('port')::int from numbered",
                "select p.sneaky, current_setting('port')::int from pairs p",
                "select (p).sneaky, current_setting('port')::int from pairs p",
                "select pg_advisory_xact_lock(1), current_setting('port')::int",
                "with x as (insert into log values (2) returning n) select n, "
                "current_setting('port')::int from x",
                "select txid_current(), current_setting('port')::int"):
        assert run(c, sql)[0][1] == primary.port, sql
    assert run(c, "select 1; select current_setting('port')::int") == [(primary.port,)]
    run(c, "explain analyze insert into log values (3)")
    run(c, "do $$ begin perform nextval('s'); end $$")
    run(c, "notify x")


def test_stable_functions_are_believed(cluster, make_proxy):
    primary, _ = cluster
    c = make_proxy().split()
    assert primary.port not in {run(c, "select plain(), current_setting('port')::int")[0][1]
                                for _ in range(10)}


def test_a_new_function_is_called_at_once_on_the_primary(cluster, make_proxy):
    primary, replicas = cluster
    proxy = make_proxy()
    c = proxy.split()
    for i in range(5):
        run(c, f"create function fresh{i}() returns bigint language sql volatile as "
               "$$ select nextval('s') + 0 * current_setting('port')::int $$")
        run(c, f"select fresh{i}()")
        run(c, f"create table fresh{i} (a int)")
        assert run(c, f"select * from fresh{i}") == []
    for i in range(5):
        run(c, f"drop function fresh{i}(); drop table fresh{i}")


def test_what_becomes_stable_goes_to_replicas_soon(cluster, make_proxy):
    primary, replicas = cluster
    c = make_proxy().split()
    run(c, "create function later() returns int language sql volatile as "
           "$$ select current_setting('port')::int $$")
    try:
        assert run(c, "select later()") == [(primary.port,)]
        run(c, "alter function later() stable")
        caught_up(primary, replicas)
        wait_for(lambda: run(c, "select later()")[0][0] != primary.port, what="new snapshot")
    finally:
        run(c, "drop function later()")


def test_read_only_transactions_run_on_one_replica(cluster, make_proxy):
    primary, replicas = cluster
    c = make_proxy().split()
    for begin in ("begin read only", "start transaction isolation level repeatable read, read only"):
        run(c, begin)
        answers = ports(c, times=10)
        # Also what is not proven: the server enforces it.
        assert run(c, "select current_setting('port')::int; select current_setting('port')::int")[0][
            0] in answers
        run(c, "commit")
        assert len(answers) == 1 and answers < {r.port for r in replicas}
    run(c, "begin")
    assert ports(c, times=3) == {primary.port}
    run(c, "rollback")
    run(c, "begin isolation level serializable read only")
    assert ports(c, times=3) == {primary.port}
    run(c, "rollback")


def test_a_function_that_lies_is_run_again_on_the_primary(cluster, make_proxy):
    primary, replicas = cluster
    proxy = make_proxy()
    c = proxy.split()
    before = [len(r.refused) for r in replicas]
    first = run(c, "select lies()")[0][0]
    assert run(c, "select lies()")[0][0] > first
    assert proxy.stats["retried"] >= 1
    refused = [r.refused[n:] for r, n in zip(replicas, before)]
    assert any(refused)
    for r in replicas:
        r.expected = len(r.refused)


def test_affinity_keeps_a_key_on_one_replica(cluster, make_proxy):
    _, replicas = cluster
    proxy = make_proxy()
    by_key = {}
    for i in range(16):
        c = proxy.split()
        run(c, f"set bascule.affinity = 'game-{i}'")
        answers = ports(c, times=8)
        assert len(answers) == 1
        by_key[i] = answers
        d = proxy.split()
        assert ports(d, f"/* bascule: affinity=game-{i} */ {WHO}", times=8) == answers
        run(c, "reset bascule.affinity")
        assert len(ports(c, times=40)) == 2
        c.close(), d.close()
    assert len({frozenset(a) for a in by_key.values()}) == 2


def test_comment_asks_for_the_primary(cluster, make_proxy):
    primary, _ = cluster
    c = make_proxy().split()
    assert ports(c, f"/* bascule: primary */ {WHO}", times=5) == {primary.port}


def test_settings_follow_the_session_to_every_server(cluster, make_proxy):
    primary, replicas = cluster
    c = make_proxy().split(options="-c work_mem=5MB")
    run(c, "set search_path = pg_catalog, public")
    run(c, "set statement_timeout = '77s'")
    seen = {run(c, WHO + ", current_setting('statement_timeout'), current_setting('work_mem')")[0]
            for _ in range(40)}
    assert seen == {(r.port, "77s", "5MB") for r in replicas}
    run(c, "set default_transaction_isolation = 'serializable'")
    assert ports(c) == {primary.port}


def test_what_a_session_cannot_share_stays_on_the_primary(cluster, make_proxy):
    primary, _ = cluster
    proxy = make_proxy()
    c = proxy.split()
    run(c, "create temp table mine (a int)")
    run(c, "insert into mine values (7)")
    assert run(c, "select a, current_setting('port')::int from mine") == [(7, primary.port)]
    assert ports(c) == {primary.port}


def test_who_listens_is_split_all_the_same(cluster, make_proxy):
    _, replicas = cluster
    proxy = make_proxy()
    c = proxy.split()
    run(c, "listen x")
    run(c, "notify x")
    assert ports(c) == {r.port for r in replicas}
    c.poll()
    if not c.notifies:  # it comes from the connection that listens for all
        assert select.select([c], [], [], 10)[0]
        c.poll()
    assert len(c.notifies) == 1


def test_session_pools_are_split_too(cluster, make_proxy):
    primary, replicas = cluster
    proxy = make_proxy("mode=session")
    c = proxy.split()
    assert ports(c, times=30) == {r.port for r in replicas}
    run(c, "set application_name = 'one'")
    run(c, "prepare p as select current_setting('port')::int")
    assert run(c, "execute p") == [(primary.port,)]


def test_pipelined_statements_keep_their_order_and_place(cluster, make_proxy):
    primary, replicas = cluster
    proxy = make_proxy()
    w = pw.connect(proxy.split_port)
    w.send(query("truncate log"), *(part for i in range(10) for part in (
        query(f"insert into log values ({i})"), query(WHO), query("select count(*) from t"))))
    answers = []
    while len(answers) < 31:
        answers.append(w.until_ready())
    assert all("E" not in codes(a) for a in answers), [codes(a) for a in answers]
    assert primary.query("select count(*) from log") == [(10,)]
    rows = {int(pw.row_of(body)[0]) for a in answers[2::3] for kind, body in a if kind == "D"}
    # What follows a write in one go stays behind it.
    assert rows <= {primary.port, *(r.port for r in replicas)}


def test_prepared_statements_are_known_everywhere(cluster, make_proxy):
    primary, replicas = cluster
    proxy = make_proxy()
    w = pw.connect(proxy.split_port)
    w.send(parse("read", WHO), parse("write", "insert into log values ($1)"), SYNC)
    assert codes(w.until_ready()) == "1 1 Z(I)"
    seen = set()
    for _ in range(30):
        w.send(bind("read"), execute(), SYNC)
        seen |= {int(pw.row_of(b)[0]) for k, b in w.until_ready() if k == "D"}
        w.send(bind("write", ["1"]), execute(), SYNC)
        assert codes(w.until_ready()) == "2 C Z(I)"
    assert seen == {r.port for r in replicas}
    # Both in one batch: the primary.
    w.send(bind("read"), execute(), bind("write", ["1"]), execute(), SYNC)
    answer = w.until_ready()
    assert codes(answer) == "2 D C 2 C Z(I)"
    assert [int(pw.row_of(b)[0]) for k, b in answer if k == "D"] == [primary.port]


def test_reads_go_on_without_replicas(cluster, make_proxy):
    primary, replicas = cluster
    proxy = make_proxy()
    c = proxy.split()
    proxy.route(primary, replicas=replicas[:1], new_epoch=False)
    assert ports(c) == {replicas[0].port}
    proxy.route(primary, replicas=[], new_epoch=False)
    assert ports(c) == {primary.port}
    proxy.route(primary, replicas=replicas, new_epoch=False)
    assert ports(c, times=60) == {r.port for r in replicas}


def test_in_hot_standby_does_not_flap(cluster, make_proxy):
    c = make_proxy("primary_share=0.5").split()
    for _ in range(30):
        run(c, WHO)
        assert c.info.parameter_status("in_hot_standby") == "off"


def test_no_write_of_a_random_mixture_reaches_a_replica(cluster, make_proxy):
    primary, _ = cluster
    proxy = make_proxy("primary_share=0.2", "workers=2")
    rng = random.Random(7)
    clients = [proxy.split() for _ in range(6)]
    run(clients[0], "truncate log")
    written = 0
    reads = ["select * from t where id = {n}", "select count(*) from log", "table t",
             "with x as (select {n} as a) select * from x", "values ({n})",
             "explain select * from t where id = {n}"]
    for _ in range(600):
        c, n = rng.choice(clients), rng.randrange(1000)
        kind = rng.random()
        if kind < 0.6:
            run(c, rng.choice(reads).format(n=n))
        elif kind < 0.8:
            run(c, f"insert into log values ({n})")
            written += 1
        elif kind < 0.9:
            run(c, "begin")
            run(c, "select count(*) from log")
            run(c, f"insert into log values ({n})")
            run(c, "commit")
            written += 1
        elif kind < 0.95:
            run(c, "select writes()")
            written += 1
        else:
            run(c, "begin read only")
            run(c, "select count(*) from log")
            run(c, "rollback")
    assert primary.query("select count(*) from log") == [(written,)]
    assert proxy.stats["split_replica"] > 200


def test_pgbench_select_only_is_served_by_replicas(cluster, make_proxy):
    primary, replicas = cluster
    as_postgres([PG_BIN / "pgbench", "-i", "-q", "-h", "127.0.0.1", "-p", str(primary.port), "-U", "app",
                 "postgres"], env={**os.environ, "PGPASSWORD": PASSWORD})
    caught_up(primary, replicas)
    proxy = make_proxy()
    for mode in ("simple", "extended", "prepared"):
        before = proxy.stats
        subprocess.run([PG_BIN / "pgbench", "-S", "-n", "-M", mode, "-c", "4", "-t", "300", "-h",
                        "127.0.0.1", "-p", str(proxy.split_port), "-U", "app", "postgres"], check=True,
                       env={**os.environ, "PGPASSWORD": PASSWORD}, capture_output=True)
        after = proxy.stats
        assert after["split_replica"] - before["split_replica"] >= 1200, mode
        assert after["split_primary"] - before["split_primary"] < 40, mode
