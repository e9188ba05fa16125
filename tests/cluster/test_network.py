"""The network of the fault tests does what it says: else they would test nothing."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster import network as networks
from tests.cluster.network import Host, Network

PROBE = """
import socket, sys
listener = socket.create_server(("", 9))
listener.settimeout(None)
print("ready", flush=True)
while True:
    listener.accept()[0].close()
"""

CONNECT = """
import socket, sys
try:
    socket.create_connection((sys.argv[1], 9), 0.5).close()
except TimeoutError:
    sys.exit(1)
"""


@pytest.fixture
def hosts() -> Iterator[tuple[Network, list[Host]]]:
    """Three hosts that accept connections at port 9."""
    if reason := networks.missing():
        pytest.skip(reason)
    with contextlib.ExitStack() as stack:
        network = stack.enter_context(contextlib.closing(Network()))
        found = [network.add() for _ in range(3)]
        for host in found:
            process = stack.enter_context(
                subprocess.Popen(
                    [*host.prefix, sys.executable, "-c", PROBE], stdout=subprocess.PIPE
                )
            )
            stack.callback(process.kill)
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
        yield network, found


def reaches(a: Host, b: Host) -> bool:
    command = [*a.prefix, sys.executable, "-c", CONNECT, b.address]
    return subprocess.run(command, check=False).returncode == 0


def test_a_cut_concerns_these_two_and_no_other(hosts):
    network, (a, b, c) = hosts
    assert reaches(a, b)
    network.cut(a, b)
    assert not reaches(a, b)
    assert not reaches(b, a)
    assert reaches(a, c)
    for host in (a, b):
        socket.create_connection((host.address, 9), 5).close()  # the tests reach everybody
    network.heal()
    assert reaches(a, b)


def test_one_way_leaves_the_other_open(hosts):
    network, (a, b, _) = hosts
    network.cut_one_way(a, b)
    with socket.create_connection((b.address, 9), 5):
        pass
    datagram = "import socket; s = socket.socket(type=socket.SOCK_DGRAM); s.sendto(b'x', ({!r}, 7))"
    heard = {}
    for sender, receiver in ((a, b), (b, a)):
        listen = (
            "import socket, sys; s = socket.socket(type=socket.SOCK_DGRAM); s.bind(('', 7)); "
            "s.settimeout(0.5); print('ready', flush=True)\n"
            "try: s.recv(9)\nexcept TimeoutError: sys.exit(1)"
        )
        with subprocess.Popen(
            [*receiver.prefix, sys.executable, "-c", listen], stdout=subprocess.PIPE
        ) as process:
            assert process.stdout is not None
            process.stdout.readline()
            code = datagram.format(receiver.address)
            subprocess.run([*sender.prefix, sys.executable, "-c", code], check=True)
            heard[sender.number, receiver.number] = process.wait() == 0
    assert heard == {(a.number, b.number): False, (b.number, a.number): True}


def test_isolated_from_all_and_healed_alone(hosts):
    network, (a, b, c) = hosts
    network.isolate(a)
    network.cut(b, c)
    assert not any((reaches(a, b), reaches(c, a)))
    network.heal(a)
    assert all((reaches(a, b), reaches(c, a)))
    assert not reaches(b, c)


def test_a_slow_host_is_reached_still(hosts):
    network, (a, b, _) = hosts
    network.slow(a, "64kbit")
    assert reaches(a, b)
    assert "64Kbit" in networks._run("tc", "-n", a.namespace, "class", "show", "dev", "eth0")
    network.heal()
    assert "htb" not in networks._run("tc", "-n", a.namespace, "qdisc", "show", "dev", "eth0")


def test_nothing_is_left():
    if reason := networks.missing():
        pytest.skip(reason)
    with contextlib.closing(Network()) as network:
        names = [network.add().namespace for _ in range(2)]
        bridge = Path(f"/sys/class/net/{network._bridge}")
        assert bridge.exists()
    assert not bridge.exists()
    left = networks._run("ip", "netns", "list").split()
    assert not set(names) & set(left)


def test_what_a_killed_process_left_is_taken_away():
    if reason := networks.missing():
        pytest.skip(reason)
    code = (
        "import os, signal; from tests.cluster.network import Network; n = Network(); n.add(); "
        "print(n._subnet, flush=True); os.kill(os.getpid(), signal.SIGKILL)"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=False
    )
    subnet = int(done.stdout)
    claimed = []
    try:
        while not claimed or claimed[-1]._subnet < subnet:
            claimed.append(Network())  # the first look takes it away, the next has its number
            if f"tq{subnet}-1" not in networks._run("ip", "netns", "list"):
                break
        assert f"tq{subnet}-1" not in networks._run("ip", "netns", "list")
    finally:
        for one in claimed:
            one.close()
