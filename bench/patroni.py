"""Debian's Patroni with HAProxy on hosts of tests/integration/netns.py, as failover.py drives a cluster."""

import json
import os
import pathlib
import pwd
import secrets
import shutil
import tempfile
import urllib.request

import psycopg2

from harness import wait_for
from ledger import Ledger
from namespaces import (API_PORT, BIN_DIR, ETCD_CLIENT_PORT, PG_PORT, USER, WRITER_PORT, service)

# ttl, loop_wait, retry_timeout in seconds: defaults, and the least that Patroni's manual allows (20, 1, 3).
# primary_start_timeout 0: no attempt to start a crashed primary in place where a synchronous standby is there.
DEFAULTS = {"ttl": 30, "loop_wait": 10, "retry_timeout": 10}
FASTEST = {"ttl": 20, "loop_wait": 1, "retry_timeout": 3, "primary_start_timeout": 0}
# The line of the example that comes with Patroni, and a quick one.
CHECKS = "inter 3s fall 3 rise 2 on-marked-down shutdown-sessions"
CHECKS_FASTEST = "inter 500ms fall 2 rise 1 on-marked-down shutdown-sessions"


class PatroniCluster:
    def __init__(self, network, etcd_hosts, prefix, dcs, checks):
        self.network, self.dcs, self.checks, self.prefix = network, dcs, checks, prefix
        self.endpoints = [f"{host.address}:{ETCD_CLIENT_PORT}" for host in etcd_hosts]
        self.members = [f"{prefix}{i + 1}" for i in range(3)]
        self.proxy_name = f"{prefix}p"
        self.password = secrets.token_hex(12)

    # ---- life -------------------------------------------------------------------------------------
    def __enter__(self):
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="bascule-bench-"))
        self.dir.chmod(0o755)
        for name in [*self.members, self.proxy_name]:
            self.network.add_host(name)
        self.at = {name: self.network.hosts[name].address for name in [*self.members, self.proxy_name]}
        for member in self.members:
            for folder in ("data", "run"):
                (self.dir / member / folder).mkdir(parents=True, mode=0o700)
            self._write(f"{member}/patroni.json", json.dumps(self._config(member)))
        self._write("pgpass", f"*:*:*:app:{self.password}\n")
        self._write("haproxy.cfg", self._haproxy())
        owner = pwd.getpwnam(USER)
        for path in [self.dir, *self.dir.rglob("*")]:
            os.chown(path, owner.pw_uid, owner.pw_gid)
        for member in self.members:
            argv = ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--init-groups", "/usr/bin/patroni",
                    self.dir / member / "patroni.json"]
            self.network.hosts[member].boot([service(member, argv, self.dir)])
        wait_for(self.primary, 120, "Patroni has a primary", poll_s=0.2)
        self._make_database()
        self.wait_healthy(180)
        argv = ["/usr/sbin/haproxy", "-db", "-f", self.dir / "haproxy.cfg"]
        self.network.hosts[self.proxy_name].boot([service(self.proxy_name, argv, self.dir)])
        self.wait_writable(60)
        return self

    def __exit__(self, *_):
        for name in [*self.members, self.proxy_name]:
            self.network.hosts[name].kill()
        shutil.rmtree(self.dir, ignore_errors=True)

    def _write(self, name, text):
        path = self.dir / name
        path.write_text(text)
        path.chmod(0o600)

    def _config(self, member):
        here, home = self.at[member], self.dir / member
        login = {"replication": {"username": "replicator", "password": "r" + self.password},
                 "superuser": {"username": "postgres", "password": "s" + self.password}}
        return {
            "scope": f"bench-{self.prefix}", "name": member,
            "etcd3": {"hosts": self.endpoints},
            "restapi": {"listen": f"{here}:{API_PORT}", "connect_address": f"{here}:{API_PORT}"},
            "bootstrap": {
                "dcs": {**self.dcs, "maximum_lag_on_failover": 1048576, "check_timeline": True,
                        "synchronous_mode": True,
                        "postgresql": {"use_pg_rewind": True, "use_slots": True,
                                       "remove_data_directory_on_rewind_failure": True,
                                       "remove_data_directory_on_diverged_timelines": True,
                                       "parameters": {"max_connections": 200, "wal_log_hints": "on"}}},
                "initdb": [{"encoding": "UTF8"}, "data-checksums"],
                "pg_hba": ["local all all trust", "host all all all scram-sha-256",
                           "host replication replicator all scram-sha-256"]},
            "postgresql": {"listen": f"{here}:{PG_PORT}", "connect_address": f"{here}:{PG_PORT}",
                           "data_dir": str(home / "data"), "bin_dir": BIN_DIR, "pgpass": str(home / "pgpass"),
                           "authentication": login, "basebackup": [{"checkpoint": "fast"}],
                           "parameters": {"unix_socket_directories": str(home / "run"),
                                          "password_encryption": "scram-sha-256"}}}

    def _haproxy(self):
        servers = "\n".join(f"    server {m} {self.at[m]}:{PG_PORT} maxconn 100 check port {API_PORT}"
                            for m in self.members)
        return f"""global
    maxconn 1000
defaults
    mode tcp
    retries 2
    timeout client 30m
    timeout connect 4s
    timeout server 30m
    timeout check 5s
listen writer
    bind *:{WRITER_PORT}
    option httpchk
    http-check expect status 200
    default-server {self.checks}
{servers}
"""

    def _make_database(self):
        connection = psycopg2.connect(f"host={self.at[self.primary()]} port={PG_PORT} user=postgres dbname=postgres "
                                      f"password=s{self.password}")
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(f"CREATE ROLE app LOGIN PASSWORD '{self.password}'")
            cursor.execute("CREATE DATABASE app OWNER app")
        connection.close()

    # ---- looking -----------------------------------------------------------------------------------
    def _rest(self, member, path, method="GET", body=None, timeout=2):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"http://{self.at[member]}:{API_PORT}{path}", data, method=method,
                                         headers={"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=timeout) as answer:
            text = answer.read().decode()
        return text if method != "GET" else json.loads(text)

    def primary(self):
        for member in self.members:
            if self.network.hosts[member].init is None:
                continue
            try:
                if self._rest(member, "/primary").get("role") in ("master", "primary"):
                    return member
            except OSError:
                continue
        return ""

    def healthy(self):
        """A primary, two that stream from it, one of them synchronous."""
        try:
            name = self.primary()
            senders = self._rest(name, "/patroni").get("replication", []) if name else []
        except OSError:
            return False
        streaming = [s for s in senders if s["state"] == "streaming" and s["application_name"] in self.members]
        return len(streaming) == 2 and any(s["sync_state"] == "sync" for s in streaming)

    def wait_healthy(self, timeout=180):
        wait_for(self.healthy, timeout, "Patroni has two standbys", poll_s=0.3)

    def wait_writable(self, timeout):
        def try_it():
            try:
                psycopg2.connect(self.dsn("writer")).close()
                return True
            except psycopg2.Error:
                return False
        wait_for(try_it, timeout, "HAProxy leads to the primary", poll_s=0.2)

    def dsn(self, where):
        host, port = (self.at[self.proxy_name], WRITER_PORT) if where == "writer" else (self.at[where], PG_PORT)
        return f"host={host} port={port} dbname=app user=app passfile={self.dir}/pgpass connect_timeout=5"

    # ---- doing -------------------------------------------------------------------------------------
    def postmaster(self, member):
        text = (self.dir / member / "data/postmaster.pid").read_text()
        return self.network.hosts[member].outer_pid(int(text.split("\n", 1)[0]))

    def switchover(self):
        name = self.primary()
        self._rest(name, "/switchover", "POST", {"leader": name}, timeout=60)

    def ledger(self, clients):
        return Ledger(self.dsn("writer"), clients=clients)

    def daemons(self):
        """Pids of what keeps PostgreSQL available, by what they are."""
        hosts = self.network.hosts
        return {"agent": [p for m in self.members for p in hosts[m].running("/usr/bin/patroni")],
                "proxy": hosts[self.proxy_name].running("haproxy")}
