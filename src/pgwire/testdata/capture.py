#!/usr/bin/env python3
"""Records real exchanges with PostgreSQL 15 into *.txt beside this file; run by hand as root.

Lines: "> hex" client to server, "< hex" server to client, in the order in which a relay between them
saw the bytes; "#" starts a comment. The clients are psql and pgbench (libpq) where they can do
what is wanted, else bytes made here. Everything is deterministic but nonces, salts, pids and times.
"""
import contextlib
import os
import pathlib
import pwd
import socket
import struct
import subprocess
import tempfile
import threading
import time

BIN = "/usr/lib/postgresql/15/bin"
HERE = pathlib.Path(__file__).parent
PASSWORD = "correct horse"


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Server:
    """A throw-away PostgreSQL as user postgres; SCRAM over TCP."""

    def __init__(self, root):
        self.root, self.port = root, free_port()
        data = f"{root}/data"
        pathlib.Path(f"{root}/pw").write_text(PASSWORD)
        os.chmod(f"{root}/pw", 0o644)
        self.run("initdb", "-D", data, "-U", "app", "-A", "scram-sha-256", f"--pwfile={root}/pw",
                 "--no-sync", "-E", "UTF8", "--locale=C")
        with open(f"{data}/postgresql.conf", "a") as f:
            f.write(f"port={self.port}\nlisten_addresses='127.0.0.1'\nunix_socket_directories=''\n"
                    "fsync=off\nwal_level=logical\nlog_min_messages=fatal\n")
        hba = pathlib.Path(f"{data}/pg_hba.conf")
        hba.write_text("host all legacy 127.0.0.1/32 md5\nhost all plain 127.0.0.1/32 password\n"
                       + hba.read_text())
        self.run("pg_ctl", "-D", data, "-w", "-l", f"{root}/log", "start")

    def run(self, program, *args):
        subprocess.run(["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups",
                        f"{BIN}/{program}", *args], check=True, stdout=subprocess.DEVNULL,
                       cwd=self.root)

    def stop(self):
        self.run("pg_ctl", "-D", f"{self.root}/data", "-m", "fast", "-w", "stop")


class Recorder:
    """Listens, relays connections to the server, writes what passes. One file a connection."""

    def __init__(self, server, *names):
        self.server, self.names = server, names
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.done = threading.Thread(target=self.accept)
        self.done.start()

    def accept(self):
        relays = []
        for name in self.names:
            client, _ = self.listener.accept()
            relays.append(threading.Thread(target=self.relay, args=(client, name)))
            relays[-1].start()
        for r in relays:
            r.join()

    def relay(self, client, name):
        import select
        backend = socket.create_connection(("127.0.0.1", self.server.port))
        lines = []
        other = {client: (backend, ">"), backend: (client, "<")}
        while other:
            for s in select.select(list(other), [], [])[0]:
                to, mark = other[s]
                try:
                    chunk = s.recv(65536)
                except ConnectionResetError:
                    chunk = b""
                if not chunk:
                    with contextlib.suppress(OSError):
                        to.shutdown(socket.SHUT_WR)
                    if mark == "<":
                        other.clear()
                        break
                    del other[s]
                    continue
                lines.append(f"{mark} {chunk.hex()}")
                with contextlib.suppress(OSError):
                    to.sendall(chunk)
        client.close()
        backend.close()
        (HERE / f"{name}.txt").write_text("\n".join(lines) + "\n")

    def join(self):
        self.done.join()
        self.listener.close()


def environment(port, user="app", password=PASSWORD):
    return dict(PATH=os.environ["PATH"], PGHOST="127.0.0.1", PGPORT=str(port), PGUSER=user,
                PGPASSWORD=password, PGDATABASE="postgres", PGSSLMODE="disable",
                PGGSSENCMODE="disable", PGAPPNAME="capture", HOME="/nonexistent")


def psql(server, name, *commands, stdin="", **env):
    r = Recorder(server, name)
    args = [f"{BIN}/psql", "-X", "-q", "-At"]
    for c in commands:
        args += ["-c", c]
    subprocess.run(args, input=stdin, text=True, env=environment(r.port, **env), timeout=30,
                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    r.join()


def pgbench(server, name, mode, script, transactions=2):
    path = pathlib.Path(server.root) / f"{name}.sql"
    path.write_text(script)
    # The first connection of pgbench only looks around.
    r = Recorder(server, "unused", name)
    subprocess.run([f"{BIN}/pgbench", "-n", "-M", mode, "-t", str(transactions), "-f", str(path)],
                   env=environment(r.port), timeout=30, check=True, stdout=subprocess.DEVNULL,
                   stderr=subprocess.DEVNULL)
    r.join()
    (HERE / "unused.txt").unlink()


def message(kind, payload=b""):
    return kind.encode() + struct.pack(">I", len(payload) + 4) + payload


def z(text):
    return text.encode() + b"\0"


def query(sql):
    return message("Q", z(sql))


def parse(sql, name=""):
    return message("P", z(name) + z(sql) + b"\0\0")


def bind(name="", portal=""):
    return message("B", z(portal) + z(name) + b"\0" * 6)


def describe(kind="P", name=""):
    return message("D", kind.encode() + z(name))


def execute(rows=0, portal=""):
    return message("E", z(portal) + struct.pack(">I", rows))


SYNC, FLUSH, COPY_DONE, TERMINATE = (message(t) for t in "SHcX")


def copy_data(text):
    return message("d", text.encode())


class Raw:
    """A client of bytes. wait("Z") reads up to the next message of that type."""

    def __init__(self, server, name, user="plain", version=196608, **parameters):
        self.recorder = Recorder(server, name)
        self.socket = socket.create_connection(("127.0.0.1", self.recorder.port))
        self.unread = b""
        parameters = dict(user=user, database="postgres", **parameters)
        body = b"".join(z(k) + z(v) for k, v in parameters.items()) + b"\0"
        self.socket.sendall(struct.pack(">II", len(body) + 8, version) + body)
        self.wait("R")
        self.send(message("p", z(PASSWORD)))
        self.wait("Z")

    def send(self, *messages):
        self.socket.sendall(b"".join(messages))

    def wait(self, kind):
        while True:
            while len(self.unread) < 5 or len(self.unread) < 1 + struct.unpack(
                    ">I", self.unread[1:5])[0]:
                chunk = self.socket.recv(65536)
                if not chunk:
                    if kind == "end":
                        return b""
                    raise SystemExit(f"connection ended while waiting for {kind}")
                self.unread += chunk
            size = 1 + struct.unpack(">I", self.unread[1:5])[0]
            whole, self.unread = self.unread[:size], self.unread[size:]
            if whole[:1] == kind.encode():
                return whole

    def close(self):
        with contextlib.suppress(OSError):
            self.send(TERMINATE)
        self.wait("end")
        self.socket.close()
        self.recorder.join()


@contextlib.contextmanager
def raw(server, name, **options):
    client = Raw(server, name, **options)
    yield client
    client.close()


def record_libpq(server):
    psql(server, "setup", f"create user legacy password 'x'; create user plain replication "
         f"password '{PASSWORD}'; grant all on schema public to plain; create table t(a int "
         "primary key, b text); grant all on t to public; create table d(a int references t "
         "deferrable initially deferred); grant all on d to public; set password_encryption=md5; "
         f"alter user legacy password '{PASSWORD}'")
    (HERE / "setup.txt").unlink()
    psql(server, "scram_simple", "select 1 as one, null as nothing, 'text'::text as t")
    psql(server, "scram_wrong_password", "select 1", password="wrong")
    psql(server, "scram_unknown_user", "select 1", user="nobody")
    psql(server, "md5", "select 1", user="legacy")
    psql(server, "cleartext", "select 1", user="plain")
    psql(server, "error", "select 1/0", "select 2")
    psql(server, "transaction", "begin", "insert into t values (1, 'x')", "select 1/0",
         "select 1", "rollback", "begin; commit")
    psql(server, "several_statements", "select 1; select 2; set application_name = 'other'")
    psql(server, "notice", "do $$ begin raise notice 'hello'; end $$")
    psql(server, "empty_query", "", ";")
    psql(server, "copy_in", "copy t from stdin", stdin="10\tten\n11\televen\n")
    psql(server, "copy_in_error", "copy t from stdin", "select 3", stdin="12\tok\nbad\tline\n")
    psql(server, "copy_out", "copy (select generate_series(1, 20), repeat('x', 30)) to stdout")
    psql(server, "rows", "select i, repeat('y', i) from generate_series(1, 60) i")
    pgbench(server, "extended", "extended", "select :client_id + 1;\n")
    pgbench(server, "prepared", "prepared", "begin;\nselect 1;\nend;\n")
    pgbench(server, "pipeline", "prepared",
            "\\startpipeline\nbegin;\nselect 1;\nselect 2;\nend;\n\\endpipeline\n")


def record_cancel(server):
    r = Recorder(server, "cancel", "cancel_request")
    p = subprocess.Popen([f"{BIN}/psql", "-X", "-At", "-c", "select pg_sleep(30)"],
                         env=environment(r.port), stdout=subprocess.DEVNULL,
                         stderr=subprocess.DEVNULL)
    time.sleep(1)  # psql has no sign by which to know that the statement runs
    p.send_signal(2)
    p.wait()
    r.join()


def record_raw(server):
    copy = "copy t from stdin"
    with raw(server, "extended_error_skips_to_sync") as c:
        c.send(parse("select 1"), bind(), execute(), parse("select 1/0"), bind(), execute(),
               parse("select 3"), bind(), describe(), execute(), SYNC, parse("select 4"), bind(),
               execute(), SYNC)
        c.wait("Z"), c.wait("Z")
    with raw(server, "query_after_error_is_swallowed") as c:
        c.send(parse("nonsense"), query("select 1"), FLUSH, query("select 2"), SYNC)
        c.wait("Z")
    with raw(server, "query_ends_an_unsynced_batch") as c:
        c.send(parse("select 1"), bind(), execute(), query("select 2"))
        c.wait("Z")
    with raw(server, "error_at_sync") as c:
        c.send(parse("insert into d values (999)"), bind(), execute(), SYNC)
        c.wait("Z")
    with raw(server, "describe_close_suspend") as c:
        c.send(parse("select generate_series(1, 5)", "s"), describe("S", "s"), bind("s"),
               describe(), execute(2), execute(2), execute(), message("C", b"Ss\0"),
               parse("set work_mem = '4MB'"), describe("S"), bind(), describe(), execute(),
               parse(""), bind(), execute(), SYNC)
        c.wait("Z")
    with raw(server, "flush_leaves_batch_open") as c:
        c.send(parse("select 1"), FLUSH)
        c.wait("1")
        c.send(bind(), execute(), SYNC)
        c.wait("Z")
    with raw(server, "copy_in_extended_sync_sent_ahead") as c:
        c.send(parse(copy), bind(), describe(), execute(), SYNC)
        c.wait("G")
        c.send(copy_data("20\tx\n"), COPY_DONE, SYNC)
        c.wait("Z")
    with raw(server, "copy_in_extended_error") as c:
        c.send(parse(copy), bind(), execute(), SYNC)
        c.wait("G")
        c.send(copy_data("bad\tx\n"), copy_data("21\tx\n"), COPY_DONE, SYNC)
        c.wait("Z")
        c.send(query("select 1"))
        c.wait("Z")
    with raw(server, "copy_in_failed_by_client") as c:
        c.send(query(copy))
        c.wait("G")
        c.send(copy_data("22\tx\n"), message("f", z("no more")))
        c.wait("Z")
    with raw(server, "copy_in_blind") as c:
        c.send(query(copy), copy_data("23\tx\n"), COPY_DONE, query("select 1"),
               parse(copy), bind(), execute(), SYNC, copy_data("24\tx\n"), COPY_DONE, SYNC,
               query(copy + ";" + copy), copy_data("25\tx\n"), COPY_DONE, copy_data("26\tx\n"),
               COPY_DONE, query("select 2"))
        for _ in range(5):
            c.wait("Z")
    with raw(server, "copy_in_blind_that_fails") as c:
        c.send(parse("copy missing from stdin"), bind(), execute(), SYNC, copy_data("x\n"),
               COPY_DONE, SYNC, query("select 1"))
        c.wait("Z"), c.wait("Z"), c.wait("Z")
    with raw(server, "sync_amid_copy_data") as c:
        c.send(query(copy))
        c.wait("G")
        c.send(copy_data("27\tx\n"), SYNC, FLUSH, copy_data("28\tx\n"), COPY_DONE)
        c.wait("Z")
    with raw(server, "copy_out_extended") as c:
        c.send(parse("copy (select 1) to stdout"), bind(), execute(), SYNC)
        c.wait("Z")
    with raw(server, "stray_copy_messages") as c:
        c.send(copy_data("x"), COPY_DONE, message("f", z("x")), query("select 1"))
        c.wait("Z")
    with raw(server, "function_call") as c:  # 1299: now()
        c.send(message("F", struct.pack(">IHHH", 1299, 0, 0, 0)), query("select 1"))
        c.wait("Z"), c.wait("Z")
    with raw(server, "listen_notify") as c:
        c.send(query("listen x"), query("notify x, 'payload'"))
        c.wait("Z"), c.wait("Z")
    with raw(server, "replication", replication="database") as c:
        c.send(query("IDENTIFY_SYSTEM"))
        row = c.wait("D")
        position = next(word for word in row.decode(errors="ignore").split("\0") if "/" in word)
        position = position[1:] if position[0] < "0" else position  # length byte before it
        c.wait("Z")
        c.send(query("CREATE_REPLICATION_SLOT s TEMPORARY PHYSICAL"))
        c.wait("Z")
        c.send(query("START_REPLICATION " + position))
        c.wait("W")
        c.send(COPY_DONE)
        c.wait("Z")
    with raw(server, "negotiate", version=(3 << 16) + 2, **{"_pq_.unknown": "1"}) as c:
        c.send(query("select 1"))
        c.wait("Z")
    with raw(server, "terminated_while_idle") as victim:
        victim.send(query("select pg_backend_pid()"))
        pid = victim.wait("D")[11:].decode()
        victim.wait("Z")
        subprocess.run([f"{BIN}/psql", "-X", "-c", f"select pg_terminate_backend({pid})"],
                       env=environment(server.port), check=True, stdout=subprocess.DEVNULL)
        victim.wait("E")


def main():
    with tempfile.TemporaryDirectory(prefix="pgwire-", dir="/tmp") as root:
        owner = pwd.getpwnam("postgres")
        os.chown(root, owner.pw_uid, owner.pw_gid)
        server = Server(root)
        try:
            record_libpq(server)
            record_cancel(server)
            record_raw(server)
        finally:
            server.stop()


if __name__ == "__main__":
    main()
