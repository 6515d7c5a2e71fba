#!/usr/bin/env python3
"""Writes seeds for the pgwire fuzzers into corpus/ from the captures of src/pgwire/testdata."""
import pathlib
import struct

HERE = pathlib.Path(__file__).parent
TESTDATA = HERE.parent / "src/pgwire/testdata"
POLICY = {"client_auth": 0, "client": 1, "server_startup": 2, "server": 3}
SMALL = 2500


def put(fuzzer, name, data):
    folder = HERE / "corpus" / fuzzer
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(data)


def streams(path):
    out = {">": b"", "<": b""}
    for line in path.read_text().splitlines():
        out[line[0]] += bytes.fromhex(line[2:])
    return out[">"], out["<"]


def messages(stream):
    while stream:
        size = 1 + struct.unpack(">I", stream[1:5])[0]
        yield stream[:1].decode(), stream[5:size], stream[:size]
        stream = stream[size:]


def main():
    seen = set()
    for path in sorted(TESTDATA.glob("*.txt")):
        name = path.stem
        client, server = streams(path)
        size = struct.unpack(">I", client[:4])[0]
        startup, client = client[:size], client[size:]
        if startup not in seen:
            put("pgwire_startup", name, startup)
        seen.add(startup)
        auth = b"".join(m for t, _, m in messages(client) if t == "p")
        rest = client[len(auth):]
        end = server.find(b"Z\0\0\0\5") + 6
        parts = {"client_auth": auth, "client": rest, "server_startup": server[:end],
                 "server": server[end:]}
        for part, stream in parts.items():
            if stream and len(stream) < SMALL and stream not in seen:
                put("pgwire_frames", f"{name}-{part}", bytes([POLICY[part], 6]) + stream)
            seen.add(stream)
        for side, stream in (("c", client), ("s", server)):
            for kind, payload, _ in messages(stream):
                if (side, kind, len(payload)) in seen or len(payload) > 300:
                    continue
                seen.add((side, kind, len(payload)))
                parser = 4 if side == "c" else {"R": 0, "E": 1, "N": 1, "T": 3, "D": 3}.get(kind, 2)
                if len([s for s in seen if s[:2] == (side, kind)]) <= 4:
                    put("pgwire_messages", f"{side}{ord(kind)}-{len(payload)}",
                        bytes([parser]) + payload)
    put("pgwire_startup", "ssl", struct.pack(">II", 8, 80877103))
    put("pgwire_startup", "gss", struct.pack(">II", 8, 80877104))
    first = b"r=clientserver,s=c2FsdA==,i=1"
    put("pgwire_scram_client", "raw", b"\0" + first + b"\nv=" + b"A" * 43 + b"=")
    put("pgwire_scram_client", "same", b"\1")
    put("pgwire_scram_client", "changed", b"\1\0r\1X")
    final = b"\nc=biws,r=clientserver,p=" + b"A" * 43 + b"="
    put("pgwire_scram_server", "raw", b"\0n,,n=,r=client" + final)
    put("pgwire_scram_server", "downgrade", b"\4y,,n=,r=client" + final)
    put("pgwire_scram_server", "plus", b"\14p=tls-server-end-point,,n=,r=client" + final)
    put("pgwire_scram_server", "same", b"\1")
    put("pgwire_scram_server", "same_plus", b"\5")
    put("pgwire_scram_server", "verifier",
        b"\2SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4"
        b"qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=")


if __name__ == "__main__":
    main()
