"""How long writes stop, Bascule beside Debian's Patroni + HAProxy: both on the same etcd of three, each with
three PostgreSQL hosts and a proxy host of their own (network namespaces), synchronous mode, the same clients.
Faults are interleaved: every system gets the same one before the next fault; a system's cluster serves all runs, whole again
before each. Needs root. A run of all systems takes about four minutes, most of it spent waiting for Patroni's time-outs and for
what was killed to rejoin; of Bascule's two (--systems bascule) less than one."""

import argparse
import contextlib
import datetime
import json
import os
import pathlib
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time

import psycopg2

import rig as rigs

sys.path.insert(0, str(rigs.ROOT / "tests/integration"))
os.environ.setdefault("BASCULE", rigs.BASCULE)
import netns  # noqa: E402
import patroni  # noqa: E402
from harness import send, wait_for  # noqa: E402
from namespaces import HostCluster, boot_etcd  # noqa: E402

PAGE = rigs.ROOT / "docs/benchmarks-failover.md"
CLIENTS = 4
ACKS_BEFORE, ACKS_AFTER = 100, 30
PATIENCE_S = 180  # for a system that does not come back: Patroni's defaults need 50 s for a partition


class Bascule(HostCluster):
    def switchover(self):
        self.run_cli("switchover")

    def ledger(self, clients):
        return super().ledger(clients).inner

    def daemons(self):
        return {"agent": [p for m in self.members for p in self.host(m).running(" run --config")],
                "guard": [p for m in self.members for p in self.host(m).running(" guard ")],
                "proxy": self.host(self.proxy_name).running(" run --config")}


def systems(network, etcd_hosts):
    """name: (what it is, how to make it)"""
    def bascule(prefix, **defaults):
        return Bascule(defaults={"sync": "on", "failover_limit": 0, **defaults}, network=network, etcd_hosts=etcd_hosts, prefix=prefix)

    def peer(prefix, dcs, checks):
        return patroni.PatroniCluster(network, etcd_hosts, prefix, dcs, checks)
    return {
        "bascule": ("Bascule, default (ttl 5 s)", lambda: bascule("nd", timing="default")),
        "bascule-fast": ("Bascule, fast (ttl 2 s, early take-over)",
                         lambda: bascule("nf", timing="fast", early_takeover=True, blip_tolerance="1s")),
        "patroni": ("Patroni, defaults (ttl 30 s)", lambda: peer("pd", patroni.DEFAULTS, patroni.CHECKS)),
        "patroni-fastest": ("Patroni, fastest (ttl 20 s)",
                            lambda: peer("pf", patroni.FASTEST, patroni.CHECKS_FASTEST)),
    }


# ---- faults: each strikes and says how to undo it ---------------------------------------------------

def postmaster(cluster, name, network):
    send([cluster.postmaster(name)], signal.SIGKILL)
    return lambda: None


def host(cluster, name, network):
    network.hosts[name].kill()
    return lambda: network.hosts[name].boot()


def partition(cluster, name, network):
    network.isolate(network.hosts[name], but=[network.hosts["eye"]])
    return lambda: network.heal(network.hosts[name])


def switchover(cluster, name, network):
    cluster.switchover()
    return lambda: None


FAULTS = {
    "postmaster": ("SIGKILL of the postmaster", postmaster),
    "host": ("all processes of the host killed", host),
    "partition": ("partition of the primary", partition),
    "switchover": ("planned switchover", switchover),
}

# Median and maximum that are to be reached (s), of three members on etcd, synchronous.
GOALS = {
    ("postmaster", "bascule"): (0.7, 1.5), ("postmaster", "bascule-fast"): (0.7, 1.5),
    ("host", "bascule-fast"): (1.5, 2.5),
    ("partition", "bascule"): (6.0, 6.0), ("partition", "bascule-fast"): (2.0, 3.5),
    ("switchover", "bascule"): (0.4, 0.8), ("switchover", "bascule-fast"): (0.4, 0.8),
}


def measure(cluster, strike, network):
    """One fault, from steady writes to steady writes; then the cluster is whole again."""
    name = wait_for(cluster.primary, PATIENCE_S, "there is a primary")
    with network.hosts["c1"].inside():
        ledger = cluster.ledger(CLIENTS)
        ledger.__enter__()
    undo = None
    try:
        ledger.wait_acks(ACKS_BEFORE, timeout=PATIENCE_S)
        undo = strike(cluster, name, network)
        ledger.wait_acks(ACKS_AFTER, timeout=PATIENCE_S)
    finally:
        ledger.stop()
        if undo:
            undo()
    now = wait_for(cluster.primary, PATIENCE_S, "there is a primary")
    report = ledger.check(cluster.dsn(now))
    cluster.wait_healthy(timeout=PATIENCE_S)
    statements = [m for m in report.error_messages if not m.startswith("connect:")]
    with contextlib.closing(connect_to(cluster.dsn(wait_for(cluster.primary, PATIENCE_S, "a primary")))) as connection:
        connection.cursor().execute("TRUNCATE ledger")
    return {"gap_ms": round(report.gap_global_ms), "client_gap_ms": round(report.gap_ms), "acked": report.acked,
            "failed_statements": len(statements), "failed_connects": len(report.error_messages) - len(statements),
            "lost": len(report.lost), "duplicates": len(report.duplicates), "same_primary": now == name,
            "first_errors": [m.split("\n")[0] for m in report.error_messages[:2]]}


def connect_to(dsn):
    connection = psycopg2.connect(dsn)
    connection.autocommit = True
    return connection


def idle(clusters, seconds):
    """Memory and processor time of what keeps PostgreSQL available, while nobody writes."""
    before = {name: {kind: [(p, rigs.cpu_ns(p)) for p in pids] for kind, pids in c.daemons().items()}
              for name, c in clusters.items()}
    begun = time.monotonic()
    time.sleep(seconds)
    passed = time.monotonic() - begun
    out = {}
    for name, kinds in before.items():
        out[name] = {kind: {"rss_mb": round(max(rss_bytes(p) for p, _ in pids) / 1e6, 1),
                            "private_mb": round(max(rigs.private_bytes(p) for p, _ in pids) / 1e6, 1),
                            "cpu_percent": round(max(rigs.cpu_ns(p) - ns for p, ns in pids) / passed / 1e7, 2)}
                     for kind, pids in kinds.items() if pids}
    return out


def rss_bytes(pid):
    text = pathlib.Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"^VmRSS:\s+(\d+) kB", text, re.M)[1]) * 1024


# ---- report ----------------------------------------------------------------------------------------

def cell(samples, key):
    values = [s[key] for s in samples]
    return f"{statistics.median(values) / 1000:.2f} / {max(values) / 1000:.2f}"


def goal(samples, fault, system):
    if (fault, system) not in GOALS:
        return "–"
    median, most = GOALS[fault, system]
    gaps = [s.get("gap_ms", 1000 * PATIENCE_S) / 1000 for s in samples]
    reached = statistics.median(gaps) < median and max(gaps) < most
    return f"{median:.1f} / {most:.1f}: {'reached' if reached else 'missed'}"


def tables(result):
    lines = ["| fault | system | runs | write gap, median / max (s) | to reach | of one client (s) | "
             "failed statements a client | failed connects a client | acknowledged, then lost |",
             "|---|---|---|---|---|---|---|---|---|"]
    for fault, (what, _) in FAULTS.items():
        for name, label in result["systems"].items():
            every = [s for s in result["samples"] if s["fault"] == fault and s["system"] == name]
            good = [s for s in every if "error" not in s]
            if not every:
                continue
            if not good:
                lines.append(f"| {what} | {label} | {len(every)} | {every[0]['error']} | | | | | |")
                continue

            def mean(key):
                return f"{statistics.mean(s[key] for s in good) / CLIENTS:.1f}"
            failed = f" ({len(every) - len(good)} failed)" if len(good) < len(every) else ""
            lines.append(f"| {what} | {label} | {len(good)}{failed} | **{cell(good, 'gap_ms')}** | "
                         f"{goal(every, fault, name)} | {cell(good, 'client_gap_ms')} | "
                         f"{mean('failed_statements')} | {mean('failed_connects')} | "
                         f"{sum(s['lost'] for s in good)} |")
    if result.get("idle"):
        lines += ["", "| idle | process | resident (MB) | private (MB) | processor (% of a core) |", "|---|---|---|---|---|"]
        for name, kinds in result["idle"].items():
            for kind, figures in kinds.items():
                lines.append(f"| {result['systems'][name]} | {kind} | {figures['rss_mb']} | {figures['private_mb']} | "
                             f"{figures['cpu_percent']} |")
    return "\n".join(lines)


def about():
    def first_line(*argv):
        return subprocess.run(argv, capture_output=True, text=True, cwd=rigs.ROOT).stdout.strip().split("\n")[0]
    cpu = re.search(r"model name\s*: (.*)", pathlib.Path("/proc/cpuinfo").read_text())
    versions = {p: first_line("dpkg-query", "-W", "-f=${Version}", p)
                for p in ("patroni", "haproxy", "etcd-server", "postgresql-15")}
    return {"date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
            "commit": first_line("git", "describe", "--always", "--dirty"), "versions": versions,
            "machine": f"{os.cpu_count()} cores, {cpu[1] if cpu else '?'}, Linux {os.uname().release}",
            "load_before": os.getloadavg()[0]}


def write_page(result):
    a = result["about"]
    packages = ", ".join(f"{name} {version}" for name, version in a["versions"].items())
    text = (f"Measured {a['date']}, commit {a['commit']}; {a['machine']}; load of other work before: "
            f"{a['load_before']:.1f}; {packages}.\n\n{tables(result)}\n")
    alone = not any(name.startswith("patroni") for name in result["systems"])
    begin = "<!-- figures of Bascule alone -->" if alone else "<!-- figures -->"
    PAGE.write_text(re.sub(rf"({begin}\n).*?(<!-- end -->)", lambda m: m[1] + "\n" + text + "\n" + m[2], PAGE.read_text(),
                           flags=re.S))


def run_all(options, result):
    with contextlib.ExitStack() as stack:
        network = stack.enter_context(netns.Network())
        folder = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bascule-bench-")))
        etcd_hosts = [network.add_host(f"e{i + 1}") for i in range(3)]
        network.add_host("c1")
        network.enter_context(network.add_host("eye").inside())
        boot_etcd(etcd_hosts, folder)
        clusters = {}
        for name, (label, make) in systems(network, etcd_hosts).items():
            if re.search(options.systems, name):
                clusters[name] = stack.enter_context(make())
                result["systems"][name] = label
                print(f"{label}: up", file=sys.stderr, flush=True)
        if options.idle:
            result["idle"] = idle(clusters, options.idle)
        for number in range(options.runs):
            for fault, (_, strike) in FAULTS.items():
                for name in list(clusters) if re.search(options.faults, fault) else []:
                    sample = {"run": number, "fault": fault, "system": name}
                    try:
                        sample |= measure(clusters[name], strike, network)
                    except (AssertionError, OSError, psycopg2.Error) as error:
                        sample["error"] = str(error).splitlines()[0]
                        network.heal()
                    result["samples"].append(sample)
                    print(json.dumps(sample), file=sys.stderr, flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--runs", type=int, default=5, help="of each fault on each system (default 5)")
    parser.add_argument("--systems", default="", help="regular expression: only these of bascule, bascule-fast, patroni, "
                        "patroni-fastest")
    parser.add_argument("--faults", default="", help="regular expression: only these of " + ", ".join(FAULTS))
    parser.add_argument("--idle", type=int, default=30, metavar="SECONDS", help="of measuring idle daemons (default 30)")
    parser.add_argument("--json", metavar="FILE", help="write every sample there")
    parser.add_argument("--page", action="store_true", help=f"write the tables to {PAGE.relative_to(rigs.ROOT)}; those of "
                        "Bascule alone have a place of their own there")
    options = parser.parse_args()
    if reason := netns.not_allowed():
        raise SystemExit(f"bench: {reason}")
    result = {"about": about(), "systems": {}, "samples": []}
    try:
        with rigs.before_others():
            run_all(options, result)
    finally:
        if options.json:
            pathlib.Path(options.json).write_text(json.dumps(result, indent=1))
        print(tables(result))
    if options.page:
        write_page(result)
    return 1 if any(s.get("lost") for s in result["samples"] if s["system"].startswith("bascule")) else 0


if __name__ == "__main__":
    sys.exit(main())
