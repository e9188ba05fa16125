"""The change feed: every write to what the image holds appends an entry in its own multi.

Entries are sequential nodes; their order is that of the writes, gaps in their numbers
mean nothing. The controller trims the oldest and notes in the floor, in the same multi,
up to where. A follower loads everything in bulk and then applies entries; it loads anew
when what it has not read yet was trimmed away.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from typing import Final

import trio

from trioq import logs
from trioq.errors import StartupError
from trioq.metastore import layout, store
from trioq.metastore.image import BrokerImage, Change, ClusterImage, FeedEntry, is_in_image
from trioq.metrics import Counters

_log = logs.get_logger("trioq.metastore")

MAX_ENTRY_BYTES: Final = 256 * 1024
KEPT_ENTRIES: Final = 1_000
_TRIM_SLACK: Final = 100
_TRIM_AT_ONCE: Final = 400
_READ_AT_ONCE: Final = 64
_PREFIX: Final = f"{layout.FEED_ENTRIES}/e-"


def with_entry(operations: Sequence[store.Operation]) -> list[store.Operation]:
    """`operations`, and the creation of the feed entry that tells of them, if any must.

    What they set in the image must be by expected version, which tells the new one. Raises
    TooLarge when the entry exceeds MAX_ENTRY_BYTES; ValueError for a Set of ANY_VERSION.
    """
    changes = [_encode(op) for op in operations if is_in_image(op.path)]
    told = [change for change in changes if change]
    if not told:
        return list(operations)
    value = b"".join((b'{"changes":[', b",".join(told), b"]}"))
    if len(value) > MAX_ENTRY_BYTES:
        raise store.TooLarge(f"a feed entry of {len(value)} bytes; at most {MAX_ENTRY_BYTES}")
    return [*operations, store.Create(_PREFIX, value, sequential=True)]


def reload_entry() -> store.Create:
    """The entry of a bulk change: followers read everything again."""
    return store.Create(_PREFIX, b'{"reload":true}', sequential=True)


def sequence_in(results: Iterable[store.Result]) -> int:
    """The sequence of the entry that a multi created, from its results; -1 if none."""
    for result in results:
        if isinstance(result, str) and result.startswith(_PREFIX):
            return int(result[len(_PREFIX) :])
    return -1


def decode_entry(name: str, value: bytes) -> FeedEntry:
    """The entry in the node called `name`. Raises CorruptNode."""
    path = f"{layout.FEED_ENTRIES}/{name}"
    data = layout.decode_json(path, value)
    try:
        changes = tuple(Change(*change) for change in data.get("changes", ()))
    except (TypeError, AttributeError) as error:
        raise layout.CorruptNode(path, error) from error
    return FeedEntry(_sequence(name), changes, data.get("reload", False))


def _encode(operation: store.Operation) -> bytes:
    if isinstance(operation, store.Check):
        return b""
    path = layout.encode_json(operation.path).encode()
    if isinstance(operation, store.Create):
        return b"[%b,0,%b]" % (path, operation.value)
    if isinstance(operation, store.Delete):
        return b"[%b,%d,null]" % (path, operation.version)
    if operation.version == store.ANY_VERSION:
        raise ValueError(f"{operation.path}: the feed needs the expected version")
    return b"[%b,%d,%b]" % (path, operation.version + 1, operation.value)


def _sequence(name: str) -> int:
    try:
        return int(name[2:])
    except ValueError as error:
        raise layout.CorruptNode(f"{layout.FEED_ENTRIES}/{name}", error) from error


async def last_sequence(metastore: store.Metastore) -> int:
    """The sequence of the newest entry, trimmed or not; -1 before the first."""
    names = await metastore.children(layout.FEED_ENTRIES)
    return _sequence(names[-1]) if names else await _trimmed_sequence(metastore)


async def _trimmed_sequence(metastore: store.Metastore) -> int:
    node = await metastore.get(layout.FEED_FLOOR)
    return layout.decode_node(layout.FEED_FLOOR, node.value, layout.FeedFloor.of).trimmed_sequence


async def trim(
    metastore: store.Metastore,
    *,
    fence: Sequence[store.Check] = (),
    kept: int = KEPT_ENTRIES,
) -> int:
    """Delete the oldest entries beyond `kept`, raising the floor with them; how many.

    Does nothing while they are few. `fence` is checked with each multi: only the
    controller trims. Cancelled: some are gone, and the floor is right.
    """
    names = await metastore.children(layout.FEED_ENTRIES)
    trimmed = 0
    if len(names) <= kept + min(kept, _TRIM_SLACK):
        return 0
    while (excess := len(names) - kept - trimmed) > 0:
        oldest = names[trimmed : trimmed + min(excess, _TRIM_AT_ONCE)]
        floor = await metastore.get(layout.FEED_FLOOR)
        value = layout.FeedFloor(_sequence(oldest[-1])).encode()
        await metastore.multi(
            [
                *fence,
                store.Set(layout.FEED_FLOOR, value, floor.version),
                *(store.Delete(f"{layout.FEED_ENTRIES}/{name}", 0) for name in oldest),
            ]
        )
        trimmed += len(oldest)
    return trimmed


class ImageGauges(Counters):
    """`unreadable_nodes`: nodes of which the image holds what was last known."""

    __slots__ = ("unreadable_nodes",)

    unreadable_nodes: int


class ImageFollower:
    """Keeps `image` up to date; `run` owns it, everybody reads it.

    `on_swap(before, after)` is called on the loop's thread right after each swap and
    before anyone waiting for a position wakes, so that what it sets up is there for them.
    It must not raise. `coalesce_s` is how long to gather changes before reading them, up
    to as much again at random; 0 for a store in the same process.
    """

    def __init__(
        self,
        metastore: store.Metastore,
        *,
        on_swap: Callable[[ClusterImage, ClusterImage], None] | None = None,
        coalesce_s: float = 0.0,
    ) -> None:
        self.image = ClusterImage()
        self.gauges = ImageGauges()
        self._metastore = metastore
        self._on_swap = on_swap
        self._coalesce_s = coalesce_s
        self._lock = trio.Lock()
        self._swapped = trio.Event()

    async def run(
        self, *, task_status: trio.TaskStatus[ClusterImage] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Load, report started, then follow until cancelled. May be run again after it fails.

        Raises what the metastore raises, and CorruptNode for a node on which the cluster rests; of
        others that cannot be read the image keeps what was last known, and the log names them.
        """
        with (
            self._metastore.watch_children(layout.FEED_ENTRIES) as feed_watch,
            self._metastore.watch_children(layout.BROKER_IDS) as broker_watch,
        ):
            await self.load()
            task_status.started(self.image)
            async with trio.open_nursery() as follow_nursery:
                follow_nursery.start_soon(self._follow_brokers, broker_watch)
                while True:
                    await feed_watch.changed()
                    await self._coalesce()
                    await self.catch_up()

    async def load(self) -> None:
        """Read everything in bulk and swap.

        Raises StartupError where that is older than what was known already: partitions that it
        lacks would be dropped with their data.
        """
        async with self._lock:
            await self._load()

    async def _load(self) -> None:
        image: ClusterImage | None = None
        while image is None:
            image = await self._read_image()
        if image.position < self.image.position:
            raise StartupError(
                f"the metastore went back in time, from change {self.image.position} to "
                f"{image.position}: it was replaced, or restored from a backup. This broker stops "
                "rather than drop what the metastore has forgotten; restore a newer backup, or "
                "start it again to serve what both know"
            )
        self._swap(image)

    async def _read_image(self) -> ClusterImage | None:
        """The image read in bulk; None when the feed was trimmed or reset meanwhile."""
        position = await last_sequence(self._metastore)
        tree: dict[str, store.Node] = {}
        for top in (layout.TOPIC_IDS, layout.BROKER_CONFIGS, layout.CLUSTER):
            tree |= await self._metastore.read_tree(top)
        tree[layout.CONTROLLER_EPOCH] = await self._metastore.get(layout.CONTROLLER_EPOCH)
        tree |= await self._read_slots()
        entries = await self._read_entries(position)
        if entries is None:
            return None
        # Last: the feed does not tell of brokers, and who went meanwhile may have been noticed.
        brokers = await self._read_brokers()
        return ClusterImage.load(tree, entries, brokers, position, self.image)

    async def _read_slots(self) -> dict[str, store.Node]:
        """The states of the slots, without the groups that are below them."""
        (node,) = await self._metastore.get_many((layout.SLOTS,))
        if node is None or not node.value:
            return {}
        number = layout.decode_node(layout.SLOTS, node.value, layout.Slots.of).number
        tree = {layout.SLOTS: node}
        paths = [layout.slot_path(slot) for slot in range(number)]
        for path, held in zip(paths, await self._metastore.get_many(paths), strict=True):
            if held is None:
                raise layout.CorruptNode(path, "it is missing")
            tree[path] = held
        return tree

    async def catch_up(self) -> None:
        """Apply the entries that are there now; load anew where some are gone."""
        async with self._lock:
            while True:
                entries = await self._read_entries(self.image.position, at_most=_READ_AT_ONCE)
                if entries is None:
                    await self._load()
                elif entries:
                    self._swap(self.image.apply(entries))
                if entries is None or len(entries) < _READ_AT_ONCE:
                    return

    async def wait_for(self, position: int) -> ClusterImage:
        """Wait until the image holds the entry at `position`; returns that image."""
        while self.image.position < position:
            await self._swapped.wait()
        return self.image

    async def wait_for_swap(self, seen: ClusterImage) -> ClusterImage:
        """Wait until the image is another than `seen`; returns the newest."""
        while self.image is seen:
            await self._swapped.wait()
        return self.image

    def _swap(self, image: ClusterImage) -> None:
        before, self.image = self.image, image
        if image.unreadable != before.unreadable:
            self.gauges.unreadable_nodes = len(image.unreadable)
            _say_unreadable(before, image)
        if self._on_swap is not None:
            self._on_swap(before, image)
        self._swapped.set()
        self._swapped = trio.Event()

    async def _coalesce(self) -> None:
        if self._coalesce_s:
            await trio.sleep(self._coalesce_s * (1 + random.random()))  # noqa: S311

    async def _read_entries(
        self, position: int, *, at_most: int | None = None
    ) -> list[FeedEntry] | None:
        """The entries after `position`, or None when they must be replaced by a load."""
        names = await self._metastore.children(layout.FEED_ENTRIES)
        new = [name for name in names if _sequence(name) > position][:at_most]
        nodes = await self._metastore.get_many([f"{layout.FEED_ENTRIES}/{name}" for name in new])
        if await _trimmed_sequence(self._metastore) > position:
            return None
        entries: list[FeedEntry] = []
        for name, node in zip(new, nodes, strict=True):
            if node is None:
                return None
            try:
                entries.append(decode_entry(name, node.value))
            except layout.CorruptNode as error:
                _log.error(
                    "a feed entry cannot be read; everything is read anew", reason=str(error)
                )
                return None
        return None if any(entry.reload for entry in entries) else entries

    async def _follow_brokers(self, watch: store.Watch) -> None:
        while True:
            await watch.changed()
            await self._coalesce()
            brokers = await self._read_brokers()
            if brokers != self.image.brokers:
                self._swap(self.image.with_brokers(brokers))

    async def _read_brokers(self) -> dict[int, BrokerImage]:
        names = await self._metastore.children(layout.BROKER_IDS)
        paths = [f"{layout.BROKER_IDS}/{name}" for name in names]
        brokers: dict[int, BrokerImage] = {}
        for path, node in zip(paths, await self._metastore.get_many(paths), strict=True):
            if node is None:
                continue
            try:
                broker = layout.decode_node(path, node.value, BrokerImage.of)
            except layout.CorruptNode as error:
                name = path.rpartition("/")[2]
                known = self.image.brokers.get(int(name)) if name.isdecimal() else None
                _log.error(
                    "a broker's registration cannot be read",
                    reason=str(error),
                    consequence="it counts as dead" if known is None else "its last one counts",
                    what_to_do="restart that broker: it registers anew",
                )
                if known is None:
                    continue
                broker = known
            brokers[broker.broker_id] = broker
        return brokers


def _say_unreadable(before: ClusterImage, after: ClusterImage) -> None:
    """Log which nodes cannot be read any more, and which can again."""
    for path, found in after.unreadable.items():
        if before.unreadable.get(path) == found:
            continue
        held = after.last_known(path)
        _log.error(
            "a metastore node cannot be read; nobody writes it until it is repaired",
            node=path,
            version=found.version,
            reason=found.reason,
            last_known=held,
            consequence="what it is about is left as last known, all else goes on"
            if held
            else "what it is about is not served, all else goes on",
            what_to_do="write its last good value to the node, below the chroot, with zkCli.sh: "
            "set <node> '<value>' (last_known, here or in another broker's line of this error); or "
            "delete the topic. Brokers look again every five minutes",
        )
    for path in before.unreadable.keys() - after.unreadable.keys():
        _log.info("a metastore node can be read again", node=path)
