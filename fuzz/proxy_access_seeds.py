#!/usr/bin/env python3
"""Writes the seeds of the fuzzers of rules, log-ins, lists, files and SQL into fuzz/corpus/."""

import pathlib
import struct
import sys

SSL, GSS = struct.pack("!II", 8, 80877103), struct.pack("!II", 8, 80877104)
CANCEL = struct.pack("!IIII", 16, 80877102, 7, 8)


def startup(**parameters):
    body = struct.pack("!I", 196608)
    for name, value in parameters.items():
        body += name.encode() + b"\0" + value.encode() + b"\0"
    return struct.pack("!I", len(body) + 5) + body + b"\0"


def message(kind, payload):
    return kind + struct.pack("!I", len(payload) + 4) + payload


def pieces(options, *parts):
    out = bytes([options])
    for part in parts:
        for at in range(0, len(part), 255):
            piece = part[at:at + 255]
            out += bytes([len(piece)]) + piece
    return out


APP, MD = startup(user="app", database="db"), startup(user="md")
FIRST = message(b"p", b"SCRAM-SHA-256\0" + struct.pack("!I", 22) + b"n,,n=,r=abcdefghijklmn")
FINAL = message(b"p", b"c=biws,r=abcdefghijklmnAQIDBAUGBwgJCgsMDQ4PEBES,p=" + b"A" * 43 + b"=")
MD5 = message(b"p", b"md5" + b"0" * 32 + b"\0")
HEADER_2 = (b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c" + bytes([10, 1, 2, 3, 10, 9, 9, 9, 0, 1, 0, 2]))


def auth(code, rest=b""):
    return message(b"R", struct.pack("!I", code) + rest)


READY = auth(0) + message(b"S", b"server_version\00015\0") + message(b"K", b"12345678") + message(
    b"Z", b"I")
SASL = auth(10, b"SCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0")

SEEDS = {
    "proxy_login": {
        "scram": pieces(0, APP, FIRST, FINAL), "tls": pieces(1, SSL, APP, FIRST, FINAL),
        "gss_tls": pieces(2, GSS, SSL, APP, FIRST), "direct": pieces(2, b"\x16\x03\x01", APP),
        "behind": pieces(1, SSL + APP), "md5": pieces(4, MD, MD5), "cancel": pieces(0, CANCEL),
        "header_1": pieces(8, b"PROXY TCP4 10.1.2.3 10.9.9.9 1 2\r\n" + APP, FIRST),
        "header_2": pieces(9, HEADER_2, SSL, APP), "rules": pieces(33, SSL, MD),
        "lookup": pieces(16, startup(user="x"), FIRST, FINAL), "rejected": pieces(32, APP),
    },
    "proxy_server_login": {
        "trust": b"\x00" + READY, "md5": b"\x05" + auth(5, b"salt") + READY,
        "clear": b"\x09" + auth(3) + READY, "plus": b"\x09" + SASL + auth(
            11, b"r=nonceserver,s=MDEyMzQ1Njc4OWFiY2RlZg==,i=1") + auth(12, b"v=AAAA"),
        "error": b"\x01" + message(b"E", b"SFATAL\0VFATAL\0C28P01\0Mno\0\0"),
        "skipped": b"\x01" + SASL + READY,
    },
    "proxy_hba": {
        "all": b"host all all 10.0.0.0/8 scram-sha-256\nlocal all all peer map=m\n\x01m root all\n",
        "words": b"hostssl \"a b\",sameuser,replication +staff,/^a(.*)$ ::/0 cert map=x clientname=DN"
                 b"\nhostnossl samerole all 10.0.0.0 255.0.0.0 password\n\x01x /(.*)@y \\1\n",
        "bad": b"host all @x all gss\ninclude y\nhost all all host trust\nhost all\\\n all all md5 #",
    },
    "cli_userlist": {
        "two": b'"app" "SCRAM-SHA-256$4096:MDEy$AAAA:AAAA"\n; c\n"o""k" "p w"  # c\n',
        "bad": b'"app\n"x" "\n',
    },
    "cli_config": {
        "node": b"cluster: {name: c}\nstore: file:/s.db\nnode:\n  name: n1\n  data_dir: d\n  run_dir: r\n"
                b"  replication: {password_file: p}\ndefaults: {ttl: 5s, sync: on, maximum_lag: 1MB}\n",
        "proxy": b"proxy:\n  writer: 0.0.0.0:6432\n  userlist_file: u\n  servers: [{host: a, port: 1, tags: [x]}]\n"
                 b"  pools: [{user: a, pool_mode: transaction, pool_size: 3}]\n  routing: {primary_share: 0.5}\n",
        "monitor": b"cluster: {name: c}\nstore: {type: etcd, endpoints: ['http://a:2379']}\n"
                   b"monitor: {endpoints: [{name: a, url: 'postgres://u@h/d'}]}\napi: {tls: {cert: c, key: k}}\n",
        "bad": b"cluster: [}\nnode: 3\n&a [*a]",
    },
    "cli_import": {
        "small": b"[databases]\nshop = host=a port=5432 dbname=s password='it''s'\n* = host=b\n[users]\nu = pool_mode=statement\n"
                 b"[pgbouncer]\nlisten_addr = *\nlisten_port = 6432\nauth_type = hba\npool_mode = transaction\n"
                 b"default_pool_size = 20\nserver_idle_timeout = 600\nauth_query = select 1\n",
        "bad": b"%include x\n[pgbouncer\na\n=\n[databases]\n\"a\"\"b\" = host=' x\n",
    },
    "sql_analysis": {
        "read": b"select a, count(*) from t where b = 'x''y' and c in (1, 2) group by 1 order by 2 limit 3",
        "cte": b"with x as (select harmless(1)) select * from x join t using (a) -- c",
        "writes": b"with x as (insert into t values (1) returning *) select * from x for update",
        "begin": b"begin isolation level repeatable read, read only",
        "hints": b"/* bascule: affinity=game-42 */ select /* bascule: primary */ $1::int, $$a$$, E'\\n', U&'x'",
        "several": b"select 1; select nextval('s'); set x = 1",
        "deep": b"select ((((((((1+1)))))))) @#@ - - - 1",
    },
}

if __name__ == "__main__":
    root = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else pathlib.Path(__file__).parent / "corpus")
    for fuzzer, seeds in SEEDS.items():
        (root / fuzzer).mkdir(parents=True, exist_ok=True)
        for name, content in seeds.items():
            (root / fuzzer / name).write_bytes(content)
