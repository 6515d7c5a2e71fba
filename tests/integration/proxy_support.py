"""PostgreSQL servers and the proxy (proxy_harness) for the proxy's integration tests."""

import contextlib
import json
import os
import pathlib
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time

import psycopg2

PG_BIN = pathlib.Path(os.environ.get("PG_BIN", "/usr/lib/postgresql/15/bin"))
HARNESS = os.environ.get("PROXY_HARNESS", "build/dev/tests/proxy_harness")
# How the proxy talks to the kernel: auto, epoll or io_uring.
ENGINE = os.environ.get("BASCULE_PROXY_ENGINE", "auto")
PASSWORD = "s3cret pass'word"


def as_postgres(command, **kwargs):
    if os.geteuid() == 0:
        command = ["runuser", "-u", "postgres", "--", *command]
    # A file, not a pipe: the server that pg_ctl starts would hold a pipe open.
    with tempfile.TemporaryFile() as output:
        result = subprocess.run([str(c) for c in command], stdout=output, stderr=output,
                                timeout=60, **kwargs)
        output.seek(0)
        assert result.returncode == 0, f"{command}: {output.read().decode()}"


def free_port():
    """Below the ephemeral range: a connection must not take the port of a server that is down."""
    while True:
        port = random.randrange(20_000, 32_000)
        with socket.socket() as s, contextlib.suppress(OSError):
            s.bind(("127.0.0.1", port))
            return port


def wait_for(predicate, timeout=10.0, what="condition"):
    """Polls: for what has no event to wait for, such as another process' counters."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        if predicate():
            return
        time.sleep(0.01)
    raise AssertionError(f"{what} did not come true in {timeout} s")


def dead(pid):
    try:
        state = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return True
    return state == "Z"


def kill_postgres(data):
    """SIGKILL of the postmaster and everything of it, as a crash of the host would."""
    pid = int((data / "postmaster.pid").read_text().split()[0])
    children = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True,
                              text=True).stdout.split()
    for victim in [pid, *map(int, children)]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(victim, signal.SIGKILL)
    # A successor can't start while one of them still holds the shared memory.
    for victim in [pid, *map(int, children)]:
        wait_for(lambda v=victim: dead(v), what="end of the killed processes")
    # In a container nobody may reap the orphan, and PostgreSQL takes a zombie for a running
    # postmaster.
    (data / "postmaster.pid").unlink()


class Postgres:
    """One independent server: two of them stand for a primary and its successor."""

    def __init__(self, root, name, template):
        self.name = name
        self.data = root / name
        self.port = free_port()
        self.root = root
        shutil.copytree(template, self.data)
        if os.geteuid() == 0:
            subprocess.run(["chown", "-R", "postgres", str(self.data)], check=True)
        os.chmod(self.data, 0o700)

    def start(self, wait=True):
        options = (f"-p {self.port} -c unix_socket_directories= -c fsync=off -c max_connections=60 "
                   "-c listen_addresses=127.0.0.1 -c log_statement=none")
        try:
            as_postgres([PG_BIN / "pg_ctl", "-D", self.data, "-w" if wait else "-W", "-l",
                         self.data / "log", "-o", options, "start"])
        except AssertionError as error:
            raise AssertionError((self.data / "log").read_text()[-1000:]) from error
        return self

    def stop(self, mode="fast"):
        as_postgres([PG_BIN / "pg_ctl", "-D", self.data, "-w", "-m", mode, "stop"])

    def kill(self):
        kill_postgres(self.data)

    @property
    def running(self):
        return (self.data / "postmaster.pid").exists()

    def connect(self, dbname="postgres"):
        c = psycopg2.connect(host="127.0.0.1", port=self.port, user="app", password=PASSWORD,
                             dbname=dbname, connect_timeout=5)
        c.autocommit = True
        return c

    def query(self, sql):
        c = self.connect()
        try:
            with c.cursor() as cursor:
                cursor.execute(sql)
                return cursor.fetchall() if cursor.description else None
        finally:
            c.close()

    def route(self):
        return f"{self.name}@127.0.0.1:{self.port}"

    def verifier(self):
        return self.query("select rolpassword from pg_authid where rolname = 'app'")[0][0]


def initialize_pgbench(server):
    """Tables of pgbench, scale 1, in the database postgres."""
    subprocess.run([PG_BIN / "pgbench", "-i", "-q", "-s", "1", "-h", "127.0.0.1", "-p", str(server.port),
                    "-U", "app", "postgres"],
                   env=os.environ | {"PGPASSWORD": PASSWORD}, check=True, capture_output=True)


def make_template(root):
    """initdb takes a second: once for all servers."""
    template = root / "template"
    secret = root / "pw"
    secret.write_text(PASSWORD + "\n")
    if os.geteuid() == 0:
        subprocess.run(["chown", "postgres", str(root), str(secret)], check=True)
    as_postgres([PG_BIN / "initdb", "-D", template, "-U", "app", f"--pwfile={secret}", "-A",
                 "scram-sha-256", "-N", "--no-instructions", "--locale=C.UTF-8"])
    return template


class Proxy:
    def __init__(self, *options, users=(f"app:{PASSWORD}",)):
        self.port, self.reader_port = free_port(), free_port()
        command = [HARNESS, f"writer={self.port}", f"reader={self.reader_port}",
                   f"engine={ENGINE}", *options]
        command += [f"user={user}" for user in users]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        text=True)
        assert self.process.stdout.readline().strip() == "ready"
        self.epoch = 0

    def command(self, line):
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline().strip()
        assert answer, f"the proxy ended: {self.process.poll()}"
        return answer

    def route(self, primary=None, replicas=(), state="open", new_epoch=True, permit_ms=None):
        if new_epoch:
            self.epoch += 1
        line = f"route epoch={self.epoch} state={state}"
        if primary:
            line += f" primary={primary.route()}"
        for replica in replicas:
            line += f" replica={replica.route()}"
        if permit_ms is not None:
            line += f" permit_ms={permit_ms}"
        assert self.command(line) == "ok"
        self.settle()

    @property
    def stats(self):
        return json.loads(self.command("stats"))

    def settle(self):
        """Until every worker acts by the last route."""
        wait_for(lambda: self.stats["applied"] == self.stats["route_version"], what="route")

    def connect(self, reader=False, autocommit=True, **kwargs):
        kwargs = {"user": "app", "password": PASSWORD, "dbname": "postgres",
                  "connect_timeout": 10} | kwargs
        c = psycopg2.connect(host="127.0.0.1",
                             port=self.reader_port if reader else self.port, **kwargs)
        c.autocommit = autocommit
        return c

    def close(self):
        if self.process.poll() is None:
            self.process.stdin.write("quit\n")
            self.process.stdin.close()
        code = self.process.wait(timeout=20)
        assert code == 0, f"the proxy ended with {code}"

    def cpu_seconds(self):
        fields = pathlib.Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextlib.contextmanager
def proxies(server, *always, **defaults):
    """A function that makes proxies which lead to `server`; they are closed at the end."""
    made = []

    def make(*options, **kwargs):
        made.append(Proxy(*always, *options, **(defaults | kwargs)))
        made[-1].route(server)
        return made[-1]

    try:
        yield make
    finally:
        for proxy in made:
            if proxy.process.returncode is None:  # else a test has waited for its end
                proxy.close()


def run(connection, sql, args=None):
    with connection.cursor() as cursor:
        cursor.execute(sql, args)
        return cursor.fetchall() if cursor.description else None


@contextlib.contextmanager
def temporary_root():
    root = pathlib.Path(tempfile.mkdtemp(prefix="proxy-test-"))
    os.chmod(root, 0o755)
    try:
        yield root
    finally:
        shutil.rmtree(root, ignore_errors=True)


@contextlib.contextmanager
def one_postgres(*statements):
    """A server of its own in a directory of its own, that has run `statements`."""
    with temporary_root() as root:
        server = Postgres(root, "a", make_template(root)).start()
        for sql in statements:
            server.query(sql)
        yield server
        server.stop("immediate")
