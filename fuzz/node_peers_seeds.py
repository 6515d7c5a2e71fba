#!/usr/bin/env python3
"""Writes the seeds of node_peers_fuzz: envelopes with the seals of its members (src/node/peers.cc)."""

import hashlib
import hmac
import json
import pathlib

RUN, N = "01" * 12, 1


def seal(text):
    return hmac.new(b"secret", text.encode(), hashlib.sha256).hexdigest()


def request(message, run=RUN, n=N):
    text = f"bascule peer request\nmain\nn2\n{run}\n{n}\n{message}"
    return json.dumps({"cluster": "main", "to": "n2", "run": run, "n": n, "message": message, "mac": seal(text)})


def reply(message):
    return json.dumps({"message": message, "mac": seal(f"bascule peer reply\n{RUN}\n{N}\n{message}")})


LOOK = json.dumps({"kind": "look", "from": "n1", "epoch": 7, "ttlMs": 0, "flushLsn": "0/0"})
PLEDGE = json.dumps({"kind": "pledge", "from": "n1", "epoch": 7, "ttlMs": 5000, "flushLsn": "0/2A"})
GRANTED = json.dumps({"granted": True, "leading": 0, "syncName": "n2_a", "why": ""})
REFUSED = json.dumps({"granted": False, "leading": 9, "syncName": "n2_a", "why": "another leads"})

SEEDS = {"look": request(LOOK), "pledge": request(PLEDGE), "nonsense": request("{}"), "unsealed": PLEDGE,
         "granted": reply(GRANTED), "refused": reply(REFUSED), "no_reply": reply("[]")}

if __name__ == "__main__":
    folder = pathlib.Path(__file__).parent / "corpus" / "node_peers"
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in SEEDS.items():
        (folder / name).write_text(text)
