#!/usr/bin/env python3
"""The reference of bascule.yaml: types, bounds and defaults as the program has them
(`bascule validate-config --schema`), meanings as docs/configuration.md has them.

  config_reference.py <root> <bascule>           fails when a key has no meaning, a meaning no key, a
                                                 default is another, or the written files are not current
  config_reference.py <root> <bascule> --write   writes docs/bascule.schema.json and
                                                 docs/configuration-reference.md
"""
import json
import pathlib
import re
import subprocess
import sys

import jsonschema
import yaml

SCHEMA, REFERENCE = "docs/bascule.schema.json", "docs/configuration-reference.md"


def documented(text):
    """Rows of the page: path -> (default, meaning). A row may name several keys: `a`, `b` or `a.b`, `.c`."""
    out, section = {}, ""
    for line in text.splitlines():
        if heading := re.match(r"## (.*)", line):
            named = re.match(r"`([a-z_]+)`", heading[1])
            section = named[1] + "." if named else ""
        row = re.match(r"\| (`.*?) \| (.*?) \| (.*) \|$", line)
        if not row:
            continue
        names = re.findall(r"`([^`]+)`", row[1])
        defaults = re.split(r", (?=`|none)", row[2]) if len(names) > 1 else [row[2]]
        if len(defaults) != len(names):
            defaults = [row[2]] * len(names)
        for name, default in zip(names, defaults):
            if name.startswith("."):
                name = names[0].rsplit(".", 1)[0] + name
            out[section + name] = (default, row[3])
    return out


def leaves(schema, path=""):
    """Every key: (path, its schema, whether it has to be there, whether it is of a list's entry)."""
    for kind in schema.get("anyOf", []):
        yield from leaves(kind, path)
    entry = "items" in schema and "properties" in schema["items"]
    at = schema["items"] if entry else schema
    for name, value in at.get("properties", {}).items():
        full = f"{path}.{name}" if path else name
        yield full, value, name in at.get("required", []), entry
        yield from leaves(value, full)


def has_keys(schema):
    return "properties" in schema


def problems(keys, meanings, page):
    for path, schema, _, entry in keys:
        name = path.rsplit(".", 1)[-1]
        if has_keys(schema) or path in meanings:
            continue
        # Entries of lists are told with their list: `{user, database, ...}` or in its paragraph.
        if not (entry and re.search(rf"[`{{ ,]{name}[`}} ,]", page)):
            yield f"docs/configuration.md says nothing about {path}"
    known = {path: schema for path, schema, _, _ in keys}
    for path, (default, _) in meanings.items():
        if path not in known:
            yield f"docs/configuration.md has {path}, which the program does not read"
            continue
        value = known[path].get("default")
        if value is None or not (said := re.fullmatch(r"`([^`]*)`", default)):
            continue
        shown = {True: "true", False: "false"}.get(value, str(value)) if isinstance(value, bool) else str(value)
        same = said[1] == shown or {said[1], shown} <= {"on", "true"} or {said[1], shown} <= {"off", "false"}
        try:
            same = same or float(said[1]) == float(shown)
        except ValueError:
            pass
        if not same and said[1] not in ("0", "0s", "0B"):
            yield f"docs/configuration.md: {path}: default {default}, but the program has {shown}"


def refused(root, schema):
    """Examples are valid for the daemon (docs_rule.py looks): an editor must not object to them either."""
    for file in sorted((root / "examples").glob("*.yaml")):
        for error in jsonschema.Draft202012Validator(schema).iter_errors(yaml.safe_load(file.read_text())):
            yield f"{file.relative_to(root)}: {'.'.join(map(str, error.path))}: {error.message}"


def describe(schema):
    if "anyOf" in schema:
        return " or ".join(describe(kind) for kind in schema["anyOf"])
    if schema.get("enum", [])[:2] == [True, False]:
        return "true or false"
    if "enum" in schema:
        return "one of " + ", ".join(f"`{word}`" for word in schema["enum"] if isinstance(word, str))
    if "items" in schema:
        return "list of mappings" if has_keys(schema["items"]) else "list of texts"
    if has_keys(schema):
        return "mapping"
    kind = schema.get("x-kind") or {"integer": "whole number", "number": "number", "object": "keys and texts"}.get(
        schema["type"] if isinstance(schema["type"], str) else "", "text")
    low = schema.get("minimum", schema.get("x-minimum"))
    high = schema.get("maximum", schema.get("x-maximum"))
    if high is not None:
        return f"{kind}, {low} to {high}"
    return f"{kind}, at least {low}" if low not in (None, 0, "0s", "0B") else kind


def reference(keys, meanings):
    out = ["# Reference of bascule.yaml", "",
           "Written by `tests/config_reference.py --write` from the program's own readers; what is said in",
           "[configuration.md](configuration.md) explains it. Editors check and complete with",
           "[bascule.schema.json](bascule.schema.json): put `# yaml-language-server: $schema=...` in the first line.", "",
           "| key | value | default | meaning |", "|---|---|---|---|"]
    for path, schema, required, entry in keys:
        if has_keys(schema) or "anyOf" in schema and any(map(has_keys, schema["anyOf"])) and path not in meanings:
            continue
        said, meaning = meanings.get(path, ("", ""))
        value = schema.get("default")
        if isinstance(value, bool):
            value = str(value).lower()
        default = said or ("required" if required else "" if value in (None, "") else f"`{value}`")
        shown = re.sub(r"\.(?=[^.]+$)", "[].", path) if entry else path
        meaning = re.sub(r", see \[[^]]*\]\([^)]*\)|: \[[^]]*\]\([^)]*\)", "", meaning)
        out.append(f"| `{shown}` | {describe(schema)} | {default} | {meaning} |")
    return "\n".join(out) + "\n"


def with_meanings(schema, meanings, path=""):
    """The schema with the meanings as descriptions, without their markup."""
    if path in meanings:
        plain = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", meanings[path][1]).replace("`", "")
        if plain:
            schema["description"] = plain
    for kind in schema.get("anyOf", []):
        with_meanings(kind, meanings, path)
    at = schema["items"] if "items" in schema else schema
    for name, value in at.get("properties", {}).items():
        with_meanings(value, meanings, f"{path}.{name}" if path else name)
    return schema


def main():
    root, bascule = pathlib.Path(sys.argv[1]).resolve(), sys.argv[2]
    text = subprocess.run([bascule, "validate-config", "--schema"], capture_output=True, text=True, check=True).stdout
    schema = json.loads(text)
    page = (root / "docs/configuration.md").read_text()
    meanings, keys = documented(page), list(leaves(schema))
    findings = [*problems(keys, meanings, page), *refused(root, schema)]
    files = {SCHEMA: json.dumps(with_meanings(schema, meanings), indent=2, ensure_ascii=False) + "\n",
             REFERENCE: reference(keys, meanings)}
    for name, content in files.items():
        file = root / name
        if "--write" in sys.argv[3:]:
            file.write_text(content)
        elif not file.exists() or file.read_text() != content:
            findings.append(f"{name} is not current: run tests/config_reference.py . <bascule> --write")
    for finding in findings:
        print(finding)
    print(f"{len(keys)} keys, {len(findings)} findings")
    return 1 if findings or not keys else 0


if __name__ == "__main__":
    sys.exit(main())
