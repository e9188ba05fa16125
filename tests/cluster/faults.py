"""What can go wrong on a cluster: each fault with what it must not cost, besides any record.

A fault is called with the scene of a cluster that is whole and under load. It breaks something,
waits for what goes on all the same (never longer than a failover lasts), and returns; whatever is
still broken then is mended by the scene, which judges the history.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import confluent_kafka

from tests.cluster.harness import SESSION_TIMEOUT_S, ClusterBroker
from tests.cluster.scene import PARTITIONS, Scene
from tests.faults.client import Client, batch_of, produce_frame

BEYOND_SESSION_S = 1.5 * SESSION_TIMEOUT_S
OUTAGE_S = 1.2 * SESSION_TIMEOUT_S
"""How long ZooKeeper is away: sessions run out meanwhile."""

NOT_YET_S = 1.0
COORDINATOR_MOVES = frozenset(
    {
        confluent_kafka.KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
        confluent_kafka.KafkaError.COORDINATOR_NOT_AVAILABLE,
        confluent_kafka.KafkaError.NOT_COORDINATOR,
    }
)


class Fault(NamedTuple):
    """One thing that can go wrong.

    `cuts_network` needs a cluster in namespaces. `errors` are the events that brokers may log as
    errors for it.
    """

    strike: Callable[[Scene], None]
    cuts_network: bool = False
    errors: frozenset[str] = frozenset()

    @property
    def name(self) -> str:
        return self.strike.__name__


Strike = Callable[[Scene], None]
FAULTS: dict[str, Fault] = {}


def collector(faults: dict[str, Fault]) -> Callable[..., Callable[[Strike], Strike]]:
    """A decorator `fault(*errors, network=False)` that puts a fault among these, by its name."""

    def fault(*errors: str, network: bool = False) -> Callable[[Strike], Strike]:
        def add(strike: Strike) -> Strike:
            faults[strike.__name__] = Fault(strike, network, frozenset(errors))
            return strike

        return add

    return fault


fault = collector(FAULTS)


# ---- brokers that die


@fault()
def kill_leader(scene: Scene) -> None:
    """Another leads within a session timeout; the old one comes back as a follower."""
    old = scene.leader()
    scene.kill(old)
    scene.leader_is_another_than(old)
    scene.goes_on()
    scene.start(old)


@fault()
def kill_follower(scene: Scene) -> None:
    """Two in-sync replicas are enough."""
    scene.kill(scene.follower())
    scene.goes_on()


@fault()
def kill_controller(scene: Scene) -> None:
    """Another is controller; topics are created again."""
    scene.kill(scene.cluster.controller())
    scene.goes_on()
    scene.cluster.controller()
    scene.cluster.create(f"{scene.topic}-after", replicas=2)


@fault()
def kill_coordinator(scene: Scene) -> None:
    """Members find the next coordinator, and no committed offset is lost or goes back."""
    group = f"{scene.topic}-commits"
    committed = commit(scene, group, 0)
    scene.kill(scene.cluster.coordinator(group))
    scene.cluster.coordinator(group)
    assert read_committed(scene, group) == committed
    commit(scene, group, committed)
    scene.recorder.await_reads(20)
    scene.goes_on()


def commit(scene: Scene, group: str, after: int) -> int:
    """Commit the next few offsets one by one; returns the last that was acknowledged."""
    consumer = scene.recorder.new_consumer(**{"group.id": group})
    try:
        for offset in range(after + 1, after + 6):
            place = confluent_kafka.TopicPartition(scene.topic, 0, offset)
            scene.cluster.until(
                lambda place=place: is_committed(consumer, place), f"{group} commits {offset}"
            )
    finally:
        consumer.close()
    return after + 5


def is_committed(consumer: confluent_kafka.Consumer, place: confluent_kafka.TopicPartition) -> bool:
    """False while the group moves to another coordinator, which clients may be told of here."""
    try:
        (done,) = consumer.commit(offsets=[place], asynchronous=False)
    except confluent_kafka.KafkaException as error:
        if error.args[0].code() in COORDINATOR_MOVES:
            return False
        raise
    assert done.error is None, done
    return True


def read_committed(scene: Scene, group: str) -> int:
    consumer = scene.recorder.new_consumer(**{"group.id": group})
    try:
        place = confluent_kafka.TopicPartition(scene.topic, 0)
        (found,) = consumer.committed([place], timeout=30)
        return found.offset
    finally:
        consumer.close()


@fault()
def kill_all(scene: Scene) -> None:
    """All at once; they come back and go on."""
    scene.kill(*scene.cluster.brokers)
    scene.start()


@fault()
def kill_leader_then_the_next(scene: Scene) -> None:
    """Two of three: nothing is acknowledged until one of them is back."""
    first = scene.leader()
    scene.kill(first)
    second = scene.leader_is_another_than(first)
    scene.goes_on()
    scene.kill(second)
    scene.start(first)
    scene.goes_on()


@fault()
def kill_and_start_at_once(scene: Scene) -> None:
    """It is back before its session ended: it waits for that, and joins."""
    old = scene.leader()
    scene.kill(old)
    scene.start(old)
    scene.goes_on()


@fault()
def rolling_restart(scene: Scene) -> None:
    """One after the other, in order, under load."""
    for number, broker in scene.cluster.brokers.items():
        scene.note(f"restart of {number}")
        assert broker.terminate() == 0
        scene.goes_on()
        scene.start(number)
        scene.cluster.until_whole(scene.topic, PARTITIONS)


# ---- brokers that sleep


@fault()
def pause_leader(scene: Scene) -> None:
    """A leader that slept acknowledges nothing when it wakes up, overruled, nor serves it."""
    old = scene.leader()
    broker = scene.cluster.brokers[old]
    with Client((broker.host, broker.port)) as client:
        client.fetch(scene.topic, 0)  # it is known here before it sleeps
        scene.note(f"SIGSTOP of {old}")
        broker.pause()
        frame = produce_frame(scene.topic, batch_of([b"-1 late"]), correlation=77)
        client.socket.sendall(frame)
        scene.leader_is_another_than(old)
        scene.goes_on()
        scene.note(f"SIGCONT of {old}")
        broker.resume()
        client._correlation_id = 77
        try:
            answer = client.produced(77)
        except ConnectionError:
            return  # it dropped its clients: they know nothing, and retry elsewhere
        assert answer.error_code, "a leader that was overruled acknowledged a record"


@fault()
def pause_follower(scene: Scene) -> None:
    """It leaves the ISR while it sleeps, and comes back."""
    number = scene.follower()
    scene.note(f"SIGSTOP of {number}")
    began_s = time.monotonic()
    scene.cluster.brokers[number].pause()
    scene.goes_on()
    time.sleep(max(0.0, began_s + BEYOND_SESSION_S - time.monotonic()))
    scene.goes_on()


@fault()
def pause_controller(scene: Scene) -> None:
    """One that slept is not controller any more when it wakes up, whatever it believes."""
    old = scene.cluster.controller()
    scene.note(f"SIGSTOP of {old}")
    scene.cluster.brokers[old].pause()
    scene.cluster.until(
        lambda: scene.cluster.view().controller in scene.cluster.up(), "another is controller"
    )
    scene.cluster.create(f"{scene.topic}-meanwhile", replicas=2)
    scene.cluster.brokers[old].resume()
    scene.goes_on()


# ---- the network


@fault(network=True)
def cut_leader_from_zookeeper(scene: Scene) -> None:
    """Clients and peers reach it, ZooKeeper does not: another leads, and only that one."""
    old = scene.leader()
    cut_from_zookeeper(scene, old)
    scene.leader_is_another_than(old)
    scene.goes_on()


@fault(network=True)
def cut_controller_from_zookeeper(scene: Scene) -> None:
    """It stops being controller before the next one begins."""
    old = scene.cluster.controller()
    cut_from_zookeeper(scene, old)
    other = next(number for number in scene.cluster.brokers if number != old)
    scene.cluster.until(
        lambda: scene.cluster.view(asked=other).controller not in (old, -1),
        f"another than {old} is controller",
    )
    scene.goes_on()


def cut_from_zookeeper(scene: Scene, number: int) -> None:
    cluster = scene.cluster
    assert cluster.network is not None
    scene.note(f"{number} is cut off from ZooKeeper")
    cluster.network.isolate(cluster.hosts[number], *cluster.zookeeper_hosts)


@fault(network=True)
def cut_leader_from_a_follower(scene: Scene) -> None:
    """Two peers that do not reach each other: the follower leaves the ISR, all goes on."""
    leader, follower = scene.leader(), scene.follower()
    hosts = scene.cluster.hosts
    assert scene.cluster.network is not None
    scene.note(f"{leader} and {follower} do not reach each other")
    scene.cluster.network.cut(hosts[leader], hosts[follower])
    rest = set(hosts) - {follower}
    scene.isr_is(*rest, asked=leader)
    scene.goes_on()


@fault(network=True)
def lose_from_leader_to_follower(scene: Scene) -> None:
    """The follower asks and hears nothing."""
    lose(scene, scene.leader(), scene.follower())


@fault(network=True)
def lose_from_follower_to_leader(scene: Scene) -> None:
    """The leader hears nothing of the follower, which hears the leader."""
    lose(scene, scene.follower(), scene.leader())


def lose(scene: Scene, sender: int, receiver: int) -> None:
    hosts = scene.cluster.hosts
    assert scene.cluster.network is not None
    scene.note(f"what {sender} sends to {receiver} is lost")
    scene.cluster.network.cut_one_way(hosts[sender], hosts[receiver])
    scene.goes_on()
    time.sleep(NOT_YET_S)
    scene.goes_on()


@fault(network=True)
def isolate_leader(scene: Scene) -> None:
    """Only clients reach it: they are not told that anything is stored."""
    old = scene.leader()
    cluster = scene.cluster
    assert cluster.network is not None
    scene.note(f"{old} is cut off from all but clients")
    cluster.network.isolate(cluster.hosts[old])
    scene.leader_is_another_than(old)
    scene.goes_on()


@fault(network=True)
def slow_follower(scene: Scene) -> None:
    """It gets its records late, or leaves the ISR."""
    leader = scene.leader()
    assert scene.cluster.network is not None
    scene.note(f"{leader} sends slowly")
    scene.cluster.network.slow(scene.cluster.hosts[leader], "400kbit")
    scene.goes_on()
    time.sleep(NOT_YET_S)
    scene.goes_on()


# ---- ZooKeeper


@fault()
def zookeeper_loses_its_leader(scene: Scene) -> None:
    """Brokers go to another server with their sessions; nobody is missed."""
    servers = scene.cluster.zookeepers
    scene.cluster.until_whole(scene.topic, PARTITIONS)
    before = scene.cluster.partition(scene.topic)
    leading = [one for one in servers if one.leads] if len(servers) > 1 else servers
    scene.note("ZooKeeper's leader dies")
    for server in leading:
        server.kill()
    scene.goes_on()
    if len(servers) > 1:
        scene.cluster.create(f"{scene.topic}-meanwhile")
        assert scene.cluster.partition(scene.topic) == before


@fault()
def zookeeper_loses_its_quorum(scene: Scene) -> None:
    """Data keeps flowing, changes wait."""
    lose_servers(scene, len(scene.cluster.zookeepers) // 2 + 1)


@fault()
def zookeeper_is_gone(scene: Scene) -> None:
    """All servers at once, for longer than sessions last: data keeps flowing, changes wait."""
    lose_servers(scene, len(scene.cluster.zookeepers))


def lose_servers(scene: Scene, count: int) -> None:
    servers = scene.cluster.zookeepers[:count]
    scene.note(f"{count} ZooKeeper servers die")
    for server in servers:
        server.kill()
    end_s = time.monotonic() + OUTAGE_S
    while time.monotonic() < end_s:
        scene.goes_on()
        time.sleep(NOT_YET_S)
    for server in servers:
        server.launch()
    for server in servers:
        server.wait()
    scene.note("ZooKeeper is back")
    scene.goes_on()
    scene.cluster.create(f"{scene.topic}-after")
    scene.note("a topic was created")


@fault(network=True)
def every_session_expires(scene: Scene) -> None:
    """All brokers are cut off from ZooKeeper, which misses all: they register anew."""
    cluster = scene.cluster
    before = [registrations(broker) for broker in cluster.brokers.values()]
    for number in cluster.brokers:
        cut_from_zookeeper(scene, number)
    time.sleep(BEYOND_SESSION_S)
    assert cluster.network is not None
    cluster.network.heal()
    scene.note("ZooKeeper is reached again")
    for count, broker in zip(before, cluster.brokers.values(), strict=True):
        cluster.until(
            lambda count=count, broker=broker: registrations(broker) > count,
            f"broker {broker.number} registers anew",
        )
    scene.goes_on()


def registrations(broker: ClusterBroker) -> int:
    return len(broker.events("registered"))


@fault()
def zookeeper_stands_still(scene: Scene) -> None:
    """For longer than sessions last; data keeps flowing."""
    scene.note("ZooKeeper stands still")
    for server in scene.cluster.zookeepers:
        server.pause()
    time.sleep(BEYOND_SESSION_S)
    scene.goes_on()
    scene.note("ZooKeeper goes on")
    for server in scene.cluster.zookeepers:
        server.go_on()


# ---- disks and clocks


@fault("log_dir_offline", "replica_fetch_failed")
def disk_fails_on_a_replica(scene: Scene) -> None:
    """The broker with the bad disk leads nothing any more and leaves every ISR."""
    bent = next(number for number, broker in scene.cluster.brokers.items() if broker.bent)
    scene.note(f"every write to the disk of {bent} fails")
    scene.cluster.brokers[bent].arm({"operation": "pwritev", "path": "*.log", "do": "EIO"})
    scene.goes_on()
    others = set(scene.cluster.brokers) - {bent}
    scene.isr_is(*others, asked=min(others))
    scene.goes_on()
    scene.kill(bent)


@fault()
def clock_jumps(scene: Scene) -> None:
    """An hour ahead, an hour back, a day ahead, on one broker: no session, no record cares."""
    bent = next(broker for broker in scene.cluster.brokers.values() if broker.bent)
    scene.cluster.until_whole(scene.topic, PARTITIONS)
    before = scene.cluster.partition(scene.topic)
    for hours in (1, -1, 24, -24, 0):
        scene.note(f"the clock of {bent.number} is {hours} h ahead")
        bent.set_clock(hours * 3_600_000)
        scene.goes_on()
    assert scene.cluster.partition(scene.topic) == before


# ---- a follower's log


@fault()
def follower_with_a_truncated_log(scene: Scene) -> None:
    """What its file has lost is fetched again."""
    number = scene.follower()
    scene.kill(number)
    cut_log(scene, number)
    scene.goes_on()
    scene.start(number)


@fault()
def follower_with_a_corrupted_log(scene: Scene) -> None:
    """Garbage behind the records is no record."""
    number = scene.follower()
    scene.kill(number)
    path = log_path(scene, number)
    data = path.read_bytes()
    path.write_bytes(data[:-20] + bytes(byte ^ 0x55 for byte in data[-20:]) + b"junk")
    scene.goes_on()
    scene.start(number)


@fault("replica_fetch_failed")
def follower_that_finds_its_files_damaged(scene: Scene) -> None:
    """After a clean stop nothing is read at the start: the next record finds it, and all is copied
    anew.
    """
    number = scene.follower()
    scene.note(f"{number} is stopped")
    assert scene.cluster.brokers[number].terminate() == 0
    paths = scene.cluster.brokers[number].segment_paths(scene.topic)
    scene.note(f"the files of {number} are overwritten")
    for path in paths:
        path.write_bytes(b"\x55" * path.stat().st_size)
        for suffix in (".index", ".timeindex"):
            path.with_suffix(suffix).unlink(missing_ok=True)
    scene.goes_on()
    scene.start(number)


@fault()
def leader_bounces_without_its_tail(scene: Scene) -> None:
    """As after a power failure, and back before its session has ended: it leads no more, since
    the others have what it lost (rule 6).
    """
    number = scene.leader()
    scene.kill(number)
    cut_log(scene, number)
    scene.start(number)
    scene.goes_on()


@fault()
def all_bounce_one_without_its_tail(scene: Scene) -> None:
    """The one that has everything leads."""
    number = scene.leader()
    scene.kill(*scene.cluster.brokers)
    cut_log(scene, number)
    scene.start()
    scene.goes_on()


def log_path(scene: Scene, number: int) -> Path:
    return scene.cluster.brokers[number].segment_paths(scene.topic)[-1]


def cut_log(scene: Scene, number: int) -> None:
    path = log_path(scene, number)
    scene.note(f"the log of {number} loses its tail")
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])


@fault()
def follower_with_an_empty_disk(scene: Scene) -> None:
    """A new disk: all is fetched again."""
    number = scene.follower()
    scene.kill(number)
    for path in scene.cluster.brokers[number].data_dirs:
        for one in sorted(path.rglob("*"), reverse=True):
            one.rmdir() if one.is_dir() else one.unlink()
    scene.goes_on()
    # Nothing on the disk says that it is the same broker: it would be refused before that.
    scene.cluster.until(lambda: number not in scene.cluster.view().brokers, f"{number} is missed")
    scene.start(number)
