"""Whose files these are: `meta.properties` of a log dir and `partition.metadata` of a partition.

Both are Kafka's. Ids in text are 22 characters of base64url, as Kafka prints a UUID.
"""

from __future__ import annotations

import base64
import binascii
import re
import uuid
from dataclasses import dataclass
from typing import Final

from trioq.errors import TrioqError

META_PROPERTIES_FILE: Final = "meta.properties"
PARTITION_METADATA_FILE: Final = "partition.metadata"

_META_VERSION: Final = 1
_PARTITION_VERSION: Final = 0
_ID_CHARACTERS: Final = 22

_PROPERTY_ESCAPES: Final = {"t": "\t", "n": "\n", "r": "\r", "f": "\f"}
_PROPERTY: Final = re.compile(
    r"(?P<key>(?:[^\\\s=:]|\\.)+)[ \t\f]*(?:[=:][ \t\f]*)?(?P<value>.*)", re.DOTALL
)
_ESCAPED: Final = re.compile(r"\\(u[0-9A-Fa-f]{4}|.)", re.DOTALL)


class CorruptIdentity(TrioqError):
    """`meta.properties` or `partition.metadata` cannot be read; the message names the file."""


@dataclass(frozen=True, slots=True)
class LogDirIdentity:
    """What `meta.properties` says of a log dir."""

    cluster_id: str
    node_id: int
    directory_id: uuid.UUID

    def encode(self) -> bytes:
        """The content of the file."""
        fields = {
            "version": str(_META_VERSION),
            "cluster.id": self.cluster_id,
            "node.id": str(self.node_id),
            "directory.id": format_id(self.directory_id),
        }
        return "".join(f"{key}={_escape(value)}\n" for key, value in fields.items()).encode("ascii")

    @classmethod
    def decode(cls, data: bytes, location: str) -> LogDirIdentity:
        """Read the file; `broker.id` (Kafka's version 0) stands for `node.id`.

        Raises:
            CorruptIdentity: a field is missing or wrong.

        """
        fields = parse_properties(data, location)
        version = fields.get("version", "")
        if version not in ("0", str(_META_VERSION)):
            raise CorruptIdentity(f"{location}: version {version!r}, known are 0 and 1")
        node_id = fields.get("node.id", fields.get("broker.id", ""))
        if not re.fullmatch("[0-9]{1,10}", node_id):
            raise CorruptIdentity(f"{location}: node.id {node_id!r} is not a broker id")
        cluster_id = fields.get("cluster.id", "")
        if not cluster_id:
            raise CorruptIdentity(f"{location}: cluster.id is missing")
        try:
            directory_id = parse_id(fields.get("directory.id", ""))
        except ValueError as error:
            raise CorruptIdentity(f"{location}: directory.id: {error}") from None
        return cls(cluster_id, int(node_id), directory_id)


def encode_partition_metadata(topic_id: uuid.UUID) -> bytes:
    """The content of `partition.metadata`."""
    return f"version: {_PARTITION_VERSION}\ntopic_id: {format_id(topic_id)}".encode("ascii")


def decode_partition_metadata(data: bytes, location: str) -> uuid.UUID:
    """The topic id in `partition.metadata`.

    Raises:
        CorruptIdentity: not that file, or the zero id.

    """
    found = re.fullmatch(rb"version:\s+(\d{1,5})\r?\ntopic_id:\s+(\S+)\s*", data)
    if found is None:
        raise CorruptIdentity(f"{location}: not two lines, version and topic_id: {data[:80]!r}")
    try:
        topic_id = parse_id(found[2].decode("ascii", "replace"))
    except ValueError as error:
        raise CorruptIdentity(f"{location}: topic_id: {error}") from None
    if topic_id.int == 0:
        raise CorruptIdentity(f"{location}: topic_id is the zero id")
    return topic_id


def format_id(value: uuid.UUID) -> str:
    """A UUID as Kafka prints it: base64url without padding, 22 characters."""
    return base64.urlsafe_b64encode(value.bytes)[:_ID_CHARACTERS].decode("ascii")


def parse_id(text: str) -> uuid.UUID:
    """The UUID that Kafka prints as `text`.

    Raises:
        ValueError: not 16 bytes in base64url.

    """
    if not re.fullmatch("[A-Za-z0-9_-]{22}(==)?", text):
        raise ValueError(f"{text[:80]!r} is not an id of 22 base64url characters")
    try:
        return uuid.UUID(bytes=base64.b64decode(text[:_ID_CHARACTERS] + "==", altchars=b"-_"))
    except binascii.Error as error:
        raise ValueError(f"{text!r} is not an id: {error}") from None


def parse_properties(data: bytes, location: str) -> dict[str, str]:
    """A Java properties file: comments, `=` or `:` or a space between, escapes, continued lines.

    The last value of a key counts. Java reads such files as UTF-8 or Latin-1; here UTF-8.

    Raises:
        CorruptIdentity: not UTF-8.

    """
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise CorruptIdentity(f"{location}: byte {error.start} is not UTF-8") from None
    fields: dict[str, str] = {}
    continued = ""
    for raw in re.split(r"\r\n|\r|\n", text):
        line = raw.lstrip(" \t\f")
        if not continued and (not line or line[0] in "#!"):
            continue
        line = continued + line
        backslashes = len(line) - len(line.rstrip("\\"))
        if backslashes % 2:
            continued = line[:-1]
            continue
        continued = ""
        _store_property(fields, line)
    if continued:
        _store_property(fields, continued)
    return fields


def _store_property(fields: dict[str, str], line: str) -> None:
    found = _PROPERTY.fullmatch(line)
    if found is not None:
        fields[_unescape(found["key"])] = _unescape(found["value"])


def _unescape(text: str) -> str:
    def character(found: re.Match[str]) -> str:
        escaped = found[1]
        if len(escaped) > 1:
            return chr(int(escaped[1:], 16))
        return _PROPERTY_ESCAPES.get(escaped, escaped)

    units = _ESCAPED.sub(character, text)  # two escapes may be the halves of one character
    return units.encode("utf-16-be", "surrogatepass").decode("utf-16-be", "replace")


def _escape(text: str) -> str:
    """A value that every reader of properties files gives back unchanged."""
    escaped = []
    for character in text:
        if character in "\\=:#! \t":
            escaped.append("\\" + character)
        elif " " < character <= "~":
            escaped.append(character)
        else:
            units = character.encode("utf-16-be", "surrogatepass")
            escaped += [f"\\u{units[i]:02x}{units[i + 1]:02x}" for i in range(0, len(units), 2)]
    return "".join(escaped)
