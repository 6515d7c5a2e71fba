#!/usr/bin/env python3
"""The repository's own rules, read from the sources (ARCHITECTURE.md, "Dependencies run down only").

    include_rule.py              checks this tree; prints file:line: what is wrong, why, what to do
    include_rule.py --self-test  proves on small bad trees that every rule can fail

Rules:
  layer     an #include runs down only: each folder lists the folders that it may use, and components
            of one level (node, proxy, api) never include each other
  path      quoted includes are full paths from src/ (or sim/...), so that the layer can be read
  once      headers begin with #pragma once
  pure      outside src/posix and main.cc: no clock, randomness, threads, sleeping, environment
  ordered   there: no iteration over unordered containers, whose order differs from run to run
  size      a file past 650 lines needs a reason
"""
import argparse
import pathlib
import re
import sys
import tempfile

# What each folder may include besides itself. Tests (*_test.cc, contract tests) may add TEST_EXTRA.
LAYERS = {
    "base": set(),
    "env": {"base"},
    "pgwire": {"base"},
    "sql": {"base"},
    "posix": {"env", "base"},
    "pgclient": {"env", "base"},
    "store": {"env", "base"},
    "control": {"store", "env", "base"},
    "node": {"control", "store", "env", "pgclient", "pgwire", "base"},
    "monitor": {"control", "store", "env", "pgclient", "base"},
    "proxy": {"control", "store", "env", "sql", "pgwire", "base"},
    "api": {"control", "store", "env", "pgwire", "base"},
    "cli": {"api", "node", "monitor", "proxy", "control", "store", "env", "sql", "pgwire", "base"},
    "main": {"cli", "api", "node", "monitor", "proxy", "control", "store", "env", "sql", "pgwire", "posix", "base"},
    "sim": {"monitor", "control", "store", "env", "base"},
    "sim-main": {"sim", "monitor", "control", "store", "env", "posix", "base"},
}
TEST_EXTRA = {"posix"}

# Exceptions, each with its reason. (file, rule) -> reason. One that is no longer needed is an error.
ALLOWED = {
    ("sim/failover_slot.cc", "layer"): "asks node/pg_files.h, pure texts, what a member would write into its configuration",
}

LINES_MAX = 650

INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]+(["<])([^">]+)[">]', re.M)
IMPURE_HEADERS = {
    "thread": "threads", "future": "threads", "condition_variable": "threads", "stop_token": "threads",
    "pthread.h": "threads", "random": "randomness", "sys/random.h": "randomness",
    "sys/time.h": "a clock", "sys/timerfd.h": "a clock",
}
IMPURE_TOKENS = [
    (re.compile(r"\b(?:system|steady|high_resolution|utc)_clock\s*::\s*now\b"), "a clock"),
    (re.compile(r"\b(?:clock_gettime|gettimeofday|timespec_get)\s*\("), "a clock"),
    (re.compile(r"(?:\bstd::|(?<![\w:.>])::|(?<![\w:.>]))time\s*\(\s*(?:nullptr|NULL|0|&)"), "a clock"),
    (re.compile(r"\bstd::(?:j?thread|async|condition_variable)\b"), "threads"),
    (re.compile(r"\bpthread_create\s*\("), "threads"),
    (re.compile(r"\b(?:random_device|mt19937(?:_64)?|getrandom|getentropy|arc4random)\b"), "randomness"),
    (re.compile(r"(?<![\w:.>])(?:std::|::)?s?rand\s*\("), "randomness"),
    (re.compile(r"\bRAND_bytes\s*\("), "randomness"),
    (re.compile(r"\b(?:sleep_for|sleep_until|usleep|nanosleep)\b"), "sleeping"),
    (re.compile(r"\b(?:secure_)?(?:getenv|setenv|putenv)\s*\("), "the environment"),
]
UNORDERED = re.compile(r"\bunordered_(?:multi)?(?:map|set)\s*<[^;{}]*?>\s*&?\s*(\w+)\s*(?:[;={(,)]|$)", re.M)


def blank(match):
    return re.sub(r"[^\n]", " ", match.group(0))


def strip(text, keep_strings):
    """The code without comments (and without the content of string literals), same line numbers."""
    raw = r'R"(?P<tag>[^(\s]{0,16})\(.*?\)(?P=tag)"'
    string = r'"(?:\\.|[^"\\\n])*"'
    char = r"'(?:\\.|[^'\\\n])'"
    pattern = re.compile(rf"{raw}|{string}|{char}|//[^\n]*|/\*.*?\*/", re.S)
    return pattern.sub(
        lambda m: m.group(0) if keep_strings and m.group(0)[0] in "\"'R" else blank(m), text)


def line_of(text, offset):
    return text.count("\n", 0, offset) + 1


def folder_of(path):
    """The layer that a file belongs to, from its path below the root; None if it isn't checked."""
    parts = path.parts
    if parts[0] == "src":
        return "main" if parts == ("src", "main.cc") else (parts[1] if len(parts) > 2 else None)
    if parts[0] == "sim":
        return "sim-main" if parts == ("sim", "main.cc") else "sim"
    return None


def is_test(path):
    return path.stem.endswith("_test") or path.stem in ("contract_test", "test_util")


def check_file(root, path):
    """Findings of one file: (file, line, rule, message)."""
    relative = path.relative_to(root)
    layer = folder_of(relative)
    name = relative.as_posix()
    if layer is None or layer not in LAYERS:
        return [(name, 1, "layer", f"folder has no level in {__file__}: add it to LAYERS")]
    text = path.read_text(encoding="utf-8")
    code = strip(text, keep_strings=False)
    with_strings = strip(text, keep_strings=True)
    findings = []

    def found(offset, rule, message):
        findings.append((name, line_of(text, offset), rule, message))

    allowed = LAYERS[layer] | {layer} | (TEST_EXTRA if is_test(relative) else set())
    pure = layer not in ("posix", "main", "sim-main") and not is_test(relative)
    for match in INCLUDE.finditer(with_strings):
        quote, target = match.groups()
        if quote == '"':
            head = target.split("/")[0]
            if "/" not in target or head not in LAYERS:
                found(match.start(), "path", f'"{target}": write the path from src/, as "{layer}/..."')
            elif head not in allowed:
                found(match.start(), "layer",
                      f'{layer} includes "{target}": {layer} may use only '
                      f'{", ".join(sorted(allowed))}; move the shared type down to control/ or base/')
        elif pure and target in IMPURE_HEADERS:
            found(match.start(), "pure",
                  f"<{target}> brings {IMPURE_HEADERS[target]}: take it from env/ as an interface")
    if path.suffix == ".h" and not re.search(r"^#pragma once$", code, re.M):
        found(0, "once", "header without #pragma once")
    if pure:
        for pattern, what in IMPURE_TOKENS:
            for match in pattern.finditer(code):
                found(match.start(), "pure",
                      f"`{match.group(0).strip()}` is {what}: take it from env/ as an interface")
        for container in {match.group(1) for match in UNORDERED.finditer(code)}:
            walk = rf"for\s*\([^;()]*:\s*(?:\w+(?:\.|->))*{container}\s*\)|\b{container}\s*\.\s*c?begin\s*\("
            for match in re.finditer(walk, code):
                found(match.start(), "ordered", f"iterates over the unordered {container}: its order is "
                                                "not reproducible, use std::map or a sorted vector")
    lines = text.count("\n")
    if lines > LINES_MAX:
        findings.append((name, LINES_MAX, "size", f"{lines} lines, more than {LINES_MAX}: split it"))
    return findings


def check_tree(root, allowed=None):
    allowed = ALLOWED if allowed is None else allowed
    files = sorted(p for top in ("src", "sim") for p in (root / top).rglob("*")
                   if p.suffix in (".h", ".cc"))
    findings, used = [], set()
    for path in files:
        for finding in check_file(root, path):
            key = (finding[0], finding[2])
            if key in allowed:
                used.add(key)
            else:
                findings.append(finding)
    for file, rule in sorted(set(allowed) - used):
        findings.append((file, 1, rule, "exception in ALLOWED that is no longer needed: remove it"))
    return files, findings


# ------------------------------------------------------------------------------------------ self-test

GOOD = {
    "src/base/a.h": "#pragma once\n#include <string>\n// steady_clock::now() and std::thread in a comment\n",
    "src/control/c.cc": '#include "base/a.h"\n#include "store/s.h"\nconst char* s = "getenv(";\n'
                        "int runtime(int);\nint x = runtime(0); int brand(int); int y = brand (1);\n"
                        "void f(S& o) { o.time(0); o->rand(); }\n",
    "src/api/u.cc": "std::unordered_map<int, int> m;\nbool f(int k) { return m.contains(k); }\n"
                    "void g(std::map<int, int>& o) { for (auto& e : o) h(e); }\n",
    "src/proxy/p.cc": '#include "pgwire/f.h"\n#include "env/loop.h"\n',
    "src/posix/r.cc": "#include <thread>\n#include \"env/loop.h\"\nauto t = std::chrono::steady_clock::now();\n",
    "src/node/n_test.cc": '#include "posix/reactor.h"\n#include <thread>\n',
    "src/main.cc": '#include "posix/reactor.h"\n#include "cli/cli.h"\nauto* h = getenv("HOME");\n',
    "sim/main.cc": '#include "sim/world.h"\n',
}
BAD = [
    ("an upward edge", "layer", "src/base/x.h", '#pragma once\n#include "env/clock.h"\n'),
    ("an upward edge with spaces", "layer", "src/store/x.cc", '  #  include   "control/agent.h"\n'),
    ("node uses proxy", "layer", "src/node/x.cc", '#include "proxy/pool.h"\n'),
    ("monitor uses node", "layer", "src/monitor/x.cc", '#include "node/server.h"\n'),
    ("proxy uses api", "layer", "src/proxy/x.cc", '#include "api/server.h"\n'),
    ("api uses node", "layer", "src/api/x.cc", '#include "node/node.h"\n'),
    ("proxy uses posix", "layer", "src/proxy/x.cc", '#include "posix/reactor.h"\n'),
    ("pgwire uses env", "layer", "src/pgwire/x.cc", '#include "env/loop.h"\n'),
    ("sim uses node", "layer", "sim/x.cc", '#include "node/node.h"\n'),
    ("production uses sim", "layer", "src/control/x.cc", '#include "sim/world.h"\n'),
    ("a test of the wrong level", "layer", "src/base/x_test.cc", '#include "store/store.h"\n'),
    ("an unknown folder", "layer", "src/misc/x.cc", "int x;\n"),
    ("a relative include", "path", "src/node/x.cc", '#include "sibling.h"\n'),
    ("a header without once", "once", "src/base/x.h", "// #pragma once\nint x;\n"),
    ("a thread header", "pure", "src/control/x.cc", "#include <thread>\n"),
    ("a thread", "pure", "src/control/x.cc", "std::jthread t;\n"),
    ("steady clock", "pure", "src/control/x.cc", "auto t = std::chrono::steady_clock::now();\n"),
    ("system clock", "pure", "src/api/x.cc", "auto t = std::chrono::system_clock :: now();\n"),
    ("time()", "pure", "src/api/x.cc", "auto t = time(nullptr);\n"),
    ("randomness", "pure", "src/node/x.cc", "std::random_device d;\n"),
    ("rand()", "pure", "src/node/x.cc", "int r = rand();\n"),
    ("a sleep", "pure", "src/node/x.cc", "std::this_thread::sleep_for(1s);\n"),
    ("the environment", "pure", "src/proxy/x.cc", 'auto h = std::getenv("HOME");\n'),
    ("iteration over an unordered map", "ordered", "src/control/x.cc",
     "std::unordered_map<int, std::vector<int>> m_;\nvoid f() { for (auto& [k, v] : m_) g(k); }\n"),
    ("iterators of an unordered set", "ordered", "sim/x.cc",
     "void f(const std::unordered_set<int>& s) { g(*s.begin()); }\n"),
    ("a huge file", "size", "src/base/x.cc", "int x();\n" * (LINES_MAX + 1)),
]


def make_tree(root, files):
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def self_test():
    failures = []
    with tempfile.TemporaryDirectory() as d:
        make_tree(pathlib.Path(d), GOOD)
        for finding in check_tree(pathlib.Path(d), {})[1]:
            failures.append(f"good tree is refused: {finding}")
    for what, rule, name, text in BAD:
        with tempfile.TemporaryDirectory() as d:
            make_tree(pathlib.Path(d), {name: text})
            rules = {f[2] for f in check_tree(pathlib.Path(d), {})[1]}
            if rules != {rule}:
                failures.append(f"{what}: expected rule {rule}, got {sorted(rules)}")
            if check_tree(pathlib.Path(d), {(name, rule): "test"})[1]:
                failures.append(f"{what}: an exception does not silence it")
    with tempfile.TemporaryDirectory() as d:
        make_tree(pathlib.Path(d), GOOD)
        if not check_tree(pathlib.Path(d), {("src/base/a.h", "pure"): "stale"})[1]:
            failures.append("a stale exception is not reported")
    for failure in failures:
        print(f"self-test: {failure}")
    print(f"self-test: {len(BAD)} bad trees, {len(failures)} failures")
    return 1 if failures else 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--self-test", action="store_true")
    parser.add_argument("root", nargs="?", default=pathlib.Path(__file__).resolve().parent.parent, type=pathlib.Path)
    options = parser.parse_args()
    if options.self_test:
        return self_test()
    files, findings = check_tree(options.root)
    for file, line, rule, message in findings:
        print(f"{file}:{line}: [{rule}] {message}")
    print(f"{len(files)} files, {len(findings)} findings")
    return 1 if findings or not files else 0


if __name__ == "__main__":
    sys.exit(main())
