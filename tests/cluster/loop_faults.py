"""Failures that come again and again, several at once, or everything: what the suite has no time
for; `python -m tests.cluster` runs them.

The same contract as in faults.py.
"""

from __future__ import annotations

import signal
import time

from tests.cluster.faults import BEYOND_SESSION_S, Fault, collector, commit, read_committed
from tests.cluster.harness import SESSION_TIMEOUT_S
from tests.cluster.scene import Scene

LOOP_FAULTS: dict[str, Fault] = {}
fault = collector(LOOP_FAULTS)


# ---- brokers that die again and again


@fault()
def killed_while_it_starts(scene: Scene) -> None:
    """A recovery that is broken off is begun again."""
    number = scene.leader()
    broker = scene.cluster.brokers[number]
    scene.kill(number)
    for _ in range(4):
        broker.launch()
        time.sleep(scene.random.random() * 1.5)
        scene.kill(number)
    scene.goes_on()
    scene.start(number)


@fault()
def leader_stops_and_a_follower_dies(scene: Scene) -> None:
    """Who stops in order hands over, to the one that is left."""
    leader, follower = scene.leader(), scene.follower()
    scene.note(f"SIGTERM to {leader}")
    scene.cluster.brokers[leader].signal(signal.SIGTERM)
    time.sleep(scene.random.random() * 0.1)
    scene.kill(follower)
    scene.cluster.brokers[leader].wait(30)
    scene.start()
    scene.goes_on()


@fault()
def two_stop_in_order_at_once(scene: Scene) -> None:
    """Each hands over to the other, or to the third."""
    leader, follower = scene.leader(), scene.follower()
    scene.note(f"SIGTERM to {leader} and {follower}")
    for number in (leader, follower):
        scene.cluster.brokers[number].signal(signal.SIGTERM)
    for number in (leader, follower):
        assert scene.cluster.brokers[number].wait(30) == 0
    scene.start(leader)
    scene.goes_on()
    scene.start()
    scene.goes_on()


@fault()
def all_stop_in_order(scene: Scene) -> None:
    """At once; they come back one by one."""
    scene.note("SIGTERM to all")
    for broker in scene.cluster.brokers.values():
        broker.signal(signal.SIGTERM)
    for broker in scene.cluster.brokers.values():
        broker.wait(60)
    for number in scene.random.sample(sorted(scene.cluster.brokers), 3):
        scene.start(number)
    scene.goes_on()


@fault()
def coordinators_die_in_turn(scene: Scene) -> None:
    """A group's commits stay, whoever of the brokers dies next."""
    group, committed = f"{scene.topic}-in-turn", 0
    for _ in range(3):
        committed = commit(scene, group, committed)
        dies = scene.cluster.coordinator(group)
        scene.kill(dies)
        assert read_committed(scene, group) == committed
        scene.start(dies)
    scene.goes_on()


@fault()
def power_fails(scene: Scene) -> None:
    """Every process of the cluster dies at once, ZooKeeper too."""
    scene.note("the power fails")
    for server in scene.cluster.zookeepers:
        server.kill()
    scene.kill(*scene.cluster.brokers)
    for server in scene.cluster.zookeepers:
        server.launch()
    for server in scene.cluster.zookeepers:
        server.wait()
    scene.start()
    scene.goes_on()


# ---- brokers that sleep again and again


@fault()
def all_sleep(scene: Scene) -> None:
    """Longer than their sessions last: when they wake up, none believes what it knew."""
    scene.note("SIGSTOP of all")
    for broker in scene.cluster.brokers.values():
        broker.pause()
    time.sleep(BEYOND_SESSION_S)
    scene.note("SIGCONT of all")
    for broker in scene.cluster.brokers.values():
        broker.resume()
    scene.goes_on()


@fault()
def short_sleeps(scene: Scene) -> None:
    """About as long as a session lasts, or a follower may lag, one broker after the other."""
    for _ in range(5):
        number = scene.random.choice(sorted(scene.cluster.brokers))
        sleep_s = scene.random.uniform(0.2, 1.2) * SESSION_TIMEOUT_S
        scene.note(f"SIGSTOP of {number} for {sleep_s:.1f} s")
        scene.cluster.brokers[number].pause()
        time.sleep(sleep_s)
        scene.cluster.brokers[number].resume()
        scene.goes_on()


@fault()
def leader_sleeps_while_the_next_dies(scene: Scene) -> None:
    """It wakes up as a leader of long ago, and is needed."""
    old = scene.leader()
    scene.note(f"SIGSTOP of {old}")
    scene.cluster.brokers[old].pause()
    second = scene.leader_is_another_than(old)
    scene.goes_on()
    scene.kill(second)
    scene.cluster.brokers[old].resume()
    scene.note(f"SIGCONT of {old}")
    scene.goes_on()


# ---- the network, again and again


@fault(network=True)
def network_flaps(scene: Scene) -> None:
    """Cuts of any two, ZooKeeper's servers too, that last for moments."""
    network = scene.cluster.network
    assert network is not None
    hosts = [*scene.cluster.hosts.values(), *scene.cluster.zookeeper_hosts]
    for _ in range(20):
        a, b = scene.random.sample(hosts, 2)
        scene.note(f"cut of {a.address} and {b.address}")
        network.cut_one_way(a, b)
        if scene.random.random() < 0.7:
            network.cut_one_way(b, a)
        time.sleep(scene.random.random())
        if scene.random.random() < 0.6:
            network.heal()
    network.heal()
    scene.goes_on()


@fault(network=True)
def leader_hears_nothing_of_zookeeper(scene: Scene) -> None:
    """What it says arrives, and may keep its session: its lease ends all the same."""
    old, network = scene.leader(), scene.cluster.network
    assert network is not None
    scene.note(f"{old} does not hear ZooKeeper")
    for host in scene.cluster.zookeeper_hosts:
        network.cut_one_way(host, scene.cluster.hosts[old])
    scene.leader_is_another_than(old)
    scene.goes_on()


@fault(network=True)
def leader_is_not_heard_by_zookeeper(scene: Scene) -> None:
    """It hears, and nothing that it says arrives."""
    old, network = scene.leader(), scene.cluster.network
    assert network is not None
    scene.note(f"ZooKeeper does not hear {old}")
    for host in scene.cluster.zookeeper_hosts:
        network.cut_one_way(scene.cluster.hosts[old], host)
    scene.leader_is_another_than(old)
    scene.goes_on()


@fault(network=True)
def brokers_do_not_reach_each_other(scene: Scene) -> None:
    """All reach ZooKeeper: each leads alone, or not; nothing acknowledged may need who is away."""
    network, hosts = scene.cluster.network, list(scene.cluster.hosts.values())
    assert network is not None
    scene.note("no broker reaches another")
    for one in hosts:
        network.isolate(one, *(other for other in hosts if other != one))
    time.sleep(BEYOND_SESSION_S)
    network.heal()
    scene.note("all reach each other")
    scene.goes_on()


@fault(network=True)
def zookeeper_leader_is_cut_from_the_others(scene: Scene) -> None:
    """Brokers at it are told old things, or nothing; the other servers elect another."""
    network, servers = scene.cluster.network, scene.cluster.zookeepers
    assert network is not None
    hosts = scene.cluster.zookeeper_hosts
    for server, host in zip(servers, hosts, strict=True):
        if server.leads and len(hosts) > 1:
            scene.note(f"ZooKeeper's leader {host.address} is cut from the other servers")
            network.isolate(host, *(other for other in hosts if other != host))
            break
    time.sleep(BEYOND_SESSION_S)
    scene.goes_on()
    scene.cluster.create(f"{scene.topic}-meanwhile", replicas=2)
    network.heal()
    scene.goes_on()


@fault()
def zookeepers_restart_in_turn(scene: Scene) -> None:
    """A quorum is always there."""
    for server in scene.cluster.zookeepers:
        scene.note(f"restart of {server.directory.name}")
        server.kill()
        scene.goes_on()
        server.launch()
        server.wait()
    scene.goes_on()
    scene.cluster.create(f"{scene.topic}-after")


# ---- disks


@fault("disk_stalled", "log_dir_offline", "replica_fetch_failed")
def disk_stands_still_on_a_replica(scene: Scene) -> None:
    """It leaves the ISRs or is waited for; when the disk goes on, so does it."""
    bent = next(broker for broker in scene.cluster.brokers.values() if broker.bent)
    scene.note(f"the disk of {bent.number} stands still")
    bent.arm({"operation": "pwritev", "path": "*.log", "do": "stall"})
    time.sleep(BEYOND_SESSION_S)
    bent.heal()
    scene.note("the disk goes on")
    scene.goes_on()


@fault()
def disk_is_slow_on_a_replica(scene: Scene) -> None:
    bent = next(broker for broker in scene.cluster.brokers.values() if broker.bent)
    scene.note(f"the disk of {bent.number} is slow")
    bent.arm({"operation": "pwritev", "path": "*.log", "do": "slow", "seconds": 0.1})
    scene.goes_on()
    time.sleep(BEYOND_SESSION_S)
    scene.goes_on()


@fault()
def leader_dies_while_a_follower_recovers(scene: Scene) -> None:
    """The one that is behind is not elected while another has everything."""
    follower = scene.follower()
    scene.kill(follower)
    scene.goes_on()
    scene.cluster.brokers[follower].launch()
    time.sleep(scene.random.random() * 2)
    leader = scene.leader()
    if leader != follower:
        scene.kill(leader)
    scene.goes_on()
    scene.start()
