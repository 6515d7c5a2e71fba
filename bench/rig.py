"""What the benchmarks share: a cluster, poolers beside each other, CPU time of processes."""

import base64
import contextlib
import hashlib
import hmac
import os
import pathlib
import random
import re
import resource
import shutil
import signal
import socket
import subprocess
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
BASCULE = os.environ.get("BASCULE", str(ROOT / "build/release/bascule"))
PGBOUNCER = os.environ.get("PGBOUNCER", shutil.which("pgbouncer") or "/usr/sbin/pgbouncer")
PG_BIN = pathlib.Path(os.environ.get("PG_BIN", "/usr/lib/postgresql/15/bin"))


def demoted(command):
    """As root, PostgreSQL and PgBouncer refuse to run."""
    become = ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups", "--"]  # keeps limits, as runuser does not
    return [*become, *command] if os.geteuid() == 0 else command


def free_port():
    """Below the ephemeral range, so that no outgoing connection takes it."""
    while True:
        port = random.randrange(20_000, 32_000)
        with socket.socket() as s, contextlib.suppress(OSError):
            s.bind(("127.0.0.1", port))
            return port


def raise_file_limit():
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def scram_verifier(password, iterations=1):
    """Of one iteration: a thousand clients of pgbench would spend the run on PBKDF2, which is no pooler's doing."""
    salt = os.urandom(16)
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, iterations)
    stored = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    server = hmac.digest(salted, b"Server Key", "sha256")
    text = [base64.b64encode(part).decode() for part in (salt, stored, server)]
    return f"SCRAM-SHA-256${iterations}:{text[0]}${text[1]}:{text[2]}"


@contextlib.contextmanager
def before_others():
    """This process and those that it starts get the processors before anything else that runs on the machine. By a
    control group: niceness counts within a session only (sched(7), autogroup), and servers have sessions of their own."""
    os.nice(-10)
    for base, file, most in (("/sys/fs/cgroup/cpu", "cpu.shares", "100000"), ("/sys/fs/cgroup", "cpu.weight", "10000")):
        group = pathlib.Path(base) / f"bascule-bench-{os.getpid()}"
        try:
            group.mkdir()
            (group / file).write_text(most)
            (group / "cgroup.procs").write_text(str(os.getpid()))
        except OSError:
            with contextlib.suppress(OSError):
                group.rmdir()
            continue
        break
    else:
        group = None
    try:
        yield
    finally:
        if group:
            (group.parent / "cgroup.procs").write_text(str(os.getpid()))
            with contextlib.suppress(OSError):
                group.rmdir()


def cpu_ns(pid):
    """User and system time of all threads, from the scheduler's own account (proc(5), schedstat)."""
    total = 0
    for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            total += int((task / "schedstat").read_text().split()[0])
    return total


def limit_threads(pid, name, share):
    """Threads whose name matches get so much of a core and no more (sched(7), SCHED_DEADLINE)."""
    period = 10_000_000
    for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
        if re.fullmatch(name, (task / "comm").read_text().strip()):
            result = subprocess.run(["chrt", "--deadline", f"--sched-runtime={int(period * share)}", f"--sched-deadline={period}",
                                     f"--sched-period={period}", "--pid", "0", task.name], capture_output=True, text=True)
            if result.returncode != 0:
                raise RuntimeError(f"chrt: {result.stderr.strip()}")


def private_bytes(pid):
    """Memory that only this process uses (proc(5), smaps_rollup)."""
    lines = pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    kib = sum(int(line.split()[1]) for line in lines if line.startswith("Private_"))
    return kib * 1024


class Rig(contextlib.ExitStack):
    """One PostgreSQL in a directory of its own, and a user list with its verifier: what both poolers
    know, so that neither computes PBKDF2 at a log-in. Gone at the end."""

    user, database, password = "app", "postgres", "bench"
    iterations = 1  # of SCRAM

    def __enter__(self):
        super().__enter__()
        raise_file_limit()
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="bascule-bench-", dir="/tmp"))
        self.callback(shutil.rmtree, self.dir, ignore_errors=True)
        os.chmod(self.dir, 0o755)
        (self.dir / "pw").write_text(self.password + "\n")
        if os.geteuid() == 0:
            for path in (self.dir, self.dir / "pw"):
                shutil.chown(path, "postgres")
        self.data, self.pg_port = self.dir / "data", free_port()
        self._as_postgres([PG_BIN / "initdb", "-D", self.data, "-U", self.user, "-A", "scram-sha-256",
                           f"--pwfile={self.dir}/pw", "-N", "--locale=C.UTF-8"])
        (self.data / "postgresql.auto.conf").write_text(
            f"port = {self.pg_port}\nlisten_addresses = '127.0.0.1'\n"
            f"unix_socket_directories = '{self.dir}'\nmax_connections = 300\n"
            "shared_buffers = 256MB\nfsync = off\n")
        self._as_postgres([PG_BIN / "pg_ctl", "-D", self.data, "-w", "-l", self.dir / "pg.log", "start"])
        self.callback(self._as_postgres, [PG_BIN / "pg_ctl", "-D", self.data, "-m", "immediate", "stop"])
        self.users = self.dir / "users"
        verifier = scram_verifier(self.password, self.iterations)
        self._psql(f"alter role {self.user} password '{verifier}'")
        self.users.write_text(f'"{self.user}" "{verifier}"\n')
        return self

    @staticmethod
    def _as_postgres(command):
        with tempfile.TemporaryFile() as output:  # no pipe: the server would hold it open
            result = subprocess.run(demoted([str(c) for c in command]), stdout=output, stderr=output)
            output.seek(0)
            if result.returncode != 0:
                raise SystemExit(f"bench: {command}: {output.read().decode()}")

    def _psql(self, sql):
        return subprocess.run([str(PG_BIN / "psql"), "-h", "127.0.0.1", "-p", str(self.pg_port), "-U",
                               self.user, "-Atc", sql, self.database], env=self.env, check=True,
                              capture_output=True, text=True).stdout.strip()

    @property
    def env(self):
        return {**os.environ, "PGPASSWORD": self.password}

    def pgbench(self, port, *arguments, **kwargs):
        command = [str(PG_BIN / "pgbench"), "-n", "-h", "127.0.0.1", "-p", str(port), "-U",
                   self.user, *map(str, arguments), self.database]
        return subprocess.Popen(command, env=self.env, stdout=subprocess.PIPE,
                                stderr=subprocess.STDOUT, text=True, cwd=self.dir, **kwargs)

    def load_tables(self, scale):
        process = self.pgbench(self.pg_port, "-i", "-s", scale, "-q")
        output, _ = process.communicate()
        if process.returncode != 0:
            raise SystemExit(f"bench: pgbench -i failed:\n{output}")

    def _serve(self, name, command, port):
        log = open(self.dir / f"{name}.log", "wb")
        self.callback(log.close)
        process = subprocess.Popen(demoted(command), stdout=log, stderr=log)
        self.callback(self._end, process)
        deadline = time.monotonic() + 10
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"bench: {name} did not start:\n{(self.dir / f'{name}.log').read_text()}")
            time.sleep(0.02)
        return Pooler(name, port, process.pid)

    @staticmethod
    def _end(process):
        process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(10)
        process.kill()

    def bascule(self, name="bascule", pool=20, workers=1, engine="auto", mode="transaction", unix=False,
                more=""):
        """A daemon that is nothing but a proxy before one server."""
        port, split = free_port(), free_port()
        config = self.dir / f"{name}.yaml"
        server = f'"{self.dir}", port: {self.pg_port}' if unix else f"127.0.0.1, port: {self.pg_port}"
        config.write_text(f"""cluster:
  name: main
user: postgres
pid_file: "{self.dir}/{name}-run/agent.pid"
proxy:
  writer: 127.0.0.1:{port}
  split: 127.0.0.1:{split}
  servers:
    - {{name: n1, host: {server}, role: primary}}
  engine: {engine}
  pool_size: {pool}
  workers: {workers}
  clients_max: 20000
  pool_mode: {mode}
  userlist_file: "{self.users}"
{more}""")
        run_dir = self.dir / f"{name}-run"
        run_dir.mkdir()
        if os.geteuid() == 0:
            shutil.chown(run_dir, "postgres")
        pooler = self._serve(name, [BASCULE, "run", "--config", str(config)], port)
        pooler.split = split
        return pooler

    def pgbouncer(self, name="pgbouncer", pool=20, mode="transaction", unix=False,
                  more=""):
        port = free_port()
        version = pgbouncer_version()
        config = self.dir / f"{name}.ini"
        prepared = "max_prepared_statements = 200" if version >= (1, 21) else ""
        server = f"host={self.dir}" if unix else "host=127.0.0.1"
        config.write_text(f"""[databases]
{self.database} = {server} port={self.pg_port}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = scram-sha-256
auth_file = {self.users}
pool_mode = {mode}
default_pool_size = {pool}
max_client_conn = 20000
ignore_startup_parameters = extra_float_digits
{prepared}
{more}""")
        return self._serve(name, [PGBOUNCER, "-q", str(config)], port)


def pgbouncer_version():
    text = subprocess.run([PGBOUNCER, "--version"], capture_output=True, text=True).stdout
    return tuple(int(n) for n in text.split()[1].split("."))


class Pooler:
    def __init__(self, name, port, pid):
        self.name, self.port, self.pid = name, port, pid
