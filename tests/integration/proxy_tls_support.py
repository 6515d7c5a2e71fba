"""Certificates, access files and raw packets for the tests of TLS and authentication."""

import pathlib
import socket
import ssl
import struct
import subprocess

from proxy_support import Postgres, free_port


class Authority:
    """A certificate authority and what it issues: NAME.pem and NAME.key in its directory."""

    def __init__(self, root, name="ca"):
        self.dir = pathlib.Path(root) / name
        self.dir.mkdir()
        self.dir.chmod(0o755)
        self._openssl("req", "-x509", *self._new_key("ca"), "-days", "2", "-subj",
                      f"/CN=test {name}", "-addext", "basicConstraints=critical,CA:TRUE")

    def _openssl(self, *args):
        subprocess.run(["openssl", *map(str, args)], check=True, capture_output=True, timeout=30)

    def _new_key(self, name):
        return ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout",
                self.key(name), "-out", self.cert(name))

    def cert(self, name):
        return self.dir / f"{name}.pem"

    def key(self, name):
        return self.dir / f"{name}.key"

    @property
    def ca(self):
        return self.cert("ca")

    def issue(self, name, common_name, names="", owner=None):
        request, extensions = self.dir / f"{name}.csr", self.dir / f"{name}.ext"
        key_args = self._new_key(name)
        self._openssl("req", *key_args[:-1], request, "-subj", f"/O=Example/CN={common_name}")
        extensions.write_text(f"subjectAltName={names}\n" if names else "\n")
        self._openssl("x509", "-req", "-in", request, "-CA", self.ca, "-CAkey", self.key("ca"),
                      "-CAcreateserial", "-days", "2", "-extfile", extensions, "-out",
                      self.cert(name))
        self.key(name).chmod(0o600)
        if owner:
            subprocess.run(["chown", owner, str(self.key(name))], check=True)
        return self


class TlsPostgres(Postgres):
    """A server with TLS, whose rules and settings a test replaces."""

    def __init__(self, root, name, template, authority):
        super().__init__(root, name, template)
        authority.issue(f"server-{name}", "server", "DNS:localhost,IP:127.0.0.1", owner="postgres")
        with open(self.data / "postgresql.conf", "a", encoding="ascii") as conf:
            conf.write(f"ssl = on\nssl_cert_file = '{authority.cert(f'server-{name}')}'\n"
                       f"ssl_key_file = '{authority.key(f'server-{name}')}'\n"
                       f"ssl_ca_file = '{authority.ca}'\n")

    def rules(self, *lines):
        (self.data / "pg_hba.conf").write_text("\n".join(lines) + "\n")
        self.reload()

    def reload(self):
        # Written by the postmaster once it has read the files.
        log = self.data / "log"
        before = log.stat().st_size
        pid = int((self.data / "postmaster.pid").read_text().split()[0])
        import os
        import signal
        import time
        os.kill(pid, signal.SIGHUP)
        deadline = time.monotonic() + 10
        while b"reloading configuration" not in log.read_bytes()[before:]:
            assert time.monotonic() < deadline, "no reload"
            time.sleep(0.01)
        time.sleep(0.1)  # the rules are read just after the line is written


class AccessFile:
    """The file that proxy_harness reads its AccessConfig from."""

    def __init__(self, path):
        self.path = pathlib.Path(path)

    def write(self, *lines, **keys):
        for key in ("hba", "ident"):
            if key in keys:
                text = self.path.with_suffix(f".{key}")
                text.write_text(keys[key])
                keys[key] = text
        lines = [*lines, *(f"{key}={value}" for key, value in keys.items())]
        self.path.write_text("\n".join(map(str, lines)) + "\n")
        return f"access={self.path}"


def unix_connect(directory, port):
    s = socket.socket(socket.AF_UNIX)
    s.settimeout(10)
    s.connect(f"{directory}/.s.PGSQL.{port}")
    return s


def tcp(proxy):
    return socket.create_connection(("127.0.0.1", proxy.port), timeout=10)


SSL_REQUEST = struct.pack("!II", 8, 80877103)
GSS_REQUEST = struct.pack("!II", 8, 80877104)


def startup(user="app", database="postgres"):
    body = struct.pack("!I", 196608)
    for word in ("user", user, "database", database):
        body += word.encode() + b"\0"
    body += b"\0"
    return struct.pack("!I", len(body) + 4) + body


def read_all(s):
    out = b""
    try:
        while chunk := s.recv(65536):
            out += chunk
    except ConnectionResetError:
        pass
    return out


def tls_context(alpn=("postgresql",), **kwargs):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if alpn:
        context.set_alpn_protocols(list(alpn))
    for key, value in kwargs.items():
        setattr(context, key, value)
    return context
