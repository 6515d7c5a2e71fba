#!/usr/bin/env python3
"""Writes builtin_functions.inc: every function name of pg_catalog with its worst volatility over all
overloads, from a running PostgreSQL 15 (the oldest names stay valid in later ones: what a server has
beyond this table is unknown, and goes to the primary).

    generate_builtins.py -h HOST -p PORT -U USER      (anything that psql takes)
"""
import pathlib
import subprocess
import sys

SQL = """
select version from (select current_setting('server_version_num')::int / 10000 as version) v;
select proname || ' ' || max(case provolatile when 'i' then '1' when 's' then '2' else '3' end)
  from pg_proc where pronamespace = 'pg_catalog'::regnamespace
 group by proname order by proname collate "C";
"""
LETTERS = {"1": "i", "2": "s", "3": "v"}


def main():
    psql = ["psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-d", "postgres", *sys.argv[1:]]
    version, *rows = subprocess.run(psql, input=SQL, capture_output=True, text=True,
                                    check=True).stdout.split("\n")
    if version != "15":
        sys.exit(f"expected PostgreSQL 15, found {version}")
    entries = [row.split(" ") for row in rows if row]
    out = [f"// Made by generate_builtins.py from pg_proc of PostgreSQL 15: {len(entries)} names, byte order.\n"]
    line = ""
    for name, volatility in entries:
        item = f'{{"{name}", \'{LETTERS[volatility]}\'}}, '
        if len(line) + len(item) > 100:
            out.append(line.rstrip() + "\n")
            line = ""
        line += item
    out.append(line.rstrip() + "\n")
    pathlib.Path(__file__).with_name("builtin_functions.inc").write_text("".join(out))


main()
