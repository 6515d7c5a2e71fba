"""CPU time a transaction, throughput and latency of the proxy beside PgBouncer: interleaved runs of
pgbench against one PostgreSQL, medians, ratios. Both as they log clients in: SCRAM-SHA-256."""

import argparse
import dataclasses
import json
import pathlib
import re
import statistics
import sys

import rig as rigs

PROGRESS = re.compile(r"progress: ([\d.]+) s, ([\d.]+) tps, lat ([\d.]+) ms")
BIG = "SELECT repeat('x', 1048576);\n"


@dataclasses.dataclass
class Cell:
    name: str
    clients: int
    arguments: list


CELLS = [
    Cell("simple/1", 1, ["-S", "-M", "simple"]),
    Cell("simple/16", 16, ["-S", "-M", "simple"]),
    Cell("simple/100", 100, ["-S", "-M", "simple"]),
    Cell("simple/1000", 1000, ["-S", "-M", "simple"]),
    Cell("prepared/16", 16, ["-S", "-M", "prepared"]),
    Cell("prepared/100", 100, ["-S", "-M", "prepared"]),
    Cell("prepared/1000", 1000, ["-S", "-M", "prepared"]),
    Cell("megabyte/4", 4, ["-f", "big.sql"]),
    Cell("connect/16", 16, ["-S", "-C"]),
]


@dataclasses.dataclass
class Sample:
    cpu_us: float  # of the pooler, a transaction
    tps: float
    p99_ms: float


def measure(rig, pooler, cell, seconds):
    """From the first progress report on, so that log-ins are not in it (but for -C)."""
    log = rig.dir / "latency"
    process = rig.pgbench(pooler.port, "-c", cell.clients, "-j", 1, "-T", seconds + 1, "-P", 1, "-l",
                          f"--log-prefix={log}", "--sampling-rate=0.1", *cell.arguments)
    output, transactions, begun, last, cpu = "", 0.0, None, 0.0, 0
    for line in process.stdout:
        output += line
        found = PROGRESS.match(line)
        if not found:
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


def table(results, peer):
    print(f"\n| cell | CPU us bascule | CPU us {peer} | CPU ratio (runs) | tps ratio | p99 ratio |")
    print("|---|---|---|---|---|---|")
    for name, row in results.items():
        if "error" in row:
            print(f"| {name} | {row['error']} |")
            continue
        runs = " ".join(f"{r:.2f}" for r in row["cpu_ratios"])
        print(f"| {name} | {row['bascule']['cpu_us']:.1f} | {row['pgbouncer']['cpu_us']:.1f} "
              f"| **{row['cpu_ratio']:.2f}** ({runs}) | {row['tps_ratio']:.2f} | {row['p99_ratio']:.2f} |")


def plot(results, path):
    import matplotlib
    matplotlib.use("svg")
    from matplotlib import pyplot
    rows = {name: row for name, row in results.items() if "error" not in row}
    figure, axes = pyplot.subplots(figsize=(9, 0.5 * len(rows) + 1.5))
    axes.barh(list(rows), [row["cpu_ratio"] for row in rows.values()])
    axes.axvline(1.0, color="black", linewidth=1)
    axes.set_xlabel("CPU time a transaction, PgBouncer = 1")
    axes.invert_yaxis()
    figure.tight_layout()
    figure.savefig(path)


def summary(samples, mine="bascule", peer="pgbouncer"):
    def medians(name):
        return {field.name: statistics.median(getattr(s, field.name) for s in samples[name])
                for field in dataclasses.fields(Sample)}
    pairs = list(zip(samples[mine], samples[peer]))
    return {
        mine: medians(mine), peer: medians(peer),
        "cpu_ratios": [a.cpu_us / b.cpu_us for a, b in pairs],
        "cpu_ratio": statistics.median(a.cpu_us / b.cpu_us for a, b in pairs),
        "tps_ratio": statistics.median(a.tps / b.tps for a, b in pairs),
        "p99_ratio": statistics.median(a.p99_ms / b.p99_ms for a, b in pairs),
    }


def main():
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--runs", type=int, default=3, help="of each cell (default 3)")
    options.add_argument("--seconds", type=int, default=5, help="of each run (default 5)")
    options.add_argument("--cells", default="", help="regular expression: only these")
    options.add_argument("--mode", default="transaction", choices=["transaction", "session"])
    options.add_argument("--pool", type=int, default=20)
    options.add_argument("--workers", type=int, default=1)
    options.add_argument("--json", metavar="FILE", help="write the figures there")
    options.add_argument("--plot", metavar="FILE", help="write a plot (SVG) there")
    given = options.parse_args()
    results = {}
    with rigs.Rig() as rig:
        rig.load_tables(10)
        (rig.dir / "big.sql").write_text(BIG)
        pool = given.pool
        mode = f"  pool_mode: {given.mode}\n" if given.mode != "session" else ""
        poolers = [rig.bascule(pool=pool, workers=given.workers, more=mode),
                   rig.pgbouncer(pool=pool, mode=given.mode)]
        version = ".".join(map(str, rigs.pgbouncer_version()))
        print(f"pgbench beside PgBouncer {version}, {given.mode} pooling, pool {pool}, "
              f"{given.workers} worker(s); {given.runs} interleaved runs of {given.seconds} s", flush=True)
        for cell in CELLS:
            if not re.search(given.cells, cell.name):
                continue
            samples = {p.name: [] for p in poolers}
            try:
                for _ in range(given.runs):
                    for pooler in poolers:
                        samples[pooler.name].append(measure(rig, pooler, cell, given.seconds))
                results[cell.name] = summary(samples)
            except RuntimeError as error:
                results[cell.name] = {"error": str(error).splitlines()[-1]}
            print(".", end="", file=sys.stderr, flush=True)
    table(results, f"PgBouncer {version}")
    if given.json:
        pathlib.Path(given.json).write_text(json.dumps(results, indent=1))
    if given.plot:
        plot(results, given.plot)


if __name__ == "__main__":
    main()
