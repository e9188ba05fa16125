"""What connections may take of the broker, from its configuration and the process's limits."""

from __future__ import annotations

import resource
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trioq.config import BrokerConfig

_FD_RESERVE = 128  # descriptors for the metastore, the loop itself, regions in flight, at least
_FD_SHARE = 0.6  # of the rest, what connections may use
_FD_LOG_SHARE = 0.3  # of the rest, what log files may use
_LEAST_DESCRIPTORS = 16  # of either
_UNLIMITED_DESCRIPTORS = 1_000_000


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds per connection and per broker; bytes and seconds."""

    max_frame_bytes: int = 100 * 1024 * 1024
    receive_budget_bytes: int = 512 * 1024 * 1024
    max_connections: int = 10_000
    max_connections_per_ip: int = 10_000
    idle_s: float = 600.0
    frame_s: float = 30.0
    """A frame once begun must be whole after this long, plus a second per MiB."""

    send_s: float = 30.0
    """A response must go on being taken at least this often."""

    max_parked_requests: int = 256
    max_parked_bytes: int = 100 * 1024 * 1024
    max_queued_bytes: int = 16 * 1024 * 1024

    @classmethod
    def of(cls, config: BrokerConfig, *, max_open_files: int | None = None) -> Limits:
        """The limits that `config` asks for, as far as the process's descriptors allow.

        `max_open_files` is the soft limit of file descriptors, asked of the system when
        None.
        """
        room = _descriptors(max_open_files, _FD_SHARE)
        return cls(
            max_frame_bytes=config.socket_request_max_bytes,
            receive_budget_bytes=max(
                config.queued_max_request_bytes, config.socket_request_max_bytes
            ),
            max_connections=min(config.max_connections, room),
            max_connections_per_ip=config.max_connections_per_ip,
            idle_s=config.connections_max_idle_ms / 1000,
            frame_s=config.request_receive_timeout_ms / 1000,
            send_s=config.response_send_timeout_ms / 1000,
            max_parked_requests=config.connection_max_in_flight_requests,
            max_parked_bytes=config.connection_max_in_flight_bytes,
            max_queued_bytes=config.connection_max_queued_response_bytes,
        )


def most_log_files(config: BrokerConfig, *, max_open_files: int | None = None) -> int:
    """How many log files may stay open: log.max.open.files, or what descriptors allow.

    `max_open_files` as in `Limits.of`.
    """
    if config.log_max_open_files > 0:
        return config.log_max_open_files
    return _descriptors(max_open_files, _FD_LOG_SHARE)


def _descriptors(max_open_files: int | None, share: float) -> int:
    """The share of the process's descriptors; those of the system when None is given."""
    if max_open_files is None:
        max_open_files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if max_open_files == resource.RLIM_INFINITY:
        max_open_files = _UNLIMITED_DESCRIPTORS
    return max(_LEAST_DESCRIPTORS, int((max_open_files - _FD_RESERVE) * share))
