"""What the ZooKeeper client says beside its answers."""

from __future__ import annotations

import logging

import pytest

from trioq.logs import captured

pytest.importorskip("kazoo")

from trioq.metastore.zookeeper_client import Told


def test_the_same_complaint_is_logged_twice_a_minute_at_most():
    now_s = 1000.0
    told = Told(lambda: now_s)
    logger = logging.Logger("kazoo")  # noqa: LOG001  as the client's
    logger.addHandler(told)
    with captured() as lines:
        for _ in range(120):
            logger.warning("Connection dropped: %s", "refused")
            now_s += 1
        logger.warning("Session has expired")
        logger.info("Zookeeper connection lost")
        logger.warning("Failed connecting to Zookeeper within the connection retry policy.")
    assert [line["reason"] for line in lines] == [
        *["Connection dropped: refused"] * 4,
        "Session has expired",
    ]
    assert told.last == "Session has expired"


def test_what_is_remembered_is_bounded():
    told = Told(lambda: 0.0)
    with captured():
        for number in range(1000):
            record = logging.LogRecord("k", logging.WARNING, "", 0, f"dropped {number}", (), None)
            told.emit(record)
    assert len(told._logged_s) <= 100
