"""The admin console against a real PostgreSQL: what psql, psycopg2 and scripts written for PgBouncer
read, and what its orders do to clients that are at work."""

import os
import signal
import subprocess
import threading
import time

import psycopg2
import proxy_wire as pw
import pytest
from proxy_support import PASSWORD, PG_BIN, Proxy, one_postgres, proxies, run, wait_for
from proxy_test import in_thread

# Of PgBouncer 1.25, in its order; ours may follow behind.
COLUMNS = {
    "pools": "database user cl_active cl_waiting cl_active_cancel_req cl_waiting_cancel_req sv_active "
             "sv_active_cancel sv_being_canceled sv_idle sv_used sv_tested sv_login maxwait maxwait_us "
             "pool_mode load_balance_hosts",
    "clients": "type user database replication state addr port local_addr local_port connect_time "
               "request_time wait wait_us close_needed ptr link remote_pid tls application_name "
               "prepared_statements id",
    "databases": "name host port database force_user pool_size min_pool_size reserve_pool_size "
                 "server_lifetime pool_mode load_balance_hosts max_connections current_connections "
                 "max_client_connections current_client_connections paused disabled",
    "users": "name pool_size reserve_pool_size pool_mode max_user_connections current_connections "
             "max_user_client_connections current_client_connections",
    "stats": "database total_server_assignment_count total_xact_count total_query_count total_received "
             "total_sent total_xact_time total_query_time total_wait_time total_client_parse_count "
             "total_server_parse_count total_bind_count total_client_login_count "
             "avg_server_assignment_count avg_xact_count avg_query_count avg_recv avg_sent avg_xact_time "
             "avg_query_time avg_wait_time avg_client_parse_count avg_server_parse_count avg_bind_count "
             "avg_client_login_count",
    "stats_totals": "database server_assignment_count xact_count query_count bytes_received bytes_sent "
                    "xact_time query_time wait_time client_parse_count server_parse_count bind_count "
                    "client_login_count",
    "stats_averages": "database server_assignment_count xact_count query_count bytes_received bytes_sent "
                      "xact_time query_time wait_time avg_client_parse_count avg_server_parse_count "
                      "avg_bind_count avg_client_login_count",
    "totals": "name value",
    "lists": "list items",
    "config": "key value default changeable",
    "mem": "name size used free memtotal",
    "dns_hosts": "hostname ttl addrs",
    "dns_zones": "zonename serial count",
    "version": "version",
    "state": "key value",
    "peers": "peer_id host port pool_size",
    "peer_pools": "peer_id cl_active_cancel_req cl_waiting_cancel_req sv_active_cancel sv_login",
}
COLUMNS["servers"] = COLUMNS["sockets"] = COLUMNS["active_sockets"] = COLUMNS["clients"]


@pytest.fixture(scope="module")
def server():
    with one_postgres("create table t (id int primary key, note text)", "create database other",
                      "create user watcher password 'w'") as server:
        yield server


@pytest.fixture
def make_proxy(server):
    server.query("truncate t")
    with proxies(server, "console_admin=app", "console_stats=watcher",
                 users=(f"app:{PASSWORD}", "watcher:w")) as make:
        yield make


@pytest.fixture(params=["session", "transaction"])
def proxy(request, make_proxy):
    return make_proxy(f"mode={request.param}", "workers=2")


@pytest.fixture
def pooled(make_proxy):
    return make_proxy("mode=transaction", "workers=2")


def console(proxy, dbname="pgbouncer", **kwargs):
    return proxy.connect(dbname=dbname, **kwargs)


def rows(connection, command):
    """As dictionaries."""
    with connection.cursor() as cursor:
        cursor.execute(command)
        return [dict(zip([d.name for d in cursor.description], row)) for row in cursor.fetchall()]


def pool(connection, database="postgres", user="app"):
    found = [p for p in rows(connection, "show pools") if (p["database"], p["user"]) == (database, user)]
    return found[0] if found else None


def psql(proxy, command, database="pgbouncer", user="app", password=PASSWORD):
    return subprocess.run(
        [PG_BIN / "psql", "-XAt", "-h", "127.0.0.1", "-p", str(proxy.port), "-U", user, "-d", database,
         "-c", command], env=os.environ | {"PGPASSWORD": password}, capture_output=True, text=True,
        timeout=20)


# ---- Reading -------------------------------------------------------------------------------------

@pytest.mark.parametrize("what", sorted(COLUMNS))
def test_columns_are_those_of_pgbouncer_in_its_order(pooled, what):
    c = pooled.connect()
    run(c, "select 1")
    with console(pooled).cursor() as cursor:
        cursor.execute(f"SHOW {what.upper()};")
        names = [d.name for d in cursor.description]
        expected = COLUMNS[what].split()
        assert names[:len(expected)] == expected


def test_psql_reads_it_under_both_names(pooled):
    for database in ("pgbouncer", "bascule"):
        done = psql(pooled, "show version", database)
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith("PgBouncer 1.25")
    done = psql(pooled, "show help")
    assert "Console usage" in done.stderr and "KILL_CLIENT" in done.stderr
    assert psql(pooled, "show pols").stderr.strip().endswith(
        "invalid command 'show pols', use SHOW HELP;")


def test_pools_are_summed_over_the_workers(pooled):
    clients = [pooled.connect() for _ in range(12)]
    for c in clients:
        run(c, "begin")
    run(clients[0], "commit")
    a = console(pooled)
    found = pool(a)
    assert (found["cl_active"], found["cl_waiting"]) == (12, 0)
    assert (found["sv_active"], found["sv_active"] + found["sv_idle"]) == (11, 12)
    assert found["pool_mode"] == "transaction"
    assert len(rows(a, "show clients")) == 13
    assert {c["state"] for c in rows(a, "show clients") if c["database"] == "postgres"} == {
        "active", "idle"}
    servers = rows(a, "show servers")
    assert len(servers) == 12 and all(s["remote_pid"] > 0 for s in servers)
    linked = [c["link"] for c in rows(a, "show clients") if c["link"]]
    assert len(linked) == 11 and set(linked) <= {s["ptr"] for s in servers}


def test_waiting_clients_show_with_their_time(make_proxy):
    proxy = make_proxy("mode=transaction", "pool=1")
    c, d = proxy.connect(), proxy.connect()
    run(c, "begin")
    waiting = in_thread(lambda: run(d, "select 1"))
    a = console(proxy)
    wait_for(lambda: pool(a)["cl_waiting"] == 1, what="waiter")
    wait_for(lambda: pool(a)["maxwait_us"] + pool(a)["maxwait"] > 0, what="time")
    run(c, "commit")
    waiting()
    assert pool(a)["cl_waiting"] == 0


def test_pinned_sessions_are_counted_with_their_reason(pooled):
    c = pooled.connect(application_name="pinner")
    run(c, "create temp table x (i int)")
    a = console(pooled)
    found = pool(a)
    assert found["cl_pinned"] == 1 and "temporary" in found["pinned_by"]
    client = [r for r in rows(a, "show clients") if r["application_name"] == "pinner"][0]
    assert "temporary" in client["pinned"]


def test_stats_count_what_clients_did(pooled):
    c = pooled.connect()
    a = console(pooled)

    def stats():
        found = [s for s in rows(a, "show stats") if s["database"] == "postgres"]
        return found[0] if found else None

    run(c, "select 1")
    before = stats()
    for _ in range(10):
        run(c, "select pg_sleep(0.01), repeat('x', 1000)")
    run(c, "begin")
    run(c, "select 1")
    run(c, "commit")
    after = stats()
    grown = {k: after[k] - before[k] for k in after if k.startswith("total_")}
    assert grown["total_query_count"] == 13
    assert grown["total_xact_count"] == 11
    assert grown["total_server_assignment_count"] == 11
    assert grown["total_sent"] > 10_000 and grown["total_received"] > 300
    assert 100_000 <= grown["total_query_time"] <= grown["total_xact_time"] < 5_000_000
    assert after["avg_query_count"] >= 1
    assert after["total_client_parse_count"] == after["total_bind_count"] == 0
    w, v = pw.connect(pooled.port), pw.connect(pooled.port)
    for client in (w, v):
        client.prepare("p", "select 1")
        for _ in range(3):
            client.call("p")
    after = stats()
    assert after["total_client_parse_count"] == 2 and after["total_bind_count"] == 6
    assert 1 <= after["total_server_parse_count"] <= 2  # of one worker or two
    totals = {r["name"]: r["value"] for r in rows(a, "show totals")}
    assert totals["total_query_count"] == after["total_query_count"]


def test_databases_users_lists_and_configuration(pooled, server):
    c = pooled.connect()
    run(c, "select 1")
    a = console(pooled)
    database = [d for d in rows(a, "show databases") if d["name"] == "postgres"][0]
    assert (database["host"], database["port"]) == ("127.0.0.1", server.port)
    assert database["current_connections"] == 1 and database["paused"] == 0
    assert {u["name"] for u in rows(a, "show users")} >= {"app", "watcher"}
    lists = {r["list"]: r["items"] for r in rows(a, "show lists")}
    assert lists["used_clients"] == 2 and lists["used_servers"] == 1
    config = {r["key"]: r for r in rows(a, "show config")}
    assert config["max_client_conn"]["value"] == "10000"
    assert config["listen_port"]["value"] == str(pooled.port)


@pytest.mark.parametrize("limit, column, message", [
    ("db_clients=2", ("databases", "max_client_connections"), 'too many connections for database "postgres"'),
    ("user_clients=2", ("users", "max_user_client_connections"), 'too many connections for role "app"'),
])
def test_clients_of_a_database_or_user_are_limited(make_proxy, server, limit, column, message):
    proxy = make_proxy("mode=transaction", "workers=2", limit)
    clients = [proxy.connect() for _ in range(2)]
    with pytest.raises(psycopg2.OperationalError, match=message):
        proxy.connect()
    a = console(proxy)
    other = {"dbname": "other"} if "db" in limit else {"user": "watcher", "password": "w"}
    assert run(proxy.connect(**other), "select 1") == [(1,)]
    name = "postgres" if "db" in limit else "app"

    def shown(what):
        return [r[what] for r in rows(a, f"show {column[0]}") if r["name"] == name]
    assert shown(column[1]) == [2]
    clients[0].close()
    wait_for(lambda: shown("current_client_connections") == [1], what="its place is free")
    clients[0] = proxy.connect()
    with pytest.raises(psycopg2.OperationalError, match=message):
        proxy.connect()
    run(a, f"set {'max_db_client_connections' if 'db' in limit else 'max_user_client_connections'} = 0")
    assert run(proxy.connect(), "select 1") == [(1,)]


def test_descriptors_are_listed_without_themselves(pooled):
    c = pooled.connect()
    run(c, "select 1")
    a = console(pooled)
    assert {(r["task"], r["database"]) for r in rows(a, "show fds")} >= {("client", "postgres"), ("server", "postgres")}
    assert all(r["fd"] is None and r["password"] is None for r in rows(a, "show fds"))
    with pytest.raises(psycopg2.errors.InsufficientPrivilege):
        run(console(pooled, user="watcher", password="w"), "show fds")


def test_settings_of_a_session_are_answered_for_drivers(pooled):
    a = console(pooled)
    assert run(a, "show client_encoding") == [("UTF8",)]
    a.set_client_encoding("UTF8")
    run(a, "set datestyle to 'ISO'")


# ---- Rights --------------------------------------------------------------------------------------

def test_who_may_look_may_not_order_and_others_may_not_come_in(pooled, server):
    watcher = console(pooled, user="watcher", password="w")
    assert rows(watcher, "show pools")
    for command in ("pause", "kill", "reload", "shutdown", "set query_timeout = 1", "kill_client 1"):
        with pytest.raises(psycopg2.errors.InsufficientPrivilege, match="admin access needed"):
            run(watcher, command)
    proxy = Proxy("console_admin=nobody", users=(f"app:{PASSWORD}",))
    try:
        proxy.route(server)
        with pytest.raises(psycopg2.OperationalError, match="not allowed"):
            console(proxy)
        with pytest.raises(psycopg2.OperationalError, match="authentication failed"):
            console(proxy, password="wrong")
    finally:
        proxy.close()


def test_without_users_for_it_the_names_are_ordinary_databases(server):
    proxy = Proxy()
    try:
        proxy.route(server)
        with pytest.raises(psycopg2.OperationalError, match='database "bascule" does not exist'):
            console(proxy, "bascule")
    finally:
        proxy.close()


def test_console_is_let_in_when_the_proxy_is_full(make_proxy):
    proxy = make_proxy("clients=1")
    c = proxy.connect()
    assert run(c, "select 1") == [(1,)]
    with pytest.raises(psycopg2.OperationalError, match="too many clients"):
        proxy.connect()
    assert pool(console(proxy))["cl_active"] == 1


# ---- PAUSE, RESUME, SUSPEND ----------------------------------------------------------------------

class Load:
    """Clients that insert numbers, each in a transaction of its own, until they are told to stop."""

    def __init__(self, proxy, clients=6):
        self.done, self.errors, self.stopped = [], [], False
        self.threads = [threading.Thread(target=self.work, args=(proxy.connect(), i, clients))
                        for i in range(clients)]
        for t in self.threads:
            t.start()

    def work(self, c, number, step):
        try:
            while not self.stopped:
                run(c, "begin")
                run(c, "insert into t values (%s, 'x')", (number,))
                run(c, "commit")
                self.done.append(number)
                number += step
            c.close()
        except psycopg2.Error as error:
            self.errors.append(error)

    def stop(self):
        self.stopped = True
        for t in self.threads:
            t.join(20)


def test_pause_under_load_loses_nothing_and_resume_goes_on(proxy, server):
    load = Load(proxy)
    a = console(proxy)
    for _ in range(3):
        wait_for(lambda n=len(load.done): len(load.done) > n + 20, what="work")
        run(a, "pause")
        assert rows(a, "show servers") == []
        wait_for(lambda: server.query("select count(*) from pg_stat_activity where usename = 'app' and "
                                      "backend_type = 'client backend' and pid <> pg_backend_pid()") == [(0,)], what="end of backends")
        before = len(load.done)
        wait_for(lambda: pool(a)["cl_waiting"] == 6, what="waiting clients")
        assert len(load.done) == before
        run(a, "resume")
    wait_for(lambda n=len(load.done): len(load.done) > n + 20, what="work")
    load.stop()
    assert load.errors == []
    assert {r[0] for r in server.query("select id from t")} == set(load.done)


def test_pause_waits_for_transactions_and_of_one_database_leaves_others_alone(pooled):
    c, other = pooled.connect(), pooled.connect(dbname="other")
    run(c, "begin")
    a, b = console(pooled), console(pooled)
    paused = in_thread(lambda: run(a, "pause postgres"))
    wait_for(lambda: any(d["name"] == "postgres" and d["paused"] for d in rows(b, "show databases")),
             what="pause")
    assert run(other, "select 1") == [(1,)]
    run(c, "insert into t values (1, 'x')")  # the transaction goes on
    run(c, "commit")
    paused()
    newcomer = in_thread(lambda: run(pooled.connect(), "select count(*) from t"))
    wait_for(lambda: pool(b)["cl_waiting"] == 1, what="newcomer")
    run(b, "resume postgres")
    assert newcomer() == [(1,)]
    with pytest.raises(psycopg2.Error, match="database postgres is not paused"):
        run(b, "resume postgres")
    with pytest.raises(psycopg2.Error, match="not paused/suspended"):
        run(b, "resume")


def test_a_pause_that_is_cancelled_is_taken_back(pooled):
    c = pooled.connect()
    run(c, "begin")
    a = console(pooled)
    paused = in_thread(lambda: run(a, "pause"))
    b = console(pooled)
    wait_for(lambda: ("paused", "yes") in run(b, "show state"), what="pause")
    a.cancel()
    with pytest.raises(psycopg2.errors.QueryCanceled):
        paused()
    assert ("active", "yes") in run(b, "show state")
    run(c, "commit")
    assert run(c, "select 1") == [(1,)]


def test_waiting_for_a_paused_database_ends_with_its_reason(make_proxy):
    proxy = make_proxy("mode=transaction", "hold_ms=300")
    c = proxy.connect()
    run(c, "select 1")
    run(console(proxy), "pause")
    with pytest.raises(psycopg2.Error, match='database "postgres" is paused'):
        run(c, "select 1")


def test_suspend_holds_statements_and_keeps_servers(proxy):
    c = proxy.connect()
    backend = run(c, "select pg_backend_pid()")
    a = console(proxy)
    run(a, "suspend")
    assert ("suspended", "yes") in run(a, "show state")
    waiting = in_thread(lambda: run(c, "select pg_backend_pid()"))
    wait_for(lambda: pool(a)["cl_waiting"] == 1, what="waiter")
    run(a, "resume")
    assert waiting() == backend


# ---- RECONNECT, DISABLE, KILL --------------------------------------------------------------------

def test_reconnect_replaces_servers_once_they_are_free(pooled):
    c, d = pooled.connect(), pooled.connect()
    run(c, "begin")
    busy = run(c, "select pg_backend_pid()")
    idle = run(d, "select pg_backend_pid()")
    a = console(pooled)
    run(a, "reconnect")
    assert run(d, "select pg_backend_pid()") != idle
    closing = in_thread(lambda: run(a, "wait_close"))
    b = console(pooled)
    assert [s["close_needed"] for s in rows(b, "show servers") if s["remote_pid"] == busy[0][0]] == [1]
    assert run(c, "select pg_backend_pid()") == busy
    run(c, "commit")
    closing()
    assert busy[0][0] not in [s["remote_pid"] for s in rows(b, "show servers")]


def test_disabled_databases_refuse_newcomers_only(pooled):
    c = pooled.connect()
    a = console(pooled)
    run(a, "disable postgres")
    with pytest.raises(psycopg2.OperationalError, match='database "postgres" is disabled'):
        pooled.connect()
    assert run(c, "select 1") == [(1,)]
    run(a, "enable postgres")
    assert run(pooled.connect(), "select 1") == [(1,)]


def test_kill_drops_everybody_of_a_database_until_resume(proxy):
    c, other = pw.connect(proxy.port), proxy.connect(dbname="other")
    c.send(pw.query("begin"))
    run(other, "select 1")
    a = console(proxy)
    wait_for(lambda: pool(a)["sv_active"] == 1, what="transaction")
    run(a, "kill postgres")
    assert b"C57P01" in last_words(c)
    assert run(other, "select 1") == [(1,)]
    newcomer = in_thread(lambda: run(proxy.connect(), "select 1"))
    wait_for(lambda: pool(a)["cl_waiting"] == 1, what="newcomer")
    run(a, "resume postgres")
    assert newcomer() == [(1,)]


def test_kill_client_ends_one_with_its_statement(proxy, server):
    d, c = proxy.connect(application_name="survivor"), pw.connect(proxy.port)
    c.send(pw.query("select pg_sleep(30)"))
    a = console(proxy)

    def victims():
        return [r["id"] for r in rows(a, "show clients") if r["database"] == "postgres" and
                r["state"] == "active" and r["application_name"] != "survivor"]

    wait_for(victims, what="statement")
    victim = victims()[0]
    run(a, f"kill_client {victim}")
    assert b"C57P01" in last_words(c)
    wait_for(lambda: server.query("select count(*) from pg_stat_activity where query like "
                                  "'select pg_sleep(3%'") == [(0,)], what="end of the statement")
    assert run(d, "select 1") == [(1,)]
    with pytest.raises(psycopg2.Error, match="client not found"):
        run(a, f"kill_client {victim}")
    run(proxy.connect(), "select 1")  # perhaps in the same place, but with another number
    with pytest.raises(psycopg2.Error, match="client not found"):
        run(a, f"kill_client {victim}")


# ---- SET, RELOAD, SHUTDOWN -----------------------------------------------------------------------

def test_set_changes_a_time_out_for_all_workers(pooled):
    a = console(pooled)
    with a.cursor() as cursor:
        cursor.execute("set query_wait_timeout = 0.2")
        assert cursor.statusmessage == "SET query_wait_timeout=0.2"
    assert [r["value"] for r in rows(a, "show config") if r["key"] == "query_wait_timeout"] == ["0.2"]
    run(a, "pause postgres")
    for _ in range(4):
        with pytest.raises(psycopg2.Error, match=r"waited 0\.[23] s"):
            run(pooled.connect(), "select 1")
    for command, why in (("set nonsense = 1", "unknown setting"), ("set query_timeout = x", "expected seconds"),
                         ("set workers = 3", "can't be changed")):
        with pytest.raises(psycopg2.Error, match=why):
            run(a, command)


def test_reload_changes_users_and_drops_nobody(make_proxy, tmp_path):
    access = tmp_path / "access"
    lines = f"user=app:{PASSWORD}\nconsole_admin=app\n"
    access.write_text(lines)
    proxy = make_proxy("mode=transaction", f"access={access}", users=())
    c, a = proxy.connect(), console(proxy)
    run(c, "begin")
    with pytest.raises(psycopg2.OperationalError):
        proxy.connect(user="watcher", password="w")
    access.write_text(lines + "user=watcher:w\n")
    run(a, "reload")
    assert run(proxy.connect(user="watcher", password="w"), "select 1") == [(1,)]
    assert run(c, "select 1") == [(1,)]
    access.write_text(lines + "hba=/nonexistent/rules\nproxy_from=nonsense\n")
    with pytest.raises(psycopg2.Error, match="nonsense"):
        run(a, "reload")
    assert run(proxy.connect(user="watcher", password="w"), "select 1") == [(1,)]


def test_shutdown_ends_the_process(pooled):
    a = console(pooled)
    with pytest.raises(psycopg2.OperationalError):
        run(a, "shutdown")
    assert pooled.process.wait(10) == -signal.SIGTERM


def test_shutdown_waits_for_clients_and_takes_no_new_ones(pooled):
    c, a = pooled.connect(), console(pooled)
    run(a, "shutdown wait_for_clients")
    wait_for(lambda: refused(pooled), what="closed port")
    time.sleep(0.2)  # nothing to wait for: it must not end
    assert run(c, "select 1") == [(1,)]
    with pytest.raises(psycopg2.Error, match="shutting down"):
        run(a, "resume")
    c.close()
    assert pooled.process.wait(10) == -signal.SIGTERM


def test_shutdown_waits_for_servers_only(pooled):
    c, a = pooled.connect(), console(pooled)
    run(c, "begin")
    run(a, "shutdown wait_for_servers")
    run(c, "insert into t values (1, 'x')")
    run(c, "commit")
    assert pooled.process.wait(10) == -signal.SIGTERM


def last_words(c):
    """The payload of the last message before the end."""
    payload = b""
    try:
        while True:
            payload = c.receive()[1]
    except pw.wire.Closed:
        return payload


def refused(proxy):
    try:
        proxy.connect().close()
    except psycopg2.OperationalError:
        return True
    return False


# ---- Two workers, one server connection ----------------------------------------------------------

def on_both_workers(proxy, count=2):
    """`count` clients of each worker, in turns; their number is their application_name."""
    a, found, i = console(proxy), {0: [], 1: []}, 0
    while min(map(len, found.values())) < count:
        c = proxy.connect(application_name=f"n{i}")
        worker = [r["worker"] for r in rows(a, "show clients") if r["application_name"] == f"n{i}"][0]
        found[worker].append(c)
        i += 1
    return [c for pair in zip(found[0], found[1]) for c in pair]


@pytest.mark.parametrize("mode", ["session", "transaction"])
def test_a_server_idle_at_one_worker_serves_the_client_of_another(make_proxy, mode):
    proxy = make_proxy(f"mode={mode}", "workers=2", "pool=1")
    clients = on_both_workers(proxy, 1)
    for _ in range(5):
        for c in clients:
            if mode == "session":
                # Its server is free when it has left only.
                c = proxy.connect()
            began = time.monotonic()
            assert run(c, "select 1") == [(1,)]
            assert time.monotonic() - began < 2
            if mode == "session":
                c.close()
    assert proxy.stats["servers"] == 1


def test_clients_of_two_workers_are_served_in_turn(make_proxy, server):
    proxy = make_proxy("mode=transaction", "workers=2", "pool=1")
    first, *others = on_both_workers(proxy, 4)
    run(first, "begin")
    waiting = []
    for i, c in enumerate(others):
        waiting.append(in_thread(lambda c=c, i=i: run(
            c, "insert into t select count(*), %s from t", (i,))))
        wait_for(lambda i=i: proxy.stats["held"] == i + 1, what="waiter")
    run(first, "commit")
    for w in waiting:
        w()
    order = [int(n) for n, in server.query("select note from t order by id")]
    # A place goes to another worker at most every 20 ms: neighbours may change places, nobody starves.
    assert sorted(order) == list(range(len(others)))
    assert max(abs(i - n) for i, n in enumerate(order)) <= 3, order


def test_two_workers_that_compete_for_one_server_both_go_on(make_proxy):
    proxy = make_proxy("mode=transaction", "workers=2", "pool=1")
    clients = on_both_workers(proxy, 3)
    counts, end = [0] * len(clients), time.monotonic() + 3

    def work(i):
        while time.monotonic() < end:
            run(clients[i], "select 1")
            counts[i] += 1

    threads = [threading.Thread(target=work, args=(i,)) for i in range(len(clients))]
    for t in threads:
        t.start()
    for t in threads:
        t.join(30)
    assert min(counts) > max(counts) / 5, counts


# ---- Load and nonsense ---------------------------------------------------------------------------

def test_console_that_leaves_while_it_waits_harms_nothing(pooled):
    c = pooled.connect()
    run(c, "begin")
    a = pw.connect(pooled.port, database="pgbouncer")
    a.send(pw.query("pause"))
    b = console(pooled)
    wait_for(lambda: ("paused", "yes") in run(b, "show state"), what="pause")
    a.socket.close()
    wait_for(lambda: pool(b, "pgbouncer", "pgbouncer")["cl_active"] == 1, what="end of the console")
    run(c, "commit")
    run(b, "resume")
    assert run(c, "select 1") == [(1,)]


def test_many_consoles_at_once_under_load(pooled):
    load = Load(pooled, 4)
    wrong = []

    def look():
        a = console(pooled)
        for _ in range(40):
            for what in ("pools", "clients", "servers", "stats", "databases"):
                if not rows(a, f"show {what}"):
                    wrong.append(what)

    threads = [threading.Thread(target=look) for _ in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join(60)
    load.stop()
    assert load.errors == [] and wrong == []
