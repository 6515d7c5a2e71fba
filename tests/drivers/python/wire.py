"""A client of protocol 3.0 in which every message is visible: for checks that no driver would send.

Values are text. A message from the server is a pair (type letter, body bytes); an error is the dict
of its fields, by letter.
"""
import base64
import hashlib
import hmac
import os
import socket
import ssl
import struct

from checks import DATABASE, HOST, PASSWORD, PORT, USER

PROTOCOL_3_0, PROTOCOL_3_2 = 196608, 196610
SSL_REQUEST, CANCEL_REQUEST, GSS_REQUEST = 80877103, 80877102, 80877104


class Closed(Exception):
    """The server closed the connection."""


class ServerError(Exception):
    def __init__(self, fields):
        super().__init__(f"{fields.get('S')} {fields.get('C')} {fields.get('M')}")
        self.fields, self.code = fields, fields.get("C")


def message(kind, body=b""):
    return kind.encode() + struct.pack(">i", len(body) + 4) + body


def text(value):
    return value.encode() + b"\0"


def query(sql):
    return message("Q", text(sql))


def parse(name, sql, types=()):
    return message("P", text(name) + text(sql) + struct.pack(f">h{len(types)}i", len(types), *types))


def bind(statement, values=(), portal=""):
    body = text(portal) + text(statement) + struct.pack(">hh", 0, len(values))
    for value in values:
        data = None if value is None else str(value).encode()
        body += struct.pack(">i", -1) if data is None else struct.pack(">i", len(data)) + data
    return message("B", body + struct.pack(">h", 0))


def execute(portal="", rows_max=0):
    return message("E", text(portal) + struct.pack(">i", rows_max))


def describe(kind, name=""):
    return message("D", kind.encode() + text(name))


def close(kind, name=""):
    return message("C", kind.encode() + text(name))


SYNC, FLUSH, TERMINATE, COPY_DONE = (message(k) for k in "SHXc")


def copy_data(data):
    return message("d", data)


def fields_of(body):
    return {part[:1].decode(): part[1:].decode() for part in body.split(b"\0") if part}


def row_of(body):
    count, at, values = struct.unpack_from(">h", body)[0], 2, []
    for _ in range(count):
        size = struct.unpack_from(">i", body, at)[0]
        at += 4
        values.append(None if size < 0 else body[at:at + size].decode())
        at += max(size, 0)
    return tuple(values)


class Scram:
    """RFC 5802 without channel binding."""

    def __init__(self):
        self.nonce = base64.b64encode(os.urandom(18)).decode()
        self.first = f"n=,r={self.nonce}"

    def initial(self):
        first = f"n,,{self.first}".encode()
        return text("SCRAM-SHA-256") + struct.pack(">i", len(first)) + first

    def final(self, server_first):
        parts = dict(p.split("=", 1) for p in server_first.split(","))
        assert parts["r"].startswith(self.nonce), "not our nonce"
        salted = hashlib.pbkdf2_hmac("sha256", PASSWORD.encode(), base64.b64decode(parts["s"]), int(parts["i"]))

        def sign(key, data):
            return hmac.digest(key, data, "sha256")

        client = sign(salted, b"Client Key")
        without_proof = f"c=biws,r={parts['r']}"
        signed = ",".join((self.first, server_first, without_proof)).encode()
        proof = bytes(a ^ b for a, b in zip(client, sign(hashlib.sha256(client).digest(), signed)))
        self.signature = base64.b64encode(sign(sign(salted, b"Server Key"), signed)).decode()
        return f"{without_proof},p={base64.b64encode(proof).decode()}".encode()


class Wire:
    def __init__(self, login=True, timeout=20, version=PROTOCOL_3_0, tls=None, **parameters):
        self.socket = socket.create_connection((HOST, PORT), timeout)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if tls or (tls is None and login and "DRIVER_TLS" in os.environ):
            self._secure()
        self.buffer = bytearray()
        self.parameters, self.key, self.status, self.notices = {}, None, None, []
        if login:
            self.login(version, {"user": USER, "database": DATABASE} | parameters)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def _secure(self):
        self.socket.sendall(struct.pack(">ii", 8, SSL_REQUEST))
        assert self.socket.recv(1) == b"S", "the server speaks no TLS"
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        self.socket = context.wrap_socket(self.socket)

    # ---- bytes ------------------------------------------------------------------------------------
    def send(self, *messages):
        self.socket.sendall(b"".join(messages))

    def _fill(self, size):
        while len(self.buffer) < size:
            try:
                data = self.socket.recv(1 << 18)
            except ConnectionResetError:
                data = b""
            if not data:
                raise Closed(f"closed by the server, {len(self.buffer)} bytes unread")
            self.buffer += data

    def take(self, size):
        self._fill(size)
        data = bytes(self.buffer[:size])
        del self.buffer[:size]
        return data

    def receive(self):
        """The next message; those that may come at any time are kept and not returned."""
        while True:
            kind, size = struct.unpack(">ci", self.take(5))
            kind, body = kind.decode(), self.take(size - 4)
            if kind == "S":
                name, value = body.split(b"\0")[:2]
                self.parameters[name.decode()] = value.decode()
            elif kind == "N":
                self.notices.append(fields_of(body))
            else:
                if kind == "Z":
                    self.status = body.decode()
                return kind, body

    # ---- log-in ------------------------------------------------------------------------------------
    def startup(self, version, parameters):
        body = struct.pack(">i", version) + b"".join(text(k) + text(str(v)) for k, v in parameters.items()) + b"\0"
        self.send(struct.pack(">i", len(body) + 4) + body)

    def login(self, version, parameters):
        self.startup(version, parameters)
        scram = Scram()
        self.negotiated = None
        while True:
            kind, body = self.receive()
            if kind == "E":
                raise ServerError(fields_of(body))
            if kind == "v":
                self.negotiated = body
            elif kind == "K":
                self.key = body
            elif kind == "Z":
                return
            elif kind == "R":
                step = struct.unpack_from(">i", body)[0]
                if step == 10:
                    self.send(message("p", scram.initial()))
                elif step == 11:
                    self.send(message("p", scram.final(body[4:].decode())))
                elif step == 12:
                    assert body[4:].decode() == f"v={scram.signature}", "the server's signature"
                else:
                    assert step == 0, f"authentication request {step}"

    def cancel(self, key=None):
        """As libpq does: returns when the server has closed the cancelling connection."""
        with Wire(login=False, tls="DRIVER_TLS" in os.environ) as other:
            body = struct.pack(">i", CANCEL_REQUEST) + (key or self.key)
            other.send(struct.pack(">i", len(body) + 4) + body)
            try:
                other.take(1)
            except Closed:
                pass

    # ---- answers -----------------------------------------------------------------------------------
    def until_ready(self):
        """Messages up to ReadyForQuery, which is included."""
        answer = []
        while not answer or answer[-1][0] != "Z":
            answer.append(self.receive())
        return answer

    def kinds(self):
        return "".join(kind for kind, _ in self.until_ready())

    def rows(self):
        """Rows up to ReadyForQuery; raises the first error after it."""
        answer = self.until_ready()
        errors = [fields_of(body) for kind, body in answer if kind == "E"]
        if errors:
            raise ServerError(errors[0])
        return [row_of(body) for kind, body in answer if kind == "D"]

    def run(self, sql):
        self.send(query(sql))
        return self.rows()

    def one(self, sql):
        return self.run(sql)[0][0]

    def prepare(self, name, sql):
        self.send(parse(name, sql), SYNC)
        return self.rows()

    def call(self, name, *values):
        """Runs a prepared statement."""
        self.send(bind(name, values), execute(), SYNC)
        return self.rows()

    def at_end(self):
        """Whether the server closed the connection, with nothing more to read."""
        try:
            self.take(1)
        except Closed:
            return True
        return False
