"""A network of one's own for each process: namespaces at a bridge, cut and slowed between any two.

    network = Network()
    a, b = network.add(), network.add()     # run a process with the arguments a.prefix in front
    network.cut(a, b)                        # nothing passes from now on, and nobody is told
    network.heal()

The tests themselves are at the bridge and reach everybody, whatever is cut. Packets are dropped
where they arrive, silently, as a broken switch drops them: whoever sends sees no error.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import NamedTuple

PREFIX = "tq"
SUBNETS = range(1, 250)
SINK = "sink0"
UNLIMITED = "10gbit"


class NetworkError(Exception):
    """The kernel or its tools did not do what a network of tests needs."""


class Host(NamedTuple):
    """One namespace: its address, and what runs a command in it."""

    number: int
    namespace: str
    address: str

    @property
    def prefix(self) -> list[str]:
        return ["ip", "netns", "exec", self.namespace]


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise NetworkError(f"{' '.join(command)}: {(done.stderr or done.stdout).strip()}")
    return done.stdout


@cache
def missing() -> str:
    """Why there can be no namespaces here; empty if there can."""
    for tool in ("ip", "tc"):
        if shutil.which(tool) is None:
            return f"no network namespaces: there is no {tool} on the path (package iproute2)"
    if os.geteuid() != 0:
        return "no network namespaces: only root may make them"
    try:
        with contextlib.closing(Network()) as network:
            a, b = network.add(), network.add()
            network.cut(a, b)
            network.heal()
    except NetworkError as error:
        return f"no network namespaces: {error}"
    return ""


class Network:
    """A bridge with an address for the tests, and the namespaces at it."""

    def __init__(self) -> None:
        self._hosts: list[Host] = []
        self._cut: set[tuple[int, int]] = set()
        self._slow: set[int] = set()
        self._subnet = self._claim()
        self._bridge = f"{PREFIX}br{self._subnet}"
        try:
            _run("ip", "addr", "add", f"{self._address(254)}/24", "dev", self._bridge)
            _run("ip", "link", "set", self._bridge, "up")
        except NetworkError:
            self.close()
            raise

    @staticmethod
    def _claim() -> int:
        """A subnet that is ours: the bridge's name is taken by whoever makes it first.

        What a process left that was killed is taken away.
        """
        for number in SUBNETS:
            bridge = f"{PREFIX}br{number}"
            try:
                _run("ip", "link", "add", bridge, "type", "bridge")
            except NetworkError as error:
                if "File exists" not in str(error):
                    raise
                alias = Path(f"/sys/class/net/{bridge}/ifalias")
                with contextlib.suppress(OSError, NetworkError):
                    owner = alias.read_text().strip()
                    if owner and not Path(f"/proc/{owner}").exists():
                        _remove(number)
                continue
            _run("ip", "link", "set", bridge, "alias", str(os.getpid()))
            _remove_namespaces(number)  # of one who was killed while taking them away
            return number
        raise NetworkError("every subnet is taken")

    def _address(self, number: int) -> str:
        return f"10.213.{self._subnet}.{number}"

    def add(self) -> Host:
        """One more namespace at the bridge."""
        number = len(self._hosts) + 1
        host = Host(number, f"{PREFIX}{self._subnet}-{number}", self._address(number))
        name = host.namespace
        _run("ip", "netns", "add", name)
        self._hosts.append(host)
        _run("ip", "link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", name)
        _run("ip", "link", "set", name, "master", self._bridge, "up")
        _run("ip", "-n", name, "addr", "add", f"{host.address}/24", "dev", "eth0")
        for device in ("lo", "eth0"):
            _run("ip", "-n", name, "link", "set", device, "up")
        # A device that is down swallows what it is sent: kernels without `action drop` have that.
        _run("ip", "-n", name, "link", "add", SINK, "type", "veth", "peer", "name", "sink1")
        _run("tc", "-n", name, "qdisc", "add", "dev", "eth0", "clsact")
        return host

    # ---- faults

    def cut(self, a: Host, b: Host) -> None:
        """Nothing passes between the two, in either direction."""
        self.cut_one_way(a, b)
        self.cut_one_way(b, a)

    def cut_one_way(self, sender: Host, receiver: Host) -> None:
        """What `sender` sends does not arrive at `receiver`; the other direction works."""
        way = (sender.number, receiver.number)
        if way in self._cut:
            return
        rule = [
            *("tc", "-n", receiver.namespace, "filter", "add", "dev", "eth0", "ingress"),
            *("prio", str(sender.number), "protocol", "ip"),
            *("u32", "match", "ip", "src", f"{sender.address}/32", "action"),
        ]
        try:
            _run(*rule, "drop")
        except NetworkError:
            _run(*rule, "mirred", "egress", "redirect", "dev", SINK)
        self._cut.add(way)

    def isolate(self, host: Host, *others: Host) -> None:
        """Cut `host` off from the others, of all if none are named; the tests still reach it."""
        for other in others or self._hosts:
            if other != host:
                self.cut(host, other)

    def slow(self, sender: Host, rate: str = "256kbit") -> None:
        """All that `sender` sends to the others of the network passes at this rate, late."""
        name = sender.namespace
        at = ["tc", "-n", name]
        _run(*at, "qdisc", "replace", "dev", "eth0", "root", "handle", "1:", "htb", "default", "1")
        self._slow.add(sender.number)
        for which, its_rate in (("1:1", UNLIMITED), ("1:2", rate)):
            where = ["dev", "eth0", "parent", "1:", "classid", which]
            _run(*at, "class", "add", *where, "htb", "rate", its_rate, "quantum", "1514")
        for other in self._hosts:
            match = ["u32", "match", "ip", "dst", f"{other.address}/32", "flowid", "1:2"]
            where = ["dev", "eth0", "parent", "1:", "prio", "1", "protocol", "ip"]
            _run(*at, "filter", "add", *where, *match)

    @property
    def is_whole(self) -> bool:
        """Everything passes, at full speed."""
        return not self._cut and not self._slow

    def heal(self, *hosts: Host) -> None:
        """Everything passes again: of these hosts, of all if none are named."""
        numbers = {one.number for one in hosts or self._hosts}
        for sender, receiver in sorted(self._cut):
            if sender in numbers or receiver in numbers:
                name = self._hosts[receiver - 1].namespace
                where = ["dev", "eth0", "ingress", "prio", str(sender)]
                _run("tc", "-n", name, "filter", "del", *where)
                self._cut.discard((sender, receiver))
        for number in sorted(self._slow & numbers):
            name = self._hosts[number - 1].namespace
            _run("tc", "-n", name, "qdisc", "del", "dev", "eth0", "root")
            self._slow.discard(number)

    def close(self) -> None:
        """Take it all away; what runs in it must have ended."""
        _remove(self._subnet)


def _remove(subnet: int) -> None:
    _remove_namespaces(subnet)
    _run("ip", "link", "del", f"{PREFIX}br{subnet}")


def _remove_namespaces(subnet: int) -> None:
    listed = [line.split()[0] for line in _run("ip", "netns", "list").splitlines() if line]
    for namespace in listed:
        if namespace.startswith(f"{PREFIX}{subnet}-"):
            with contextlib.suppress(NetworkError):
                _run("ip", "link", "del", namespace)
            _run("ip", "netns", "del", namespace)
