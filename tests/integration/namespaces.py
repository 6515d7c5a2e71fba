"""A cluster whose every process lives on a host of its own (netns.py): members n1..n3, etcd e1..e3, the
proxy p1, the clients c1. The tests look from one more host, `eye`, which no fault is ever put between.

    with HostCluster() as cluster:
        with cluster.ledger() as ledger:                # clients on c1, a writer on every member
            ledger.wait_acks(50)
            old = cluster.primary()
            cluster.isolate(old)
            ...
        cluster.finish(ledger, "16")

Besides what harness.Cluster checks: the writer on each member writes to its own PostgreSQL, past the
proxy, all the time. No two of them are ever acknowledged in turns that the epochs don't explain.
"""
import contextlib
import json
import os
import pwd
import secrets
import shutil
import subprocess
import urllib.error
import urllib.request

import psycopg2
import pytest

import netns
from etcd_support import Etcd
from harness import BASCULE, Cluster
from ledger import turns

USER = "postgres"
PG_PORT, WRITER_PORT, READER_PORT, API_PORT = 5432, 6432, 6433, 8008
ETCD_CLIENT_PORT, ETCD_PEER_PORT = 2379, 2380
ETCD = "/usr/bin/etcd"
BIN_DIR = "/usr/lib/postgresql/15/bin"
ETCD_ELECTION_MS = 500  # as `bascule up` does


def skip_unless_allowed():
    """The reason is the test's output; ctest says "Skipped" by it."""
    reason = netns.not_allowed()
    if reason:
        pytest.skip(reason)


def etcd_argv(name, address, members, data, tls=None):
    """tls: the directory of <name>.pem, <name>.key and ca.pem; every client must show a certificate, too."""
    scheme, secured = "http", []
    if tls:
        scheme = "https"
        for side in ("", "peer-"):
            secured += [f"--{side}cert-file", f"{tls}/{name}.pem", f"--{side}key-file", f"{tls}/{name}.key",
                        f"--{side}trusted-ca-file", f"{tls}/ca.pem", f"--{side}client-cert-auth"]
    peers = ",".join(f"{n}={scheme}://{a}:{ETCD_PEER_PORT}" for n, a in members.items())
    client, peer = f"{scheme}://{address}:{ETCD_CLIENT_PORT}", f"{scheme}://{address}:{ETCD_PEER_PORT}"
    return [ETCD, "--name", name, "--data-dir", str(data), "--listen-client-urls", client,
            "--advertise-client-urls", client, "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer,
            "--initial-cluster", peers, "--initial-cluster-state", "new",
            "--heartbeat-interval", str(ETCD_ELECTION_MS // 10), "--election-timeout", str(ETCD_ELECTION_MS),
            "--auto-compaction-mode", "revision", "--auto-compaction-retention", "1000",
            "--log-level", "warn", *secured]


def service(name, argv, folder):
    """A row of netns.Host.boot()."""
    return {"name": name, "argv": [str(a) for a in argv], "log": f"{folder}/{name}.log",
            "hold": f"{folder}/{name}.hold"}


def boot_etcd(hosts, folder, tls=None):
    """One etcd of them all."""
    members = {host.name: host.address for host in hosts}
    for host in hosts:
        argv = etcd_argv(host.name, host.address, members, f"{folder}/{host.name}", tls)
        host.boot([service(host.name, argv, folder)])


class HostCluster(Cluster):
    etcd_tls = None  # see etcd_argv

    def __init__(self, nodes=3, etcd=3, defaults=None, places=None, proxy=None, postgresql=None,
                 network=None, etcd_hosts=(), prefix="n", relayed=0):
        """defaults: {"timing": "fast", ...} of the configuration file. places: {"n1": {"region": ...}}. proxy:
        further keys of that section. postgresql: parameters. relayed: so many members stream from others than the primary.
        network, etcd_hosts: it joins this network and uses the etcd there; it is then not in charge of
        either. prefix: of the members' names (n...), which are the hosts' names, too."""
        super().__init__(nodes)
        self.members = [f"{prefix}{i + 1}" for i in range(nodes)]
        self.defaults, self.places, self.proxy = defaults or {}, places or {}, proxy or {}
        self.parameters = {"max_connections": "200", **(postgresql or {})}
        self.relayed = relayed
        self.owns_network = network is None
        self.network = network or netns.Network()
        self.etcd_names = [host.name for host in etcd_hosts] or [f"e{i + 1}" for i in range(etcd)]
        self.proxy_name = "p1" if prefix == "n" else f"{prefix}p"

    # ---- life -------------------------------------------------------------------------------------
    def __enter__(self):
        skip_unless_allowed()
        try:
            if self.owns_network:
                self.network.__enter__()
                for name in [*self.etcd_names, "c1", "eye"]:
                    self.network.add_host(name)
                self.network.enter_context(self.eye.inside())  # left before the hosts are removed
            for name in [*self.members, self.proxy_name]:
                self.network.add_host(name)
            self.describe()
            self.write_files()
            if self.owns_network:
                boot_etcd([self.host(name) for name in self.etcd_names], self.dir / "etcd", self.etcd_tls)
            for name in [*self.members, self.proxy_name]:
                self.host(name).boot([self.agent_service(name)])
            self.wait_healthy(timeout=90)
        except BaseException:
            self.dump_logs()
            self.destroy()
            raise
        return self

    def destroy(self, keep=None):
        for name in [*self.members, self.proxy_name]:
            if name in self.network.hosts:
                self.host(name).kill()
        if self.owns_network:
            self.network.close()
        if keep:
            print(f"kept: {self.base}")
        else:
            shutil.rmtree(self.base, ignore_errors=True)

    def describe(self):
        at = {name: host.address for name, host in self.network.hosts.items()}
        proxy = at[self.proxy_name]
        self.info = {
            "cluster": f"field-{self.members[0]}", "user": USER, "superuser": "postgres", "appUser": "app",
            "database": "app", "binDir": BIN_DIR, "pgpass": str(self.dir / "secrets/pgpass"),
            "nodes": [{"name": n, "host": at[n], "port": PG_PORT} for n in self.members],
            "etcd": [{"name": e, "client": {"host": at[e], "port": ETCD_CLIENT_PORT}} for e in self.etcd_names],
            "writer": {"host": proxy, "port": WRITER_PORT}, "reader": {"host": proxy, "port": READER_PORT},
        }
        self.etcd = Etcd(self.info["etcd"])

    def agent_service(self, name):
        argv = [os.path.abspath(BASCULE), "run", "--config", self.home(name) / "bascule.yaml"]
        return {**service(name, argv, self.dir / "log"), "hold": str(self.home(name) / "hold")}

    @property
    def eye(self):
        return self.host("eye")

    def write_files(self):
        password = secrets.token_hex(12)
        texts = {"secrets/app": password, "secrets/replication": secrets.token_hex(12),
                 "secrets/users": f'"app" "{password}"', "secrets/pgpass": f"*:*:*:app:{password}"}
        for member in self.members:
            texts[f"nodes/{member}/bascule.yaml"] = json.dumps(self.member_config(member), indent=1)
        texts[f"nodes/{self.proxy_name}/bascule.yaml"] = json.dumps(self.proxy_config(), indent=1)
        for name, text in texts.items():
            path = self.dir / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text + "\n")
            path.chmod(0o600)
        for folder in ("log", "etcd"):
            (self.dir / folder).mkdir(parents=True)
        owner = pwd.getpwnam(USER)
        for path in [self.dir, *self.dir.rglob("*")]:
            os.chown(path, owner.pw_uid, owner.pw_gid)

    def common_config(self, name):
        endpoints = [f"http://{m['client']['host']}:{ETCD_CLIENT_PORT}" for m in self.info["etcd"]]
        return {"cluster": {"name": self.info["cluster"]}, "store": {"type": "etcd", "endpoints": endpoints},
                "user": USER, "pid_file": str(self.home(name) / "agent.pid"),
                "api": {"listen": f"{self.host(name).address}:{API_PORT}", "anonymous": "read"}}

    def member_config(self, name):
        secret = self.dir / "secrets"
        return {**self.common_config(name), "defaults": self.defaults, "node": {
            "name": name, "data_dir": str(self.data(name)), "run_dir": str(self.home(name) / "run"),
            "host": self.host(name).address, "port": PG_PORT, **self.places.get(name, {}),
            "postgresql": {"bin_dir": self.info["binDir"], "parameters": self.parameters},
            "superuser": {"user": self.info["superuser"]},
            "replication": {"password_file": str(secret / "replication")},
            "client_users": [{"name": "app", "password_file": str(secret / "app"), "database": "app"}]}}

    def proxy_config(self):
        here = self.host(self.proxy_name).address
        return {**self.common_config(self.proxy_name), "proxy": {
            "writer": f"{here}:{WRITER_PORT}", "reader": f"{here}:{READER_PORT}", "pool_size": 100,
            "userlist_file": str(self.dir / "secrets/users"), **self.proxy}}

    # ---- the command line ---------------------------------------------------------------------------
    def cli_argv(self, *arguments):
        return [BASCULE, *arguments, "-c", str(self.home(self.proxy_name) / "bascule.yaml")]

    def run_cli(self, *arguments, timeout=60, check=True):
        argv = self.cli_argv(*arguments)
        done = subprocess.run(argv, capture_output=True, text=True, timeout=timeout)
        if check and done.returncode != 0:
            raise AssertionError(f"{' '.join(argv)}: exit {done.returncode}\n{done.stdout}{done.stderr}")
        return done

    # ---- processes ----------------------------------------------------------------------------------
    def host(self, name):
        return self.network.hosts[name]

    def host_pids(self, member):
        return set(self.host(member).pids())

    def agent(self, member):
        return self.host(member).outer_pid(super().agent(member))

    def postmaster(self, member):
        return self.host(member).outer_pid(super().postmaster(member))

    def kill_host(self, member):
        self.host(member).kill()

    def isolate(self, name):
        """From everybody but those who look."""
        self.network.isolate(self.host(name), but=[self.eye])

    def cut_between(self, names, others):
        for name in names:
            self.network.cut(self.host(name), *[self.host(other) for other in others])

    def heal(self, *names):
        self.network.heal(*[self.host(name) for name in names])

    def boot(self, member):
        self.network.heal(self.host(member))
        if self.host(member).init is None:
            self.host(member).boot()

    # ---- looking -----------------------------------------------------------------------------------
    def http_status(self, member, path):
        try:
            with urllib.request.urlopen(f"http://{self.host(member).address}:{API_PORT}{path}", timeout=2) as answer:
                return answer.status
        except urllib.error.HTTPError as error:
            return error.code

    def servers_of_reads(self, connections):
        """Addresses of the servers that so many connections to the reader port lead to."""
        found = set()
        for _ in range(connections):
            with contextlib.closing(psycopg2.connect(self.dsn("reader"))) as connection, connection.cursor() as cursor:
                cursor.execute("SELECT host(inet_server_addr())")
                found.add(cursor.fetchone()[0])
        return found

    # ---- writers and checks ----------------------------------------------------------------------------
    def ledger(self, clients=4, where="writer", **options):
        return HostLedger(self, super().ledger(clients, where, **options))

    def finish(self, ledger, scenario, **more):
        """As the harness does, and: nobody acknowledged out of turn, everybody else is a standby again."""
        ledger.stop()
        order = turns(ledger.locals)
        changes = self.epoch() - ledger.epoch
        more["turns"] = order
        report = super().finish(ledger, scenario, **more)
        assert len(order) - 1 <= changes, f"acknowledged in turns {order} within {changes} changes of leader"
        assert self.writable_members() == [self.primary()]
        return report


class HostLedger:
    """A Ledger whose clients are on c1, and which has a writer on every member."""

    def __init__(self, cluster, ledger):
        self.cluster, self.inner = cluster, ledger

    def __enter__(self):
        self.inner.epoch = self.cluster.epoch()
        with self.cluster.host("c1").inside():
            self.inner.__enter__()
        for member in self.cluster.members:
            self.inner.add_local(member, self.cluster.dsn(member), self.cluster.host(member).inside())
        return self.inner

    def __exit__(self, *what):
        self.inner.__exit__(*what)
