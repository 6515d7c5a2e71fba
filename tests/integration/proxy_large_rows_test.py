"""Rows and parameters of nearly 1 GB, which is as much as PostgreSQL takes: through the proxy's hands, never in
its memory. For --full: a server needs 3 GB of memory for such a row."""

import struct

import pytest
from proxy_wire import SYNC, bind, codes, connect, describe, execute, parse, query
from proxy_support import one_postgres, proxies

MEGABYTES = 1000
SIZE = MEGABYTES * 1_000_000
MEMORY_KB_MAX = 8_000  # what it may grow by


@pytest.fixture(scope="module")
def server():
    with one_postgres() as server:
        yield server


@pytest.fixture
def proxy(server):
    with proxies(server) as make:
        yield make("mode=transaction", "pool=1")


def peak_kb(proxy):
    with open(f"/proc/{proxy.process.pid}/status", encoding="ascii") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))


def forget_peak(proxy):
    with open(f"/proc/{proxy.process.pid}/clear_refs", "w", encoding="ascii") as clear:
        clear.write("5")  # proc(5): the peak becomes what is resident now
    return peak_kb(proxy)


def exactly(socket, size):
    out = b""
    while len(out) < size:
        out += socket.recv(size - len(out))
    return out


def header(socket):
    kind, size = struct.unpack(">ci", exactly(socket, 5))
    return kind.decode(), size - 4


def take_row(socket):
    """Reads to the end of a row of one column of SIZE times "x", and keeps none of it."""
    kind, size = header(socket)
    while kind != "D":
        exactly(socket, size)
        kind, size = header(socket)
    assert size == 2 + 4 + SIZE
    assert struct.unpack(">hi", exactly(socket, 6)) == (1, SIZE)
    buffer = bytearray(1 << 20)
    left = SIZE
    while left > 0:
        got = socket.recv_into(buffer, min(left, len(buffer)))
        assert got > 0, f"closed {left} bytes before the end"
        assert buffer.count(b"x", 0, got) == got
        left -= got


@pytest.mark.parametrize("how", ["simple", "extended"])
def test_row_of_nearly_1_gb_needs_little_memory(proxy, how):
    c = connect(proxy.port, timeout=120)
    c.run("select 1")
    before = forget_peak(proxy)
    text = f"select repeat(repeat('x', 1000), {SIZE // 1000})"
    if how == "simple":
        c.send(query(text))
    else:
        c.send(parse("", text), bind(""), describe("P"), execute(), SYNC)
    take_row(c.socket)
    assert codes(c.until_ready()) == "C Z(I)"
    assert peak_kb(proxy) - before < MEMORY_KB_MAX
    assert c.one("select 1") == "1"


def test_parameter_of_nearly_1_gb_needs_little_memory(proxy):
    c = connect(proxy.port, timeout=120)
    c.run("select 1")
    before = forget_peak(proxy)
    c.send(parse("", "select octet_length($1::bytea)::text"))
    # No portal, no statement, one parameter, in binary.
    body = b"\0\0" + struct.pack(">hhhi", 1, 1, 1, SIZE)
    c.send(b"B" + struct.pack(">i", 4 + len(body) + SIZE + 2) + body)
    piece = bytes(1_000_000)
    for _ in range(MEGABYTES):
        c.socket.sendall(piece)
    c.send(struct.pack(">h", 0), execute(), SYNC)
    answer = c.until_ready()
    assert codes(answer) == "1 2 D C Z(I)"
    assert answer[2][1][6:] == str(SIZE).encode()
    assert peak_kb(proxy) - before < MEMORY_KB_MAX
    assert c.one("select 1") == "1"

