"""A broker's registration over its sessions; the test moves those of an embedded store."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import trio
import trio.testing

from trioq.cluster.membership import Membership
from trioq.controller.election_state import LiveBroker, Standing, standing
from trioq.errors import StartupError
from trioq.metastore import layout, store
from trioq.metastore.bootstrap import RegistrationTaken, ensure_cluster, register_broker
from trioq.metastore.embedded import EmbeddedMetastore, open_embedded
from trioq.metastore.layout import BrokerRegistration
from trioq.metastore.session import SessionState

pytestmark = pytest.mark.trio
BROKER = 7


class Store(EmbeddedMetastore):
    """An embedded store with the session timeout that a ZooKeeper server grants."""

    session_timeout_s = 4.0


@pytest.fixture
async def metastore(tmp_path) -> AsyncIterator[EmbeddedMetastore]:
    async with open_embedded(tmp_path / "metastore.sqlite") as opened:
        await ensure_cluster(opened)
        opened.__class__ = Store
        yield opened


def described(*, directory: str = "dir", clean: bool = False) -> BrokerRegistration:
    return BrokerRegistration(
        BROKER, -1, None, {"PLAINTEXT": ("h", 9092)}, (directory,), "host", "unused", clean
    )


class Registered:
    """What a Membership told, and when."""

    def __init__(self) -> None:
        self.told: list[tuple[int, bool, int]] = []

    def __call__(self, registration: BrokerRegistration, generation: int) -> None:
        self.told.append((registration.broker_epoch, registration.clean, generation))


async def lose_session(metastore: EmbeddedMetastore) -> None:
    """The session ends: its ephemerals are gone."""
    await metastore.delete(described().path(), store.ANY_VERSION)
    metastore.session.move(SessionState.LOST)


async def test_a_broker_is_registered_anew_after_a_lost_session(metastore):
    registered = Registered()
    membership = Membership(metastore, described, registered)
    async with trio.open_nursery() as nursery:
        await nursery.start(membership.run)
        first = membership.registration
        assert registered.told == [(0, False, 1)]
        metastore.session.move(SessionState.SUSPENDED)
        metastore.session.move(SessionState.CONNECTED)
        await trio.testing.wait_all_tasks_blocked()
        assert membership.registration is first, "a session that goes on keeps its registration"
        await lose_session(metastore)
        await trio.testing.wait_all_tasks_blocked()
        assert registered.told == [(0, False, 1)]
        metastore.session.move(SessionState.CONNECTED)
        renewed = await membership.wait_other_than(first)
        assert (renewed.broker_epoch, renewed.clean) == (1, True)
        assert registered.told[-1] == (1, True, 2)
        nursery.cancel_scope.cancel()


async def test_safety_14_a_broker_whose_id_was_taken_while_it_had_no_session_stops(metastore):
    membership = Membership(metastore, described, Registered())
    with pytest.RaisesGroup(pytest.RaisesExc(RegistrationTaken, match="this one stops")):
        async with trio.open_nursery() as nursery:
            await nursery.start(membership.run)
            await metastore.delete(described().path(), store.ANY_VERSION)
            other = await register_broker(metastore, described()._replace(incarnation="other"))
            await lose_session(metastore)  # and the other one has gone again, too
            metastore.session.move(SessionState.CONNECTED)
            await trio.sleep_forever()
    assert other.broker_epoch == 1
    (node,) = await metastore.get_many([layout.BrokerEpoch.path(BROKER)])
    assert node.version == 1


async def test_safety_14_a_restart_waits_for_its_old_session_but_not_for_ever(
    metastore, autojump_clock
):
    await register_broker(metastore, described())
    membership = Membership(metastore, described, Registered())
    began_s = trio.current_time()
    with pytest.RaisesGroup(pytest.RaisesExc(StartupError, match="broker id 7 is taken")):
        async with trio.open_nursery() as nursery:
            await nursery.start(membership.run)
    assert trio.current_time() - began_s == pytest.approx(1.5 * Store.session_timeout_s)


async def test_safety_14_another_directory_is_refused_at_once_naming_the_holder(metastore):
    metastore.session_timeout_s = 1e6  # to wait for the old session would be to hang
    holder = await register_broker(metastore, described(directory="another"))
    membership = Membership(metastore, described, Registered())
    taken = f"taken by a broker on host host .incarnation {holder.incarnation}."
    with pytest.RaisesGroup(pytest.RaisesExc(StartupError, match=taken)):
        with trio.fail_after(30):
            async with trio.open_nursery() as nursery:
                await nursery.start(membership.run)


async def test_a_store_that_does_not_answer_is_asked_again(metastore, monkeypatch, autojump_clock):
    failures = [
        store.MetastoreUnavailable("no server answers"),
        store.OutcomeUnknown("the connection broke"),
    ]
    write = metastore.multi

    async def multi(operations):
        result = await write(operations) if len(failures) == 1 else None
        if failures:
            raise failures.pop(0)
        return result or await write(operations)

    monkeypatch.setattr(metastore, "multi", multi)
    registered = Registered()
    membership = Membership(metastore, described, registered)
    async with trio.open_nursery() as nursery:
        await nursery.start(membership.run)
        nursery.cancel_scope.cancel()
    assert registered.told == [(0, False, 1)], "the write whose answer was lost is found"
    assert not failures


async def drop_session(metastore: EmbeddedMetastore) -> None:
    """The session is lost here; the store has not noticed, and still keeps its ephemerals."""
    metastore.session.move(SessionState.LOST)


async def test_a_registration_that_a_lost_session_has_left_is_replaced_at_once(
    metastore, autojump_clock
):
    """ZooKeeper may keep it for long, as after an election of its own."""
    registered = Registered()
    membership = Membership(metastore, described, registered)
    began_s = trio.current_time()
    async with trio.open_nursery() as nursery:
        await nursery.start(membership.run)
        first = membership.registration
        for _ in range(3):
            before = membership.registration
            await drop_session(metastore)
            metastore.session.move(SessionState.CONNECTED)
            await membership.wait_other_than(before)
        nursery.cancel_scope.cancel()
    assert trio.current_time() == began_s
    assert registered.told == [(0, False, 1), (1, True, 2), (2, True, 3), (3, True, 4)]
    assert first is not None
    assert membership.registration is not None
    assert membership.registration.held_since == first.held_since == 0
    held = await metastore.get(described().path())
    assert BrokerRegistration.of(layout.decode_json("", held.value)) == membership.registration
    assert len(membership._incarnations) == 1


async def test_safety_14_what_another_process_left_is_not_replaced(metastore, autojump_clock):
    """It registered, and took the place of what this one had left, before this one looked."""
    membership = Membership(metastore, described, Registered())
    with pytest.RaisesGroup(pytest.RaisesExc(RegistrationTaken, match="this one stops")):
        async with trio.open_nursery() as nursery:
            await nursery.start(membership.run)
            await metastore.delete(described().path(), store.ANY_VERSION)
            other = await register_broker(metastore, described()._replace(incarnation="other"))
            await drop_session(metastore)
            metastore.session.move(SessionState.CONNECTED)
            await trio.sleep_forever()
    held = await metastore.get(other.path())
    assert BrokerRegistration.of(layout.decode_json("", held.value)) == other


async def test_a_session_that_ends_while_it_is_registered_in_costs_one_more_and_tells_nobody(
    metastore, monkeypatch, autojump_clock
):
    write = metastore.multi
    # The second write finds what the first has left.
    losses = ["known", "", "unknown"]

    async def multi(operations):
        loss = losses.pop(0) if losses else ""
        result = await write(operations)
        if loss:
            metastore.session.move(SessionState.LOST)
            metastore.session.move(SessionState.CONNECTED)
        if loss == "unknown":
            raise store.OutcomeUnknown("the connection broke")
        return result

    monkeypatch.setattr(metastore, "multi", multi)
    registered = Registered()
    membership = Membership(metastore, described, registered)
    async with trio.open_nursery() as nursery:
        await nursery.start(membership.run)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert not losses
    # What was lost before the process began is lost: the first of its registrations says when.
    assert registered.told == [(2, True, 3)]
    assert membership.registration is not None
    assert membership.registration.held_since == 0


async def test_safety_6_an_unclean_start_stays_one_over_the_registrations_that_follow(metastore):
    """Also where the controller saw none of them but the last."""
    earlier = await register_broker(metastore, described(clean=True))
    await metastore.delete(earlier.path(), store.ANY_VERSION)
    membership = Membership(metastore, described, Registered())  # after a crash
    async with trio.open_nursery() as nursery:
        await nursery.start(membership.run)
        first = membership.registration
        await drop_session(metastore)
        metastore.session.move(SessionState.CONNECTED)
        renewed = await membership.wait_other_than(first)
        nursery.cancel_scope.cancel()
    assert (renewed.broker_epoch, renewed.held_since) == (2, 1)
    live = {BROKER: LiveBroker(renewed.broker_epoch, renewed.clean, renewed.held_since)}
    assert standing(earlier.broker_epoch, live[BROKER]) is Standing.LOST
    assert standing(1, live[BROKER]) is Standing.CONTINUED
