"""One case against one broker: its topic, its requests, its load, its check."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

from bench.errors import BenchError
from bench.path import frames, loadgen, members
from bench.path.ask import Asker
from bench.path.loadgen import Load
from bench.path.process import BrokerProcess, scratch_directory
from bench.path.verify import Verified, verify
from bench.path.work import Work
from bench.peers.peer import Peer

LIMITED_WARMUP_S = 0.2
"""Of work that ends by its bytes: a longer one would leave little to be measured."""

_topic_numbers = itertools.count(1)


class Measured(NamedTuple):
    """A run of a case, and what was read back, if that was asked for."""

    load: Load
    verified: Verified | None
    is_idempotent: bool
    """False where the broker gives no producer ids, so that it had less to check."""


@contextmanager
def started(peer: Peer, settings: Mapping[str, str]) -> Iterator[BrokerProcess]:
    """A fresh process of `peer` in a directory of its own."""
    with scratch_directory() as directory, peer.start(directory, settings) as broker:
        yield broker


def measure(
    peer: Peer,
    broker: BrokerProcess,
    work: Work,
    *,
    seconds: float,
    warmup_s: float = loadgen.WARMUP_S,
    is_verified: bool = False,
) -> Measured:
    """Run `work` against `broker` on a new topic, which is deleted again.

    Raises BenchError where the broker does not do what is asked, and when what is read back
    is not what was written.
    """
    if work.limit_bytes:
        warmup_s = min(warmup_s, LIMITED_WARMUP_S)
    with Asker(broker) as asker, topic_for(peer, asker, work) as topic:
        template = template_for(peer, broker, asker, topic, work)
        os.sync()  # nobody's old pages are written back while this is measured
        load = loadgen.run(broker, template, work, seconds=seconds, warmup_s=warmup_s)
        verified = None
        if is_verified and work.kind == "produce":
            verified = verify(asker, topic, work, [load])
        is_idempotent = work.kind == "produce" and template.batch_at > 0
    return Measured(load, verified, is_idempotent)


@contextmanager
def topic_for(peer: Peer, asker: Asker, work: Work) -> Iterator[str]:
    """A new topic with the partitions of `work`."""
    topic = f"bench{next(_topic_numbers):04d}"
    make_topic(peer, asker, topic, work.partitions)
    try:
        yield topic
    finally:
        if peer.is_kept:
            asker.delete_topic(topic)


def make_topic(peer: Peer, asker: Asker, topic: str, partitions: int) -> None:
    """A topic that is ready to be written."""
    if peer.most_partitions and partitions > peer.most_partitions:
        raise BenchError(f"its topics have no more than {peer.most_partitions} partitions")
    if peer.creates_topics:
        asker.create_topic(topic, partitions)
    else:
        asker.wait_for_topic(topic, partitions)
    asker.wait_until_served(topic, partitions)


def template_for(
    peer: Peer, broker: BrokerProcess, asker: Asker, topic: str, work: Work
) -> frames.Template:
    """The requests of `work`; for fetches the topic is filled first."""
    if work.kind == "produce":
        return frames.produce_template(topic, work, _producer_ids(peer, asker, work))
    if work.kind == "fetch":
        batch_bytes = fill(peer, broker, asker, topic, work)
        return frames.fetch_template(topic, work, work.fetched * work.records, batch_bytes)
    if work.kind == "long_poll":
        return frames.long_poll_template(topic, work)
    if work.kind == "metadata":
        return frames.metadata_template(topic, work.connections)
    if work.kind == "list_offsets":
        return frames.list_offsets_template(topic, work)
    if work.kind == "heartbeat":
        return members.heartbeat_template(members.join_groups(broker, topic, work.connections))
    if work.kind == "commit":
        joined = members.join_groups(broker, topic, work.connections)
        return members.commit_template(topic, work, joined)
    return frames.api_versions_template(work.connections)


def fill(peer: Peer, broker: BrokerProcess, asker: Asker, topic: str, work: Work) -> int:
    """Write the batches that `work` fetches into partition 0; the size of one."""
    count = work.fetched
    if peer.most_fetched and count > peer.most_fetched:
        raise BenchError(f"it keeps no more than {peer.most_fetched} requests of 1 MB")
    filling = Work(records=work.records, record_bytes=work.record_bytes, codec=work.codec)
    template = frames.produce_template(topic, filling, _producer_ids(peer, asker, filling))
    loadgen.send(broker, template, filling, count)
    end = asker.end_offset(topic, 0)
    if peer.tells_ends and end != count * work.records:
        raise BenchError(f"{count * work.records} records were written, but the end is {end}")
    return template.batch_bytes


def _producer_ids(peer: Peer, asker: Asker, work: Work) -> list[int]:
    """Ids for the connections that send; none where the broker does not give any."""
    if not work.is_idempotent:
        return []
    try:
        return asker.producer_ids(work.active or work.connections)
    except BenchError:
        if peer.needs_producer_ids:
            raise
        return []
