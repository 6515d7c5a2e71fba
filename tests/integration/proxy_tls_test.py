"""TLS of the proxy to clients and to servers, with libpq, openssl's library and PostgreSQL."""

import ssl
import time

import psycopg2
import pytest
from proxy_support import PASSWORD, Proxy, make_template, run, temporary_root, wait_for
from proxy_tls_support import (GSS_REQUEST, SSL_REQUEST, AccessFile, Authority, TlsPostgres,
                               read_all, startup, tcp, tls_context)

SCRAM = ("local all all scram-sha-256", "host all all all scram-sha-256")


@pytest.fixture(scope="module")
def root():
    with temporary_root() as path:
        yield path


@pytest.fixture(scope="module")
def ca(root):
    authority = Authority(root)
    authority.issue("proxy", "proxy", "DNS:localhost,IP:127.0.0.1")
    authority.issue("proxy2", "second", "DNS:localhost")
    authority.issue("app", "app")
    authority.issue("other", "other")
    return authority


@pytest.fixture(scope="module")
def stranger(root):
    return Authority(root, "stranger").issue("app", "app")


@pytest.fixture(scope="module")
def started(root, ca):
    server = TlsPostgres(root, "a", make_template(root), ca)
    server.start()
    yield server
    server.stop("immediate")


@pytest.fixture
def server(started):
    started.rules(*SCRAM)
    return started


@pytest.fixture
def access(root):
    return AccessFile(root / "access")


@pytest.fixture
def make_proxy(server, access, ca):
    proxies = []

    def make(*options, lines=(), **keys):
        if keys.get("client_tls", "disable") != "disable":
            keys = {"client_cert": ca.cert("proxy"), "client_key": ca.key("proxy")} | keys
        option = access.write(f"user=app:{PASSWORD}", *lines, **keys)
        proxies.append(Proxy(option, "hold_ms=3000", *options, users=()))
        proxies[-1].route(server)
        return proxies[-1]

    yield make
    for proxy in proxies:
        proxy.close()


def encrypted(connection):
    """(TLS between client and proxy, TLS between proxy and server)."""
    here = connection.info.ssl_in_use
    return here, run(connection, "select ssl from pg_stat_ssl where pid = pg_backend_pid()")[0][0]


# ---- Clients -------------------------------------------------------------------------------------

def test_client_chooses_unless_tls_is_demanded(make_proxy, ca):
    proxy = make_proxy(client_tls="allow", server_tls="disable")
    for mode, expected in (("disable", False), ("prefer", True), ("require", True)):
        assert encrypted(proxy.connect(sslmode=mode)) == (expected, False)
    c = proxy.connect(sslmode="verify-full", sslrootcert=str(ca.ca))
    assert c.info.ssl_attribute("protocol") == "TLSv1.3"
    with pytest.raises(psycopg2.OperationalError, match="certificate verify failed"):
        proxy.connect(sslmode="verify-ca", sslrootcert=str(ca.cert("app")))


def test_without_tls_the_request_is_declined(make_proxy):
    proxy = make_proxy()
    assert proxy.connect(sslmode="prefer").info.ssl_in_use is False
    with pytest.raises(psycopg2.OperationalError, match="does not support SSL"):
        proxy.connect(sslmode="require")


def test_clear_text_is_refused_where_tls_is_demanded(make_proxy):
    proxy = make_proxy(client_tls="require")
    with pytest.raises(psycopg2.OperationalError, match="demands TLS"):
        proxy.connect(sslmode="disable")
    assert run(proxy.connect(sslmode="require"), "select 1") == [(1,)]


def test_client_certificates_are_demanded_and_checked(make_proxy, ca, stranger):
    own = {"sslmode": "require", "sslcert": str(ca.cert("app")), "sslkey": str(ca.key("app"))}
    other = own | {"sslcert": str(ca.cert("other")), "sslkey": str(ca.key("other"))}
    foreign = own | {"sslcert": str(stranger.cert("app")), "sslkey": str(stranger.key("app"))}
    proxy = make_proxy(client_tls="verify-ca", client_ca=ca.ca)
    assert run(proxy.connect(**own), "select 1") == [(1,)]
    assert run(proxy.connect(**other), "select 1") == [(1,)]
    with pytest.raises(psycopg2.OperationalError, match="valid client certificate"):
        proxy.connect(sslmode="require", sslcert="/nonexistent")
    with pytest.raises(psycopg2.OperationalError, match="unknown ca|SSL error|closed"):
        proxy.connect(**foreign)
    proxy = make_proxy(client_tls="verify-full", client_ca=ca.ca)
    assert run(proxy.connect(**own), "select 1") == [(1,)]
    with pytest.raises(psycopg2.OperationalError, match="common name"):
        proxy.connect(**other)


def test_scram_is_bound_to_the_channel(make_proxy):
    proxy = make_proxy(client_tls="allow")
    c = proxy.connect(sslmode="require", channel_binding="require")
    assert run(c, "select 1") == [(1,)]
    with pytest.raises(psycopg2.OperationalError, match="channel binding"):
        proxy.connect(sslmode="disable", channel_binding="require")


def test_clear_text_behind_the_request_is_refused(make_proxy):
    proxy = make_proxy(client_tls="allow")
    with tcp(proxy) as s:
        s.sendall(SSL_REQUEST + startup())
        answer = read_all(s)
        assert answer[:1] == b"E" and b"unencrypted data after SSL request" in answer


def test_gss_encryption_is_declined_and_tls_may_follow(make_proxy):
    proxy = make_proxy(client_tls="allow")
    with tcp(proxy) as s:
        s.sendall(GSS_REQUEST)
        assert s.recv(10) == b"N"
        s.sendall(SSL_REQUEST)
        assert s.recv(10) == b"S"
        with tls_context().wrap_socket(s) as t:
            t.sendall(startup())
            assert t.recv(1) == b"R"


def test_direct_tls_needs_the_protocols_name(make_proxy):
    proxy = make_proxy(client_tls="require")
    with tcp(proxy) as s, tls_context().wrap_socket(s) as t:
        assert t.selected_alpn_protocol() == "postgresql"
        t.sendall(startup())
        assert t.recv(1) == b"R"
    with tcp(proxy) as s, tls_context(alpn=()).wrap_socket(s) as t:
        t.sendall(startup())
        assert b"ALPN" in read_all(t)
    with tcp(proxy) as s, pytest.raises(ssl.SSLError):
        tls_context(alpn=("http/1.1",)).wrap_socket(s)


def test_older_tls_is_refused_below_the_minimum(make_proxy):
    proxy = make_proxy(client_tls="require", client_min="1.3")
    with tcp(proxy) as s:
        s.sendall(SSL_REQUEST)
        assert s.recv(1) == b"S"
        with pytest.raises(ssl.SSLError):
            tls_context(maximum_version=ssl.TLSVersion.TLSv1_2).wrap_socket(s)
    proxy = make_proxy(client_tls="require")
    with tcp(proxy) as s:
        s.sendall(SSL_REQUEST)
        assert s.recv(1) == b"S"
        with tls_context(maximum_version=ssl.TLSVersion.TLSv1_2).wrap_socket(s) as t:
            assert t.version() == "TLSv1.2"


def served_certificate(proxy):
    with tcp(proxy) as s:
        s.sendall(SSL_REQUEST)
        assert s.recv(1) == b"S"
        with tls_context().wrap_socket(s) as t:
            return t.getpeercert(binary_form=True)


def test_certificate_is_replaced_without_dropping_anybody(make_proxy, access, ca):
    proxy = make_proxy("workers=2", client_tls="require")
    c = proxy.connect(sslmode="require")
    before = served_certificate(proxy)
    keys = {"client_tls": "require", "client_cert": ca.cert("proxy2"),
            "client_key": ca.key("proxy2")}
    access.write(f"user=app:{PASSWORD}", **keys)
    assert proxy.command(f"reload {access.path}") == "ok"
    wait_for(lambda: all(served_certificate(proxy) != before for _ in range(8)),
             what="new certificate")
    assert run(c, "select 1") == [(1,)]
    access.write(f"user=app:{PASSWORD}", **(keys | {"client_key": ca.key("proxy")}))
    assert "key values mismatch" in proxy.command(f"reload {access.path}")
    assert run(proxy.connect(sslmode="require"), "select 1") == [(1,)]
    assert run(c, "select 1") == [(1,)]


def test_large_rows_and_copy_through_tls_on_both_sides(make_proxy):
    import io
    proxy = make_proxy(client_tls="require", server_tls="require")
    c = proxy.connect(sslmode="require")
    assert encrypted(c) == (True, True)
    text = "x" * 20_000_000
    assert run(c, "select %s || repeat('y', 20000000)", (text,))[0][0] == text + "y" * 20_000_000
    data = "".join(f"{i}\tnote {i}\n" for i in range(50_000))
    run(c, "create temp table t (id int, note text)")
    with c.cursor() as cursor:
        cursor.copy_expert("copy t from stdin", io.StringIO(data))
        out = io.StringIO()
        cursor.copy_expert("copy (select * from t order by id) to stdout", out)
    assert out.getvalue() == data


def test_cancel_reaches_a_server_that_speaks_tls_only(make_proxy, server):
    server.rules("hostssl all all all scram-sha-256")
    proxy = make_proxy(server_tls="require")
    c = proxy.connect()
    import threading
    failure = []

    def sleep():
        try:
            run(c, "select pg_sleep(20)")
        except psycopg2.Error as error:
            failure.append(error)

    thread = threading.Thread(target=sleep)
    thread.start()
    wait_for(lambda: proxy.stats["active"] == 1, what="statement in flight")
    time.sleep(0.05)  # the statement must have reached its execution, which nothing shows
    c.cancel()
    thread.join(10)
    assert isinstance(failure[0], psycopg2.errors.QueryCanceled)


def test_clients_that_vanish_or_stall_in_the_handshake_leave_nothing(make_proxy):
    proxy = make_proxy("auth_ms=500", client_tls="require")
    hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"
    stalled = []
    for cut in (b"", SSL_REQUEST[:3], SSL_REQUEST, SSL_REQUEST + b"", hello):
        s = tcp(proxy)
        s.sendall(cut)
        stalled.append(s)
    half = tcp(proxy)
    half.sendall(SSL_REQUEST)
    assert half.recv(1) == b"S"
    half.sendall(hello)
    stalled.append(half)
    with tcp(proxy) as s:
        s.sendall(SSL_REQUEST)
        assert s.recv(1) == b"S"
        s.sendall(b"GET / HTTP/1.1\r\n\r\n")
        read_all(s)
    gone = tcp(proxy)
    gone.sendall(SSL_REQUEST)
    gone.close()
    assert run(proxy.connect(sslmode="require"), "select 1") == [(1,)]
    for s in stalled:
        read_all(s)
        s.close()
    wait_for(lambda: proxy.stats["clients"] == 0, what="all gone")


def resident_kb(proxy):
    with open(f"/proc/{proxy.process.pid}/status", encoding="ascii") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))


def test_idle_client_with_tls_takes_little_memory(make_proxy):
    proxy = make_proxy("clients=2000", client_tls="require")
    count = 300
    first = [proxy.connect(sslmode="require") for _ in range(50)]
    before = resident_kb(proxy)
    kept = [proxy.connect(sslmode="require") for _ in range(count)]
    used = (resident_kb(proxy) - before) * 1024 / count
    print(f"\n{used:.0f} bytes a client")
    assert used < 20_000, used
    for c in first + kept:
        c.close()


# ---- Servers -------------------------------------------------------------------------------------

@pytest.mark.parametrize("mode, expected", [("disable", False), ("allow", False),
                                            ("prefer", True), ("require", True)])
def test_levels_towards_a_server_that_takes_both(make_proxy, mode, expected):
    proxy = make_proxy(server_tls=mode)
    assert encrypted(proxy.connect()) == (False, expected)


def test_levels_follow_the_servers_rules_where_they_may(make_proxy, server):
    server.rules("hostssl all all all scram-sha-256")
    assert encrypted(make_proxy(server_tls="allow").connect()) == (False, True)
    with pytest.raises(psycopg2.OperationalError, match="no pg_hba.conf entry"):
        make_proxy(server_tls="disable").connect()
    server.rules("hostnossl all all all scram-sha-256")
    assert encrypted(make_proxy(server_tls="prefer").connect()) == (False, False)
    with pytest.raises(psycopg2.OperationalError, match="no pg_hba.conf entry"):
        make_proxy(server_tls="require").connect()


def test_certificate_and_name_of_the_server_are_verified(make_proxy, ca, stranger):
    for mode in ("verify-ca", "verify-full"):
        assert encrypted(make_proxy(server_tls=mode, server_ca=ca.ca).connect()) == (False, True)
        with pytest.raises(psycopg2.OperationalError, match="certificate verify failed"):
            make_proxy(server_tls=mode, server_ca=stranger.ca).connect()


def test_wrong_name_of_the_server_is_refused(make_proxy, server, ca):
    proxy = make_proxy(server_tls="verify-full", server_ca=ca.ca)
    name = server.route().replace("127.0.0.1", "::ffff:127.0.0.1")
    assert proxy.command(f"route epoch=9 primary={name}") == "ok"
    proxy.settle()
    with pytest.raises(psycopg2.OperationalError, match="mismatch"):
        proxy.connect()


def test_server_without_tls_is_refused_where_it_is_demanded(make_proxy, server):
    run_sql = server.query
    run_sql("alter system set ssl = off")
    server.reload()
    try:
        with pytest.raises(psycopg2.OperationalError, match="does not offer TLS"):
            make_proxy(server_tls="require").connect()
        assert encrypted(make_proxy(server_tls="prefer").connect()) == (False, False)
    finally:
        run_sql("alter system reset ssl")
        server.reload()


def test_proxy_proves_itself_to_the_server_by_certificate(make_proxy, server, ca):
    server.rules("hostssl all app all cert")
    proxy = make_proxy(server_tls="require", server_cert=ca.cert("app"), server_key=ca.key("app"))
    assert encrypted(proxy.connect()) == (False, True)
    other = make_proxy(server_tls="require", server_cert=ca.cert("other"),
                       server_key=ca.key("other"))
    with pytest.raises(psycopg2.OperationalError, match="certificate authentication failed"):
        other.connect()


def test_log_in_to_the_server_is_bound_to_the_channel(make_proxy, server):
    # PostgreSQL has no setting that demands it: its log tells what was used.
    log = server.data / "log"
    before = log.stat().st_size
    server.query("alter system set log_connections = on")
    server.reload()
    make_proxy(server_tls="require").connect()
    server.query("alter system reset log_connections")
    server.reload()
    text = log.read_bytes()[before:]
    assert b"SSL enabled" in text and b"scram" in text


def test_md5_and_clear_text_passwords_to_servers(make_proxy, server):
    server.query("set password_encryption = md5; drop role if exists old; "
                 "create role old login password 'm secret'")
    server.rules("host all old all md5", "host all app all scram-sha-256")
    proxy = make_proxy(lines=["user=old:m secret"])
    assert run(proxy.connect(user="old", password="m secret"), "select 1") == [(1,)]
    server.rules("host all old all password", "host all app all scram-sha-256")
    proxy = make_proxy(lines=["user=old:m secret"], server_tls="require")
    assert run(proxy.connect(user="old", password="m secret"), "select 1") == [(1,)]
    proxy = make_proxy(lines=["user=old:m secret"], server_tls="disable")
    with pytest.raises(psycopg2.OperationalError, match="in clear, and there is no TLS"):
        proxy.connect(user="old", password="m secret")
