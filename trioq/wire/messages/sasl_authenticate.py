"""SaslAuthenticate (key 36): one token of the SASL exchange.

1: how long the session lasts before it has to be authenticated again (KIP-368).
"""

from __future__ import annotations

from trioq.wire.kinds import BYTES, INT16, INT64, STRING
from trioq.wire.schema import Message, wire


class SaslAuthenticateRequest(Message, versions=(0, 2), flexible=2):
    auth_bytes: bytes = wire(BYTES, default=b"")


class SaslAuthenticateResponse(Message, versions=(0, 2), flexible=2):
    error_code: int = wire(INT16, default=0)
    error_message: str | None = wire(STRING, default=None, nullable=0)
    auth_bytes: bytes = wire(BYTES, default=b"")
    session_lifetime_ms: int = wire(INT64, default=0, since=1, ignorable=True)
