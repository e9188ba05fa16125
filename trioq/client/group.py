"""A consumer's life in its group: the driver around the membership machines.

Three tasks: one rebalances (joins, or reconciles), one sends heartbeats, one watches whether the
user still asks for records. Only the first calls listeners; the others go on meanwhile.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, Generic, Protocol, TypeVar

import anyio

from trioq import logs
from trioq.client.cluster import Cluster
from trioq.client.consumer_membership_state import ConsumerMembership
from trioq.client.consumer_settings import ConsumerSettings
from trioq.client.group_calls import GroupCalls, MemberIdentity
from trioq.client.membership_state import ClassicMembership
from trioq.client.membership_steps import Assign, Failed, Revoke, Wait
from trioq.client.pulse import Pulse
from trioq.client.reader import Reader
from trioq.errors import KafkaError, TrioqError, error_class
from trioq.types import TopicPartition

_log = logs.get_logger(__name__)

Machine = TypeVar("Machine", ClassicMembership, ConsumerMembership)


class Host(Protocol):
    """The consumer, as its membership sees it."""

    async def give_up(self, partitions: frozenset[TopicPartition], *, lost: bool) -> None:
        """Stop reading, commit unless `lost`, tell the listener."""
        ...

    async def take_up(self, added: frozenset[TopicPartition]) -> None:
        """Start reading, tell the listener."""
        ...

    def fail(self, error: TrioqError) -> None:
        """The user is to be told `error`."""
        ...


class GroupMember(ABC, Generic[Machine]):
    """The driver; `run`, `run_heartbeats` and `run_watch` belong into the consumer's task group."""

    def __init__(
        self,
        cluster: Cluster,
        calls: GroupCalls,
        settings: ConsumerSettings,
        machine: Machine,
        reader: Reader[Any, Any],
        host: Host,
    ) -> None:
        self.machine: Machine = machine
        self.rebalances = 0
        self._cluster = cluster
        self._calls = calls
        self._settings = settings
        self._reader = reader
        self._host = host
        self._rebalance_pulse = Pulse()
        self._heartbeat_pulse = Pulse()
        self._expired = False
        self._waits_for_user = False
        self._log = _log.bind(group=calls.group_id)

    @property
    def identity(self) -> MemberIdentity:
        """As whom to commit."""
        return MemberIdentity(
            self.machine.generation, self.machine.member_id, self._settings.instance_id
        )

    def subscribe(self, topics: frozenset[str]) -> None:
        """Consume `topics` from now on."""
        self.machine.subscribe(topics)
        self.poke()

    def poke(self) -> None:
        """Look at the machine again: it was told something."""
        self._rebalance_pulse.beat()
        self._heartbeat_pulse.beat()

    def user_asked(self) -> None:
        """The user asks for records: a rebalance that waited for that goes on."""
        if self._expired:
            self._expired = False
            self.machine.return_to_group()
            self.poke()
        elif self._waits_for_user:
            self._rebalance_pulse.beat()

    def commit_refused(self, identity: MemberIdentity, error: KafkaError) -> None:
        """A commit as `identity` was refused."""
        self.machine.commit_refused(identity.generation, error)
        self.poke()

    # ---- tasks ------------------------------------------------------------------------

    async def run(self) -> None:
        """Take the machine's steps until it fails or the task is cancelled."""
        while True:
            now_s = anyio.current_time()
            step = self.machine.next_step(now_s)
            match step:
                case Wait(until_s):
                    await self._rebalance_pulse.wait(until_s)
                case Revoke():
                    await self._give_up(step)
                case Assign(added, owned):
                    self._log.info(
                        "partitions assigned", added=len(added), owned=len(owned), **self._where()
                    )
                    self.rebalances += 1
                    self._reader.stop()
                    try:
                        await self._host.take_up(added)
                    finally:
                        self._reader.go()
                    self.machine.assigned()
                    self._heartbeat_pulse.beat()
                case Failed(error):
                    self._log.error("membership ended", reason=str(error))
                    self._host.fail(error)
                    return
                case _:
                    await self._take(step)
                    self._heartbeat_pulse.beat()

    async def run_watch(self) -> None:
        """Leave the group when the user has not asked for records for max_poll_interval."""
        limit_s = self._settings.max_poll_interval_ms / 1000
        mark, since_s = self._reader.mark(), anyio.current_time()
        while True:
            await anyio.sleep(min(limit_s / 8, 1.0))
            now_s = anyio.current_time()
            if not self._reader.is_holding or self._reader.mark() != mark:
                mark, since_s = self._reader.mark(), now_s
            elif now_s - since_s >= limit_s and not self._expired:
                self._expired = True
                self._log.warning(
                    "the consumer leaves its group: processing took longer than "
                    "max_poll_interval_ms; raise that, or give records to workers",
                    max_poll_interval_ms=self._settings.max_poll_interval_ms,
                )
                await self._leave(expired=True)
                self.poke()

    @abstractmethod
    async def run_heartbeats(self) -> None:
        """Send heartbeats when they are due, until the task is cancelled."""

    async def leave(self) -> None:
        """Leave the group, once nothing is read any more; failures are logged."""
        await self._leave(expired=False)

    def _forget_owned(self) -> None:
        """What the machine would have given up is given up."""
        step = self.machine.next_step(anyio.current_time())
        if isinstance(step, Revoke):
            self.machine.revoked(step.partitions)

    @property
    def watched_topics(self) -> frozenset[str]:
        """Topics whose metadata this member needs beside those that it subscribes to."""
        return frozenset()

    @abstractmethod
    def metadata_changed(self, partition_counts: Mapping[str, int]) -> None:
        """Topics or their partitions may have changed."""

    # ---- inside -----------------------------------------------------------------------

    async def _give_up(self, step: Revoke) -> None:
        """Give partitions up as soon as the user is done with the record in hand.

        It is given no other one meanwhile. What is lost is given up at once.
        """
        self._reader.stop()
        try:
            while self._reader.is_holding and not step.lost:
                self._waits_for_user = True
                await self._rebalance_pulse.wait()
                self._waits_for_user = False
                if self.machine.next_step(anyio.current_time()) != step:
                    return
            self._log.info(
                "partitions lost" if step.lost else "partitions revoked",
                count=len(step.partitions),
                **self._where(),
            )
            await self._host.give_up(step.partitions, lost=step.lost)
        finally:
            self._reader.go()
        self.machine.revoked(step.partitions)
        self._heartbeat_pulse.beat()

    def _where(self) -> dict[str, object]:
        return {"member": self.machine.member_id, "generation": self.machine.generation}

    @abstractmethod
    async def _take(self, step: Any) -> None: ...

    @abstractmethod
    async def _leave(self, *, expired: bool) -> None: ...

    def _refused(self, code: int, what: str) -> KafkaError | None:
        """The error of an answer's `code`; None for no error."""
        if not code:
            return None
        kind = error_class(code)
        error = kind(f"{what} in group {self._calls.group_id!r}: {kind.kafka_name}: {kind()}")
        self._calls.failed(error)
        return error
