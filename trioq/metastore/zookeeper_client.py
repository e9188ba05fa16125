"""Making kazoo's client, and what it says beside its answers."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any, Final

from kazoo.client import KazooClient, KazooState
from kazoo.retry import KazooRetry
from kazoo.security import CREATOR_ALL_ACL, OPEN_ACL_UNSAFE

from trioq import logs
from trioq.metastore.zookeeper_address import ZooKeeperAddress
from trioq.metastore.zookeeper_handshake import BoundedHandler, HandshakePatience

_log = logs.get_logger("trioq.metastore")

_RETRY_FIRST_S: Final = 0.05
_RETRY_MAX_S: Final = 1.0
_MOST_MESSAGES: Final = 100

_GIVING_UP: Final = "Failed connecting"
"""What kazoo says because it was stopped."""


_REPEAT_S: Final = 30.0
"""While nobody answers kazoo complains once a second: the same is logged so often at most."""


class Told(logging.Handler):
    """What kazoo complains of: into our log, and the last of it for an error's message."""

    def __init__(self, now_s: Callable[[], float] = time.monotonic) -> None:
        super().__init__(logging.WARNING)
        self.last = ""
        self._now_s = now_s
        self._logged_s: dict[str, float] = {}

    def emit(self, record: logging.LogRecord) -> None:
        """Any thread."""
        message = record.getMessage()
        if message.startswith(_GIVING_UP):
            return
        self.last = message
        now_s = self._now_s()
        if now_s - self._logged_s.get(message, -_REPEAT_S) >= _REPEAT_S:
            if len(self._logged_s) >= _MOST_MESSAGES:
                self._logged_s.clear()
            self._logged_s[message] = now_s
            _log.warning("zookeeper client", reason=message)


def client_of(address: ZooKeeperAddress, told: Told) -> KazooClient:
    logger = logging.Logger("kazoo", logging.WARNING)  # noqa: LOG001  ours alone, not the process's
    logger.addHandler(told)
    is_named = address.user is not None or address.certificate_file is not None
    sasl = {
        "mechanism": "DIGEST-MD5",
        "username": address.user,
        "password": address.password,
    }
    patience = HandshakePatience(
        address.session_timeout_s,
        address.hosts.count(",") + 1,
        first_s=address.handshake_timeout_s,
    )
    client = KazooClient(
        hosts=address.hosts,
        timeout=address.session_timeout_s,
        handler=BoundedHandler(patience),
        default_acl=CREATOR_ALL_ACL if is_named else OPEN_ACL_UNSAFE,
        sasl_options=sasl if address.user is not None else None,
        connection_retry=KazooRetry(
            max_tries=-1, delay=_RETRY_FIRST_S, max_delay=_RETRY_MAX_S, ignore_expire=False
        ),
        use_ssl=address.use_tls,
        ca=address.ca_file,
        certfile=address.certificate_file,
        keyfile=address.key_file,
        check_hostname=address.use_tls,
        logger=logger,
    )

    def on_state(state: str) -> None:
        if state == KazooState.LOST:
            patience.session_ended()

    client.add_listener(on_state)
    loop = client._connection.zk_loop  # noqa: SLF001  kazoo keeps it to itself

    def watched_loop() -> None:
        """Ends when an answer is not the one kazoo waits for, as was seen after a pause."""
        try:
            loop()
        except RuntimeError as error:
            told.last = str(error)
            _log.warning("the zookeeper client failed and begins anew", reason=str(error))

    client._connection.zk_loop = watched_loop  # noqa: SLF001
    return client


class Negotiated:
    """The session timeout that the server has granted: its limits may be others than was asked.

    Written in kazoo's thread before the first answer of a session is read; any thread reads it.
    """

    def __init__(self, client: KazooClient, asked_s: float) -> None:
        self.session_timeout_s = asked_s
        self._asked_s = asked_s
        self._patience: HandshakePatience = client.handler.patience
        self._connect = client._connection._connect  # noqa: SLF001  kazoo keeps it to itself
        client._connection._connect = self._noted  # noqa: SLF001

    def _noted(self, *server: Any) -> tuple[float, float]:
        read_timeout_ms, connect_timeout_ms = self._connect(*server)
        # kazoo reads for two thirds of what was granted.
        granted_s = round(read_timeout_ms * 1.5 / 1000, 3)
        if granted_s not in {self._asked_s, self.session_timeout_s}:
            _log.warning(
                "ZooKeeper grants another session timeout than was asked for",
                asked_s=self._asked_s,
                granted_s=granted_s,
                limits="2 to 20 of the servers' ticks, or minSessionTimeout, maxSessionTimeout",
            )
        self.session_timeout_s = granted_s
        self._patience.session_timeout_s = granted_s
        return read_timeout_ms, connect_timeout_ms
