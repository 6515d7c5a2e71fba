"""Real clusters for the integration tests: `bascule up` in a directory of its own, on free ports.

    with Cluster(nodes=3) as cluster:
        with cluster.ledger() as ledger:
            ledger.wait_acks(50)
            old = cluster.primary()
            cluster.kill_host(old)
            ledger.wait_acks(50)
        report = cluster.finish(ledger)      # prints one line of JSON, checks row by row

Processes are found by what bascule writes down (agent.pid, postmaster.pid) and by the cluster's
directory in /proc; signals go through pidfds, so that a number that was given to somebody else
meanwhile is never hit. Leaving the `with` block stops the cluster and kills what is left of it.
"""
import contextlib
import json
import os
import pathlib
import pwd
import shutil
import signal
import socket
import sqlite3
import subprocess
import tempfile
import time

import psycopg2
import pytest

from etcd_support import Etcd, Relay
from ledger import Ledger

BASCULE = os.environ.get("BASCULE", "build/dev/bascule")
KEEP = os.environ.get("BASCULE_KEEP")  # set: the directory of a failed test stays
POSTGRESQL = os.environ.get("BASCULE_TEST_POSTGRESQL")  # major version for clusters that don't ask for one


def of_version(version):
    """Options of `bascule up` for this major version of PostgreSQL: Debian's, or the one whose bin directory POSTGRESQL_<version>
    names. Skips the test where there is none."""
    programs = os.environ.get(f"POSTGRESQL_{version}") or f"/usr/lib/postgresql/{version}/bin"
    if not os.path.exists(f"{programs}/postgres"):
        pytest.skip(f"no PostgreSQL {version} in {programs}: POSTGRESQL_{version}=DIR names one")
    return ["--bin-dir", programs]


def wait_for(predicate, timeout, what, poll_s=0.02):
    """The first true value of predicate(); an AssertionError that says what was waited for."""
    deadline = time.monotonic() + timeout
    while True:
        value = predicate()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout} s: {what}")
        time.sleep(poll_s)


class Process:
    """One process, by a descriptor: it can't be mistaken for a later one with the same number."""

    def __init__(self, pid):
        self.pid, self.fd = pid, os.pidfd_open(pid)

    def signal(self, number):
        try:
            signal.pidfd_send_signal(self.fd, number)
        except ProcessLookupError:
            pass

    def close(self):
        os.close(self.fd)


@contextlib.contextmanager
def as_user(name):
    """As root: with that user's effective id, which is what the server sees of a local socket."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(pwd.getpwnam(name).pw_uid)
    try:
        yield
    finally:
        os.seteuid(0)


def send(pids, number):
    """To all at once: opened first, then signalled without anything in between."""
    processes = []
    for pid in pids:
        try:
            processes.append(Process(pid))
        except ProcessLookupError:
            pass
    for process in processes:
        process.signal(number)
    for process in processes:
        process.close()
    return len(processes)


def read_proc(pid, name):
    try:
        return pathlib.Path(f"/proc/{pid}/{name}").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def proc_cwd(pid):
    try:
        return os.readlink(f"/proc/{pid}/cwd")
    except OSError:
        return ""


def all_pids():
    return [int(p) for p in os.listdir("/proc") if p.isdigit()]


def parent_of(pid):
    stat = read_proc(pid, "stat")
    return int(stat.rsplit(")", 1)[1].split()[1]) if stat else 0


def state_of(pid):
    stat = read_proc(pid, "stat")
    return stat.rsplit(")", 1)[1].split()[0] if stat else ""


def tell(scenario, **found):
    """What a scenario showed, as one line of JSON: to standard output, and kept beside the program, also when it passes."""
    line = json.dumps({"scenario": scenario, **found})
    print(line)
    test = os.environ.get("PYTEST_CURRENT_TEST", "").split("::")[-1].split(" ")[0]
    with (pathlib.Path(BASCULE).parent / "scenarios.jsonl").open("a") as kept:
        kept.write(json.dumps({"at": time.strftime("%FT%TZ", time.gmtime()), "test": test, **json.loads(line)}) + "\n")


class Cluster:
    def __init__(self, nodes=3, up_options=(), up_timeout=90, etcd=0):
        """etcd: so many members of an etcd of the cluster's own, instead of a file."""
        self.nodes_count, self.up_options, self.up_timeout = nodes, list(up_options), up_timeout
        if POSTGRESQL and "--bin-dir" not in self.up_options:
            self.up_options += of_version(int(POSTGRESQL))
        if etcd:
            self.up_options += ["--store", "etcd", "--store-nodes", str(etcd)]
        self.relayed = 0  # members that stream from others than the primary
        self.relays = []
        self.base = pathlib.Path(tempfile.mkdtemp(prefix="bascule-it-"))
        self.base.chmod(0o755)  # as root, the cluster's user has to get in
        self.dir = self.base / "c"
        self.stopped_pids = set()

    # ---- life -------------------------------------------------------------------------------------
    def __enter__(self):
        try:
            self.run_cli("up", "--nodes", str(self.nodes_count), *self.port_options(), *self.up_options,
                         timeout=self.up_timeout)
            self.info = json.loads((self.dir / "cluster.json").read_text())
            self.members = [n["name"] for n in self.info["nodes"]]
            self.etcd = Etcd(self.info["etcd"]) if self.info.get("etcd") else None
            self.wait_healthy(timeout=60)
        except BaseException:
            self.dump_logs()
            self.destroy()
            raise
        return self

    def __exit__(self, kind, *_):
        if kind is not None:
            self.dump_logs()
        self.destroy(keep=kind is not None and KEEP)

    def port_options(self):
        return ["--base-port", str(self.find_port_base())]

    @staticmethod
    def find_port_base():
        """A run of free ports outside the kernel's ephemeral range, different for parallel runs."""
        start = 20000 + (os.getpid() * 37) % 9000
        for base in list(range(start, 30000, 32)) + list(range(20000, start, 32)):
            sockets = []
            try:
                for port in range(base, base + 32):
                    s = socket.socket()
                    sockets.append(s)
                    s.bind(("127.0.0.1", port))
                return base
            except OSError:
                continue
            finally:
                for s in sockets:
                    s.close()
        raise AssertionError("no 32 free ports in a row between 20000 and 30000")

    def destroy(self, keep=None):
        for relay in self.relays:
            relay.close()
        send(self.stopped_pids | set(self.pids()), signal.SIGCONT)
        try:
            subprocess.run([BASCULE, "down", "--dir", str(self.dir)], capture_output=True, timeout=60)
        except subprocess.TimeoutExpired:
            pass
        deadline = time.monotonic() + 10
        while (left := self.pids()) and time.monotonic() < deadline:
            send(left, signal.SIGKILL)
            time.sleep(0.05)
        if keep:
            print(f"kept: {self.base}")
        else:
            shutil.rmtree(self.base, ignore_errors=True)

    def dump_logs(self):
        """The end of every log, for the report of a failed test."""
        for path in sorted(self.dir.glob("log/*.log")) + sorted(self.dir.glob("nodes/*/run/*.log")):
            try:
                lines = path.read_text(errors="replace").splitlines()
            except OSError:
                continue
            lines = [line for line in lines if "the database system is starting up" not in line][-40:]
            print(f"---- the end of {path.relative_to(self.dir)}")
            print("\n".join(line[:400] for line in lines))

    # ---- the command line ---------------------------------------------------------------------------
    def run_cli(self, *arguments, timeout=60, check=True):
        argv = [BASCULE, *arguments, "--dir", str(self.dir)]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=timeout)
        if check and done.returncode != 0:
            raise AssertionError(f"{' '.join(argv)}: exit {done.returncode}\n{done.stdout}{done.stderr}")
        return done

    def status(self):
        return json.loads(self.run_cli("status", "--json").stdout)

    def history(self):
        return json.loads(self.run_cli("history", "--json").stdout)

    # ---- the store, read directly: fast enough to hit the moment between two steps ------------------
    def key(self, name):
        return f"/bascule/{self.info['cluster']}/{name}"

    def record(self, key):
        if self.etcd:
            return self.etcd_record(key)
        path = f"file:{self.dir}/store.db?mode=ro"
        for _ in range(20):
            try:
                with sqlite3.connect(path, uri=True, timeout=1.0) as db:
                    row = db.execute("SELECT value FROM kv WHERE key = ?",
                                     (self.key(key).encode(),)).fetchone()
                return json.loads(row[0]) if row else None
            except sqlite3.OperationalError:
                time.sleep(0.005)
        raise AssertionError(f"store.db can't be read for {key}")

    def etcd_record(self, key):
        for _ in range(50):  # an election of etcd's takes its time
            answered, value = self.etcd.get(self.key(key))
            if answered:
                return json.loads(value) if value else None
            time.sleep(0.1)
        raise AssertionError(f"etcd can't be read for {key}")

    def leader(self):
        return self.record("leader") or {}

    def epoch(self):
        return int(self.leader().get("epoch", 0))

    def leader_renewed_by_now(self):
        """Whether the record is renewed between two looks."""
        counter = self.leader().get("counter")
        time.sleep(0.05)
        return self.leader().get("counter") != counter

    def primary(self):
        """The member that holds the record and is writable now, else ''."""
        leader = self.leader()
        return leader.get("holder", "") if leader.get("phase") == "running" else ""

    def wait_primary(self, timeout, other_than="", epoch_above=0):
        def found():
            leader = self.leader()
            name = leader.get("holder", "")
            good = leader.get("phase") == "running" and name != other_than
            return name if good and int(leader.get("epoch", 0)) > epoch_above else ""
        return wait_for(found, timeout, f"a writable primary (not {other_than or 'nobody'}, "
                                        f"epoch above {epoch_above})")

    def wait_healthy(self, timeout=60, streaming=None):
        """One primary, everybody else streams from it on its timeline, synchronous set filled."""
        want = len(self.members) - 1 - self.relayed if streaming is None else streaming

        def healthy():
            name = self.primary()
            if not name:
                return False
            try:
                senders = self.query(name, "SELECT count(*) FROM pg_stat_replication "
                                           "WHERE state = 'streaming' AND application_name LIKE 'n%%'")
                sync = self.query(name, "SELECT current_setting('synchronous_standby_names')")
            except psycopg2.Error:
                return False
            # Alone is a state to wait out only where somebody could be synchronous.
            return senders[0][0] >= want and (sync[0][0] != "" or want == 0 or not self.synchronous())
        wait_for(healthy, timeout, f"a primary with {want} streaming replicas", poll_s=0.1)

    def wait_shown_healthy(self, timeout=60):
        """Healthy, and the members' records say so: commands go by those."""
        self.wait_healthy(timeout)
        wait_for(lambda: sum(m["state"] == "streaming" for m in self.status()["members"]) == len(self.members) - 1,
                 30, "records of streaming members")

    def switch_over(self, candidate):
        self.wait_shown_healthy()
        self.run_cli("switchover", "--candidate", candidate)
        wait_for(lambda: self.primary() == candidate, 20, f"{candidate} leads")

    def synchronous(self):
        return (self.record("config") or {}).get("syncMode", "on") != "off"

    def generations(self):
        """Of the record of who is waited for; more than one while an older one may still count."""
        return (self.record("sync") or {}).get("generations", [])

    def voters(self):
        """Members of the newest generation."""
        return sorted(name.split("_")[0] for name in self.generations()[-1]["voters"])

    def wait_for_voters(self, count, k=1, timeout=30):
        """So many are waited for, any k of them, recorded and confirmed."""
        def there():
            known = self.generations()
            return len(known) == 1 and (len(known[0]["voters"]), known[0]["quorum"]) == (count, count - k + 1)
        wait_for(there, timeout, f"any {k} of {count} voters", poll_s=0.05)

    # ---- PostgreSQL -------------------------------------------------------------------------------
    def dsn(self, where="writer"):
        """As the application: through the proxy ("writer", "reader") or directly to a member."""
        address = self.info[where] if where in ("writer", "reader") else self.address(where)
        return (f"host={address['host']} port={address['port']} dbname={self.info['database']} "
                f"user={self.info['appUser']} passfile={self.info['pgpass']} connect_timeout=5")

    def address(self, member):
        return next(n for n in self.info["nodes"] if n["name"] == member)

    def superuser(self, member, database="postgres"):
        """The superuser has no password: it is let in by peer, over the local socket."""
        dsn = (f"host={self.home(member)}/run port={self.address(member)['port']} dbname={database} "
               f"user={self.info['superuser']} connect_timeout=5")
        with as_user(self.info["user"]):
            return psycopg2.connect(dsn)

    def query(self, member, sql, *values, database="postgres"):
        connection = self.superuser(member, database)
        try:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute(sql, values or None)
                return cursor.fetchall() if cursor.description else []
        finally:
            connection.close()

    def sync_standby(self, primary):
        """The member whose acknowledgement commits wait for."""
        rows = self.query(primary, "SELECT application_name FROM pg_stat_replication WHERE sync_state = 'sync'")
        return next(m for m in self.members for row in rows if row[0].startswith(m + "_"))

    def others(self, *but):
        return [m for m in self.members if m not in but]

    def timeline(self, member):
        return int(self.query(member, "SELECT timeline_id FROM pg_control_checkpoint()")[0][0])

    # ---- processes ----------------------------------------------------------------------------------
    def home(self, member):
        return self.dir / "nodes" / member

    def data(self, member):
        return self.home(member) / "data"

    def pids(self, below=None):
        """Every process of this cluster (or of one member): by its directory in /proc."""
        where = str(below or self.dir)
        mine = []
        for pid in all_pids():
            if pid != os.getpid() and (where + "/" in read_proc(pid, "cmdline") + " " + proc_cwd(pid) + "/"):
                mine.append(pid)
        return [pid for pid in mine if state_of(pid) not in ("Z", "")]

    def agent(self, member):
        return int((self.home(member) / "agent.pid").read_text())

    def postmaster(self, member):
        return int((self.data(member) / "postmaster.pid").read_text().split("\n", 1)[0])

    def guard(self, member):
        guards = [pid for pid in self.pids(self.home(member)) if " guard " in read_proc(pid, "cmdline") + " "]
        assert guards, f"no guard process of {member}"
        return guards[0]

    def etcd_process(self, name):
        return int((self.dir / "etcd" / name / "agent.pid").read_text())

    def etcd_home(self, name):
        return self.dir / "etcd" / name

    def stop_etcd(self):
        """All of it, until start_etcd()."""
        for name in self.etcd.names:
            (self.etcd_home(name) / "hold").touch()
        self.kill(*[self.etcd_process(name) for name in self.etcd.names])
        for name in self.etcd.names:
            wait_for(lambda n=name: not self.pids(self.etcd_home(n)), 10, f"{name} is gone")

    def start_etcd(self):
        for name in self.etcd.names:
            (self.etcd_home(name) / "hold").unlink(missing_ok=True)

    def put_relays_between(self, member):
        """From now on the member reaches etcd through relays, which can be cut and healed."""
        relays = [Relay((m["client"]["host"], m["client"]["port"])) for m in self.info["etcd"]]
        self.relays += relays
        path = self.home(member) / "bascule.yaml"
        text = path.read_text()
        for relay in relays:
            text = text.replace(f":{relay.target[1]}\n", f":{relay.port}\n")
        path.write_text(text)
        agent = self.agent(member)
        self.kill(agent)
        wait_for(lambda: self.agent(member) != agent, 20, "the agent is started again")
        return relays

    def host_pids(self, member):
        """Everything on the member's "host": agent, guard, PostgreSQL with its backends."""
        pids = set(self.pids(self.home(member)))
        for pid in all_pids():  # walsenders and backends keep the postmaster's working directory
            if proc_cwd(pid) == str(self.data(member)):
                pids.add(pid)
        return pids

    def backends(self, member, kind):
        """Pids of PostgreSQL's own processes by their title, e.g. "walreceiver", "walsender"."""
        return [pid for pid in all_pids() if proc_cwd(pid) == str(self.data(member))
                and kind in read_proc(pid, "cmdline")]

    def kill(self, *pids, number=signal.SIGKILL):
        assert send(pids, number) == len(pids), f"a process of {pids} is gone already"

    def stop(self, *pids):
        self.stopped_pids.update(pids)
        self.kill(*pids, number=signal.SIGSTOP)

    def cont(self, *pids):
        send(pids, signal.SIGCONT)
        self.stopped_pids.difference_update(pids)

    def hold(self, member):
        """The supervisor does not start this member's agent again until release()."""
        (self.home(member) / "hold").touch()

    def release(self, member):
        (self.home(member) / "hold").unlink(missing_ok=True)

    def kill_host(self, member):
        """As if the host had died, its kernel resetting the connections. It stays dead until
        release()."""
        self.hold(member)
        send(self.host_pids(member), signal.SIGSTOP)  # nothing is forked, and nobody answers, while the others die
        for _ in range(5):  # what was forked between looking and stopping
            pids = self.host_pids(member)
            if not pids:
                return
            send(pids, signal.SIGKILL)
            time.sleep(0.01)
        assert not self.host_pids(member), f"processes of {member} survive SIGKILL"

    def start_like_a_service(self, member):
        """pg_ctl start on the directory, as a service or an operator would, without Bascule."""
        command = [f"{self.info['binDir']}/pg_ctl", "-D", str(self.data(member)), "-w", "-t", "30",
                   "-l", str(self.home(member) / "run" / "service.log"), "start"]
        if os.geteuid() == 0:
            command = ["setpriv", f"--reuid={self.info['user']}", "--init-groups",
                       f"--regid={self.info['user']}"] + command
        # The killed postmaster may be a zombie for a moment, which PostgreSQL takes for a running one.
        end = time.monotonic() + 20
        while True:
            done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd="/")
            if done.returncode == 0:
                return
            assert time.monotonic() < end, done.stdout + done.stderr
            time.sleep(0.2)

    def noted(self, member, word):
        """Whether the member's agent wrote down a decision with this word."""
        return [line for line in self.notes(member) if word in line["what"]]

    def notes(self, member):
        path = self.home(member) / "run" / "events.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    # ---- checks ----------------------------------------------------------------------------------
    def ledger(self, clients=4, where="writer", **options):
        return Ledger(self.dsn(where), clients=clients, **options)

    def writable_members(self):
        """Members that accept connections and are not in recovery: at most one may acknowledge."""
        found = []
        for member in self.members:
            try:
                if not self.query(member, "SELECT pg_is_in_recovery()")[0][0]:
                    found.append(member)
            except psycopg2.Error:
                pass
        return found

    def finish(self, ledger, scenario, max_gap_ms=None, errors_by_client_max=None, **more):
        """Row by row on the primary and on every replica; prints one JSON line; asserts."""
        ledger.stop()
        primary = self.wait_primary(timeout=30)
        report = ledger.check(self.dsn(primary))
        tell(scenario, **report.summary(), **more)
        assert report.acked > 0
        assert report.lost == [], f"acknowledged and not there: {report.lost[:10]}"
        assert report.duplicates == [], f"there twice: {report.duplicates[:10]}"
        if max_gap_ms is not None:
            assert report.gap_ms <= max_gap_ms, f"write gap {report.gap_ms:.0f} ms > {max_gap_ms} ms"
        if errors_by_client_max is not None:
            assert max(report.errors_by_client) <= errors_by_client_max, report.error_messages[:10]
        return report

    def whole_again(self, ledger, scenario, **checks):
        """The end of a test: everybody follows one primary, writes go on, and every row is where it should be."""
        self.wait_healthy(timeout=120)
        ledger.wait_acks(50)
        self.finish(ledger, scenario, **checks)
        self.assert_same_rows_everywhere()
        assert self.writable_members() == [self.primary()]

    def assert_same_rows_everywhere(self, timeout=30):
        """Every replica ends with the primary's rows: nobody has diverged."""
        sql = "SELECT count(*), coalesce(sum(client * 1000003 + seq), 0) FROM ledger"
        primary = self.wait_primary(timeout=30)
        want = self.query(primary, sql, database=self.info["database"])
        for member in self.members:
            def same(member=member):
                try:
                    return self.query(member, sql, database=self.info["database"]) == want
                except psycopg2.Error:
                    return False
            wait_for(same, timeout, f"{member} has the rows of {primary}", poll_s=0.1)
