"""CPU time a transaction, throughput and latency of the proxy beside PgBouncer: interleaved runs of
pgbench against one PostgreSQL, medians, ratios. Every pooler logs its clients in by SCRAM-SHA-256.

A cell is one way to use a pooler (pgbench's arguments and a number of clients); a contender is a
pooler with its configuration. In a cell each contender is measured once a round, one behind the
other, and compared with the peer of the same round; the table shows the median of the rounds."""

import argparse
import dataclasses
import datetime
import json
import pathlib
import platform
import re
import statistics
import subprocess
import sys
import time

import rig as rigs

PROGRESS = re.compile(r"progress: ([\d.]+) s, ([\d.]+) tps, lat ([\d.]+) ms")
# A megabyte that costs the server little: repeat() of single letters takes it longer than all the rest.
SCRIPTS = {"big.sql": "SELECT repeat(repeat('x', 1024), 1024);\n"}
LIMIT = 0.12  # of a core, of each worker of the cells `limited/...`
SIMPLE, PREPARED = ["-S", "-M", "simple"], ["-S", "-M", "prepared"]


@dataclasses.dataclass
class Cell:
    name: str
    clients: int
    arguments: list
    contenders: list  # the first is the peer
    targets: dict = dataclasses.field(default_factory=dict)  # contender: CPU ratio at most


def cells():
    both = ["pgbouncer", "epoll", "io_uring"]
    simple = {1: (1.0, 1.0), 16: (0.95, 0.85), 100: (0.85, 0.65), 1000: (0.8, 0.7)}
    unix = {16: 0.75, 100: 0.65, 1000: 0.65}
    prepared = {16: 0.8, 100: 0.65, 1000: 0.65}
    result = [Cell(f"simple/{n}", n, SIMPLE, both, dict(zip(both[1:], at_most)))
              for n, at_most in simple.items()]
    result += [Cell(f"unix/{n}", n, SIMPLE, ["pgbouncer-unix", "epoll-unix", "io_uring-unix"],
                    {"io_uring-unix": at_most}) for n, at_most in unix.items()]
    result += [Cell(f"prepared/{n}", n, PREPARED, both, {"io_uring": at_most})
               for n, at_most in prepared.items()]
    result.append(Cell("megabyte/4", 4, ["-f", "big.sql"], both, {"epoll": 0.4, "io_uring": 0.4}))
    result.append(Cell("connect/16", 16, ["-S", "-C"], both, {"epoll": 0.9, "io_uring": 0.9}))
    # Our own among themselves: the peer is one worker, and the writer port.
    result += [Cell(f"workers/{n}", n, SIMPLE, ["one worker", "two workers"], {"two workers": 1.1})
               for n in (100, 1000)]
    result.append(Cell("limited/100", 100, SIMPLE, ["one limited worker", "two limited workers"]))
    result.append(Cell("split/100", 100, SIMPLE, ["writer port", "splitting port"],
                       {"splitting port": 1.1}))
    return result


class Poolers:
    """Started when they are first needed; they stay, for an idle one costs nothing."""

    def __init__(self, rig, pool, mode, workers, engine):
        self.rig, self.pool, self.mode, self.workers, self.engine = rig, pool, mode, workers, engine
        self.running = {}

    def get(self, name):
        if name not in self.running:
            self.running[name] = self._start(name)
        return self.running[name]

    def _start(self, name):
        kind, unix = name.removesuffix("-unix"), name.endswith("-unix")
        file = name.replace(" ", "-")
        if kind == "pgbouncer":
            return self.rig.pgbouncer(file, pool=self.pool, mode=self.mode, unix=unix)
        common = dict(pool=self.pool, mode=self.mode, unix=unix)
        if kind in ("epoll", "io_uring"):
            return self.rig.bascule(file, workers=self.workers, engine=kind, **common)
        if kind == "splitting port":
            writer = self.get("writer port")
            return rigs.Pooler(name, writer.split, writer.pid)
        pooler = self.rig.bascule(file, workers=2 if kind.startswith("two") else 1, engine=self.engine, **common)
        if "limited" in kind:
            rigs.limit_threads(pooler.pid, "proxy-[0-9]+", LIMIT)
        return pooler


@dataclasses.dataclass
class Sample:
    cpu_us: float  # of the pooler, a transaction
    tps: float
    p99_ms: float


def measure(rig, pooler, cell, seconds):
    """From the first second with transactions on, so that log-ins are not in it (but for -C)."""
    log = rig.dir / "latency"
    logins = 1 + cell.clients // 500
    process = rig.pgbench(pooler.port, "-c", cell.clients, "-j", 1, "-T", seconds + logins, "-P", 1, "-l",
                          f"--log-prefix={log}", "--sampling-rate=0.1", *cell.arguments)
    output, transactions, begun, last, cpu = "", 0.0, None, 0.0, 0
    for line in process.stdout:
        output += line
        found = PROGRESS.match(line)
        if not found or (begun is None and float(found[2]) == 0):
            continue
        at, tps = float(found[1]), float(found[2])
        now = rigs.cpu_ns(pooler.pid)
        if begun is None:
            begun, cpu_begun = at, now
        else:
            transactions += tps * (at - last)
            cpu = now - cpu_begun
        last = at
    if process.wait() != 0 or not transactions:
        raise RuntimeError(f"{pooler.name} {cell.name}: pgbench failed: {output[-500:]}")
    latencies = []
    for file in rig.dir.glob("latency*"):
        latencies += [int(line.split()[2]) for line in file.read_text().splitlines()]
        file.unlink()
    latencies.sort()
    p99 = latencies[int(len(latencies) * 0.99)] / 1000 if latencies else float("nan")
    return Sample(cpu / transactions / 1000, transactions / (last - begun), p99)


def run_cell(rig, poolers, cell, rounds, seconds):
    samples = {name: [] for name in cell.contenders}
    for i in range(rounds):
        # Who comes first differs: what a machine does now and then hits everybody.
        order = cell.contenders[i % len(cell.contenders):] + cell.contenders[:i % len(cell.contenders)]
        for name in order:
            samples[name].append(measure(rig, poolers.get(name), cell, seconds))
    return summary(samples, cell)


def summary(samples, cell):
    peer = samples[cell.contenders[0]]
    result = {}
    for name, rows in samples.items():
        row = {f.name: statistics.median(getattr(s, f.name) for s in rows)
               for f in dataclasses.fields(Sample)}
        for key in ("cpu_us", "tps", "p99_ms"):
            row[f"{key}_ratios"] = [getattr(a, key) / getattr(b, key) for a, b in zip(rows, peer)]
            row[f"{key}_ratio"] = statistics.median(row[f"{key}_ratios"])
        row["target"] = cell.targets.get(name)
        result[name] = row
    return result


# ---- Report --------------------------------------------------------------------------------------

def table(results):
    lines = ["| cell | contender | CPU µs a transaction | CPU ratio (rounds) | target | transactions/s | ratio | p99 ms | ratio |",
             "|---|---|---|---|---|---|---|---|---|"]
    for cell, rows in results.items():
        if "error" in rows:
            lines.append(f"| {cell} | {rows['error']} |||||||")
            continue
        for i, (name, r) in enumerate(rows.items()):
            if i == 0:
                lines.append(f"| {cell} | {name} | {r['cpu_us']:.1f} | 1 | | {r['tps']:.0f} | 1 | {r['p99_ms']:.2f} | 1 |")
                continue
            rounds = " ".join(f"{x:.2f}" for x in r["cpu_us_ratios"])
            target = "" if r["target"] is None else \
                f"≤ {r['target']:g}: {'yes' if r['cpu_us_ratio'] <= r['target'] + 0.005 else 'no'}"
            lines.append(f"| | {name} | {r['cpu_us']:.1f} | **{r['cpu_us_ratio']:.2f}** ({rounds}) | {target} "
                         f"| {r['tps']:.0f} | {r['tps_ratio']:.2f} | {r['p99_ms']:.2f} | {r['p99_ms_ratio']:.2f} |")
    return "\n".join(lines)


def plot(results, path):
    """One group of bars a cell: the CPU ratios, with the targets as marks."""
    import matplotlib
    matplotlib.use("svg")
    from matplotlib import pyplot
    bars = [(f"{cell}  {name}", r["cpu_us_ratio"], r["target"])
            for cell, rows in results.items() if "error" not in rows
            for name, r in list(rows.items())[1:]]
    figure, axes = pyplot.subplots(figsize=(9, 0.3 * len(bars) + 1.2))
    colours = ["#3b6ea5" if "epoll" in b[0] else "#d08a2e" if "io_uring" in b[0] else "#777777" for b in bars]
    axes.barh(range(len(bars)), [b[1] for b in bars], color=colours)
    for i, bar in enumerate(bars):
        if bar[2] is not None:
            axes.plot([bar[2]] * 2, [i - 0.4, i + 0.4], color="black", linewidth=2)
    axes.set_yticks(range(len(bars)), [b[0] for b in bars])
    axes.axvline(1.0, color="black", linewidth=0.8, linestyle=":")
    axes.set_xlabel("CPU time a transaction, first contender of the cell = 1 (mark: target)")
    axes.invert_yaxis()
    figure.tight_layout()
    figure.savefig(path)


def machine():
    model = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), "?")
    cores = sum(line.startswith("processor") for line in open("/proc/cpuinfo"))
    commit = subprocess.run(["git", "-C", str(rigs.ROOT), "rev-parse", "--short", "HEAD"],
                            capture_output=True, text=True).stdout.strip()
    load = " ".join(open("/proc/loadavg").read().split()[:3])
    return (f"{datetime.datetime.now(datetime.timezone.utc):%Y-%m-%d %H:%M} UTC, {model}, {cores} cores, "
            f"Linux {platform.release()}, commit {commit}, load average at the start {load}")


def options():
    o = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    o.add_argument("--all", action="store_true", help="the whole table with idle clients, in about 14 minutes; "
                   "report in build/bench/")
    o.add_argument("--quick", action="store_true", help="one short round of each cell: a smoke test, in about 3 minutes")
    o.add_argument("--runs", type=int, default=3, help="rounds of each cell (default 3)")
    o.add_argument("--seconds", type=int, default=4, help="of each run (default 4)")
    o.add_argument("--cells", default="", help="regular expression: only these")
    o.add_argument("--mode", default="transaction", choices=["transaction", "session"])
    o.add_argument("--pool", type=int, default=20)
    o.add_argument("--workers", type=int, default=1, help="of epoll and io_uring (default 1)")
    o.add_argument("--engine", default="auto", help="of the cells that compare the proxy with itself (default auto)")
    o.add_argument("--json", metavar="FILE", help="write the figures there")
    o.add_argument("--plot", metavar="FILE", help="write a plot (SVG) there")
    o.add_argument("--report", metavar="FILE", help="write the report (Markdown) there")
    given = o.parse_args()
    if given.quick:
        given.runs, given.seconds = 1, 2
    if given.all:
        out = rigs.ROOT / "build/bench"
        out.mkdir(parents=True, exist_ok=True)
        given.json = given.json or str(out / "proxy.json")
        given.plot = given.plot or str(out / "proxy.svg")
        given.report = given.report or str(out / "proxy.md")
    return given


def main():
    given = options()
    results, begun = {}, time.monotonic()
    where = machine()
    version = ".".join(map(str, rigs.pgbouncer_version()))
    heading = (f"pgbench beside PgBouncer {version}, {given.mode} pooling, pool {given.pool}, {given.workers} worker(s); "
               f"medians of {given.runs} interleaved rounds of {given.seconds} s. {where}.")
    print(heading, flush=True)
    with rigs.before_others(), rigs.Rig() as rig:
        rig.load_tables(10)
        for name, text in SCRIPTS.items():
            (rig.dir / name).write_text(text)
        poolers = Poolers(rig, given.pool, given.mode, given.workers, given.engine)
        for cell in cells():
            if not re.search(given.cells, cell.name):
                continue
            try:
                results[cell.name] = run_cell(rig, poolers, cell, given.runs, given.seconds)
            except RuntimeError as error:
                results[cell.name] = {"error": " ".join(str(error).split())}
            print(".", end="", file=sys.stderr, flush=True)
    report = f"{heading}\n\n{table(results)}\n"
    if given.all:
        import idle
        report += "\n" + idle.report(idle.run(clients=10_000, runs=1), 10_000, 1) + "\n"
    print(f"\n{report}\n{time.monotonic() - begun:.0f} s")
    if given.json:
        pathlib.Path(given.json).write_text(json.dumps(results, indent=1))
    if given.report:
        pathlib.Path(given.report).write_text(report)
    if given.plot:
        plot(results, given.plot)


if __name__ == "__main__":
    main()
