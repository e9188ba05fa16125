"""What the server counts."""

from __future__ import annotations

from trioq.metrics import Counters


class ServerCounters(Counters):
    """Counted by the reactor and its parts; `connections_open` and `*_longest_*` are gauges."""

    __slots__ = (
        "accept_pauses",
        "bytes_in",
        "bytes_out",
        "cold_reads",
        "connections_accepted",
        "connections_closed",
        "connections_open",
        "connections_refused",
        "disk_waits",
        "handler_failures",
        "loop_longest_stall_us",
        "loop_stalls",
        "passes",
        "protocol_violations",
        "requests",
        "responses",
        "scratch_buffers_abandoned",
    )

    accept_pauses: int
    bytes_in: int
    bytes_out: int
    cold_reads: int
    connections_accepted: int
    connections_closed: int
    connections_open: int
    connections_refused: int
    disk_waits: int
    handler_failures: int
    loop_longest_stall_us: int
    loop_stalls: int
    passes: int
    protocol_violations: int
    requests: int
    responses: int
    scratch_buffers_abandoned: int
