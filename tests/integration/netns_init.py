"""The first process of a host of netns.py: starts what the host is to run, starts it again when it
has died (as systemd would), and buries orphans. SIGTERM: everybody gets one and is waited for.

    netns_init.py '[{"name": "etcd", "argv": ["/usr/bin/etcd", ...], "log": "/tmp/x.log", "hold": "/tmp/hold"}]'
"""
import json
import os
import signal
import sys
import time

PAUSE_MIN_S, PAUSE_MAX_S, STABLE_S = 0.1, 5.0, 10.0
WATCHED = {signal.SIGCHLD, signal.SIGTERM}


class Service:
    def __init__(self, argv, log, hold="", **_):
        self.argv, self.log, self.hold = argv, log, hold
        self.pid, self.pause, self.due, self.started = 0, PAUSE_MIN_S, 0.0, 0.0

    def start(self, now):
        self.pid, self.started = os.fork(), now
        if self.pid:
            return
        signal.pthread_sigmask(signal.SIG_UNBLOCK, WATCHED)
        os.setsid()
        log = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(log, 1)
        os.dup2(log, 2)
        try:
            os.execvp(self.argv[0], self.argv)
        except OSError as error:
            os.write(2, f"{self.argv[0]}: {error}\n".encode())
            os._exit(127)

    def ended(self, now):
        stable = now - self.started > STABLE_S
        self.pause = PAUSE_MIN_S if stable else min(self.pause * 2, PAUSE_MAX_S)
        self.pid, self.due = 0, now + self.pause

    def wanted(self, now):
        return not self.pid and now >= self.due and not (self.hold and os.path.exists(self.hold))


def bury(services):
    while True:
        try:
            pid, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return False
        if not pid:
            return True
        for service in services:
            if service.pid == pid:
                service.ended(time.monotonic())


def main():
    signal.pthread_sigmask(signal.SIG_BLOCK, WATCHED)
    services = [Service(**given) for given in json.loads(sys.argv[1])]
    stopping = False
    while True:
        living = bury(services)
        if stopping and not living:
            return
        for service in services:
            if not stopping and service.wanted(time.monotonic()):
                service.start(time.monotonic())
        got = signal.sigtimedwait(WATCHED, 0.1)
        if got and got.si_signo == signal.SIGTERM and not stopping:
            stopping = True
            for service in services:
                if service.pid:
                    os.kill(service.pid, signal.SIGTERM)


if __name__ == "__main__":
    main()
