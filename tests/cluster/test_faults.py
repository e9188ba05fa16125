"""Every fault on a real cluster under load: what was acknowledged stays, once, in order.

`python -m tests.cluster` runs them over and over.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cluster import network
from tests.cluster.faults import FAULTS
from tests.cluster.harness import Cluster
from tests.cluster.scene import under_load


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_nothing_acknowledged_is_lost(cluster: Cluster, topic: str, tmp_path: Path, fault):
    if fault.cuts_network and (reason := network.missing()):
        pytest.skip(reason)
    with under_load(cluster, topic, tmp_path, errors=fault.errors) as scene:
        fault.strike(scene)
