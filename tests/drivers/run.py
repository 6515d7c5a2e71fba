#!/usr/bin/env python3
"""Runs real client drivers against PostgreSQL directly and through the proxy. See README.md.

    tests/drivers/run.py                                   everything
    tests/drivers/run.py --drivers psycopg3,pq --checks cancel,cursor --targets direct,session -v
    tests/drivers/run.py --report docs/proxy-drivers.md    writes the table as well

Exit code 0: no check failed through the proxy that passes directly.
"""
import argparse
import json
import os
import pathlib
import queue
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path.insert(0, str(ROOT / "bench"))

import rig  # noqa: E402  (bench/rig.py: one PostgreSQL, proxies on it)
from programs import PROGRAMS  # noqa: E402
import report  # noqa: E402

SESSION_POOL, TRANSACTION_POOL = 60, 4
HANG_S = 60


def proxy_of(bench, target):
    """Transaction mode gets fewer server connections than any program has clients at once."""
    more = ""
    if target.endswith("tls"):
        key, certificate = self_signed(bench)
        more = f"  client_tls: {{mode: require, certificate_file: {certificate}, key_file: {key}}}\n"
    if target in ("session", "session_tls"):
        return bench.bascule(target, pool=SESSION_POOL, workers=2, mode="session", more=more).port
    if target in ("transaction", "tls"):
        more += "  hold_timeout: 10s\n"  # who waits that long waits for ever
        return bench.bascule(target, pool=TRANSACTION_POOL, workers=2, more=more).port
    if target == "pgbouncer":
        return bench.pgbouncer(pool=TRANSACTION_POOL).port
    assert target == "direct", target
    return bench.pg_port


class Server(rig.Rig):
    iterations = 4096  # pgJDBC and lib/pq refuse fewer


def self_signed(bench):
    key, certificate = bench.dir / "tls.key", bench.dir / "tls.crt"
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost",
                    "-keyout", key, "-out", certificate], check=True, capture_output=True)
    if os.geteuid() == 0:
        shutil.chown(key, "postgres")
    return key, certificate


def lines_of(process):
    """Standard output line by line, None at its end, through a queue: it can be waited for."""
    lines = queue.Queue()

    def read():
        for line in process.stdout:
            lines.put(line)
        lines.put(None)

    threading.Thread(target=read, daemon=True).start()
    return lines


def run_once(program, variant, environment, results, verbose):
    """One life of a program; the name of the check in which it hung or died, else None."""
    process = subprocess.Popen(program.command, env=environment, cwd=HERE, stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, text=True, errors="replace",
                               start_new_session=True)
    stderr = []
    reader = threading.Thread(target=lambda: stderr.extend(process.stderr), daemon=True)
    reader.start()
    lines, running, why = lines_of(process), None, "ended"
    while True:
        try:
            line = lines.get(timeout=HANG_S)
        except queue.Empty:
            why = f"hangs (no answer in {HANG_S} s)"
            break
        if line is None:
            break
        try:
            message = json.loads(line)
        except ValueError:
            stderr.append(line)
            continue
        if "begin" in message:
            running = message["begin"]
            continue
        running = None
        results[message["check"]] = None if message["ok"] else message["error"] or "failed"
        if verbose:
            print(f"    {message['check']:<32} {'ok' if message['ok'] else message['error']}", flush=True)
    with_group = os.getpgid(process.pid) if process.poll() is None and running else None
    if with_group:
        os.killpg(with_group, 9)
    code = process.wait(30)
    reader.join(5)
    if running is None and code == 0:
        return None
    last = " | ".join(line.strip() for line in stderr[-4:])
    results[running or "program"] = f"{why}, exit {code}: {last}"
    if verbose:
        print(f"    {running or 'program':<32} {results[running or 'program']}", flush=True)
    return running


def run_program(program, variant, target, port, bench, options):
    results, hung = {}, set()
    environment = {
        **{k: v for k, v in os.environ.items() if not k.startswith("PG")},
        "DRIVER_HOST": "127.0.0.1", "DRIVER_PORT": str(port), "DRIVER_USER": bench.user,
        "DRIVER_PASSWORD": bench.password, "DRIVER_DATABASE": bench.database,
        "DRIVER_MODE": {"direct": "direct", "session": "session", "session_tls": "session"}.get(target, "transaction"),
        "DRIVER_VARIANT": variant, "DRIVER_ONLY": options.checks,
        "DRIVER_SCRATCH": str(bench.dir / "scratch"), "PYTHONDONTWRITEBYTECODE": "1",
        "PG_BIN": str(rig.PG_BIN), **program.environment,
    }
    if target.endswith("tls"):  # the proxy refuses clear text; libpq's drivers and asyncpg read these, the others DRIVER_TLS
        environment |= {"PGSSLMODE": "require", "PGCHANNELBINDING": "require", "DRIVER_TLS": "yes"}
    while len(hung) < 6:  # after a hang it is run again without the checks that have been
        environment["DRIVER_SKIP"] = ",".join(set(results) | hung)
        stuck = run_once(program, variant, environment, results, options.verbose)
        if stuck is None:
            break
        hung.add(stuck)
    return results


def parse_arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("--drivers", default="", help="names, with commas; default: all")
    parser.add_argument("--checks", default="", help="names, with commas; default: all")
    parser.add_argument("--targets", default="direct,session,transaction",
                        help="of direct, session, transaction, session_tls, tls (transaction mode; both: nothing in "
                        "clear, channel binding with libpq), pgbouncer")
    parser.add_argument("--report", help="file that gets the table, Markdown")
    parser.add_argument("--json", help="file that gets the results")
    parser.add_argument("--merge", nargs="+", metavar="FILE", help="runs nothing: --report of what --json wrote before")
    parser.add_argument("-v", "--verbose", action="store_true")
    return parser.parse_args()


def merged(files):
    results, versions = {}, {}
    for file in files:
        content = json.loads(pathlib.Path(file).read_text())
        versions = content["versions"] | versions
        for label, by_target in content["results"].items():
            for target, checks in by_target.items():
                results.setdefault(label, {}).setdefault(target, {}).update(checks)
    order = [p.label(v) for p in PROGRAMS for v in p.variants]
    return {label: results[label] for label in order if label in results}, versions


def run_all(options):
    wanted = set(filter(None, options.drivers.split(",")))
    chosen = [(p, v) for p in PROGRAMS for v in p.variants
              if not wanted or {p.name, p.label(v)} & wanted]
    unknown = wanted - {p.name for p, _ in chosen} - {p.label(v) for p, v in chosen}
    if unknown:
        sys.exit(f"drivers: no program {', '.join(sorted(unknown))}")
    results, versions = {}, {}
    with tempfile.TemporaryDirectory(prefix="bascule-drivers-") as build:
        for program in {id(p): p for p, _ in chosen}.values():
            program.prepare(pathlib.Path(build))
            versions[program.name] = program.version()
        with Server() as bench:
            (bench.dir / "scratch").mkdir()
            for target in options.targets.split(","):
                port = proxy_of(bench, target)
                for program, variant in chosen:
                    label = program.label(variant)
                    print(f"{target}: {label}", flush=True)
                    results.setdefault(label, {})[target] = run_program(
                        program, variant, target, port, bench, options)
            versions |= {"postgresql": server_version(), "bascule": commit()}
    return results, versions


def main():
    options, started = parse_arguments(), time.monotonic()
    results, versions = merged(options.merge) if options.merge else run_all(options)
    outcome = report.judge(results)
    if options.json:
        content = {"results": results, "versions": versions}
        pathlib.Path(options.json).write_text(json.dumps(content, indent=1) + "\n")
    if options.report:
        pathlib.Path(options.report).write_text(report.markdown(results, versions, PROGRAMS))
    for line in outcome.lines():
        print(line)
    print(f"drivers: {outcome.summary()} in {time.monotonic() - started:.0f} s")
    return 1 if outcome.proxy_failures or outcome.broken else 0


def server_version():
    text = subprocess.run([rig.PG_BIN / "postgres", "--version"], capture_output=True, text=True).stdout
    return re.search(r"[\d.]+", text).group()


def commit():
    done = subprocess.run(["git", "-C", str(ROOT), "describe", "--always", "--dirty"], capture_output=True, text=True)
    return done.stdout.strip() or "unknown"


if __name__ == "__main__":
    sys.exit(main())
