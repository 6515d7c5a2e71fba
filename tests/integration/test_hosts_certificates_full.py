"""Every connection of a cluster under TLS, and all certificates, their keys and the authority replaced while it runs: API, etcd,
proxy, PostgreSQL with its replication. On hosts of their own; the number in a name is the scenario's.
"""
import contextlib
import os
import pwd
import signal
import ssl
import subprocess

import psycopg2

from etcd_support import Etcd
from harness import send, wait_for
from namespaces import API_PORT, ETCD_CLIENT_PORT, PG_PORT, USER, WRITER_PORT, HostCluster
from proxy_tls_support import Authority


class TlsCluster(HostCluster):
    def write_files(self):
        self.etcd_tls = self.dir / "tls"
        self.etcd_tls.mkdir(parents=True)
        self.authorities = {}
        for name in ("first", "second"):
            authority = self.authorities[name] = Authority(self.base, name)
            for host in self.network.hosts.values():
                authority.issue(host.name, host.name, f"IP:{host.address}")
        self.trust("first", "second")
        self.install("first")
        super().write_files()
        self.look_at_etcd()

    def look_at_etcd(self):
        """With the certificate that is there now."""
        context = ssl.create_default_context(cafile=self.file("ca.pem"))
        context.load_cert_chain(self.file("eye.pem"), self.file("eye.key"))
        self.etcd = Etcd(self.info["etcd"], context)

    def file(self, name):
        return str(self.etcd_tls / name)

    def put(self, name, data):
        """At once: nobody reads half of it."""
        path, owner = self.etcd_tls / name, pwd.getpwnam(USER)
        fresh = path.with_suffix(".fresh")
        fresh.write_bytes(data)
        fresh.chmod(0o600)
        os.chown(fresh, owner.pw_uid, owner.pw_gid)
        fresh.rename(path)

    def trust(self, *authorities):
        self.put("ca.pem", b"".join(self.authorities[name].ca.read_bytes() for name in authorities))

    def install(self, authority):
        """What it issued, for every host."""
        for name in self.network.hosts:
            self.put(f"{name}.pem", self.authorities[authority].cert(name).read_bytes())
            self.put(f"{name}.key", self.authorities[authority].key(name).read_bytes())

    def common_config(self, name):
        config = super().common_config(name)
        own = {"cert": self.file(f"{name}.pem"), "key": self.file(f"{name}.key")}
        config["store"]["endpoints"] = [e.replace("http:", "https:") for e in config["store"]["endpoints"]]
        config["store"] |= {**own, "ca": self.file("ca.pem")}
        config["api"]["tls"] = {**own, "client_ca": self.file("ca.pem")}
        return config

    def member_config(self, name):
        config = super().member_config(name)
        config["node"]["postgresql"]["parameters"] |= {
            "ssl": "on", "ssl_cert_file": self.file(f"{name}.pem"), "ssl_key_file": self.file(f"{name}.key")}
        config["node"]["postgresql"]["hba"] = ["hostssl all all all scram-sha-256"]
        return config

    def proxy_config(self):
        config = super().proxy_config()
        own = {"certificate_file": self.file(f"{self.proxy_name}.pem"), "key_file": self.file(f"{self.proxy_name}.key")}
        config["proxy"] |= {"client_tls": {"mode": "require", **own},
                            "server_tls": {"mode": "verify-full", "ca_file": self.file("ca.pem")}}
        return config

    def dsn(self, where="writer"):
        return f"{super().dsn(where)} sslmode=verify-full sslrootcert={self.file('ca.pem')}"

    def served_by(self, host, port, *options):
        """Who signed the certificate that is shown there now."""
        argv = ["openssl", "s_client", "-connect", f"{self.host(host).address}:{port}", *options, "-cert", self.file("eye.pem"),
                "-key", self.file("eye.key"), "-CAfile", self.file("ca.pem")]
        said = subprocess.run(argv, input="", capture_output=True, text=True, timeout=20).stdout
        return next((line.split("test ")[1] for line in said.splitlines() if line.startswith("issuer=")), said)

    def everybody_shows(self):
        """{place: authority}"""
        shown = {f"etcd {name}": self.served_by(name, ETCD_CLIENT_PORT) for name in self.etcd_names}
        shown |= {f"api {name}": self.served_by(name, API_PORT) for name in [*self.members, self.proxy_name]}
        shown |= {f"postgresql {name}": self.served_by(name, PG_PORT, "-starttls", "postgres") for name in self.members}
        return shown | {"proxy": self.served_by(self.proxy_name, WRITER_PORT, "-starttls", "postgres")}


def streams_with_tls(cluster, primary):
    rows = cluster.query(primary, "SELECT ssl FROM pg_stat_replication JOIN pg_stat_ssl USING (pid) WHERE state = 'streaming'")
    return rows == [(True,)] * (len(cluster.members) - 1)


def test_30_hosts_all_certificates_and_their_authority_are_replaced_under_load():
    with TlsCluster() as cluster, cluster.ledger() as ledger:
        ledger.wait_acks(50)
        primary, epoch = cluster.primary(), cluster.epoch()
        assert streams_with_tls(cluster, primary)
        assert set(cluster.everybody_shows().values()) == {"first"}, cluster.everybody_shows()
        cluster.install("second")
        cluster.run_cli("reload")
        send(cluster.host(cluster.proxy_name).running(" run --config"), signal.SIGHUP)
        wait_for(lambda: set(cluster.everybody_shows().values()) == {"second"}, 20, "the new certificates are shown everywhere")
        ledger.wait_acks(50)
        cluster.look_at_etcd()
        cluster.trust("second")
        send(cluster.host(cluster.proxy_name).running(" run --config"), signal.SIGHUP)
        for name in cluster.etcd_names:  # reads its authorities at its start only; and everybody has to connect anew
            cluster.host(name).shut_down()
            cluster.host(name).boot()
            wait_for(lambda: all(cluster.etcd.status_of(n) for n in cluster.etcd_names), 20, "etcd is whole again")
            ledger.wait_acks(50)
        cluster.query(primary, "SELECT pg_terminate_backend(pid) FROM pg_stat_replication")
        wait_for(lambda: streams_with_tls(cluster, primary), 20, "replication is back, under TLS")
        standby = cluster.others(primary)[0]
        agent = cluster.agent(standby)
        send([agent], signal.SIGKILL)
        wait_for(lambda: cluster.agent(standby) not in (0, agent), 30, "a daemon that starts with the new files")
        with cluster.host("c1").inside(), contextlib.closing(psycopg2.connect(cluster.dsn())) as connection:
            connection.cursor().execute("SELECT 1")
        cluster.wait_healthy(timeout=60)
        ledger.wait_acks(50)
        assert (cluster.primary(), cluster.epoch()) == (primary, epoch)
        assert cluster.status()["leader"], "the command line gets in"
        ledger.stop()
        cluster.finish(ledger, "30", max_gap_ms=2500, errors_by_client_max=0)
        cluster.assert_same_rows_everywhere()
