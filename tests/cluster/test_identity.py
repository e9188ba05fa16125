"""Who a broker is: one process for each id, and a data directory that knows whose it is."""

from __future__ import annotations

import subprocess

from tests.cluster.harness import Cluster, ClusterBroker


def refused(broker: ClusterBroker) -> str:
    """Start it, which must fail; the sentence that it says."""
    done = subprocess.run(broker.command(), capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1, done
    assert done.stdout == "", "it got ready"
    assert "Traceback" not in done.stderr
    (sentence,) = [line for line in done.stderr.splitlines() if line.startswith("trioq: ")]
    return sentence


def test_a_second_broker_with_the_same_id_is_refused(cluster: Cluster):
    first = cluster.brokers[2]
    sentence = refused(cluster.twin(2))
    assert "broker id 2 is taken by a broker on host" in sentence
    assert first.running
    cluster.until_known()
