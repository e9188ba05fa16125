"""A broker in the test's process touches nothing of it and leaves nothing in it."""

from __future__ import annotations

import gc
import signal
import tempfile
import threading
import time
from pathlib import Path

import pytest

from tests.testing.clients import produce
from trioq.testing import InProcessBroker

VALUES = [b"%d" % number for number in range(50)]
FDS = Path("/proc/self/fd")


def settings():
    handlers = [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM, signal.SIGPIPE)]
    return handlers, signal.set_wakeup_fd(-1), gc.get_threshold(), gc.get_freeze_count()


def belongings():
    """Threads but Trio's idle ones, temporary files, descriptors."""
    gc.collect()
    threads = {one for one in threading.enumerate() if not one.name.startswith("Trio thread")}
    descriptors = len(list(FDS.iterdir())) if FDS.is_dir() else 0
    return threads, list(Path(tempfile.gettempdir()).iterdir()), descriptors


@pytest.mark.parametrize("end", ["stop", "crash", "close"])
def test_a_life(end, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with InProcessBroker() as broker:  # what is imported and made once
        produce(broker.address, "t", VALUES)
        broker.records("t")
    settings_before, before = settings(), belongings()
    with InProcessBroker() as broker:
        assert broker.is_running
        produce(broker.address, "t", VALUES)
        assert len(broker.records("t")) == len(VALUES)
        assert settings() == settings_before
        getattr(broker, end)()
        assert not broker.is_running
    assert settings() == settings_before
    deadline = time.monotonic() + 20  # of tests before this one, something may be ending yet
    while belongings() != before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert belongings() == before
