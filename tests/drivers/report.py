"""From the results of all programs to a verdict and to docs/proxy-drivers.md.

results: {label: {target: {check: None (passed) or the error}}}
"""
import dataclasses
import datetime
import re

ENDED = "program"  # stands for a check where a program ended outside of any
COLUMNS = {"direct": "PostgreSQL", "session": "session mode", "transaction": "transaction mode",
           "session_tls": "session mode, TLS",
           "tls": "transaction mode, TLS",
           "pgbouncer": "PgBouncer, transaction mode"}


@dataclasses.dataclass
class Outcome:
    passed: int = 0
    proxy_failures: list = dataclasses.field(default_factory=list)  # (label, target, check, error)
    own_failures: list = dataclasses.field(default_factory=list)  # fail directly too
    broken: list = dataclasses.field(default_factory=list)  # no result at all

    def lines(self):
        for kind, entries in (("driver's own", self.own_failures), ("PROXY", self.proxy_failures),
                              ("BROKEN", self.broken)):
            for label, target, check, error in entries:
                yield f"{kind}: {label} {target} {check}: {error}"

    def summary(self):
        return (f"{self.passed} passed, {len(self.proxy_failures)} failed by the proxy, "
                f"{len(self.own_failures)} fail directly too, {len(self.broken)} without result")


def judge(results):
    outcome = Outcome()
    for label, by_target in results.items():
        direct = by_target.get("direct", {})
        for target, checks in by_target.items():
            if not checks:
                outcome.broken.append((label, target, ENDED, "the program ran no check"))
            for check, error in checks.items():
                entry = (label, target, check, error)
                if error is None:
                    outcome.passed += 1
                elif target == "direct" or direct.get(check) is not None:
                    outcome.own_failures.append(entry)
                else:
                    outcome.proxy_failures.append(entry)
    return outcome


def cell(by_target, check, target):
    checks = by_target.get(target, {})
    if check not in checks:
        return "–"
    if checks[check] is None:
        return "ok"
    own = target == "direct" or by_target.get("direct", {}).get(check) is not None
    return "driver" if own else "**fails**"


def short(error):
    """One line that can stand in a table; nothing that differs from run to run."""
    text = re.sub(r"\s+", " ", error).replace("|", "\\|").replace("<", "&lt;")
    text = re.sub(r"port[ =]\d+", "port …", text)
    return text if len(text) <= 160 else text[:160] + "…"


def count(by_target, target):
    checks = by_target.get(target)
    if checks is None:
        return "–"
    passed = sum(error is None for error in checks.values())
    return f"{passed} of {len(checks)}"


def table(header, rows):
    yield "| " + " | ".join(header) + " |"
    yield "|" + "---|" * len(header)
    for row in rows:
        yield "| " + " | ".join(row) + " |"


def markdown(results, versions, programs):
    targets = [t for t in COLUMNS if any(t in by_target for by_target in results.values())]
    outcome = judge(results)
    names = {p.label(v): (p, v) for p in programs for v in p.variants}
    lines = [
        "# Real clients through the proxy", "",
        "Written by `tests/drivers/run.py --report` (`./dev test --drivers`), not by hand. Each program of "
        "[tests/drivers](../tests/drivers/README.md) runs its checks directly against PostgreSQL, then through the "
        "proxy; in transaction mode all of a program's clients share 4 server connections. *driver*: the check fails "
        "directly as well. *fails*: it passes directly, the fault is the pooler's. –: does not apply or was not run.", "",
        f"Run of {datetime.date.today()}, Bascule {versions.get('bascule', '?')}, PostgreSQL "
        f"{versions.get('postgresql', '?')}: {outcome.summary()}.", "",
        "## Checks passed", "",
        *table(["driver", "version", *(COLUMNS[t] for t in targets)],
               ([f"{names[label][0].driver}{', ' + names[label][1] if names[label][1] else ''}",
                 versions.get(names[label][0].name, "") or "–", *(count(by_target, t) for t in targets)]
                for label, by_target in results.items())), ""]
    through = [f for f in outcome.proxy_failures if f[1] != "pgbouncer"]
    lines += ["## What fails through Bascule's proxy", ""]
    lines += table(["driver", "check", "mode", "error"], ([label, check, target, short(error)]
                   for label, target, check, error in through)) if through else ["Nothing."]
    lines += ["", "## Every check", ""]
    for label, by_target in results.items():
        checks = list(dict.fromkeys(check for t in targets for check in by_target.get(t, {})))
        lines += [f"### {label}", "",
                  *table(["check", *(COLUMNS[t] for t in targets)],
                         ([check, *(cell(by_target, check, t) for t in targets)] for check in checks)), ""]
    return "\n".join(lines).rstrip() + "\n"
