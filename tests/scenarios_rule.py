#!/usr/bin/env python3
"""docs/scenarios.md: each of the 72 fault scenarios has a row, and the columns that say where it is proven are
what the tests and the simulation's scripts really have. Usage: scenarios_rule.py <root> [--write]

A proof is a function test_<number>_... in tests/integration/*.py (unless marked xfail), or a script of that number (a letter behind it
for a variant) in sim/scenarios_*.cc. --write puts the columns right; the texts of the page are people's.
What stands in `also` must be a word of a file in tests/ , sim/ or src/.
"""
import pathlib
import re
import sys

PAGE = "docs/scenarios.md"
COUNT = 72
# number, marked p, what happens, simulated, in ./dev test, in --full, also
ROW = re.compile(r"^\| (\d+) \| *(p?) *\| ([^|]*?) \| ([^|]*?) \| ([^|]*?) \| ([^|]*?) \| ([^|]*?) *\|$", re.M)
NONE = "–"


def simulated(root):
    """number: its scripts"""
    found = {}
    for path in sorted((root / "sim").glob("scenarios_*.cc")):
        for script in re.findall(r'^ *\{"(\d+[a-z]?)", "', path.read_text(), re.M):
            found.setdefault(int(script.rstrip("abcdefghijklmnopqrstuvwxyz")), []).append(script)
    return {number: sorted(set(scripts)) for number, scripts in found.items()}


def real(root):
    """(number, full): its test functions"""
    found = {}
    for path in sorted((root / "tests/integration").glob("*.py")):
        for marks, name, number in re.findall(r"((?:^@.*\n)*)^def (test_(\d\d)_[a-z0-9_]+)\(", path.read_text(), re.M):
            if "mark.xfail" in marks:  # a gap that is known and tried
                continue
            found.setdefault((int(number), path.stem.endswith("_full")), []).append(name)
    return found


def listed(names):
    return ", ".join(f"`{name}`" for name in names) or NONE


def rows_as_they_should_be(root, rows):
    scripts, tests = simulated(root), real(root)
    for row in rows:
        number = int(row[0])
        yield (row[0], row[1], row[2], listed(scripts.get(number, [])), listed(tests.get((number, False), [])),
               listed(tests.get((number, True), [])), row[6])


def summary(rows):
    def have(columns, of):
        return sum(any(row[c] != NONE for c in columns) for row in of)
    marked = [row for row in rows if row[1]]
    return (f"Of {len(rows)} scenarios {have([3], rows)} are scripted in the simulation and {have([4, 5], rows)} run for real. "
            f"Of the {len(marked)} that are marked p, {have([4], marked)} run in `./dev test`.")


def words_of(root):
    for folder in ("tests", "sim", "src"):
        for path in sorted((root / folder).rglob("*")):
            if path.suffix in (".py", ".cc", ".h"):
                yield path.read_text()


def line(row):
    return "| " + " | ".join(row) + " |"


def findings_in(text, want, root):
    have = [line(row) for row in ROW.findall(text)]
    for number in range(1, COUNT + 1):
        if sum(h.startswith(f"| {number} |") for h in have) != 1:
            yield f"{PAGE}: scenario {number} has not exactly one row"
    for row, is_line in zip(want, have):
        if line(row) != is_line:
            yield f"{PAGE}: scenario {row[0]}: proofs are not as in the tests (tests/scenarios_rule.py . --write)"
    if summary(want) not in text:
        yield f"{PAGE}: the summary is not \"{summary(want)}\" (tests/scenarios_rule.py . --write)"
    everything = "\n".join(words_of(root))
    for row in want:
        for word in re.findall(r"`([^`]+)`", row[6]):
            if word not in everything:
                yield f"{PAGE}: scenario {row[0]}: there is no {word}"


def main():
    root = pathlib.Path(sys.argv[1]).resolve()
    page = root / PAGE
    text = page.read_text()
    want = list(rows_as_they_should_be(root, ROW.findall(text)))
    if "--write" in sys.argv:
        lines = iter(want)
        text = ROW.sub(lambda _: line(next(lines)), text)
        text = re.sub(r"^Of \d+ scenarios.*$", lambda _: summary(want), text, flags=re.M)
        page.write_text(text)
    found = list(findings_in(text, want, root))
    print("\n".join([*found, f"{len(want)} scenarios, {len(found)} findings"]))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
