"""Answers that are kept, encoded, for the next client that asks the same."""

import sys
from typing import Any, final

if sys.version_info >= (3, 12):
    from collections.abc import Buffer
else:
    from typing_extensions import Buffer

@final
class KeptAnswer:
    encoded: bytes
    """The body."""
    note: Any
    """What came with it: of ApiVersions the client's software."""

@final
class KeptAnswers:
    """A memo of a function of the listener, the version, the request's body and a `source`.

    The source is told apart by identity; with another one all is dropped, and when what is kept,
    with the requests, would be more than `max_bytes`.
    """

    def __init__(self, max_bytes: int) -> None: ...
    def find(self, source: object, listener: str, version: int, body: Buffer) -> KeptAnswer | None:
        """The answer, if it is kept."""

    def keep(
        self,
        source: object,
        listener: str,
        version: int,
        body: Buffer,
        encoded: bytes,
        note: object = None,
    ) -> None: ...
