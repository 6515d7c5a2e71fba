"""Databases that lead elsewhere, and pools that are kept ready: proxy.databases, min_pool_size, reset
and check queries, against real PostgreSQL servers."""

import time

import psycopg2
import pytest
from proxy_console_test import console, pool, rows
from proxy_support import PASSWORD, Postgres, Proxy, make_template, run, temporary_root, wait_for
from proxy_test import in_thread


@pytest.fixture(scope="module")
def servers():
    with temporary_root() as root:
        template = make_template(root)
        servers = [Postgres(root, name, template).start() for name in "ab"]
        for server in servers:
            server.query("create database shop_live")
            server.query("create user svc password 'svc'")
        yield servers
        for server in servers:
            server.stop("immediate")


@pytest.fixture
def make_proxy(servers):
    proxies = []

    def make(*options, route=True, **kwargs):
        proxy = Proxy("console_admin=app", *options, **kwargs)
        proxies.append(proxy)
        if route:
            proxy.route(servers[0])
        return proxy

    yield make
    for proxy in proxies:
        proxy.close()


@pytest.fixture(params=["session", "transaction"])
def mode(request):
    return f"mode={request.param}"


WHO = "select current_database(), session_user, inet_server_port()"


# ---- Databases -----------------------------------------------------------------------------------

def test_a_name_leads_to_another_database_of_the_cluster(make_proxy, servers, mode):
    proxy = make_proxy(mode, "database=shop;dbname=shop_live", "database=*")
    assert run(proxy.connect(dbname="shop"), WHO) == [("shop_live", "app", servers[0].port)]
    assert run(proxy.connect(dbname="postgres"), WHO) == [("postgres", "app", servers[0].port)]
    assert pool(console(proxy), "shop")["sv_active"] + pool(console(proxy), "shop")["sv_idle"] == 1


def test_a_name_leads_to_a_server_of_its_own_from_every_port_and_without_a_cluster(make_proxy, servers):
    a, b = servers
    proxy = make_proxy("mode=transaction", f"database=other;host=127.0.0.1:{b.port};dbname=postgres",
                       "database=*", route=False)
    for reader in (False, True):
        assert run(proxy.connect(dbname="other", reader=reader), WHO) == [("postgres", "app", b.port)]
    proxy.route(a)
    assert run(proxy.connect(dbname="postgres"), WHO) == [("postgres", "app", a.port)]
    c = proxy.connect(dbname="other")
    run(c, "begin")
    proxy.route(None)  # no primary: the cluster's clients wait, these do not
    assert run(c, WHO) == [("postgres", "app", b.port)]
    run(c, "commit")
    assert run(c, "select 1") == [(1,)]
    row = [d for d in rows(console(proxy), "show databases") if d["name"] == "other"][0]
    assert (row["host"], row["port"], row["database"]) == ("127.0.0.1", b.port, "postgres")


def test_writes_work_on_a_server_of_its_own(make_proxy, servers):
    b = servers[1]
    proxy = make_proxy("mode=transaction", f"database=other;host=127.0.0.1:{b.port};dbname=shop_live")
    c = proxy.connect(dbname="other")
    run(c, "create table if not exists w (i int)")
    run(c, "begin")
    run(c, "insert into w values (1)")
    run(c, "commit")
    assert run(c, "select count(*) from w") == [(1,)]
    run(c, "drop table w")


def test_all_users_share_servers_of_the_forced_user_with_its_own_password(make_proxy, servers):
    proxy = make_proxy("mode=transaction", "database=shop;dbname=shop_live;user=svc;secret=svc",
                       "database=*", users=(f"app:{PASSWORD}", "guest:guest"))
    c, d = proxy.connect(dbname="shop"), proxy.connect(dbname="shop", user="guest", password="guest")
    assert {run(x, WHO)[0][1] for x in (c, d)} == {"svc"}
    assert run(c, "select pg_backend_pid()") == run(d, "select pg_backend_pid()")
    assert pool(console(proxy), "shop", "svc")["cl_active"] == 2
    # The password of the entry is for the entry only.
    with pytest.raises(psycopg2.OperationalError):
        proxy.connect(user="svc", password="svc")


def test_names_without_an_entry_do_not_exist(make_proxy):
    proxy = make_proxy("database=shop;dbname=shop_live")
    with pytest.raises(psycopg2.OperationalError, match='database "postgres" does not exist'):
        proxy.connect()
    a = console(proxy)
    with pytest.raises(psycopg2.Error, match="no such database: postgres"):
        run(a, "pause postgres")


def test_hosts_take_turns_and_one_that_is_down_is_passed_over(make_proxy, servers):
    a, b = servers
    both = f"database=other;host=127.0.0.1:{a.port}|127.0.0.1:{b.port};dbname=postgres"
    proxy = make_proxy("mode=session", both)
    ports = {run(c, WHO)[0][2] for c in [proxy.connect(dbname="other") for _ in range(4)]}
    assert ports == {a.port, b.port}
    down = f"database=other;first=1;host=127.0.0.1:1|127.0.0.1:{b.port};dbname=postgres"
    proxy = make_proxy("mode=session", down)
    began = time.monotonic()
    for c in [proxy.connect(dbname="other") for _ in range(4)]:
        assert run(c, WHO)[0][2] == b.port
    assert time.monotonic() - began < 15  # of 30 that a client would wait


def test_connect_query_and_settings_come_before_the_first_client(make_proxy, servers, mode):
    proxy = make_proxy(mode, "database=*;connect_query=set work_mem to '7MB';app=from_entry")
    c = proxy.connect()
    assert run(c, "show work_mem") == [("7MB",)]
    assert run(c, "show application_name") == [("from_entry",)]
    assert run(proxy.connect(application_name="own"), "show application_name") == [("own",)]


def test_a_connect_query_that_fails_is_told(make_proxy):
    proxy = make_proxy("hold_ms=500", "database=*;connect_query=select nonsense")
    with pytest.raises(psycopg2.OperationalError, match="connect_query: column .nonsense. does not"):
        proxy.connect()


def test_mode_and_size_of_an_entry_count(make_proxy):
    proxy = make_proxy("mode=session", "hold_ms=300", "database=shop;dbname=shop_live;mode=transaction;pool=1",
                       "database=*")
    c, d = proxy.connect(dbname="shop"), proxy.connect(dbname="shop")
    assert run(c, "select pg_backend_pid()") == run(d, "select pg_backend_pid()")
    run(c, "begin")
    with pytest.raises(psycopg2.Error, match='all 1 server connections of pool "app"/"shop" are in use; '
                                             'here "app" has 1'):
        run(d, "select 1")


# ---- Upkeep --------------------------------------------------------------------------------------

def test_servers_are_opened_ahead_and_stay(make_proxy, servers):
    proxy = make_proxy("mode=transaction", "workers=2", "min_pool=4", "server_idle_ms=1000")
    c = proxy.connect()
    wait_for(lambda: proxy.stats["servers_idle"] >= 4, what="minimum")
    time.sleep(2)  # nothing to wait for: they must not go, nor become more
    assert 4 <= proxy.stats["servers"] <= 5
    c.close()
    wait_for(lambda: proxy.stats["servers"] == 0, what="end of what nobody needs")


def test_set_changes_sizes_while_clients_wait(make_proxy):
    proxy = make_proxy("mode=transaction", "workers=2", "pool_each=1")
    a, c, d = console(proxy), proxy.connect(), proxy.connect()
    run(c, "begin")
    waiting = in_thread(lambda: run(d, "select 1"))
    wait_for(lambda: proxy.stats["held"] == 1, what="waiter")
    run(a, "set default_pool_size = 2")
    assert waiting() == [(1,)]
    run(a, "set min_pool_size = 5")
    run(a, "set default_pool_size = 10")
    wait_for(lambda: proxy.stats["servers"] >= 5, what="minimum")


def test_pool_size_can_grow_while_clients_wait(make_proxy):
    proxy = make_proxy("mode=transaction", "workers=2", "pool=1")
    a, c, d = console(proxy), proxy.connect(), proxy.connect()
    run(c, "begin")
    waiting = in_thread(lambda: run(d, "select 1"))
    wait_for(lambda: proxy.stats["held"] == 1, what="waiter")
    run(a, "set pool_size = 2")
    assert waiting() == [(1,)]


def test_idle_servers_are_checked_and_a_broken_one_goes(make_proxy, servers):
    proxy = make_proxy("mode=transaction", "check=select count(*) from checked", "check_ms=200")
    c = proxy.connect()
    servers[0].query("create table checked (i int)")
    first = run(c, "select pg_backend_pid()")
    time.sleep(1)  # some checks
    assert run(c, "select pg_backend_pid()") == first
    servers[0].query("drop table checked")
    wait_for(lambda: proxy.stats["servers"] == 0, what="end of a server that failed its check")
    assert run(c, "select 1") == [(1,)]


def test_a_server_is_checked_before_a_client_gets_it(make_proxy, servers):
    servers[0].query("create table asked (i int); create function ask() returns bigint language sql as "
                     "'insert into asked values (pg_backend_pid()) returning 1'")
    proxy = make_proxy("mode=transaction", "pool=3", "check=select ask()", "check_ms=0")
    c = proxy.connect()
    first = run(c, "select pg_backend_pid()")
    asked = lambda: servers[0].query("select count(*) from asked")[0][0]
    before = asked()
    for _ in range(5):
        assert run(c, "select pg_backend_pid()") == first
    assert asked() >= before + 4
    # One that fails goes, and the client gets another without a word.
    servers[0].query("create or replace function ask() returns bigint language sql as 'select 1 / 0'")
    assert run(c, "select pg_backend_pid()") != first
    servers[0].query("drop table asked; drop function ask()")


def test_what_was_used_a_moment_ago_is_not_checked(make_proxy, servers):
    servers[0].query("create sequence checks")
    proxy = make_proxy("mode=transaction", "check=select nextval('checks')", "check_ms=60000")
    c = proxy.connect()
    for _ in range(20):
        run(c, "select 1")
    assert servers[0].query("select is_called from checks") == [(False,)]
    servers[0].query("drop sequence checks")


def test_reset_query_of_session_pools_runs_instead_of_discard(make_proxy, servers):
    proxy = make_proxy("mode=session", "pool=1", "reset=select set_config('work_mem', '11MB', false)")
    c = proxy.connect()
    run(c, "set statement_timeout = '77s'")
    pid = run(c, "select pg_backend_pid()")
    c.close()
    d = proxy.connect()
    assert run(d, "select pg_backend_pid()") == pid
    assert run(d, "show work_mem") == [("11MB",)]


def test_reset_always_clears_what_a_function_left_behind(make_proxy, servers):
    # A function, not DO: what is in sight keeps its server.
    hide = ("create or replace function hide() returns void language plpgsql as "
            "$$ begin perform set_config('my.hidden', 'x', false); end $$")
    for option, expected in (("mode=transaction", "x"), ("reset_always=1", "")):
        proxy = make_proxy("mode=transaction", "pool=1", option)
        c, d = proxy.connect(), proxy.connect()
        run(c, hide)
        run(c, "select hide()")
        assert (run(d, "select current_setting('my.hidden', true)")[0][0] or "") == expected
        assert run(c, "select 1") == [(1,)]
