"""The etcd of a cluster made with `bascule up --store etcd`: its records, its leader, and relays that
stand between one member and it, so that this member's network can be cut.
"""
import base64
import json
import selectors
import socket
import threading
import urllib.request


class Etcd:
    """Of cluster.json's "etcd": [{"name", "client": {"host", "port"}, "peer": ...}]. tls: a context (ssl), if it wants that."""

    def __init__(self, members, tls=None):
        self.members, self.tls = members, tls
        self.names = [m["name"] for m in members]

    def _call(self, member, path, body, timeout):
        url = f"{'https' if self.tls else 'http'}://{member['client']['host']}:{member['client']['port']}{path}"
        request = urllib.request.Request(url, json.dumps(body).encode())
        with urllib.request.urlopen(request, timeout=timeout, context=self.tls) as answer:
            return json.load(answer)

    def call(self, path, body, timeout=1.0):
        """Of the first member that answers; None: nobody does."""
        for member in self.members:
            try:
                return self._call(member, path, body, timeout)
            except OSError:
                continue
        return None

    def get(self, key):
        """(there is an answer, value or None)"""
        answered, row = self.row(key)
        return answered, base64.b64decode(row.get("value", "")) if row else None

    def row(self, key):
        """Likewise, as etcd has it: value in base64, mod_revision, ..."""
        answer = self.call("/v3/kv/range", {"key": base64.b64encode(key.encode()).decode()})
        if answer is None:
            return False, None
        kvs = answer.get("kvs", [])
        return True, kvs[0] if kvs else None

    def put(self, key, value):
        body = {"key": base64.b64encode(key.encode()).decode(), "value": base64.b64encode(value.encode()).decode()}
        assert self.call("/v3/kv/put", body) is not None, f"etcd does not take {key}"

    def _status(self, member):
        try:
            return self._call(member, "/v3/maintenance/status", {}, 1.0)
        except OSError:
            return None

    def status_of(self, name):
        return self._status(next(m for m in self.members if m["name"] == name))

    def leader(self):
        """Name of the member that leads etcd now, else ''."""
        for member in self.members:
            status = self._status(member)
            if status and status.get("leader", "0") == status["header"]["member_id"]:
                return member["name"]
        return ""

    def move_leader(self, to):
        """By etcd's own command; False: it did not happen (an election is on)."""
        ids = {m["name"]: (self._status(m) or {}).get("header", {}).get("member_id") for m in self.members}
        leader = next((m for m in self.members if m["name"] == self.leader()), None)
        if leader is None or not ids.get(to):
            return False
        try:
            self._call(leader, "/v3/maintenance/transfer-leadership", {"targetID": ids[to]}, 3.0)
        except OSError:
            return False
        return self.leader() == to


class Relay:
    """Forwards TCP from a port of its own to `target`. cut(): nothing passes any more, nobody is told,
    as when a network drops every packet; heal(): what waits goes on, and so do new connections."""

    def __init__(self, target):
        self.target = target
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.listener.setblocking(False)
        self.port = self.listener.getsockname()[1]
        self.pairs = {}  # socket -> the other one
        self.is_cut = threading.Event()
        self.held_word, self.held = None, []  # data and where to
        self.closing = threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def cut(self):
        self.is_cut.set()

    def heal(self):
        self.is_cut.clear()

    def hold(self, word):
        """Cuts once something with this word is to pass, before that. heal() lets it go on, late."""
        self.held_word = word.encode()

    def close(self):
        self.closing.set()
        self.thread.join()

    def _run(self):
        selector = selectors.DefaultSelector()
        selector.register(self.listener, selectors.EVENT_READ)
        while not self.closing.is_set():
            if self.is_cut.is_set():
                self.closing.wait(0.005)
                continue
            while self.held:
                data, to = self.held.pop(0)
                to.sendall(data)
            for key, _ in selector.select(0.05):
                if self.is_cut.is_set():
                    break
                if key.fileobj is self.listener:
                    self._accept(selector)
                else:
                    self._forward(selector, key.fileobj)
        for one in [self.listener, *self.pairs]:
            one.close()

    def _accept(self, selector):
        try:
            client, _ = self.listener.accept()
        except OSError:
            return
        try:
            server = socket.create_connection(self.target, timeout=1)
        except OSError:
            client.close()
            return
        server.settimeout(5)
        client.settimeout(5)
        for one, other in ((client, server), (server, client)):
            self.pairs[one] = other
            selector.register(one, selectors.EVENT_READ)

    def _forward(self, selector, source):
        if source not in self.pairs:
            return
        try:
            data = source.recv(1 << 16)
            if self.held_word and self.held_word in data:
                self.held.append((data, self.pairs[source]))
                self.held_word = None
                self.is_cut.set()
                return
            if data:
                self.pairs[source].sendall(data)
                return
        except OSError:
            pass
        for one in (source, self.pairs[source]):
            selector.unregister(one)
            self.pairs.pop(one)
            one.close()
