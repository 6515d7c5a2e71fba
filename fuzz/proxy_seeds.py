#!/usr/bin/env python3
"""Writes the seeds of proxy_session_fuzz: flows that the unit tests know, as lists of steps."""

import pathlib
import struct
import sys


def message(kind, payload=b""):
    return kind + struct.pack("!I", len(payload) + 4) + payload


def step(what, data=b""):
    return bytes([what, len(data)]) + data


CLIENT, SERVER, LOSE, OTHER = 0, 3, 6, 7


def query(sql):
    return message(b"Q", sql.encode() + b"\0")


def parse(name, sql):
    return message(b"P", name.encode() + b"\0" + sql.encode() + b"\0\0\0")


def bind(name):
    return message(b"B", b"\0" + name.encode() + b"\0" + b"\0" * 6)


EXECUTE, SYNC = message(b"E", b"\0" + b"\0" * 4), message(b"S")


def complete(tag, status=b"I"):
    return message(b"C", tag.encode() + b"\0") + message(b"Z", status)


def error(severity, code):
    return message(b"E", b"S" + severity + b"\0V" + severity + b"\0C" + code + b"\0Mx\0\0")


SEEDS = {
    "simple": [step(CLIENT, query("select 1")), step(SERVER, complete("SELECT 1"))],
    "extended": [step(CLIENT, parse("s", "select 1") + bind("s") + EXECUTE + SYNC),
                 step(SERVER, message(b"1") + message(b"2") + complete("SELECT 1")),
                 step(LOSE), step(CLIENT, bind("s") + EXECUTE + SYNC), step(OTHER)],
    "transaction_lost": [step(CLIENT, query("begin")), step(SERVER, complete("BEGIN", b"T")),
                         step(LOSE), step(CLIENT, query("commit")), step(OTHER),
                         step(CLIENT, query("rollback"))],
    "extended_in_lost": [step(CLIENT, query("begin")), step(SERVER, complete("BEGIN", b"T")),
                         step(LOSE), step(CLIENT, parse("c", "rollback") + bind("c") + EXECUTE + SYNC)],
    "copy": [step(CLIENT, query("copy t from stdin")), step(SERVER, message(b"G", b"\0\0\0")),
             step(CLIENT, message(b"d", b"1\n")), step(LOSE),
             step(CLIENT, message(b"d", b"2\n") + message(b"c") + query("select 1"))],
    "retry": [step(CLIENT, query("insert into t values (1)")), step(SERVER, error(b"FATAL", b"57P01")),
              step(OTHER), step(SERVER, complete("INSERT 0 1"))],
    "read_only": [step(CLIENT, query("insert into t values (1)")), step(SERVER, error(b"ERROR", b"25006")),
                  step(OTHER, b"x")],
    "settings": [step(CLIENT, query("set a = 1")), step(SERVER, complete("SET")), step(LOSE),
                 step(OTHER), step(CLIENT, query("reset all")), step(SERVER, complete("RESET"))],
    "refused": [step(LOSE), step(2, query("select 1")), step(OTHER, b"x"), step(CLIENT)],
    "pinned": [step(CLIENT, query("create temp table a (b int)")),
               step(SERVER, complete("CREATE TABLE")), step(LOSE)],
}


def main():
    target = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else "fuzz/corpus/proxy_session")
    target.mkdir(parents=True, exist_ok=True)
    for name, steps in SEEDS.items():
        (target / name).write_bytes(b"".join(steps))


if __name__ == "__main__":
    main()
