"""Which API a request belongs to, and in which version both sides can speak it."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Final, NamedTuple

from trioq.errors import UnsupportedByBroker
from trioq.wire.api_keys import ApiKey
from trioq.wire.schema import Message

_KEYS: Final[Mapping[str, int]] = {
    "offset_commit": 8,
    "offset_fetch": 9,
    "join_group": 11,
    "heartbeat": 12,
    "leave_group": 13,
    "sync_group": 14,
    "describe_groups": 15,
    "list_groups": 16,
    "sasl_handshake": 17,
    "sasl_authenticate": 36,
    "delete_groups": 42,
    "offset_delete": 47,
    "consumer_group_heartbeat": 68,
    "consumer_group_describe": 69,
    **{key.name.lower(): int(key) for key in ApiKey},
}
"""API keys by the name of the module that declares the messages."""

_FIRST_VERSIONS: Final[Mapping[str, int]] = {"produce": 3}
"""The first version that the client can use, where the messages could express earlier ones."""


class ClientApi(NamedTuple):
    """One API as the client can speak it; versions are inclusive."""

    key: int
    name: str
    first_version: int
    last_version: int
    flexible_from: int

    def has_tagged_response_header(self, version: int) -> bool:
        return version >= self.flexible_from and self.key != ApiKey.API_VERSIONS


@functools.cache
def api_of(request_class: type[Message]) -> ClientApi:
    """The API whose request `request_class` is."""
    module = request_class.__module__.rpartition(".")[2]
    return ClientApi(
        key=_KEYS[module],
        name=request_class.__name__.removesuffix("Request"),
        first_version=max(request_class.FIRST_VERSION, _FIRST_VERSIONS.get(module, 0)),
        last_version=request_class.LAST_VERSION,
        flexible_from=request_class.FLEXIBLE_FROM,
    )


def common_version(
    api: ClientApi,
    served: Mapping[int, tuple[int, int]],
    *,
    at_least: int = 0,
    at_most: int | None = None,
) -> int:
    """The highest version that both the client and a broker with the `served` ranges know.

    Raises UnsupportedByBroker when there is none within the bounds.
    """
    first, last = served.get(api.key, (0, -1))
    version = min(last, api.last_version, api.last_version if at_most is None else at_most)
    least = max(first, api.first_version, at_least)
    if version < least:
        offers = f"versions {first} to {last}" if last >= 0 else "none"
        raise UnsupportedByBroker(
            f"{api.name} is needed in version {least} or later, and the broker serves {offers}: "
            "use a newer broker, or do without this call"
        )
    return version
