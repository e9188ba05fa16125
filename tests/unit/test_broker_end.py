"""How a broker ends that has not started yet, and when it vouches for its logs."""

from __future__ import annotations

from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
import trio.testing

from trioq.broker import Broker, StoppedAtStart, _is_orderly
from trioq.cluster.membership import Membership
from trioq.config import BrokerConfig
from trioq.errors import BrokerBug, MetastoreError, StartupError
from trioq.metastore.bootstrap import RegistrationTaken
from trioq.metastore.embedded import EmbeddedMetastore, open_embedded
from trioq.storage.log_dir_files import CLEAN_SHUTDOWN_FILE


def cancelled() -> BaseException:
    caught: list[BaseException] = []

    async def main() -> None:
        with trio.CancelScope() as scope:
            scope.cancel()
            try:
                await trio.lowlevel.checkpoint()
            except trio.Cancelled as error:
                caught.append(error)
                raise

    trio.run(main)
    return caught[0]


@pytest.mark.parametrize(
    ("errors", "is_orderly"),
    [
        ([StartupError("taken")], True),
        ([RegistrationTaken("this one stops"), cancelled()], True),
        ([cancelled()], True),
        ([StartupError("taken"), BrokerBug("a log")], False),
        ([cancelled(), MetastoreError("corrupt")], False),
        ([ZeroDivisionError()], False),
    ],
)
def test_only_a_stop_or_a_refusal_leaves_logs_as_they_should_be(errors, is_orderly):
    inner = errors[0] if len(errors) == 1 else BaseExceptionGroup("inner", errors)
    for error in (inner, BaseExceptionGroup("nursery", [inner])):
        assert _is_orderly(error) is is_orderly


def broker_in(path: Path, **settings: str) -> Broker:
    values = {"log.dirs": str(path), "listeners": "PLAINTEXT://127.0.0.1:0"}
    return Broker(BrokerConfig.from_mapping(values | settings))


def run_until_stopped(broker: Broker) -> None:
    async def main() -> None:
        async with trio.open_nursery() as nursery:
            await nursery.start(broker.run)
            broker.stop()

    trio.run(main)


def test_a_broker_that_is_stopped_while_it_waits_for_zookeeper_does_not_wait_on(tmp_path):
    patience = {"zookeeper.connection.timeout.ms": "600000"}
    broker = broker_in(tmp_path, metastore="zookeeper://127.0.0.1:1", **patience)

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(broker.run)
            await trio.testing.wait_all_tasks_blocked()
            broker.stop()

    with pytest.RaisesGroup(StoppedAtStart):
        trio.run(main)


def test_logs_that_were_not_checked_are_not_vouched_for(tmp_path, monkeypatch):
    run_until_stopped(broker_in(tmp_path))
    mark = tmp_path / CLEAN_SHUTDOWN_FILE
    assert mark.exists()
    mark.unlink()  # as after a crash
    broker = broker_in(tmp_path)
    open_logs = Broker._open_logs

    def stop_then(self, *arguments):
        self.stop()
        return open_logs(self, *arguments)

    monkeypatch.setattr(Broker, "_open_logs", stop_then)
    with pytest.RaisesGroup(StoppedAtStart):
        run_until_stopped(broker)
    assert not mark.exists()
    monkeypatch.undo()
    run_until_stopped(broker_in(tmp_path))
    assert mark.exists()


class Store(EmbeddedMetastore):
    """An embedded store in the place of ZooKeeper."""

    session_timeout_s = 6.0

    async def sync(self) -> None:
        await trio.lowlevel.checkpoint()


def test_a_stop_is_not_clean_while_the_cluster_has_not_heard_of_an_unclean_one(
    tmp_path, monkeypatch
):
    """SAFETY rule 6: crashed, started, stopped before it was registered: no clean life."""

    @asynccontextmanager
    async def connect(*_arguments):
        async with open_embedded(tmp_path / "metastore.sqlite") as opened:
            opened.__class__ = Store
            yield opened

    monkeypatch.setattr("trioq.cluster.connect.connect", connect)
    mark = tmp_path / "data" / CLEAN_SHUTDOWN_FILE

    def cluster_broker() -> Broker:
        return broker_in(tmp_path / "data", metastore="zookeeper://127.0.0.1:1")

    run_until_stopped(cluster_broker())
    assert mark.exists()
    mark.unlink()  # as after a crash
    with monkeypatch.context() as patch, pytest.RaisesGroup(StoppedAtStart):
        broker = cluster_broker()

        async def wait_for_the_old_session(_self):
            broker.stop()
            await trio.sleep_forever()

        patch.setattr(Membership, "_register", wait_for_the_old_session)
        run_until_stopped(broker)
    assert not mark.exists()
    run_until_stopped(cluster_broker())
    assert mark.exists()
