"""Hooks on role change: the ready ones against a real name server and a real network, and a cluster that runs them."""
import contextlib
import os
import pathlib
import shutil
import socket
import subprocess
import tempfile

from harness import Cluster, wait_for

HOOKS = pathlib.Path(__file__).resolve().parents[2] / "deploy" / "hooks"
NAMED = shutil.which("named") or "/usr/sbin/named"


class NameServer:
    """Debian's bind9 on loopback, with a zone db.test that takes updates signed with a key of its own."""

    def __enter__(self):
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="bascule-dns-"))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
            s.bind(("127.0.0.1", 0))
            self.port = s.getsockname()[1]
        self.key = self.dir / "hook.key"
        self.key.write_text(self.run("tsig-keygen", "bascule-hook"))
        self.other_key = self.dir / "other.key"
        self.other_key.write_text(self.run("tsig-keygen", "bascule-hook"))
        (self.dir / "db.test.zone").write_text(
            "$TTL 5\n@ IN SOA ns.db.test. root.db.test. 1 60 60 60 5\n@ IN NS ns.db.test.\nns IN A 127.0.0.1\n")
        (self.dir / "named.conf").write_text(
            f'include "{self.key}";\n'
            f'options {{ directory "{self.dir}"; listen-on port {self.port} {{ 127.0.0.1; }}; listen-on-v6 {{ none; }}; '
            f'recursion no; pid-file none; session-keyfile none; dnssec-validation no; }};\ncontrols {{ }};\n'
            f'zone "db.test" {{ type primary; file "{self.dir}/db.test.zone"; '
            f'update-policy {{ grant bascule-hook zonesub ANY; }}; }};\n')
        for path in (self.key, self.other_key, self.dir):  # the cluster's user reads the key
            path.chmod(0o755 if path == self.dir else 0o644)
        self.log = open(self.dir / "log", "wb")
        self.process = subprocess.Popen([NAMED, "-c", str(self.dir / "named.conf"), "-g"],
                                        stdout=self.log, stderr=subprocess.STDOUT)
        try:
            wait_for(lambda: self.query("ns.db.test") == ["127.0.0.1"], 20, "named answers")
        except AssertionError:
            print((self.dir / "log").read_text()[-3000:])
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        self.log.close()
        shutil.rmtree(self.dir, ignore_errors=True)

    @staticmethod
    def run(*argv):
        return subprocess.run(argv, check=True, capture_output=True, text=True, timeout=20).stdout

    def query(self, name, kind="A"):
        done = subprocess.run(["dig", "+short", "+tries=1", "+time=1", "-p", str(self.port), "@127.0.0.1", name, kind],
                              capture_output=True, text=True, timeout=20)
        return done.stdout.split("\n")[:-1] if done.returncode == 0 else []

    def settings(self, **more):
        return {"DNS_SERVER": "127.0.0.1", "DNS_PORT": str(self.port), "DNS_NAME": "primary.db.test",
                "DNS_KEY_FILE": str(self.key), "DNS_TRIES": "2", **more}


def run_hook(name, settings, **facts):
    environment = {"PATH": os.environ["PATH"], **settings, **{f"BASCULE_{k.upper()}": str(v) for k, v in facts.items()}}
    return subprocess.run([str(HOOKS / name)], env=environment, capture_output=True, text=True, timeout=60)


def test_dns_hook_points_the_name_at_the_newest_primary_only():
    with NameServer() as dns:
        name = "primary.db.test"
        done = run_hook("dns-nsupdate", dns.settings(), role="primary", epoch=3, host="10.0.0.1")
        assert done.returncode == 0, done.stdout + done.stderr
        assert dns.query(name) == ["10.0.0.1"]
        assert run_hook("dns-nsupdate", dns.settings(), role="replica", epoch=4, host="10.0.0.9").returncode == 0
        assert dns.query(name) == ["10.0.0.1"], "a replica changes nothing"
        assert run_hook("dns-nsupdate", dns.settings(), role="primary", epoch=4, host="10.0.0.2").returncode == 0
        assert dns.query(name) == ["10.0.0.2"]
        late = run_hook("dns-nsupdate", dns.settings(), role="primary", epoch=3, host="10.0.0.1")
        assert late.returncode == 0 and "known there already" in late.stdout
        assert dns.query(name) == ["10.0.0.2"], "the late hook of a former primary changes nothing"
        assert run_hook("dns-nsupdate", dns.settings(), role="primary", epoch=5, host="2001:db8::5").returncode == 0
        assert dns.query(name) == [] and dns.query(name, "AAAA") == ["2001:db8::5"]
        forged = run_hook("dns-nsupdate", dns.settings(DNS_KEY_FILE=str(dns.other_key)), role="primary", epoch=9,
                          host="10.6.6.6")
        assert forged.returncode == 1, "a wrong key"
        assert dns.query(name, "AAAA") == ["2001:db8::5"]
        nowhere = run_hook("dns-nsupdate", dns.settings(DNS_PORT="9"), role="primary", epoch=9, host="10.0.0.1")
        assert nowhere.returncode == 1
        assert run_hook("dns-nsupdate", dns.settings(), role="primary", epoch=9, host="db1").returncode == 2


class Hosts:
    """Three network namespaces on one bridge: a, b (members) and c (a client)."""

    def __enter__(self):
        self.stack = contextlib.ExitStack()
        self.names = {n: f"bh{os.getpid() % 100000}{n}" for n in "abcs"}
        try:
            for name in self.names.values():
                self.sh("ip", "netns", "add", name)
                self.stack.callback(subprocess.run, ["ip", "netns", "del", name], capture_output=True)
            self.on("s", "ip", "link", "add", "br0", "type", "bridge")
            self.on("s", "ip", "link", "set", "br0", "up")
            for number, host in enumerate("abc", start=1):
                self.on("s", "ip", "link", "add", f"to-{host}", "type", "veth", "peer", "name", "eth0", "netns",
                        self.names[host])
                self.on("s", "ip", "link", "set", f"to-{host}", "master", "br0", "up")
                self.on(host, "ip", "addr", "add", f"192.0.2.{number}/24", "dev", "eth0")
                self.on(host, "ip", "link", "set", "eth0", "up")
        except BaseException:
            self.stack.close()
            raise
        return self

    def __exit__(self, *_):
        self.stack.close()

    @staticmethod
    def sh(*argv):
        return subprocess.run(argv, check=True, capture_output=True, text=True, timeout=20).stdout

    def on(self, host, *argv):
        return self.sh("ip", "netns", "exec", self.names[host], *argv)

    def hook(self, host, role):
        environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "VIP_ADDRESS": "192.0.2.10/24", "VIP_INTERFACE": "eth0",
                       "BASCULE_ROLE": role}
        done = subprocess.run(["ip", "netns", "exec", self.names[host], str(HOOKS / "virtual-ip")], env=environment,
                              capture_output=True, text=True, timeout=30)
        assert done.returncode == 0 and "failed" not in done.stdout, done.stdout + done.stderr

    def mac(self, host):
        return self.on(host, "cat", "/sys/class/net/eth0/address").strip()

    def neighbour(self):
        """Which hardware address the client has for the virtual one, without asking anew."""
        words = self.on("c", "ip", "neigh", "show", "192.0.2.10").split()
        return words[words.index("lladdr") + 1] if "lladdr" in words else ""

    def ping(self):
        return subprocess.run(["ip", "netns", "exec", self.names["c"], "python3", "-c",
                               "import socket; s = socket.socket(); s.settimeout(2)\n"
                               "try: s.connect(('192.0.2.10', 1))\nexcept ConnectionRefusedError: print('there')"],
                              capture_output=True, text=True, timeout=20).stdout.strip() == "there"


def test_virtual_ip_moves_and_neighbours_learn_it_at_once():
    with Hosts() as hosts:
        hosts.hook("a", "primary")
        hosts.hook("a", "primary")  # again: no harm
        assert hosts.ping()
        assert hosts.neighbour() == hosts.mac("a")
        hosts.hook("a", "none")
        hosts.hook("b", "primary")
        wait_for(lambda: hosts.neighbour() == hosts.mac("b"), 3, "the client knows the new host")
        assert hosts.ping()
        assert "192.0.2.10" not in hosts.on("a", "ip", "addr")
        hosts.hook("b", "replica")
        assert not hosts.ping()


def test_a_cluster_runs_its_hooks_at_a_failover_and_waits_for_none_of_them():
    with NameServer() as dns, Cluster() as cluster:
        for number, member in enumerate(cluster.members, start=1):
            settings = cluster.base / f"dns-{member}.conf"
            settings.write_text("".join(f"{k}={v}\n" for k, v in
                                        dns.settings(DNS_ADDRESS=f"10.0.0.{number}", DNS_TRIES="20").items()))
            settings.chmod(0o644)
            slow = cluster.base / f"slow-{member}"
            slow.write_text("#!/bin/sh\necho stop of $BASCULE_MEMBER\nsleep 600\n")
            slow.chmod(0o755)
            config = cluster.home(member) / "bascule.yaml"
            script = cluster.base / "dns-nsupdate"
            shutil.copy(HOOKS / "dns-nsupdate", script)
            config.write_text(config.read_text().replace(
                "  superuser:\n", f"  hooks:\n    timeout: 3s\n    on_role_change: [{script}, {settings}]\n"
                                  f"    on_stop: {slow}\n  superuser:\n", 1))
        cluster.run_cli("down")
        cluster.run_cli("up", timeout=90)
        cluster.wait_healthy()
        address = {m: f"10.0.0.{i}" for i, m in enumerate(cluster.members, start=1)}
        wait_for(lambda: dns.query("primary.db.test") == [address[cluster.primary()]], 20, "the name of the primary")
        old = cluster.primary()
        cluster.kill(cluster.postmaster(old))
        new = cluster.wait_primary(timeout=20, other_than=old)  # with a stop hook that hangs
        wait_for(lambda: dns.query("primary.db.test") == [address[new]], 20, "the name follows")

        def told(member, text):
            return text in (cluster.home(member) / "run" / "events.jsonl").read_text()
        wait_for(lambda: told(new, "primary.db.test. is " + address[new]), 20, "the hook's output is noted")
        wait_for(lambda: told(old, "stop of " + old), 20, "the hook that hung was ended and its output noted")
        cluster.wait_healthy()


def test_every_hook_runs_with_what_it_is_told_and_an_orderly_stop_waits_for_them():
    with Cluster() as cluster:
        for member in cluster.members:
            script = cluster.base / f"told-{member}"
            told = cluster.base / f"told-by-{member}"
            told.mkdir()
            told.chmod(0o777)
            script.write_text(f'#!/bin/sh\n[ "$1" = slow ] && sleep 1\nenv > "{told}/$BASCULE_EVENT"\n')
            script.chmod(0o755)
            config = cluster.home(member) / "bascule.yaml"
            config.write_text(config.read_text().replace(
                "  superuser:\n", f"  hooks:\n    on_role_change: [{script}, slow]\n    on_start: {script}\n"
                                  f"    on_stop: {script}\n    on_restart: {script}\n    on_reload: {script}\n"
                                  f"  superuser:\n", 1))

        def facts(member, event):
            path = cluster.base / f"told-by-{member}" / event
            lines = path.read_text().splitlines() if path.exists() else []
            return {k[8:].lower(): v for k, v in (line.split("=", 1) for line in lines) if k.startswith("BASCULE_")}

        def forget():
            for member in cluster.members:
                for path in (cluster.base / f"told-by-{member}").iterdir():
                    path.unlink()
        cluster.run_cli("down")
        cluster.run_cli("up", timeout=90)
        cluster.wait_healthy()
        primary = cluster.primary()
        node = next(n for n in cluster.info["nodes"] if n["name"] == primary)
        wait_for(lambda: facts(primary, "role_change").get("role") == "primary", 20, "the primary's change of role")
        want = {"cluster": cluster.info["cluster"], "member": primary, "role": "primary", "leader": primary,
                "host": "127.0.0.1", "port": str(node["port"]), "data_dir": str(cluster.data(primary)),
                "timeline": str(cluster.timeline(primary)), "epoch": str(cluster.epoch())}
        for event in ("start", "role_change"):
            wait_for(lambda e=event: facts(primary, e).get("event") == e, 20, f"{event} of the primary")
            shown = facts(primary, event)
            assert {k: shown.get(k) for k in want} == want, shown
            assert set(shown) == set(want) | {"event", "old_role", "reason"}, shown
        replica = cluster.others(primary)[0]
        wait_for(lambda: facts(replica, "role_change").get("role") == "replica", 20, "the replica's change of role")
        forget()
        cluster.run_cli("restart", replica, timeout=120)
        for event in ("stop", "start", "restart", "role_change"):
            wait_for(lambda e=event: facts(replica, e), 20, f"{event} of the replica")
        wait_for(lambda: facts(replica, "role_change")["role"] == "replica", 20, "a replica again")
        assert facts(replica, "role_change")["old_role"] == "none" and facts(replica, "restart")["role"] == "replica"
        assert (facts(replica, "stop")["role"], facts(replica, "stop")["old_role"]) == ("none", "replica")
        forget()
        cluster.run_cli("switchover", "--candidate", replica, timeout=60)
        wait_for(lambda: facts(replica, "role_change").get("old_role") == "replica", 20, "the new primary's change of role")
        assert facts(replica, "role_change")["leader"] == replica
        cluster.wait_healthy()
        wait_for(lambda: facts(primary, "role_change").get("role") == "replica", 20, "the former one has ended its hooks")
        forget()
        cluster.run_cli("down")
        for member in cluster.members:
            assert facts(member, "role_change").get("role") == "none", "slow, and waited for"
            assert facts(member, "stop").get("old_role") in ("primary", "replica"), "queued behind it"
