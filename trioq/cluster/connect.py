"""From the configuration to the metastore of a cluster."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from trioq.clock import Clock
from trioq.config import BrokerConfig
from trioq.errors import ConfigError, StartupError
from trioq.metastore.zookeeper_address import ZooKeeperAddress

if TYPE_CHECKING:
    from trioq.metastore.zookeeper import ZooKeeperMetastore

_MS_PER_S: Final = 1000


def connect(config: BrokerConfig, clock: Clock) -> AbstractAsyncContextManager[ZooKeeperMetastore]:
    """The metastore that `config.metastore` names; entering connects.

    Raises ConfigError, and StartupError where kazoo is not installed; entering raises StartupError
    where no server answers within zookeeper.connection.timeout.ms.
    """
    try:
        from trioq.metastore.zookeeper import open_zookeeper  # noqa: PLC0415  may be missing
    except ImportError as error:
        if error.name is None or error.name.partition(".")[0] != "kazoo":
            raise
        raise StartupError(
            f"metastore={config.metastore} needs kazoo: pip install 'trioq[zookeeper]'"
        ) from error
    return open_zookeeper(address_of(config), clock)


def address_of(config: BrokerConfig) -> ZooKeeperAddress:
    """The ensemble, and how to be let in. Raises ConfigError."""
    session_ms = config.zookeeper_session_timeout_ms
    connection_ms = config.zookeeper_connection_timeout_ms
    return ZooKeeperAddress.of_url(
        config.metastore,
        session_timeout_s=session_ms / _MS_PER_S,
        connect_timeout_s=(session_ms if connection_ms is None else connection_ms) / _MS_PER_S,
        user=config.zookeeper_user,
        password=_password(config),
        use_tls=config.zookeeper_ssl_client_enable,
        ca_file=config.zookeeper_ssl_ca_location,
        certificate_file=config.zookeeper_ssl_certificate_location,
        key_file=config.zookeeper_ssl_key_location,
    )


def _password(config: BrokerConfig) -> str | None:
    path = config.zookeeper_password_file
    if path is None:
        return config.zookeeper_password
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"zookeeper.password.file={path} cannot be read: {error}") from error
    if not lines or not lines[0]:
        raise ConfigError(f"zookeeper.password.file={path} has no password in its first line")
    return lines[0]
