"""What every group API checks before it asks the coordinator: ids, and how much is kept."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from trioq.errors import InvalidGroupId, InvalidRequest
from trioq.metastore.group_layout import MAX_GROUP_ID_BYTES

if TYPE_CHECKING:
    from trioq.server.context import Request

# A member is kept whole, encoded in up to group_layout.MAX_MEMBER_BYTES; these fit together.
MAX_PROTOCOLS_BYTES: Final = 72 * 1024
"""What a member's protocols may have together: their names, and its metadata for each."""

MAX_ASSIGNMENT_BYTES: Final = 42 * 1024
"""What a member's part of a leader's plan may have: ten thousand partitions of a topic."""

MAX_SUBSCRIPTION_BYTES: Final = 72 * 1024
"""What the topics, the regular expression and the rack of a member may have together."""

_MAX_CLIENT_ID_LENGTH: Final = 249


def is_group_id(group_id: str) -> bool:
    """Whether there can be a group of that id."""
    # Most are ASCII, one byte each: only long ones are measured.
    length = len(group_id)
    return 0 < length <= MAX_GROUP_ID_BYTES and (
        length * 4 <= MAX_GROUP_ID_BYTES or len(group_id.encode()) <= MAX_GROUP_ID_BYTES
    )


def require_group_id(group_id: str) -> None:
    """Raises InvalidGroupId for an empty id, or one that is too long."""
    if not is_group_id(group_id):
        raise InvalidGroupId(
            f"a group id has from 1 to {MAX_GROUP_ID_BYTES} bytes, this one "
            f"{len(group_id.encode())}"
        )


def require_instance_id(instance_id: str | None) -> None:
    """Raises InvalidRequest for the id of a static member that cannot be one."""
    if instance_id is not None and not is_group_id(instance_id):
        raise InvalidRequest(
            f"a group instance id has from 1 to {MAX_GROUP_ID_BYTES} bytes, this one "
            f"{len(instance_id.encode())}"
        )


def require_at_most(what: str, size_bytes: int, most_bytes: int) -> None:
    """Raises InvalidRequest where `what` of a member is too large to be kept."""
    if size_bytes > most_bytes:
        raise InvalidRequest(f"{what} of a member has {size_bytes} bytes, more than {most_bytes}")


def text_bytes(texts: Iterable[str]) -> int:
    """What texts count as they are kept: characters beyond ASCII take six bytes."""
    return len(json.dumps(list(texts)))


def client_id(request: Request) -> str:
    """The client id as a member is shown with it: as long as any name may be."""
    return (request.client_id or "")[:_MAX_CLIENT_ID_LENGTH]


def client_host(request: Request) -> str:
    """The client's address as Kafka's tools show it, with a slash."""
    return f"/{request.connection.peer_host}"
