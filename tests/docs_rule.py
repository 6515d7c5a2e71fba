#!/usr/bin/env python3
"""What the documents say is there: links lead somewhere, configuration examples are valid, commands
exist, and every commissioned requirement has its row. Usage: docs_rule.py <root> [path of bascule]
"""
import pathlib
import re
import subprocess
import sys
import tempfile

IDS = [f"{letter}{n}" for letter, last in (("A", 11), ("B", 14), ("C", 13), ("D", 9), ("E", 5))
       for n in range(1, last + 1)]
STATUSES = ("not started", "partial", "works")


def links(root, documents):
    for path in documents:
        text = re.sub(r"```.*?```", "", path.read_text(), flags=re.S)
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text):
            if not re.match(r"[a-z]+:", target) and not (path.parent / target).exists():
                yield f"{path.relative_to(root)}: link to {target}, which does not exist"


def requirements(root):
    rows = re.findall(r"^\| ([A-E]\d+) \|[^|]*\| ([^|]*?) \| ([^|]*?) \| ([^|]*?) \|$",
                      (root / "docs/requirements.md").read_text(), re.M)
    found = [row[0] for row in rows]
    for missing in sorted(set(IDS) - set(found)):
        yield f"docs/requirements.md: no row for {missing}"
    for row in rows:
        if not row[1].startswith(STATUSES):
            yield f"docs/requirements.md: {row[0]}: status \"{row[1]}\" is none of {STATUSES}"
        if row[1].startswith(("works", "partial")) and row[2] in ("", "–"):
            yield f"docs/requirements.md: {row[0]} is \"{row[1].split(':')[0]}\" without a proof"


def configurations(root, bascule):
    texts = {str(p.relative_to(root)): p.read_text() for p in sorted((root / "examples").glob("*.yaml"))}
    for i, block in enumerate(re.findall(r"```yaml\n(.*?)```", (root / "README.md").read_text(), re.S)):
        texts[f"README.md, block {i + 1}"] = block
    for name, text in texts.items():
        with tempfile.TemporaryDirectory() as folder:
            file = pathlib.Path(folder) / "bascule.yaml"
            file.write_text(text)
            # What it names beside it is there: validate-config looks whether the daemon could start.
            for named in re.findall(r"_file: *\"?([\w.-][\w./-]*)", text):
                beside = pathlib.Path(folder) / named
                beside.parent.mkdir(parents=True, exist_ok=True)
                beside.touch(mode=0o600)
            done = subprocess.run([bascule, "validate-config", file], capture_output=True, text=True)
            if done.returncode != 0:
                yield f"{name}: {done.stderr.strip()}"


def commands(root, documents, bascule):
    help_text = subprocess.run([bascule, "--help"], capture_output=True, text=True, check=True).stdout
    known = set(re.findall(r"^  ([a-z-]+)  ", help_text.split("Subcommands:")[1], re.M))
    if "up" not in known:
        yield f"{bascule} --help lists no subcommand \"up\": this test can't read it any more"
    for path in documents:
        for command in re.findall(r"(?:^|`)(?:\./dev )?bascule ([a-z][a-z-]+)\b", path.read_text(), re.M):
            if command not in known | {"guard", "supervise"}:
                yield f"{path.relative_to(root)}: there is no `bascule {command}`"


def main():
    root = pathlib.Path(sys.argv[1]).resolve()
    documents = sorted(root.glob("*.md")) + sorted((root / "docs").rglob("*.md"))
    findings = [*links(root, documents), *requirements(root)]
    if len(sys.argv) > 2:
        findings += [*configurations(root, sys.argv[2]), *commands(root, documents, sys.argv[2])]
    for finding in findings:
        print(finding)
    print(f"{len(documents)} documents, {len(findings)} findings")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
