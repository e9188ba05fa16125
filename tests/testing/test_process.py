"""SubprocessBroker: its life and its ends; the fixtures that share one."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import threading

import pytest

from tests.testing.clients import produce
from trioq.errors import StartupError
from trioq.testing import SubprocessBroker
from trioq.testing.process import _environment

VALUES = [b"%d" % number for number in range(50)]


def values(broker, topic):
    return [record.value for record in broker.records(topic)]


@pytest.fixture(scope="module")
def own():
    with SubprocessBroker(settings={"num.partitions": "3"}) as broker:
        yield broker


def test_life(own):
    topic = own.create_topic()
    produce(own.address, topic, VALUES)
    address, pid = own.address, own.pid
    assert own.is_running
    own.restart()
    assert (own.address, own.is_running) == (address, True)
    assert own.pid != pid
    assert values(own, topic) == VALUES


def test_killed_for_real(own):
    topic = own.create_topic()
    assert produce(own.address, topic, VALUES) == [None] * 50
    pid = own.pid
    own.crash()
    assert not own.is_running
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    own.crash()
    own.stop()
    own.start()
    assert values(own, topic) == VALUES
    assert '"event"' in own.log()


def test_paused(own):
    topic = own.create_topic()
    done = threading.Event()

    def write():
        produce(own.address, topic, VALUES)
        done.set()

    own.pause()
    writer = threading.Thread(target=write)
    writer.start()
    assert not done.wait(0.1)
    own.resume()
    assert done.wait(30)
    writer.join()
    own.resume()
    own.pause()
    own.restart()
    assert values(own, topic) == VALUES


def test_settings(own):
    produce(own.address, "made-by-default", VALUES)
    assert set(own.end_offsets("made-by-default")) == {0, 1, 2}


def test_nothing_is_left():
    broker = SubprocessBroker()
    with broker, pytest.raises(RuntimeError, match="started already"):
        broker.start()
    assert not broker.data_dir.parent.exists()
    assert not broker.log_path.exists()
    assert broker.log() == ""
    for call in (broker.pause, lambda: broker.pid):
        with pytest.raises(RuntimeError, match="does not run"):
            call()
    broker.close()


def test_a_refusal_to_start_says_why(own):
    with pytest.raises(StartupError, match="in use by another broker"):
        SubprocessBroker(data_dir=own.data_dir).__enter__()
    with pytest.raises(StartupError, match="num.partitions=many is not valid"):
        SubprocessBroker(settings={"num.partitions": "many"}).__enter__()


def test_an_end_that_is_not_clean_is_told():
    broker = SubprocessBroker().start()
    try:
        os.kill(broker.pid, signal.SIGKILL)
        with pytest.raises(AssertionError, match="ended with status -9"):
            broker.stop()
        assert not broker.is_running
    finally:
        broker.close()


ORPHAN = """
import os, signal
from trioq.testing import SubprocessBroker
broker = SubprocessBroker(data_dir={directory!r}).start()
print(broker.pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_the_broker_ends_with_the_test_process(tmp_path):
    """Its standard output, which it shares with nobody else, closes when it is gone."""
    parent = subprocess.run(
        [sys.executable, "-c", ORPHAN.format(directory=str(tmp_path))],
        capture_output=True,
        check=False,
        env=_environment(),
        timeout=60,
    )
    assert parent.returncode == -signal.SIGKILL
    pid = int(parent.stdout)
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    except AttributeError:
        pytest.skip("the system has no pidfd")
    with os.fdopen(handle):
        assert select.select([handle], [], [], 30)[0]


# ---- fixtures


def test_the_shared_broker_and_a_topic(trioq_broker, trioq_topic):
    assert trioq_topic.startswith("test_the_shared_broker_and_a_topic-")
    produce(trioq_broker.address, trioq_topic, VALUES)
    assert values(trioq_broker, trioq_topic) == VALUES


def test_a_broker_of_the_tests_own(trioq_in_process_broker):
    assert trioq_in_process_broker.is_running
    assert trioq_in_process_broker.image.topics == {}
