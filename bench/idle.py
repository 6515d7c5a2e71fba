"""Idle clients: how fast they log in, and how much memory each costs the proxy, beside PgBouncer.

The clients are raw sockets that speak just enough protocol: they log in by SCRAM-SHA-256 (the client's
PBKDF2 is computed once, so that the figure is the proxy's) and stay. Memory is what only the proxy's
process uses (proc(5), smaps_rollup): before the clients, and with them. --tls: over TLS 1.3, with an
ECDSA certificate."""

import argparse
import base64
import contextlib
import hashlib
import hmac
import json
import os
import pathlib
import selectors
import shutil
import socket
import ssl
import statistics
import struct
import subprocess
import sys
import time

import rig as rigs

SALTED = {}


def salted_password(password, salt, iterations):
    key = (password, salt, iterations)
    if key not in SALTED:
        SALTED[key] = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, iterations)
    return SALTED[key]


def message(kind, body):
    return kind + struct.pack("!i", len(body) + 4) + body


class Client:
    """One log-in, event by event."""

    def __init__(self, port, user, database, password, tls=None):
        self.password, self.buffer, self.ready = password, b"", False
        pairs = b"".join(s.encode() + b"\0" for s in ("user", user, "database", database)) + b"\0"
        self.startup = struct.pack("!ii", len(pairs) + 8, 196608) + pairs
        self.socket = socket.socket()
        self.socket.connect(("127.0.0.1", port))
        self.tls, self.shaking = tls, False
        if tls is not None:
            self.socket.send(struct.pack("!ii", 8, 80877103))
        else:
            self.socket.send(self.startup)
        self.socket.setblocking(False)

    def shake(self):
        """The SSLRequest has been answered, or the handshake goes on."""
        if not self.shaking:
            if self.socket.recv(1) != b"S":
                raise SystemExit("bench: the pooler refuses TLS")
            self.socket = self.tls.wrap_socket(self.socket, do_handshake_on_connect=False)
            self.shaking = True
        with contextlib.suppress(ssl.SSLWantReadError):
            self.socket.do_handshake()
            self.shaking, self.tls = False, None
            self.socket.send(self.startup)

    def on_readable(self):
        if self.tls is not None:
            return self.shake()
        try:
            data = self.socket.recv(65536)
        except ssl.SSLWantReadError:
            return
        if not data:
            raise SystemExit("bench: the proxy closed a connection during log-in")
        self.buffer += data
        while len(self.buffer) >= 5:
            size = struct.unpack("!i", self.buffer[1:5])[0] + 1
            if len(self.buffer) < size:
                return
            kind, body, self.buffer = self.buffer[:1], self.buffer[5:size], self.buffer[size:]
            self.on_message(kind, body)

    def on_message(self, kind, body):
        if kind == b"E":
            raise SystemExit(f"bench: log-in refused: {body!r}")
        if kind == b"Z":
            self.ready = True
        if kind != b"R":
            return
        what = struct.unpack("!i", body[:4])[0]
        if what == 10:
            self.bare = "n=,r=bascule-bench-nonce"
            first = ("n,," + self.bare).encode()
            self.socket.send(message(b"p", b"SCRAM-SHA-256\0" + struct.pack("!i", len(first)) + first))
        elif what == 11:
            self.socket.send(message(b"p", self.proof(body[4:].decode())))

    def proof(self, server_first):
        parts = dict(p.split("=", 1) for p in server_first.split(","))
        salted = salted_password(self.password, base64.b64decode(parts["s"]), int(parts["i"]))
        without = f"c=biws,r={parts['r']}"
        signed = ",".join((self.bare, server_first, without)).encode()
        key = hmac.digest(salted, b"Client Key", "sha256")
        signature = hmac.digest(hashlib.sha256(key).digest(), signed, "sha256")
        proof = bytes(a ^ b for a, b in zip(key, signature))
        return f"{without},p={base64.b64encode(proof).decode()}".encode()


def open_clients(rig, pooler, count, tls, at_once=64):
    """At most `at_once` log-ins are under way. Seconds that it took, and the open sockets."""
    selector, clients, begun, done = selectors.DefaultSelector(), [], time.monotonic(), 0
    while done < count:
        while len(clients) < count and len(clients) - done < at_once:
            client = Client(pooler.port, rig.user, rig.database, rig.password, tls)
            selector.register(client.socket.fileno(), selectors.EVENT_READ, client)
            clients.append(client)
        for key, _ in selector.select(10) or sys.exit("bench: log-ins hang"):
            key.data.on_readable()
            if key.data.ready:
                selector.unregister(key.fileobj)
                done += 1
    return time.monotonic() - begun, clients


def measure(rig, pooler, count, tls):
    _, first = open_clients(rig, pooler, 10, tls)  # pools and tables exist
    memory, cpu = rigs.private_bytes(pooler.pid), rigs.cpu_ns(pooler.pid)
    seconds, clients = open_clients(rig, pooler, count, tls)
    result = {"bytes_per_client": (rigs.private_bytes(pooler.pid) - memory) / count,
              "logins_per_second": count / seconds,
              "cpu_us_per_login": (rigs.cpu_ns(pooler.pid) - cpu) / count / 1000}
    for client in first + clients:
        client.socket.close()
    return result


def certificate(rig):
    key, cert = rig.dir / "tls.key", rig.dir / "tls.crt"
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
                    "-nodes", "-days", "2", "-subj", "/CN=localhost", "-keyout", key, "-out", cert],
                   check=True, capture_output=True)
    if os.geteuid() == 0:
        for path in (key, cert):
            shutil.chown(path, "postgres")
    return key, cert


def run(clients, runs, tls=False):
    """Medians by contender."""
    context = None
    if tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    samples = {}
    for _ in range(runs):
        with rigs.Rig() as rig:
            ours = theirs = ""
            if tls:
                key, cert = certificate(rig)
                ours = (f"  client_tls: {{mode: require, certificate_file: {cert}, key_file: {key}}}\n")
                theirs = (f"client_tls_sslmode = require\nclient_tls_key_file = {key}\n"
                          f"client_tls_cert_file = {cert}\n")
            for name in ("pgbouncer", "epoll", "io_uring"):
                pooler = (rig.pgbouncer(name, more=theirs) if name == "pgbouncer"
                          else rig.bascule(name, engine=name, more=ours))
                samples.setdefault(name, []).append(measure(rig, pooler, clients, context))
    return {name: {key: statistics.median(s[key] for s in rows) for key in rows[0]}
            for name, rows in samples.items()}


def report(result, clients, runs, tls=False):
    lines = [f"{clients} idle clients{' over TLS' if tls else ''}, medians of {runs} run(s):", "",
             "| | bytes a client | log-ins a second | CPU µs a log-in |", "|---|---|---|---|"]
    lines += [f"| {name} | {row['bytes_per_client']:.0f} | {row['logins_per_second']:.0f} "
              f"| {row['cpu_us_per_login']:.0f} |" for name, row in result.items()]
    return "\n".join(lines)


def main():
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--clients", type=int, default=10_000)
    options.add_argument("--runs", type=int, default=3)
    options.add_argument("--tls", action="store_true")
    options.add_argument("--json", metavar="FILE")
    given = options.parse_args()
    with rigs.before_others():
        result = run(given.clients, given.runs, given.tls)
    print(f"PgBouncer {'.'.join(map(str, rigs.pgbouncer_version()))}. "
          + report(result, given.clients, given.runs, given.tls))
    if given.json:
        pathlib.Path(given.json).write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
