"""Loads a topic through faults with real clients (librdkafka), and records what they are told.

    with Recorder(brokers, "t", 3, history=History(path)) as recorder:
        recorder.await_acks(1000)
        ...                                   # faults; recorder.history.note("kill -9 of 2")
        report = recorder.finish(120)         # everything healed: stop, read all, judge
    report.insist()

Producers are idempotent with acks=all and send unique integers, each in turn to every partition;
now and then one is abandoned with what it has in flight, and another instance goes on. Some
consumers read assigned partitions, and now and then elsewhere; others are members of a group.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from random import Random
from typing import Any, Final, Self

import confluent_kafka
from confluent_kafka import KafkaError, KafkaException, TopicPartition

from tests.cluster.checker import Report, check
from tests.cluster.history import History

Settings = Mapping[str, Any]

CERTAIN: Final = frozenset({KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.INVALID_RECORD})
"""Errors of a send after which the message is certainly not stored."""

REFUSALS: Final = frozenset(
    {
        KafkaError.OFFSET_OUT_OF_RANGE,
        KafkaError._AUTO_OFFSET_RESET,
        KafkaError._LOG_TRUNCATION,
    }
)
"""What a consumer of committed records must never be told about where it is."""

COMMON: Final[Settings] = {
    "log_level": 0,
    "socket.timeout.ms": 5000,
    "reconnect.backoff.ms": 20,
    "reconnect.backoff.max.ms": 500,
    "topic.metadata.refresh.interval.ms": 1000,
    "topic.metadata.refresh.fast.interval.ms": 50,
}
ASK_S: Final = 2.0


class NoProgressError(AssertionError):
    """What a test waits for does not come; the message says what is missing."""


class Recorder:
    """The load on one topic. `history` has all of it; a client's errors are in `errors`.

    Args:
        brokers: bootstrap servers.
        partitions: of the topic, which exists.
        producers: each a thread; `messages_per_s` is the bound of each.
        readers: consumers of assigned partitions; `members`: consumers in a group;
            `modern_members`: in one of the protocol of KIP-848.
        abandon_each: of how many messages, about, a producer is abandoned after one.
        padding: bytes that each message has besides its number.
        producer_settings, consumer_settings: added to the clients' own.

    """

    def __init__(
        self,
        brokers: str,
        topic: str,
        partitions: int,
        *,
        history: History | None = None,
        producers: int = 3,
        readers: int = 2,
        members: int = 1,
        modern_members: int = 0,
        messages_per_s: int = 300,
        abandon_each: int = 3000,
        padding: int = 20,
        seed: int = 0,
        producer_settings: Settings | None = None,
        consumer_settings: Settings | None = None,
    ) -> None:
        self.topic = topic
        self.partitions = partitions
        self.history = history or History()
        self.errors: Counter[str] = Counter()
        self.acknowledged: Counter[int] = Counter()
        """By partition: how many messages."""
        self.reads: Counter[str] = Counter()
        """By consumer: how many messages."""
        self._readers = [f"c{number}" for number in range(readers)]
        self._readers += [f"m{number}" for number in range(members)]
        self._readers += [f"n{number}" for number in range(modern_members)]
        self.values = itertools.count()
        self.messages_per_s = messages_per_s
        self.abandon_each = abandon_each
        self.padding = b" " + b"x" * padding
        self._brokers = brokers
        self._producer_settings = producer_settings or {}
        self._consumer_settings = consumer_settings or {}
        self._stop_sending = threading.Event()
        self._stop_reading = threading.Event()
        self.gives_up = threading.Event()
        """Set at the end of the run: what is undecided stays so."""
        self._failures: list[BaseException] = []
        random = Random(seed)
        self._producers = [
            self._thread(
                _Sender(self, f"p{number}", Random(random.random())).run, self._stop_sending
            )
            for number in range(producers)
        ]
        self._consumers = [
            self._thread(
                kind(self, f"{letter}{number}", Random(random.random())).run, self._stop_reading
            )
            for kind, letter, count in (
                (_AssignedReader, "c", readers),
                (_Member, "m", members),
                (_ModernMember, "n", modern_members),
            )
            for number in range(count)
        ]

    def _thread(
        self, run: Callable[[threading.Event], None], stop: threading.Event
    ) -> threading.Thread:
        def watched() -> None:
            try:
                run(stop)
            except BaseException as error:
                self._failures.append(error)

        return threading.Thread(target=watched, daemon=True)

    # ---- the life of a run --------------------------------------------------------------

    def __enter__(self) -> Self:
        for thread in (*self._producers, *self._consumers):
            thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._stop_sending.set()
        self._stop_reading.set()
        self.gives_up.set()
        for thread in (*self._producers, *self._consumers):
            thread.join(timeout=30)
        self.history.close()

    def await_acks(self, count: int, timeout_s: float = 60) -> None:
        """Until `count` more messages were acknowledged on every partition.

        Raises NoProgressError.
        """
        self._await(self.acknowledged, range(self.partitions), count, timeout_s, "acknowledgements")

    def await_reads(self, count: int, timeout_s: float = 60) -> None:
        """Until each consumer has read `count` more messages (members may have to share).

        Raises NoProgressError.
        """
        self._await(self.reads, self._readers, count, timeout_s, "reads")

    def _await(
        self,
        counter: Counter[Any],
        names: Iterable[Any],
        count: int,
        timeout_s: float,
        what: str,
    ) -> None:
        start = counter.copy()
        deadline = time.monotonic() + timeout_s
        while missing := {
            name: missed for name in names if (missed := start[name] + count - counter[name]) > 0
        }:
            self._check_threads()
            if time.monotonic() > deadline:
                raise NoProgressError(
                    f"{what} missing after {timeout_s:g} s: {missing}; "
                    f"errors of the clients: {dict(self.errors)}"
                )
            time.sleep(0.02)

    def finish(self, timeout_s: float = 120) -> Report:
        """Once all is healed: stop sending, read everything from the start, judge the history.

        Raises NoProgressError if not everything can be read in time.
        """
        deadline = time.monotonic() + timeout_s
        self._stop_sending.set()
        for thread in self._producers:
            thread.join(timeout=max(deadline - time.monotonic(), 0))
            if thread.is_alive():
                raise NoProgressError(f"a producer's messages are undecided after {timeout_s:g} s")
        self._stop_reading.set()
        for thread in self._consumers:
            thread.join(timeout=30)
        self._check_threads()
        _LastReader(self, "last").read_all(deadline)
        return check(self.history.events)

    def _check_threads(self) -> None:
        if self._failures:
            raise self._failures[0]

    def ends(self) -> dict[int, int]:
        """By partition: the end of what was acknowledged or read. What replicas must hold."""
        ends: dict[int, int] = {}
        partition_of = {}
        for event in self.history.events:
            found: Iterable[tuple[int, int]] = ()
            match event["f"]:
                case "send":
                    partition_of[event["value"]] = event["partition"]
                case "sent" if event["offset"] is not None:
                    found = [(partition_of[event["value"]], event["offset"])]
                case "poll":
                    found = [(partition, offset) for partition, offset, _ in event["records"]]
            for partition, offset in found:
                ends[partition] = max(ends.get(partition, 0), offset + 1)
        return ends

    # ---- what its clients share ---------------------------------------------------------

    def new_producer(self) -> confluent_kafka.Producer:
        return confluent_kafka.Producer(
            {
                **COMMON,
                "bootstrap.servers": self._brokers,
                "enable.idempotence": True,
                "acks": "all",
                "linger.ms": 2,
                "batch.num.messages": 50,
                "retry.backoff.ms": 20,
                "retry.backoff.max.ms": 200,
                "message.timeout.ms": 120_000,
                "request.timeout.ms": 5000,
                **self._producer_settings,
            }
        )

    def new_consumer(self, **settings: Any) -> confluent_kafka.Consumer:
        return confluent_kafka.Consumer(
            {
                **COMMON,
                "bootstrap.servers": self._brokers,
                "group.id": f"{self.topic}-readers",
                "enable.auto.commit": False,
                "auto.offset.reset": "error",
                "fetch.wait.max.ms": 100,
                "fetch.error.backoff.ms": 20,
                "check.crcs": True,
                **self._consumer_settings,
                **settings,
            }
        )


class _Sender:
    """A producer; its history is of the processes p0, p0+1, ... one for each instance."""

    WINDOW = 200

    def __init__(self, recorder: Recorder, name: str, random: Random) -> None:
        self._recorder = recorder
        self._history = recorder.history
        self._name = name
        self._random = random
        self._instances = 0

    def run(self, stop: threading.Event) -> None:
        while not stop.is_set():
            self._instance(stop)

    def _instance(self, stop: threading.Event) -> None:
        recorder = self._recorder
        process = f"{self._name}+{self._instances}" if self._instances else self._name
        self._instances += 1
        producer = recorder.new_producer()
        is_broken = threading.Event()

        def told(error: KafkaError | None, message: confluent_kafka.Message) -> None:
            value = value_of(message)
            if error is None:
                offset = message.offset()
                known = offset if offset is not None and offset >= 0 else None
                self._history.add("sent", process, value=value, outcome="ok", offset=known)
                recorder.acknowledged[message.partition()] += 1
                return
            outcome = "fail" if error.code() in CERTAIN else "unknown"
            recorder.errors[error.name()] += 1
            self._history.add(
                "sent", process, value=value, outcome=outcome, offset=None, error=error.name()
            )
            if error.fatal() or error.code() == KafkaError._FATAL:
                is_broken.set()

        began_s, sent = time.monotonic(), 0
        while not stop.is_set() and not is_broken.is_set():
            due = (time.monotonic() - began_s) * recorder.messages_per_s
            if len(producer) >= self.WINDOW or sent >= due:
                producer.poll(0.005)
                continue
            value = next(recorder.values)
            partition = value % recorder.partitions
            self._history.add("send", process, partition=partition, value=value)
            payload = b"%d%s" % (value, recorder.padding)
            producer.produce(recorder.topic, payload, partition=partition, callback=told)
            producer.poll(0)
            sent += 1
            if self._random.random() * recorder.abandon_each < 1:
                producer.purge()
                producer.poll(0.1)
                return
        while len(producer) and not is_broken.is_set() and not recorder.gives_up.is_set():
            producer.flush(0.5)
        producer.purge()
        producer.poll(0)


class _Reader:
    """What consumers share: they record what they are told."""

    def __init__(self, recorder: Recorder, process: str, random: Random | None = None) -> None:
        self.recorder = recorder
        self.history = recorder.history
        self.process = process
        self.random = random or Random(0)
        self.reached: dict[int, int] = {}
        """By partition: the end that was reached last."""

    def places(self, offset: int = -1001) -> list[TopicPartition]:
        topic, partitions = self.recorder.topic, range(self.recorder.partitions)
        return [TopicPartition(topic, partition, offset) for partition in partitions]

    def poll(self, consumer: confluent_kafka.Consumer, timeout_s: float = 0.2) -> None:
        """Read some."""
        records = []
        for message in consumer.consume(200, timeout_s):
            error = message.error()
            if error is None:
                records.append([message.partition(), message.offset(), value_of(message)])
            elif error.code() == KafkaError._PARTITION_EOF:
                self.reached[message.partition()] = message.offset()
            else:
                self.recorder.errors[error.name()] += 1
                if error.code() in REFUSALS:
                    self.history.add(
                        "refused", self.process, partition=message.partition(), error=error.str()
                    )
        if records:
            self.history.add("poll", self.process, records=records)
            self.recorder.reads[self.process] += len(records)

    def ask_end(self, consumer: confluent_kafka.Consumer, partition: int) -> tuple[int, int] | None:
        """(start, end) of a partition; None while nobody says."""
        place = TopicPartition(self.recorder.topic, partition)
        try:
            found = consumer.get_watermark_offsets(place, timeout=ASK_S)
        except KafkaException as error:
            self.recorder.errors[error.args[0].name()] += 1
            return None
        if found is None or found[1] < 0:
            return None
        self.history.add("end", self.process, partition=partition, offset=found[1])
        return found


class _AssignedReader(_Reader):
    """Reads all partitions from somewhere; now and then begins again elsewhere."""

    def run(self, stop: threading.Event) -> None:
        consumer = self.recorder.new_consumer()
        try:
            while not stop.is_set():
                self._assign(consumer)
                while not stop.is_set() and self.random.random() > 1 / 64:
                    self.poll(consumer)
                    if self.random.random() < 1 / 8:
                        self.ask_end(consumer, self.random.randrange(self.recorder.partitions))
        finally:
            consumer.close()

    def _assign(self, consumer: confluent_kafka.Consumer) -> None:
        places = self.places()
        for place in places:
            known = self.ask_end(consumer, place.partition)
            start, end = known or (0, 0)
            place.offset = start if self.random.random() < 0.3 else self.random.randint(start, end)
        self.history.add(
            "assign", self.process, partitions=[[one.partition, one.offset] for one in places]
        )
        consumer.assign(places)


class _Member(_Reader):
    """A member of the group; leaves now and then and comes back."""

    def settings(self) -> Settings:
        return {"session.timeout.ms": 6000, "heartbeat.interval.ms": 500}

    @property
    def group(self) -> str:
        return f"{self.recorder.topic}-readers"

    def run(self, stop: threading.Event) -> None:
        while not stop.is_set():
            consumer = self.recorder.new_consumer(
                **{
                    "group.id": self.group,
                    "on_commit": self._committed,
                    "enable.auto.commit": True,
                    "auto.commit.interval.ms": 200,
                    "auto.offset.reset": "earliest",
                    **self.settings(),
                }
            )
            consumer.subscribe(
                [self.recorder.topic], on_assign=self._assigned, on_revoke=self._revoked
            )
            try:
                while not stop.is_set() and self.random.random() > 1 / 256:
                    self.poll(consumer)
            finally:
                with suppress(KafkaException):
                    consumer.close()

    def _committed(self, error: KafkaError | None, places: list[TopicPartition]) -> None:
        for place in places:
            if error is None and place.error is None and place.offset >= 0:
                self.history.add(
                    "commit",
                    self.process,
                    group=self.group,
                    partition=place.partition,
                    offset=place.offset,
                )

    def _assigned(self, consumer: confluent_kafka.Consumer, places: list[TopicPartition]) -> None:
        self.history.add(
            "assign", self.process, partitions=[[one.partition, None] for one in places]
        )
        self.history.add("asks_committed", self.process, group=self.group)
        with suppress(KafkaException):
            for place in consumer.committed(places, timeout=ASK_S):
                if place.error is None:
                    self.history.add(
                        "committed",
                        self.process,
                        group=self.group,
                        partition=place.partition,
                        offset=place.offset,
                    )

    def _revoked(self, _consumer: object, _places: list[TopicPartition]) -> None:
        self.history.add("assign", self.process, partitions=[])


class _ModernMember(_Member):
    """A member of a group whose plan the coordinator makes (KIP-848)."""

    def settings(self) -> Settings:
        return {"group.protocol": "consumer"}

    @property
    def group(self) -> str:
        return f"{self.recorder.topic}-modern"


class _LastReader(_Reader):
    """Reads everything from the start, once all is healed."""

    def read_all(self, deadline: float) -> None:
        recorder = self.recorder
        consumer = recorder.new_consumer(**{"enable.partition.eof": True})
        try:
            bounds = self._bounds(consumer, deadline)
            starts = self.places()
            for place in starts:
                place.offset = bounds[place.partition][0]
            self.history.add(
                "assign", self.process, partitions=[[one.partition, one.offset] for one in starts]
            )
            consumer.assign(starts)
            while not all(self.reached.get(one, -1) >= end for one, (_, end) in bounds.items()):
                if time.monotonic() > deadline:
                    raise NoProgressError(
                        f"the partitions end at {[end for _, end in bounds.values()]}, what can "
                        f"be read at {self.reached}; errors: {dict(recorder.errors)}"
                    )
                self.poll(consumer)
            self.history.add("drained", self.process, partitions=sorted(bounds))
        finally:
            consumer.close()

    def _bounds(
        self, consumer: confluent_kafka.Consumer, deadline: float
    ) -> dict[int, tuple[int, int]]:
        """(start, end) of each partition, the end not before all that was acknowledged."""
        acknowledged = self.recorder.ends()
        bounds: dict[int, tuple[int, int]] = {}
        while len(bounds) < self.recorder.partitions:
            for partition in range(self.recorder.partitions):
                known = self.ask_end(consumer, partition)
                is_late = time.monotonic() > deadline
                if known is not None and (is_late or known[1] >= acknowledged.get(partition, 0)):
                    bounds[partition] = known
                elif is_late:
                    raise NoProgressError(
                        f"nobody says where partition {partition} ends; "
                        f"errors: {dict(self.recorder.errors)}"
                    )
        return bounds


def value_of(message: confluent_kafka.Message) -> int:
    return int((message.value() or b"-1").split(b" ")[0])
