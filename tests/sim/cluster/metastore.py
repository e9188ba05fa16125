"""The metastore: versioned nodes changed by compare-and-set, sessions, ephemerals, two feeds.

A client's operations are applied in the order in which it sent them. An answer may be lost: then
the client learns nothing, and what it reads afterwards is what has become of it.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from trioq.metastore.image import ClusterImage, TopicImage
from trioq.metastore.layout import BrokerRegistration, PartitionState

TOPIC_ID = uuid.UUID(int=1)
TOPIC = "t"


class Refused(NamedTuple):
    """A compare-and-set did not hold: of which partition, or of what; nothing was done."""

    index: int = -1


class Unknown(NamedTuple):
    """No answer came: it was done or not."""


class Expired(NamedTuple):
    """The session is over."""


class Session:
    __slots__ = ("broker", "expires_ms", "is_over")

    def __init__(self, broker: int, expires_ms: float) -> None:
        self.broker = broker
        self.expires_ms = expires_ms
        self.is_over = False


class Metastore:
    """The nodes. `changed` is called after each change; operations are called at their arrival."""

    def __init__(
        self,
        state: PartitionState,
        config: Mapping[str, str],
        changed: Callable[[str], None],
        registered: Callable[[Any, int], None],
    ) -> None:
        self.registered = registered
        self.state = state
        self.broker_epochs: dict[int, int] = {}
        self.registrations: dict[int, BrokerRegistration] = {}
        self.holders: dict[int, Session] = {}
        """The sessions of the registrations."""
        self.controller_epoch = 0
        self.controller: Session | None = None
        self.position = 0
        self._config = config
        self._changed = changed
        self._topic = TopicImage(TOPIC, TOPIC_ID, (state,), config, 0)

    def image(self, brokers: Mapping[int, BrokerRegistration]) -> ClusterImage:
        """The topics as they are now, with `brokers`, which come by another way."""
        return ClusterImage(
            cluster_id="sim",
            controller_epoch=self.controller_epoch,
            topics={TOPIC: self._topic},
            topics_by_id={TOPIC_ID: self._topic},
            brokers=brokers,
            position=self.position,
        )

    # ---- sessions ----

    def end_session(self, session: Session) -> None:
        """Its ephemerals go."""
        session.is_over = True
        if self.controller is session:
            self.controller = None
            self._changed("controller")
        if self.holders.get(session.broker) is session:
            del self.holders[session.broker], self.registrations[session.broker]
            self._changed("brokers")

    # ---- operations ----

    def register(self, process: Any, session: Session, expected: int, *, clean: bool) -> Any:
        """One multi: the epoch node at its expected version, and the ephemeral."""
        broker = session.broker
        if broker in self.registrations or self.broker_epochs.get(broker, -1) != expected:
            return Refused()
        epoch = self.broker_epochs[broker] = expected + 1
        self.registrations[broker] = BrokerRegistration(
            broker, epoch, None, {}, (str(broker),), "host", str(epoch), clean
        )
        self.holders[broker] = session
        self.registered(process, epoch)
        self._changed("brokers")
        return epoch

    def claim_controller(self, session: Session, expected: int, broker_epoch: int) -> Any:
        if (
            self.controller not in {None, session}
            or self.controller_epoch != expected
            or self.broker_epochs.get(session.broker) != broker_epoch
        ):
            return Refused()
        self.controller_epoch += 1
        self.controller = session
        self._move()
        return self.controller_epoch, self.position

    def set_state(
        self, before: PartitionState, after: PartitionState, controller_epoch: int | None = None
    ) -> Any:
        """Compare-and-set of the partition; the controller's is fenced by its epoch."""
        if controller_epoch is not None and controller_epoch != self.controller_epoch:
            return Refused()
        if not self.may_set(before):
            return Refused(0)
        self.state = after._replace(partition_epoch=self.state.partition_epoch + 1)
        self._topic = TopicImage(TOPIC, TOPIC_ID, (self.state,), self._config, 0)
        self._move()
        return self.state

    def set_config(self, **changes: str) -> None:
        """The topic's configuration is altered, as an administrator asked."""
        self._config = {**self._config, **{key.replace("_", "."): changes[key] for key in changes}}
        self._topic = TopicImage(TOPIC, TOPIC_ID, (self.state,), self._config, 0)
        self._move()

    def may_set(self, before: PartitionState) -> bool:
        return before.partition_epoch == self.state.partition_epoch

    def _move(self) -> None:
        self.position += 1
        self._changed("topics")


Operation = Callable[[], Any]
Operations = Sequence[Operation]
