"""Who may log in to the proxy: rules, lists, look-ups, methods, PROXY headers, unix sockets."""

import os
import socket
import struct
import subprocess
import time

import psycopg2
import pytest
from proxy_support import (PASSWORD, PG_BIN, Postgres, Proxy, as_postgres, make_template, run,
                           temporary_root, wait_for)
from proxy_tls_support import (SSL_REQUEST, AccessFile, Authority, TlsPostgres, read_all, startup,
                               tcp, tls_context)

RULES = ("local all all scram-sha-256", "host all all all scram-sha-256")


@pytest.fixture(scope="module")
def root():
    with temporary_root() as path:
        yield path


@pytest.fixture(scope="module")
def ca(root):
    authority = Authority(root)
    authority.issue("proxy", "proxy", "DNS:localhost,IP:127.0.0.1")
    authority.issue("app", "app").issue("person", "Ada Lovelace")
    return authority


@pytest.fixture(scope="module")
def server(root, ca):
    s = TlsPostgres(root, "a", make_template(root), ca)
    s.start()
    s.rules("host all lookup all scram-sha-256", "host all md5user all md5",
            "host all plain all password", *RULES)
    s.query("create role lookup login password 'look up'; grant pg_read_all_data to lookup; "
            "create role listed login password 'listed';"
            "create role group_a; create role group_b in role group_a;"
            "create role member login password 'member' in role group_b;"
            "create role \"o'x\\y\" login password 'odd';"
            "create function lookup_user(text) returns table (name text, secret text) "
            "language sql security definer as "
            "$$select usename::text, passwd from pg_catalog.pg_shadow where usename = $1$$;"
            "set password_encryption = md5; create role md5user login password 'm secret'")
    yield s
    s.stop("immediate")


@pytest.fixture
def access(root):
    return AccessFile(root / "access")


@pytest.fixture
def make_proxy(server, access):
    proxies = []

    def make(*options, lines=(), users=(f"app:{PASSWORD}",), **keys):
        option = access.write(*(f"user={u}" for u in users), *lines, **keys)
        proxies.append(Proxy(option, "hold_ms=3000", *options, users=()))
        proxies[-1].route(server)
        return proxies[-1]

    yield make
    for proxy in proxies:
        proxy.close()


def works(proxy, **kwargs):
    c = proxy.connect(**kwargs)
    assert run(c, "select current_user") == [(kwargs.get("user", "app"),)]
    c.close()


def refused(proxy, match, **kwargs):
    with pytest.raises(psycopg2.OperationalError, match=match):
        proxy.connect(**kwargs)


LOOKUP = {"auth_user": "lookup", "auth_query": "select * from lookup_user($1)"}
LOOKUP_USERS = (f"app:{PASSWORD}", "lookup:look up")


# ---- Rules ---------------------------------------------------------------------------------------

def test_first_matching_rule_decides(make_proxy):
    proxy = make_proxy(users=(f"app:{PASSWORD}", "listed:listed"), hba="""
        # comment
        host  postgres  listed  127.0.0.0/8   reject
        host  "postgres",template1 app 127.0.0.1 255.255.255.255 scram-sha-256
        host  sameuser  all     127.0.0.1/32  trust
    """)
    works(proxy)
    refused(proxy, "pg_hba.conf rejects connection for host \"127.0.0.1\", user \"listed\"",
            user="listed", password="listed")
    refused(proxy, "no pg_hba.conf entry for host \"127.0.0.1\", user \"app\", database \"other\", "
                   "no encryption", dbname="other")
    refused(proxy, "password authentication failed", password="wrong")


def test_trust_needs_no_password_from_the_client(make_proxy):
    proxy = make_proxy(hba="host all app samehost trust\n".replace("samehost", "127.0.0.1/32"))
    works(proxy, password="")


def test_encryption_is_part_of_the_rule(make_proxy, ca):
    tls = {"client_tls": "allow", "client_cert": ca.cert("proxy"), "client_key": ca.key("proxy")}
    proxy = make_proxy(hba="hostssl all all all scram-sha-256\n", **tls)
    works(proxy, sslmode="require")
    refused(proxy, "no encryption", sslmode="disable")
    proxy = make_proxy(hba="hostnossl all all all scram-sha-256\n", **tls)
    works(proxy, sslmode="disable")
    refused(proxy, "SSL encryption", sslmode="require")


def test_members_of_a_role_are_looked_up(make_proxy):
    proxy = make_proxy(users=LOOKUP_USERS, hba="host all +group_a all scram-sha-256\n", **LOOKUP)
    works(proxy, user="member", password="member")
    refused(proxy, "no pg_hba.conf entry", user="listed", password="listed")
    refused(proxy, "no pg_hba.conf entry")  # a superuser is not a member of everything


def test_reload_changes_rules_for_who_comes_later(make_proxy, access):
    proxy = make_proxy("workers=2")
    c = proxy.connect()
    access.write(f"user=app:{PASSWORD}", hba="host all all all reject\n")
    assert proxy.command(f"reload {access.path}") == "ok"

    def rejected():
        try:
            proxy.connect().close()
        except psycopg2.OperationalError as error:
            return "rejects connection" in str(error)
        return False

    wait_for(lambda: all(rejected() for _ in range(6)), what="new rules")
    assert run(c, "select 1") == [(1,)]
    access.write(f"user=app:{PASSWORD}", hba="host all all all gss\nhost nonsense\n")
    answer = proxy.command(f"reload {access.path}")
    assert "access.hba:1: method gss is not offered" in answer


# ---- Methods -------------------------------------------------------------------------------------

def test_md5_between_client_and_proxy_and_proxy_and_server(make_proxy, server):
    secret = server.query("select rolpassword from pg_authid where rolname = 'md5user'")[0][0]
    assert secret.startswith("md5")
    proxy = make_proxy(users=(f"md5user:{secret}", f"app:{PASSWORD}"), auth_type="md5")
    works(proxy, user="md5user", password="m secret")
    refused(proxy, "password authentication failed", user="md5user", password="wrong")
    refused(proxy, "password authentication failed", user="nobody", password="wrong")
    works(proxy)  # a password in the list serves md5 as well
    strict = make_proxy(users=(f"md5user:{secret}",))
    refused(strict, "password authentication failed", user="md5user", password="m secret")


def test_md5_with_a_scram_verifier_is_scram(make_proxy, server):
    proxy = make_proxy(users=(f"app:{server.verifier()}",), auth_type="md5")
    works(proxy)


def test_password_in_clear_needs_tls_unless_allowed(make_proxy, server, ca):
    tls = {"client_tls": "allow", "client_cert": ca.cert("proxy"), "client_key": ca.key("proxy")}
    users = (f"app:{server.verifier()}",)
    proxy = make_proxy(users=users, auth_type="password", **tls)
    refused(proxy, "over TLS only", sslmode="disable")
    # The password that was given logs in to the server: the list has a verifier only.
    works(proxy, sslmode="require")
    refused(proxy, "password authentication failed", sslmode="require", password="wrong")
    refused(proxy, "password authentication failed", sslmode="require", user="nobody")
    works(make_proxy(users=users, auth_type="password", password_in_clear="1"))


def test_certificate_is_the_user_or_is_mapped_to_it(make_proxy, ca):
    def given(name):
        return {"sslmode": "require", "sslcert": str(ca.cert(name)), "sslkey": str(ca.key(name)),
                "password": ""}

    tls = {"client_tls": "allow", "client_cert": ca.cert("proxy"), "client_key": ca.key("proxy"),
           "client_ca": ca.ca}
    proxy = make_proxy(hba="hostssl all all all cert\n", **tls)
    works(proxy, **given("app"))
    refused(proxy, "certificate authentication failed for user \"app\"", **given("person"))
    refused(proxy, "valid client certificate", sslmode="require", sslcert="/nonexistent")
    proxy = make_proxy(hba="hostssl all all all cert map=people clientname=DN\n",
                       ident='people "CN=Ada Lovelace,O=Example" app\n', **tls)
    works(proxy, **given("person"))
    refused(proxy, "certificate authentication failed", **given("app"))
    proxy = make_proxy(hba="hostssl all all all scram-sha-256 clientcert=verify-full\n", **tls)
    works(proxy, **(given("app") | {"password": PASSWORD}))
    refused(proxy, "valid client certificate", sslmode="require", sslcert="/nonexistent")


def test_peer_over_a_unix_socket(make_proxy, root):
    sockets = root / "sockets"
    sockets.mkdir(exist_ok=True)
    os.chmod(sockets, 0o777)
    proxy = make_proxy(f"socket_dir={sockets}", "workers=3", users=(f"app:{PASSWORD}",
                                                                   "listed:listed"),
                       hba="local all app peer map=os\nlocal all all scram-sha-256\n",
                       ident="os postgres app\nos /^ro(.*)$ no\\1\n")
    command = ["psql", "-h", sockets, "-p", proxy.port, "-U", "app", "-d", "postgres", "-Atwc",
               "select 'in'"]
    command = [str(word) for word in command]
    as_postgres = subprocess.run(["runuser", "-u", "postgres", "--", *command],
                                 capture_output=True, text=True, timeout=20)
    assert as_postgres.stdout == "in\n", as_postgres.stderr
    as_root = subprocess.run(command, capture_output=True, text=True, timeout=20)
    assert "Peer authentication failed" in as_root.stderr
    for _ in range(10):  # whichever worker takes it
        c = psycopg2.connect(host=str(sockets), port=proxy.port, user="listed", password="listed",
                             dbname="postgres")
        assert run(c, "select current_user") == [("listed",)]
        c.close()


# ---- Look-ups ------------------------------------------------------------------------------------

def test_users_are_looked_up_in_the_cluster(make_proxy):
    proxy = make_proxy("workers=2", users=LOOKUP_USERS, **LOOKUP)
    for _ in range(4):
        works(proxy, user="listed", password="listed")
        works(proxy, user="o'x\\y", password="odd")
    refused(proxy, "password authentication failed", user="listed", password="wrong")
    refused(proxy, "password authentication failed", user="nobody", password="x")
    refused(proxy, "password authentication failed", user="' or true --", password="x")
    works(proxy)


def test_changed_password_counts_after_a_refusal_or_the_time_to_live(make_proxy, server):
    server.query("drop role if exists changing; create role changing login password 'one'")
    proxy = make_proxy(users=LOOKUP_USERS, **LOOKUP)
    works(proxy, user="changing", password="one")
    server.query("alter role changing password 'two'")
    time.sleep(1.1)  # what was remembered a moment ago is not doubted
    refused(proxy, "password authentication failed", user="changing", password="two")
    works(proxy, user="changing", password="two")


def test_log_in_waits_for_a_server_to_ask_and_says_so(make_proxy, server):
    proxy = make_proxy("auth_ms=700", users=LOOKUP_USERS, **LOOKUP)
    proxy.route(None)
    refused(proxy, "can't be looked up now: the cluster has no server to ask", user="listed",
            password="listed")
    proxy.route(server)
    works(proxy, user="listed", password="listed")
    broken = make_proxy("auth_ms=700", users=LOOKUP_USERS, auth_user="lookup",
                        auth_query="select 1 from nowhere where $1 = ''")
    refused(broken, 'relation "nowhere" does not exist', user="listed", password="listed")


def test_clients_that_vanish_while_they_are_looked_up_leave_nothing(make_proxy, server):
    proxy = make_proxy(users=LOOKUP_USERS, **LOOKUP)
    proxy.route(None)
    gone = [tcp(proxy) for _ in range(20)]
    for i, s in enumerate(gone):
        s.sendall(startup(user=f"user{i}"))
    wait_for(lambda: proxy.stats["clients"] == 20, what="clients")
    for s in gone:
        s.close()
    wait_for(lambda: proxy.stats["clients"] == 0, what="all gone")
    proxy.route(server)
    works(proxy, user="listed", password="listed")


# ---- PROXY protocol ------------------------------------------------------------------------------

def header_2(address, command=1):
    body = socket.inet_aton(address) + socket.inet_aton("10.9.9.9") + struct.pack("!HH", 1, 2)
    return (b"\r\n\r\n\0\r\nQUIT\n" + bytes([0x20 | command, 0x11]) +
            struct.pack("!H", len(body) + 7) + body + b"\x04\0\x04xxxx")


@pytest.mark.parametrize("header", [b"PROXY TCP4 10.1.2.3 10.9.9.9 1 2\r\n", header_2("10.1.2.3")])
def test_address_of_the_header_is_what_rules_see(make_proxy, header):
    proxy = make_proxy(lines=["proxy_from=127.0.0.0/8"], hba="host all all 10.1.0.0/16 reject\n")
    with tcp(proxy) as s:
        s.sendall(header + startup())
        assert b'rejects connection for host "10.1.2.3"' in read_all(s)
    with tcp(proxy) as s:
        for byte in header + startup():
            s.sendall(bytes([byte]))
        assert b'rejects connection for host "10.1.2.3"' in read_all(s)


def test_header_is_demanded_from_balancers_and_refused_from_others(make_proxy):
    proxy = make_proxy(lines=["proxy_from=127.0.0.0/8"])
    for garbage in (startup(), b"PROXY TCP4 x\r\n", b"\r\n\r\n\0\r\nQUIT\nx" + b"\xff" * 300):
        with tcp(proxy) as s:
            s.sendall(garbage)
            assert read_all(s) == b""
    proxy = make_proxy(lines=["proxy_from=10.0.0.0/8"])
    with tcp(proxy) as s:
        s.sendall(b"PROXY TCP4 10.1.2.3 10.9.9.9 1 2\r\n" + startup())
        assert b"invalid length" in read_all(s)
    works(proxy)


def test_tls_follows_the_header(make_proxy, ca):
    proxy = make_proxy(lines=["proxy_from=127.0.0.1"], client_tls="require",
                       client_cert=ca.cert("proxy"), client_key=ca.key("proxy"))
    for prefix in (SSL_REQUEST, b""):
        with tcp(proxy) as s:
            s.sendall(b"PROXY TCP4 10.1.2.3 10.9.9.9 1 2\r\n" + prefix)
            if prefix:
                assert s.recv(1) == b"S"
            with tls_context().wrap_socket(s) as t:
                t.sendall(startup())
                assert t.recv(1) == b"R"


# ---- Passwords that expire -----------------------------------------------------------------------

def test_fetched_password_is_used_waited_for_and_replaced(make_proxy, server):
    server.query("drop role if exists cloud; create role cloud login password 'token1'")
    proxy = make_proxy("hold_ms=500", users=("cloud:whatever",))
    assert proxy.command("password cloud -") == "ok"
    refused(proxy, "no token yet", user="cloud", password="whatever")
    proxy.command("password cloud token1")
    works(proxy, user="cloud", password="whatever")
    server.query("alter role cloud password 'token2'")
    server.query("select pg_terminate_backend(pid) from pg_stat_activity where usename = 'cloud'")
    wait_for(lambda: proxy.stats["servers"] == 0, what="server lost")
    proxy.command("password cloud token2")
    works(proxy, user="cloud", password="whatever")


# ---- Bounds --------------------------------------------------------------------------------------

def test_one_address_can_not_take_all_places_with_log_ins(make_proxy):
    proxy = make_proxy("per_address=3")
    kept = proxy.connect()
    silent = [tcp(proxy) for _ in range(3)]
    wait_for(lambda: proxy.stats["clients"] == 4, what="clients")
    with tcp(proxy) as s:
        assert read_all(s) == b""
    assert run(kept, "select 1") == [(1,)]  # logged in: does not count
    silent.pop().close()
    wait_for(lambda: proxy.stats["clients"] == 3, what="one gone")
    works(proxy)


def test_hostile_bytes_at_each_step_leave_nothing(make_proxy):
    """Cut off, garbage and replies of a wrong kind, each at every step of the log-in."""
    proxy = make_proxy("auth_ms=1000")

    def until_challenge(s):
        s.sendall(startup())
        return s.recv(4096)

    def message(kind, body):
        return kind + struct.pack("!I", len(body) + 4) + body

    first = message(b"p", b"SCRAM-SHA-256\0" + struct.pack("!I", 24) + b"n,,n=,r=abcdefghijklmnop")
    attacks = [b"", message(b"Q", b"select 1\0"), message(b"p", b"\xff" * 100),
               message(b"p", b"SCRAM-SHA-1\0\0\0\0\0"), b"p\xff\xff\xff\xff", b"p\0\0\0\0",
               message(b"p", b"x" * 70_000), message(b"X", b""), first + first,
               first + message(b"p", b"c=biws,r=x,p=AAAA")]
    for attack in attacks:
        for cut in (len(attack), len(attack) // 2):
            with tcp(proxy) as s:
                assert until_challenge(s)[:1] == b"R"
                s.sendall(attack[:cut])
            with tcp(proxy) as s:
                until_challenge(s)
                s.sendall(attack[:cut])
                s.shutdown(socket.SHUT_WR)
                answer = read_all(s)
                assert answer[:1] in (b"", b"E", b"R"), answer
                assert b"SELECT" not in answer
    wait_for(lambda: proxy.stats["clients"] == 0, what="all gone")
    assert proxy.stats["servers_total"] == 0
    works(proxy)


# ---- Unix sockets to servers ---------------------------------------------------------------------

class SocketPostgres(Postgres):
    """Listens on a unix socket only."""

    def start(self, wait=True):
        options = f"-p {self.port} -k {self.root} -c fsync=off -c listen_addresses="
        as_postgres([PG_BIN / "pg_ctl", "-D", self.data, "-w", "-l", self.data / "log", "-o",
                     options, "start"])
        return self

    def route(self):
        return f"{self.name}@{self.root}:{self.port}"


def test_server_behind_a_unix_socket(make_proxy, root):
    s = SocketPostgres(root, "socket", root / "template").start()
    try:
        proxy = make_proxy(server_tls="verify-full", server_ca=root / "ca" / "ca.pem")
        proxy.route(s)
        c = proxy.connect()
        assert run(c, "select inet_server_addr() is null") == [(True,)]
    finally:
        s.stop("immediate")
