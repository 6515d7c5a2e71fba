"""From the results of all programs to a verdict and to docs/proxy-drivers.md.

results: {label: {target: {check: None (passed) or the error}}}
"""
import dataclasses

THROUGH = ("session", "transaction", "pgbouncer")
ENDED = "program"  # stands for a check where a program ended outside of any


@dataclasses.dataclass
class Outcome:
    passed: int = 0
    proxy_failures: list = dataclasses.field(default_factory=list)  # (label, target, check, error)
    own_failures: list = dataclasses.field(default_factory=list)  # fail directly too
    broken: list = dataclasses.field(default_factory=list)  # no result at all

    def lines(self):
        for kind, entries in (("PROXY", self.proxy_failures), ("driver's own", self.own_failures),
                              ("BROKEN", self.broken)):
            for label, target, check, error in entries:
                yield f"{kind}: {label} {target} {check}: {error}"

    def summary(self):
        return (f"{self.passed} passed, {len(self.proxy_failures)} failed by the proxy, "
                f"{len(self.own_failures)} fail directly too, {len(self.broken)} without result")


def judge(results):
    outcome = Outcome()
    for label, by_target in results.items():
        direct = by_target.get("direct")
        for target, checks in by_target.items():
            if not checks:
                outcome.broken.append((label, target, ENDED, "the program ran no check"))
            for check, error in checks.items():
                entry = (label, target, check, error)
                if error is None:
                    outcome.passed += 1
                elif target == "direct" or (direct and direct.get(check) is not None):
                    outcome.own_failures.append(entry)
                else:
                    outcome.proxy_failures.append(entry)
    return outcome


def cell(by_target, check, target):
    checks = by_target.get(target)
    if checks is None or check not in checks:
        return "·"
    if checks[check] is None:
        return "ok"
    direct = by_target.get("direct", {})
    return "own" if target == "direct" or direct.get(check) is not None else "**fails**"


def markdown(results, versions, programs):
    return ""
