"""What a log takes from its topic's configuration."""

from __future__ import annotations

from typing import Protocol


class LogConfig(Protocol):
    """The settings that a log reads, by their names in trioq.config.TopicConfig, which is one."""

    @property
    def cleanup_policy(self) -> tuple[str, ...]: ...
    @property
    def file_delete_delay_ms(self) -> int: ...
    @property
    def flush_messages(self) -> int: ...
    @property
    def flush_ms(self) -> int: ...
    @property
    def flush_policy(self) -> str:
        """os, interval or commit."""
        ...

    @property
    def index_interval_bytes(self) -> int: ...
    @property
    def preallocate(self) -> bool: ...
    @property
    def retention_bytes(self) -> int:
        """-1 is no limit."""
        ...

    @property
    def retention_ms(self) -> int:
        """-1 is no limit."""
        ...

    @property
    def segment_bytes(self) -> int: ...
    @property
    def segment_index_bytes(self) -> int: ...
    @property
    def segment_jitter_ms(self) -> int: ...
    @property
    def segment_ms(self) -> int: ...
