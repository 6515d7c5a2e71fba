"""Hosts as network namespaces: every host has its address, its own loopback and its own process
numbers, and hangs on one switch, which is where packets get lost.

    with Network() as network:
        a, b = network.add_host("a"), network.add_host("b")
        a.boot([{"name": "etcd", "argv": [...], "log": "/tmp/x.log"}])
        network.cut(a, b)             # both ways; cut_one_way(a, b): what a sends does not arrive
        network.heal()
        a.kill()                      # every process at once; its kernel answers with resets
        a.power_off()                 # silence
        with b.inside(): ...          # this thread, and the threads it starts, are on b

Faults are rules of the switch (nftables, family bridge), so that no host knows of them. All of it is
gone at the end of the `with`, also when the process is killed: the hosts die with it, and the next
Network removes what is left of those whose process is gone. Needs root; not_allowed() says what is
missing.
"""
import contextlib
import ctypes
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time

CLONE_NEWNET = 0x40000000
PR_SET_PDEATHSIG = 1
PREFIX = "bscl"
SUBNET = "10.77.0"
INIT = pathlib.Path(__file__).with_name("netns_init.py")

# What the switch drops. Hosts find each other (ARP) whatever happens, as on a network that is up.
SWITCH_RULES = """
table bridge faults {
  set cuts { type ipv4_addr . ipv4_addr; }
  set closed { type ipv4_addr . inet_service; }
  chain crossing {
    type filter hook forward priority 0; policy accept;
    ip saddr . ip daddr @cuts drop
    ip daddr . tcp dport @closed drop
    jump lossy
  }
  chain lossy { }
}
"""
_libc = ctypes.CDLL(None, use_errno=True)


def run(*argv, stdin=None):
    done = subprocess.run(argv, input=stdin, capture_output=True, text=True, timeout=30)
    if done.returncode != 0:
        raise OSError(f"{' '.join(argv)}: {done.stderr.strip()}")
    return done.stdout


def not_allowed():
    """Why there can't be such hosts here, or ''."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    for tool, package in (("ip", "iproute2"), ("nft", "nftables"), ("unshare", "util-linux")):
        if not shutil.which(tool):
            return f"there is no {tool} (package {package})"
    name = f"{PREFIX}{os.getpid()}-try"
    try:
        run("ip", "netns", "add", name)
        try:
            run("ip", "-n", name, "link", "add", "br0", "type", "bridge")
            run("ip", "netns", "exec", name, "nft", "-f", "-", stdin=SWITCH_RULES)
            run("ip", "netns", "exec", name, "unshare", "--pid", "--fork", "--mount-proc", "true")
        finally:
            run("ip", "netns", "del", name)
    except OSError as error:
        return f"the kernel or the container does not allow network namespaces: {error}"
    return ""


def enter(namespace):
    """This thread goes there; threads that it starts are there from the beginning."""
    with open(namespace, "rb") as file:
        if _libc.setns(file.fileno(), CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), f"setns {namespace}")


def _die_with_parent():
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _namespace_of(pid):
    try:
        return os.readlink(f"/proc/{pid}/ns/pid")
    except OSError:
        return ""


class Host:
    def __init__(self, network, name, address):
        self.network, self.name, self.address = network, name, address
        self.netns = f"{network.prefix}{name}"
        self.init = None
        self.processes = []

    # ---- life -------------------------------------------------------------------------------------
    def boot(self, processes=None):
        """processes: [{"name", "argv", "log", "hold"}], kept running as systemd would; a file at
        `hold` keeps one from being started. Without: those of the time before."""
        assert self.init is None, f"{self.name} is up"
        if processes is not None:
            self.processes = processes
        self.init = subprocess.Popen(
            ["ip", "netns", "exec", self.netns, "unshare", "--pid", "--fork", "--mount-proc",
             "--kill-child=KILL", sys.executable, "-S", str(INIT), json.dumps(self.processes)],
            stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL, preexec_fn=_die_with_parent, start_new_session=True)

    def kill(self):
        """Every process at once. The kernel lives: it resets connections and refuses new ones."""
        if self.init is None:
            return
        for pid in self._children_of_unshare():
            os.kill(pid, signal.SIGKILL)
        try:
            self.init.wait(timeout=30)  # ends when the last process of the host is dead
        except subprocess.TimeoutExpired:
            self.init.kill()
        self.init = None

    def shut_down(self, timeout=30):
        """In order: SIGTERM to all. True: they have ended."""
        if self.init is None:
            return True
        for pid in self._children_of_unshare():
            os.kill(pid, signal.SIGTERM)
        try:
            self.init.wait(timeout=timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            return False
        self.init = None
        return True

    def power_off(self):
        """Nothing answers any more, not even with a reset."""
        self.network.isolate(self)
        self.kill()

    def power_on(self):
        self.network.heal(self)
        self.boot()

    # ---- its processes -----------------------------------------------------------------------------
    def _children_of_unshare(self):
        try:
            text = pathlib.Path(f"/proc/{self.init.pid}/task/{self.init.pid}/children").read_text()
        except OSError:
            return []
        return [int(pid) for pid in text.split()]

    def pids(self):
        """Of all its processes but the first, as numbers of this (outer) world."""
        first = self._children_of_unshare() if self.init else []
        if not first:
            return []
        where = _namespace_of(first[0])
        return [int(p) for p in os.listdir("/proc")
                if p.isdigit() and int(p) != first[0] and where and _namespace_of(p) == where]

    def running(self, word):
        """Those whose command line has this word."""
        found = []
        for pid in self.pids():
            with contextlib.suppress(OSError):
                line = pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                found += [pid] if word in line else []
        return found

    def outer_pid(self, inner):
        """The number that everybody else knows the host's process `inner` by; 0: there is none."""
        for pid in self.pids():
            try:
                status = pathlib.Path(f"/proc/{pid}/status").read_text()
            except OSError:
                continue
            found = re.search(r"^NSpid:.*\t(\d+)$", status, re.M)
            if found and int(found[1]) == inner:
                return pid
        return 0

    @contextlib.contextmanager
    def inside(self):
        with open("/proc/thread-self/ns/net", "rb") as before:
            enter(f"/run/netns/{self.netns}")
            try:
                yield self
            finally:
                _libc.setns(before.fileno(), CLONE_NEWNET)


class Network(contextlib.ExitStack):
    def __init__(self):
        super().__init__()
        self.prefix = f"{PREFIX}{os.getpid()}-"
        self.switch = f"{self.prefix}switch"
        self.hosts = {}
        self.cuts = set()

    def __enter__(self):
        self._remove_left_over()
        super().__enter__()
        self.callback(self._remove)
        try:
            run("ip", "netns", "add", self.switch)
            for line in ("link add br0 type bridge mcast_snooping 0 forward_delay 0", "link set br0 up"):
                run("ip", "-n", self.switch, *line.split())
            self._nft(SWITCH_RULES)
        except BaseException:
            self.close()
            raise
        return self

    def add_host(self, name):
        host = Host(self, name, f"{SUBNET}.{len(self.hosts) + 1}")
        self.hosts[name] = host
        run("ip", "netns", "add", host.netns)
        run("ip", "-n", self.switch, "link", "add", "name", name, "type", "veth", "peer", "name", "eth0",
            "netns", host.netns)
        run("ip", "-n", self.switch, "link", "set", "dev", name, "master", "br0", "up")
        for line in (f"addr add {host.address}/24 dev eth0", "link set eth0 up", "link set lo up"):
            run("ip", "-n", host.netns, *line.split())
        return host

    # ---- faults ------------------------------------------------------------------------------------
    def cut_one_way(self, sender, *receivers):
        self._cut({(sender.address, r.address) for r in receivers})

    def cut(self, host, *others):
        self._cut({pair for o in others for pair in ((host.address, o.address), (o.address, host.address))})

    def isolate(self, host, but=()):
        """From everybody; `but`: those that it still reaches."""
        self.cut(host, *[h for h in self.hosts.values() if h is not host and h not in but])

    def heal(self, *hosts):
        """All cuts, or those that one of these hosts is on an end of."""
        mine = {h.address for h in hosts}
        healed = {pair for pair in self.cuts if not mine or mine & set(pair)}
        self._change("delete", healed)
        self.cuts -= healed

    def join(self, host, *others):
        """Ends the cuts between them, both ways."""
        between = {pair for o in others for pair in ((host.address, o.address), (o.address, host.address))} & self.cuts
        self._change("delete", between)
        self.cuts -= between

    def close_port(self, host, port):
        self._nft(f"add element bridge faults closed {{ {host.address} . {port} }}\n")

    def open_port(self, host, port):
        self._nft(f"delete element bridge faults closed {{ {host.address} . {port} }}\n")

    def loss(self, percent, *hosts):
        """Of the packets that these hosts send and get. 0: none any more."""
        rules = ["flush chain bridge faults lossy"]
        for host in hosts if percent else ():
            for side in ("saddr", "daddr"):
                rules.append(f"add rule bridge faults lossy ip {side} {host.address} "
                             f"numgen random mod 100 < {percent} drop")
        self._nft("\n".join(rules) + "\n")

    def flap(self, host, times, down_s, up_s):
        """Its cable."""
        for _ in range(times):
            run("ip", "-n", self.switch, "link", "set", "dev", host.name, "down")
            time.sleep(down_s)
            run("ip", "-n", self.switch, "link", "set", "dev", host.name, "up")
            time.sleep(up_s)

    def _cut(self, pairs):
        self._change("add", pairs - self.cuts)
        self.cuts |= pairs

    def _change(self, verb, pairs):
        if pairs:
            elements = ", ".join(f"{a} . {b}" for a, b in sorted(pairs))
            self._nft(f"{verb} element bridge faults cuts {{ {elements} }}\n")

    def _nft(self, text):
        run("ip", "netns", "exec", self.switch, "nft", "-f", "-", stdin=text)

    # ---- end ---------------------------------------------------------------------------------------
    def _remove(self):
        for host in self.hosts.values():
            host.kill()
        self._delete(lambda name: name.startswith(self.prefix))

    @classmethod
    def _remove_left_over(cls):
        def dead(name):
            found = re.match(rf"{PREFIX}(\d+)-", name)
            return found and not os.path.exists(f"/proc/{found[1]}")
        cls._delete(dead)

    @staticmethod
    def _delete(which):
        folder = pathlib.Path("/run/netns")
        for name in sorted(os.listdir(folder)) if folder.exists() else []:
            if which(name):
                subprocess.run(["ip", "netns", "del", name], capture_output=True, timeout=30)
