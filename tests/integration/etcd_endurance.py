#!/usr/bin/env python3
"""The figure "etcd leader changes, load and 2 s blips: 0 failovers". By hand, or by ./dev test --full:

    BASCULE=build/dev/bascule tests/integration/etcd_endurance.py [--minutes 10] [--seed 1]

Three PostgreSQL, an etcd of three, writers through the proxy. All the time, in random order: the leadership of
etcd is moved; its leader is killed; one member of it is stopped for 2 s; the primary's way to all of etcd is cut
for 2 s; the processors are kept busy. Prints one line of JSON; exit 1 if the primary changed or an acknowledged
row is missing. "fenced" counts how often the primary stopped itself for want of a renewal, and went on later.
"""
import argparse
import os
import random
import subprocess
import sys
import time

from harness import Cluster, wait_for

BLIP_S = 2.0


class Faults:
    def __init__(self, cluster, relays, rng):
        self.cluster, self.relays, self.rng = cluster, relays, rng
        self.counts = {}

    def leadership_moved(self):
        leader = self.cluster.etcd.leader()
        others = [name for name in self.cluster.etcd.names if name != leader]
        return self.cluster.etcd.move_leader(self.rng.choice(others))

    def leader_killed(self):
        leader = self.cluster.etcd.leader()
        if not leader:
            return False
        self.cluster.kill(self.cluster.etcd_process(leader))  # the supervisor starts it again
        wait_for(self.cluster.etcd.leader, 15, "etcd has a leader again")
        return True

    def member_stopped(self):
        pid = self.cluster.etcd_process(self.rng.choice(self.cluster.etcd.names))
        self.cluster.stop(pid)
        time.sleep(BLIP_S)
        self.cluster.cont(pid)
        return True

    def primary_cut_off(self):
        for relay in self.relays:
            relay.cut()
        time.sleep(BLIP_S)
        for relay in self.relays:
            relay.heal()
        return True

    def processors_busy(self):
        burners = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(os.cpu_count())]
        time.sleep(4)
        for burner in burners:
            burner.kill()
            burner.wait()
        return True

    def one(self):
        fault = self.rng.choice([self.leadership_moved, self.leadership_moved, self.leader_killed,
                                 self.member_stopped, self.primary_cut_off, self.processors_busy])
        if fault():
            name = fault.__name__
            self.counts[name] = self.counts.get(name, 0) + 1


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with Cluster(etcd=3) as cluster:
        old = cluster.primary()
        relays = cluster.put_relays_between(old)
        wait_for(lambda: cluster.leader_renewed_by_now() and cluster.primary() == old, 20, "renewed through relays")
        epoch = cluster.epoch()
        faults = Faults(cluster, relays, random.Random(options.seed))
        notes_before = len(cluster.notes(old))
        begun = time.monotonic()
        with cluster.ledger() as ledger:
            ledger.wait_acks(50)
            while time.monotonic() < begun + options.minutes * 60:
                faults.one()
                wait_for(cluster.etcd.leader, 20, "etcd has a leader")
                time.sleep(faults.rng.uniform(1, 4))
            ledger.wait_acks(50)
        fenced = [n for n in cluster.notes(old)[notes_before:] if n["what"] == "fenced"]
        failovers = cluster.epoch() - epoch
        report = cluster.finish(ledger, "etcd endurance", minutes=options.minutes, seed=options.seed,
                                failovers=failovers, fenced=[n["why"] if "why" in n else n for n in fenced],
                                faults=faults.counts)
    return 1 if failovers or report.lost else 0


if __name__ == "__main__":
    sys.exit(main())
