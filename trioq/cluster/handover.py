"""Controlled shutdown: what this broker leads is led by others before it stops serving."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, cast

import trio

from trioq import logs
from trioq.errors import (
    BY_CODE,
    KafkaError,
    MetastoreError,
    NotController,
    PeerUnreachable,
    UnknownServerError,
)
from trioq.wire.messages.controlled_shutdown import (
    ControlledShutdownRequest,
    ControlledShutdownResponse,
)

if TYPE_CHECKING:
    from trioq.controller.controller import Controller
    from trioq.metastore.feed import ImageFollower
    from trioq.metastore.image import ClusterImage
    from trioq.metastore.layout import BrokerRegistration
    from trioq.metastore.zookeeper import ZooKeeperMetastore
    from trioq.net.peer import Peers

_log = logs.get_logger("trioq.cluster")

_VERSION: Final = 3
_PAUSE_S: Final = 0.1


class Handover:
    """Asks the controller, here or elsewhere, to give this broker's leaderships to others."""

    def __init__(
        self,
        controller: Controller,
        peers: Peers,
        follower: ImageFollower,
        metastore: ZooKeeperMetastore,
    ) -> None:
        self._controller = controller
        self._peers = peers
        self._follower = follower
        self._metastore = metastore

    async def run(self, registration: BrokerRegistration, *, timeout_s: float) -> None:
        """Ask until nothing is led here that another could lead, at most for `timeout_s`.

        Once asked, the controller also takes this broker out of the ISRs of what others lead, who
        would wait for it until its session has ended. Where all others are stopping as well, what
        is led here stays, and there is nothing to wait for.

        Returns when this broker's own image shows it, so that it has told its clients, too. Logs
        what remains. Cancelled: some is handed over.
        """
        broker_id = registration.broker_id
        before = _led_here(self._follower.image, broker_id)
        if not before and not _is_in_sync_elsewhere(self._follower.image, broker_id):
            return
        reason = "the controller did not answer"
        with trio.move_on_after(timeout_s):
            while self._follower.image.brokers.keys() - {broker_id}:
                try:
                    remaining = await self._ask(registration, timeout_s)
                    if not remaining:
                        await self._see_what_was_written()
                        left = _led_here(self._follower.image, broker_id)
                        _log.info("leaderships handed over", led_before=before, remaining=left)
                        return
                    reason = "no other replica is in sync yet to lead them"
                except (KafkaError, PeerUnreachable, MetastoreError) as error:
                    reason = str(error) or type(error).__name__
                await trio.sleep(_PAUSE_S)
            return
        _log.warning(
            "leaderships are not handed over; they move when the session has ended",
            led_before=before,
            remaining=_led_here(self._follower.image, broker_id),
            waited_s=timeout_s,
            reason=reason,
        )

    async def _ask(self, registration: BrokerRegistration, timeout_s: float) -> int:
        """How many partitions remain. Raises KafkaError, PeerUnreachable."""
        broker_id, broker_epoch = registration.broker_id, registration.broker_epoch
        if self._controller.is_active:
            return len(await self._controller.hand_over(broker_id, broker_epoch))
        image = self._follower.image
        if image.controller_id == broker_id or image.controller_id not in image.brokers:
            raise NotController("no broker is the controller at present")
        answer = await self._peers.call(
            image.controller_id,
            ControlledShutdownRequest(broker_id=broker_id, broker_epoch=broker_epoch),
            api_version=_VERSION,
            timeout_s=timeout_s,
        )
        response = cast("ControlledShutdownResponse", answer)
        if response.error_code:
            raise BY_CODE.get(response.error_code, UnknownServerError)
        return len(response.remaining_partitions)

    async def _see_what_was_written(self) -> None:
        """Have the image show everything that the controller wrote before it answered."""
        await self._metastore.sync()
        await self._follower.catch_up()


def _led_here(image: ClusterImage, broker_id: int) -> int:
    """Partitions led by the broker that others hold who are alive, and coordination slots."""
    others = image.brokers.keys() - {broker_id}
    partitions = sum(
        state.leader == broker_id and not others.isdisjoint(state.replicas)
        for topic in image.topics.values()
        for state in topic.partitions
    )
    return partitions + sum(slot.leader == broker_id for slot in image.slots)


def _is_in_sync_elsewhere(image: ClusterImage, broker_id: int) -> bool:
    """Whether the broker counts for acknowledgements of other leaders."""
    return any(
        state.leader not in {broker_id, -1} and broker_id in state.isr
        for topic in image.topics.values()
        for state in topic.partitions
    )
