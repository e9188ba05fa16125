"""Where a ZooKeeper ensemble is, and how to be let in."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from trioq.errors import ConfigError
from trioq.metastore.store import check_path

DEFAULT_PORT: Final = 2181
_EXAMPLE: Final = "zookeeper://host:2181,host:2181/path"


@dataclass(frozen=True)
class ZooKeeperAddress:
    """Where the ensemble is, and how to be let in.

    `hosts` is "host:port,host:port"; `chroot` the path all nodes are below ("" for none), which
    is created. With `user` (SASL DIGEST-MD5) or a client certificate nodes are created readable
    and writable by that identity only. `ca_file` is a PEM file; without TLS all three are None.
    `handshake_timeout_s` is what one server gets to answer a new connection; None: a third of the
    session divided by the servers (see zookeeper_handshake.py).
    """

    hosts: str
    chroot: str = ""
    session_timeout_s: float = 18.0
    connect_timeout_s: float = 18.0
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    use_tls: bool = False
    ca_file: str | None = None
    certificate_file: str | None = None
    key_file: str | None = None
    handshake_timeout_s: float | None = None

    @classmethod
    def of_url(cls, url: str, **settings: Any) -> ZooKeeperAddress:
        """From "zookeeper://host:port,host:port/chroot"; ports default to 2181.

        `settings` are further fields. Raises ConfigError, naming what is wrong.
        """
        scheme, separator, rest = url.partition("://")
        if scheme != "zookeeper" or not separator:
            raise ConfigError(f"{url!r} is no ZooKeeper address; write {_EXAMPLE}")
        hosts, slash, chroot = rest.partition("/")
        chroot = (slash + chroot).rstrip("/")
        try:
            check_path(chroot or "/")
            ensemble = ",".join(_host_and_port(one) for one in hosts.split(","))
        except ValueError as error:
            raise ConfigError(f"{url!r}: {error}; write {_EXAMPLE}") from error
        return cls(ensemble, chroot, **settings)

    def described(self) -> str:
        """For messages: hosts and chroot."""
        return f"zookeeper://{self.hosts}{self.chroot}"

    def unreached(self, *, was_connected: bool, last: str) -> str:
        """What to say when nothing could be done there within `connect_timeout_s`.

        `last` is what the client complained of last, empty if of nothing.
        """
        said = f" (last: {last})" if last else ""
        within = f"within {self.connect_timeout_s:g} s"
        if was_connected:
            hint = "is a majority of the servers running? Their logs say more"
            if self.user is not None:
                hint += "; zookeeper.user needs servers with authProvider.sasl and a JAAS file"
            return f"ZooKeeper at {self.hosts} broke each connection {within}: {hint}{said}"
        hint = "start it, or correct the address"
        if self.use_tls:
            hint += "; with TLS the port is the servers' secureClientPort"
        return f"no ZooKeeper server answered at {self.hosts} {within}: {hint}{said}"


def _host_and_port(text: str) -> str:
    """With the default port where there is none. Raises ValueError."""
    host, separator, port = text.strip().rpartition(":")
    if not separator or (text.startswith("[") and text.endswith("]")):
        host, port = text.strip(), str(DEFAULT_PORT)
    if ":" in host and not (host.startswith("[") and host.endswith("]")):
        raise ValueError(f"{text!r} is no host and port; an IPv6 address stands in brackets")
    if not host or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
        raise ValueError(f"{text!r} is no host and port")
    return f"{host}:{port}"
