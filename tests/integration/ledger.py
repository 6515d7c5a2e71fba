"""Writers that keep a ledger: what was acknowledged must be there afterwards, once.

Each client inserts rows (client, seq) with ascending seq, one statement at a time, in autocommit.
A seq is sent at most once: whatever appears twice was doubled by somebody else. What the server
acknowledged is `acked`; what ended in an error is `unknown` (it may or may not be there). A commit
that PostgreSQL returned with the warning "canceling wait for synchronous replication" was not
acknowledged by the rules of control-plane.md, and counts as unknown.
"""
import dataclasses
import threading
import time

import psycopg2

TABLE = "ledger"
LOCAL_FROM = 1000  # numbers of local writers
CREATE = f"CREATE TABLE IF NOT EXISTS {TABLE} (client int NOT NULL, seq bigint NOT NULL)"


@dataclasses.dataclass
class Report:
    acked: int
    errors: int
    errors_by_client: list
    error_messages: list
    lost: list
    duplicates: list
    unknown_present: int
    gap_ms: float          # longest time between two acknowledgements of one client
    gap_global_ms: float   # longest time without an acknowledgement to anybody
    gap_at: float          # seconds since the writers began

    def summary(self):
        d = dataclasses.asdict(self)
        for key in ("lost", "duplicates"):
            d[key] = len(d[key])
        d["error_messages"] = [m.split("\n")[0] for m in d["error_messages"][:3]]
        for key in ("gap_ms", "gap_global_ms", "gap_at"):
            d[key] = round(d[key], 1)
        return d


def turns(writers):
    """Who acknowledged, in order, each as often as it began to: [name, ...]. writers: {name: client}.
    An acknowledgement that only arrived after another's, but was asked for before, is no turn."""
    acks = sorted((at, client.sent[seq], name) for name, client in writers.items()
                  for seq, at in client.acked.items())
    order, began = [], 0.0
    for at, sent, name in acks:
        if order and (order[-1] == name or sent < began):
            continue
        order.append(name)
        began = at
    return order


class _Client(threading.Thread):
    def __init__(self, number, dsn, pause_s, connect_again_s):
        super().__init__(name=f"ledger-{number}", daemon=True)
        self.number, self.dsn, self.pause_s, self.connect_again_s = number, dsn, pause_s, connect_again_s
        self.acked = {}    # seq -> time of the acknowledgement
        self.sent = {}     # seq -> time when it was sent
        self.unknown = []
        self.errors = []   # (time, message)
        self.stopping = threading.Event()
        self.seq = 0

    def run(self):
        connection = None
        while not self.stopping.is_set():
            try:
                if connection is None:
                    connection = psycopg2.connect(self.dsn)
                    connection.autocommit = True
            except psycopg2.Error as error:
                # No statement was in flight, but a client sees it all the same.
                self.errors.append((time.monotonic(), f"connect: {error}".strip()))
                self.stopping.wait(self.connect_again_s)
                continue
            self.seq += 1
            self.sent[self.seq] = time.monotonic()
            try:
                with connection.cursor() as cursor:
                    cursor.execute(f"INSERT INTO {TABLE} VALUES (%s, %s)", (self.number, self.seq))
                if any("canceling wait for synchronous" in n for n in connection.notices):
                    connection.notices.clear()
                    self.unknown.append(self.seq)
                    self.errors.append((time.monotonic(), "commit without its synchronous standby"))
                else:
                    self.acked[self.seq] = time.monotonic()
            except psycopg2.Error as error:
                self.unknown.append(self.seq)
                self.errors.append((time.monotonic(), str(error).strip()))
                if connection.closed:
                    connection = None
            self.stopping.wait(self.pause_s)
        if connection is not None:
            connection.close()


class Ledger:
    """with Ledger(dsn, clients=4) as ledger: … ; report = ledger.check(dsn_of_the_primary)"""

    def __init__(self, dsn, clients=4, pause_s=0.002, connect_again_s=0.02):
        with_table = psycopg2.connect(dsn)
        with_table.autocommit = True
        with with_table.cursor() as cursor:
            cursor.execute(CREATE)
        with_table.close()
        self.clients = [_Client(i, dsn, pause_s, connect_again_s) for i in range(clients)]
        self.locals = {}  # where -> its writer

    def add_local(self, where, dsn, inside, pause_s=0.02):
        """A further writer, started at once in the context `inside`. Its acknowledgements are checked as the
        others', its errors and gaps don't count: it writes past the proxy, to a server that may be a standby."""
        client = _Client(LOCAL_FROM + len(self.locals), dsn, pause_s, connect_again_s=pause_s)
        self.locals[where] = client
        with inside:
            client.start()

    def __enter__(self):
        self.started = time.monotonic()
        for client in self.clients:
            client.start()
        return self

    def __exit__(self, *_):
        self.stop()

    def stop(self):
        everybody = [*self.clients, *self.locals.values()]
        for client in everybody:
            client.stopping.set()
        for client in everybody:
            client.join(timeout=60)
            assert not client.is_alive(), f"{client.name} hangs in a statement"

    def acked_count(self):
        return sum(len(c.acked) for c in self.clients)

    def acked_count_at(self, moment):
        return sum(at <= moment for c in self.clients for at in list(c.acked.values()))

    def wait_acks(self, more, timeout=60.0):
        """Until every client has `more` further acknowledgements: the cluster is writable for all."""
        want = [len(c.acked) + more for c in self.clients]
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            if all(len(c.acked) >= w for c, w in zip(self.clients, want)):
                return
            time.sleep(0.005)
        raise AssertionError(
            f"no {more} acknowledgements for every client within {timeout} s; "
            f"last errors: {[c.errors[-1][1] if c.errors else None for c in self.clients]}")

    def check(self, dsn):
        """Row by row against the database behind `dsn`. Call after stop()."""
        connection = psycopg2.connect(dsn)
        with connection.cursor() as cursor:
            cursor.execute(f"SELECT client, seq, count(*) FROM {TABLE} GROUP BY 1, 2")
            rows = {(client, seq): n for client, seq, n in cursor.fetchall()}
        connection.close()
        everybody = [*self.clients, *self.locals.values()]
        lost = sorted((c.number, s) for c in everybody for s in c.acked if (c.number, s) not in rows)
        every = sorted(t for c in self.clients for t in c.acked.values())
        gap, gap_at = 0.0, 0.0
        for client in self.clients:
            times = sorted(client.acked.values())
            for a, b in zip(times, times[1:]):
                if b - a > gap:
                    gap, gap_at = b - a, a - self.started
        return Report(
            acked=self.acked_count(),
            errors=sum(len(c.errors) for c in self.clients),
            errors_by_client=[len(c.errors) for c in self.clients],
            error_messages=[m for c in self.clients for _, m in c.errors],
            lost=lost,
            duplicates=sorted(key for key, n in rows.items() if n > 1),
            unknown_present=sum((c.number, s) in rows for c in self.clients for s in c.unknown),
            gap_ms=gap * 1000,
            gap_global_ms=max((b - a for a, b in zip(every, every[1:])), default=0.0) * 1000,
            gap_at=gap_at,
        )
