"""SaslHandshake (key 17): the mechanism that the client wants.

1: the tokens that follow come in SaslAuthenticate requests. Never flexible.
"""

from __future__ import annotations

from trioq.wire.kinds import INT16, STRING
from trioq.wire.schema import Message, array, wire


class SaslHandshakeRequest(Message, versions=(0, 1)):
    mechanism: str = wire(STRING, default="")


class SaslHandshakeResponse(Message, versions=(0, 1)):
    error_code: int = wire(INT16, default=0)
    mechanisms: list[str] = wire(array(STRING), factory=list)
