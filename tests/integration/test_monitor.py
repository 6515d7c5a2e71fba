"""Databases without an agent: a streaming pair that nobody but `bascule run` with a monitor watches.

Each test has servers, store and ports of its own; the servers are plain PostgreSQL, as a managed
service would run them."""

import contextlib
import json
import os
import pathlib
import shutil
import signal
import subprocess
import tempfile
import threading
import time
import urllib.error
import urllib.request

import psycopg2
import pytest

from harness import wait_for
from proxy_support import PG_BIN, as_postgres, free_port, kill_postgres

BASCULE = os.environ.get("BASCULE", "build/dev/bascule")
APP = {"user": "app", "password": "app's secret", "dbname": "game", "connect_timeout": 3}
MONITOR_PASSWORD = "m0nitor secret"


class Server:
    def __init__(self, root, name):
        self.name, self.data, self.port = name, root / name, free_port()

    def create(self):
        password = self.data.parent / "password"
        password.write_text(MONITOR_PASSWORD)
        shutil.chown(password, "postgres")
        as_postgres([PG_BIN / "initdb", "-D", self.data, "-U", "postgres", "-A", "scram-sha-256",
                     f"--pwfile={password}", "-N"])
        with open(self.data / "pg_hba.conf", "a") as hba:
            hba.write("host replication all 127.0.0.1/32 scram-sha-256\n")

    def start(self):
        as_postgres([PG_BIN / "pg_ctl", "-D", self.data, "-w", "-l", self.data.parent / f"{self.name}.log",
                     "-o", f"-p {self.port} -c unix_socket_directories= -c fsync=off "
                     "-c max_connections=40 -c wal_keep_size=64MB -c wal_log_hints=on", "start"])

    def clone_from(self, other):
        shutil.rmtree(self.data, ignore_errors=True)
        as_postgres([PG_BIN / "pg_basebackup", "-D", self.data, "-R", "-c", "fast", "-X", "stream",
                     "-d", f"host=127.0.0.1 port={other.port} user=postgres password='{MONITOR_PASSWORD}'"])

    def pid(self):
        return int((self.data / "postmaster.pid").read_text().split("\n")[0])

    def kill(self):
        kill_postgres(self.data)

    def stop(self):
        with contextlib.suppress(Exception):
            as_postgres([PG_BIN / "pg_ctl", "-D", self.data, "-m", "immediate", "stop"])

    def sql(self, text, dbname="postgres"):
        with contextlib.closing(psycopg2.connect(host="127.0.0.1", port=self.port, user="postgres",
                                                 password=MONITOR_PASSWORD, dbname=dbname,
                                                 connect_timeout=3)) as c:
            c.autocommit = True
            cursor = c.cursor()
            cursor.execute(text)
            return cursor.fetchall() if cursor.description else None


class Daemon:
    def __init__(self, world, name, sections, environment=None):
        self.api, self.writer, self.reader = free_port(), free_port(), free_port()
        self.file = world.root / f"{name}.yaml"
        self.log = world.root / f"{name}.log"
        self.file.write_text(
            f"cluster: {{name: game}}\nstore: file:{world.root}/store/store.db\n"
            f"pid_file: {world.root}/store/{name}.pid\n" + sections +
            f"proxy: {{writer: '127.0.0.1:{self.writer}', reader: '127.0.0.1:{self.reader}',"
            f" userlist_file: users}}\n"
            f"api: {{listen: '127.0.0.1:{self.api}'}}\n")
        self.environment = {**os.environ, **(environment or {})}
        self.start()

    def start(self):
        with open(self.log, "a") as log:
            self.process = subprocess.Popen([BASCULE, "run", "-c", self.file], stdout=log, stderr=log,
                                            env=self.environment)

    def get(self, path):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.api}{path}", timeout=3) as answer:
                body = answer.read().decode()
        except urllib.error.HTTPError as error:
            body = error.read().decode()
        return json.loads(body) if body.startswith(("{", "[")) else body

    def post(self, path, body=None):
        request = urllib.request.Request(f"http://127.0.0.1:{self.api}{path}", method="POST",
                                         data=json.dumps(body or {}).encode())
        try:
            with urllib.request.urlopen(request, timeout=5) as answer:
                return answer.status, json.loads(answer.read())
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read())

    def status(self):
        with contextlib.suppress(OSError):
            return self.get("/failover/status")
        return {"state": "no answer", "currentPrimary": None, "epoch": 0}

    def kill(self):
        self.process.kill()
        self.process.wait()

    def connect(self, port=None):
        return psycopg2.connect(host="127.0.0.1", port=port or self.writer, **APP)


class World:
    def __init__(self):
        self.root = pathlib.Path(tempfile.mkdtemp(prefix="bascule-monitor-"))
        os.chmod(self.root, 0o755)
        (self.root / "store").mkdir()
        for path in (self.root, self.root / "store"):
            shutil.chown(path, "postgres", "postgres")
        (self.root / "users").write_text('"app" "%s"\n' % APP["password"])
        os.chmod(self.root / "users", 0o600)
        shutil.chown(self.root / "users", "postgres", "postgres")
        self.east, self.west = Server(self.root, "east"), Server(self.root, "west")
        self.daemons = []

    def __enter__(self):
        self.east.create()
        self.east.start()
        self.east.sql("CREATE ROLE app LOGIN PASSWORD 'app''s secret'")
        self.east.sql("CREATE DATABASE game OWNER app")
        self.east.sql("CREATE TABLE ledger (id bigint PRIMARY KEY); GRANT ALL ON ledger TO app", "game")
        self.west.clone_from(self.east)
        self.west.start()
        return self

    def __exit__(self, kind, *_):
        for daemon in self.daemons:
            daemon.kill()
            if kind:
                print(f"--- {daemon.log}\n{daemon.log.read_text()[-6000:]}")
        for server in (self.east, self.west):
            server.stop()
        shutil.rmtree(self.root, ignore_errors=True)

    def url(self, server):
        return f"postgresql://postgres:{MONITOR_PASSWORD.replace(' ', '%20')}@127.0.0.1:{server.port}/game"

    def sections(self, name="m1", more=""):
        endpoints = "".join(
            f"    - {{name: {s.name}, url: '{self.url(s)}', region: {s.name}, priority: {p}}}\n"
            for s, p in ((self.east, 10), (self.west, 8)))
        return (f"monitor:\n  name: {name}\n  health_interval: 300ms\n  probe_timeout: 1s\n"
                f"  lease_ttl: 2s\n  permit: 2s\n  environment: false\n{more}  endpoints:\n{endpoints}")

    def daemon(self, name="m1", sections=None, environment=None):
        daemon = Daemon(self, name, sections or self.sections(name), environment)
        self.daemons.append(daemon)
        return daemon

    def healthy(self, daemon, primary="east", timeout=20):
        wait_for(lambda: (s := daemon.status())["state"] in ("healthy", "failover_complete")
                 and s["currentPrimary"] == primary and s["standbys"] and all(x["healthy"] for x in s["standbys"]),
                 timeout, f"{primary} primary and all in order: {daemon.status()}")


class Writer(threading.Thread):
    """One session through the proxy; reconnects when it must. What it was told is in `written`."""

    def __init__(self, daemon):
        super().__init__(daemon=True)
        self.server, self.written, self.errors, self.ending = daemon, [], [], False
        self.gap = 0.0
        self.start()

    def run(self):
        connection, number, last = None, 0, time.monotonic()
        while not self.ending:
            number += 1
            try:
                connection = connection or self.server.connect()
                connection.autocommit = True
                connection.cursor().execute("INSERT INTO ledger VALUES (%s)", (number,))
                self.written.append(number)
                self.gap, last = max(self.gap, time.monotonic() - last), time.monotonic()
                time.sleep(0.01)
            except psycopg2.Error as error:
                self.errors.append(str(error))
                with contextlib.suppress(Exception):
                    connection.close()
                connection = None
                time.sleep(0.05)

    def writes_again(self, since):
        return len(self.written) > since + 20

    def end(self):
        self.ending = True
        self.join(40)


def test_monitor_promotes_for_a_killed_primary_and_fences_it_on_return():
    with World() as w:
        m = w.daemon()
        w.healthy(m)
        writer = Writer(m)
        wait_for(lambda: len(writer.written) > 50, 10, "writes")
        w.east.kill()
        wait_for(lambda: m.status()["currentPrimary"] == "west" and m.status()["primary"]["healthy"], 30,
                 "west primary")
        before = len(writer.written)
        wait_for(lambda: writer.writes_again(before), 10, "clients go on")
        assert m.get("/failover/history")[0]["trigger"] == "automatic"
        assert "health checks in a row" in m.get("/failover/history")[0]["reason"]
        # The old primary comes back, writable: it is fenced and not routed to.
        w.east.start()
        wait_for(lambda: w.east.sql("SHOW default_transaction_read_only")[0][0] == "on", 15, "fence")
        with pytest.raises(psycopg2.errors.ReadOnlySqlTransaction):
            with contextlib.closing(psycopg2.connect(host="127.0.0.1", port=w.east.port, **APP)) as direct:
                direct.cursor().execute("INSERT INTO ledger VALUES (-1)")
        with contextlib.closing(m.connect(m.reader)) as c:
            cursor = c.cursor()
            cursor.execute("SELECT inet_server_port()")
            assert cursor.fetchone()[0] == w.west.port
        wait_for(lambda: m.status()["state"] == "recovery_in_progress", 10, "recovery")
        writer.end()
        rows = {r[0] for r in w.west.sql("SELECT id FROM ledger", "game")}
        lost = [n for n in writer.written if n not in rows]
        print(json.dumps({"gap_s": round(writer.gap, 2), "errors": len(writer.errors), "lost": len(lost)}))
        # Asynchronous replication: what was acknowledged in the last moment may be lost, no more.
        assert len(lost) < 50


def test_monitor_does_not_fail_over_for_a_flapping_primary():
    with World() as w:
        m = w.daemon()
        w.healthy(m)
        for _ in range(6):
            os.kill(w.east.pid(), signal.SIGSTOP)
            time.sleep(0.35)  # a blip: the time itself is what is tested
            os.kill(w.east.pid(), signal.SIGCONT)
            time.sleep(1.0)
        assert m.status()["epoch"] == 1
        assert m.status()["currentPrimary"] == "east"


def test_monitor_that_is_killed_is_replaced_by_the_other():
    with World() as w:
        first, second = w.daemon("m1"), w.daemon("m2", w.sections("m2"))
        w.healthy(first)
        w.healthy(second)
        writer = Writer(second)
        wait_for(lambda: len(writer.written) > 20, 10, "writes")
        first.kill()
        w.east.kill()
        wait_for(lambda: second.status()["currentPrimary"] == "west" and second.status()["primary"]["healthy"],
                 40, "west primary")
        before = len(writer.written)
        wait_for(lambda: writer.writes_again(before), 15, "clients go on")
        writer.end()
        assert "lease taken" in second.log.read_text()


def test_monitor_switches_over_and_back_without_loss():
    with World() as w:
        m = w.daemon()
        w.healthy(m)
        writer = Writer(m)
        wait_for(lambda: len(writer.written) > 50, 10, "writes")
        done = subprocess.run([BASCULE, "switchover", "-c", m.file, "--candidate", "west"],
                              capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        before = len(writer.written)
        wait_for(lambda: writer.writes_again(before), 10, "clients go on")
        # The service rebuilds the old primary as a standby; then back again.
        w.east.stop()
        w.east.clone_from(w.west)
        w.east.start()
        w.healthy(m, "west", 30)
        wait_for(lambda: m.status()["standbys"][0]["promotionEligible"], 10, "east eligible")
        code, answer = m.post("/failover/trigger", {"target": "east", "reason": "back home"})
        assert code == 202, answer
        wait_for(lambda: m.status()["currentPrimary"] == "east" and m.status()["primary"]["healthy"], 30,
                 "east primary")
        before = len(writer.written)
        wait_for(lambda: writer.writes_again(before), 10, "clients go on")
        writer.end()
        rows = {r[0] for r in w.east.sql("SELECT id FROM ledger", "game")}
        assert [n for n in writer.written if n not in rows] == []
        assert w.east.sql("SHOW default_transaction_read_only")[0][0] == "off"
        assert [h["trigger"] for h in m.get("/failover/history")][:2] == ["manual", "switchover"]
        status = subprocess.run([BASCULE, "status", "-c", m.file], capture_output=True, text=True).stdout
        assert "east" in status and "leader" in status
        print(json.dumps({"gap_s": round(writer.gap, 2), "errors": len(writer.errors)}))


def test_monitor_takes_databases_from_the_environment_and_shows_no_password():
    with World() as w:
        environment = {"DB_EAST_URL": w.url(w.east), "DB_WEST_URL": w.url(w.west), "DB_EAST_PRIORITY": "10",
                       "DB_EAST_HEALTH_INTERVAL": "300", "DB_WEST_HEALTH_INTERVAL": "300"}
        m = w.daemon(sections="monitor: {name: m1, permit: 2s}\n", environment=environment)
        w.healthy(m)
        check = subprocess.run([BASCULE, "validate-config", m.file], capture_output=True, text=True,
                               env={**os.environ, **environment})
        assert check.returncode == 0, check.stderr
        assert f"127.0.0.1:{w.east.port}/game" in check.stdout
        status = m.status()
        assert status["primary"]["responseTime"] >= 0 and status["primary"]["downSince"] is None
        assert status["standbys"][0]["promotionEligible"]
        wait_for(lambda: m.status()["standbys"][0]["lagBytes"] == 0, 10, "lag known")
        assert m.get("/failover/metrics")["failovers"] == 0
        assert m.get("/api/database/health")["systemHealth"] == {
            "overall": "healthy", "primaryHealthy": True, "activeAlerts": 0}
        assert m.get("/api/database/status")["primaryRegion"] == "east"
        assert m.get("/api/database/dashboard")["replicaHealth"] == {"healthy": 1, "total": 1}
        assert m.post("/failover/check-health")[0] == 202
        assert m.post("/api/database/failover/nowhere")[0] == 404
        code, answer = m.post("/api/database/failover/west")
        assert (code, answer["message"]) == (202, "Failover initiated to region: west")
        wait_for(lambda: m.status()["currentPrimary"] == "west" and m.status()["primary"]["healthy"], 30,
                 "west primary")
        assert m.get("/api/database/status")["primaryRegion"] == "west"
        metrics = m.get("/metrics")
        assert 'failover_primary_healthy{' in metrics
        shown = check.stdout + m.log.read_text() + metrics + json.dumps(m.get("/cluster"))
        assert MONITOR_PASSWORD not in shown and "m0nitor%20secret" not in shown


def test_a_daemon_with_monitor_and_proxy_is_taken_over_and_the_new_monitor_fails_over():
    with World() as world:
        old = world.daemon()
        old.kill()
        old.file.write_text(old.file.read_text().replace(
            "userlist_file: users}", f"userlist_file: users, handover_socket: '{world.root}/store/take-over'}}"))
        old.start()
        world.healthy(old)
        with contextlib.closing(old.connect()) as client:
            client.autocommit = True
            client.cursor().execute("SELECT 1")
            before = old.process
            with open(old.log, "a") as log:
                old.process = subprocess.Popen([BASCULE, "run", "-c", old.file, "--take-over"], stdout=log, stderr=log)
            try:
                wait_for(lambda: "taken over: ends when its clients have left" in old.log.read_text(), 20, "hand-over")
                world.healthy(old)
                client.cursor().execute("INSERT INTO ledger VALUES (1)")
                with contextlib.closing(old.connect()) as other:
                    other.cursor().execute("SELECT 1")
                client.close()
                before.wait(20)
            finally:
                before.kill()
                before.wait()
        world.east.kill()
        wait_for(lambda: old.status()["currentPrimary"] == "west", 30, "the new monitor has failed over")
