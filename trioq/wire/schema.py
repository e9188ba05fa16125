"""How messages are declared: classes with one line per field, and the base they share.

    class FetchRequestTopic(Struct):
        topic: str = wire(STRING, default="", until=12, ignorable=True)
        topic_id: UUID = wire(UUID, default=ZERO_TOPIC_ID, since=13, ignorable=True)
        partitions: list[FetchRequestPartition] = wire(array(FetchRequestPartition), factory=list)

The annotation is what Python sees (type checkers synthesise a keyword-only constructor
from it, as for a dataclass); `wire()` is what the wire sees. Importing a declaration
only collects its fields: constructor, decoders and encoders are generated at first use,
the latter two per version.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Final, Self, dataclass_transform

from trioq.errors import ProtocolViolation
from trioq.wire.decoder import Decoder, generate_decoder
from trioq.wire.encoder import Encoder, generate_encoder
from trioq.wire.hot import message_plan
from trioq.wire.kinds import NEVER, UNBOUNDED, ArrayOf, Field, Kind, Primitive, StructSchema
from trioq.wire.primitives import EncodeError, Part

MAX_REQUEST_ELEMENTS: Final = 100_000
"""What all arrays of a request may have together: topics, partitions, names, and so on.

Elements of three bytes on the wire become objects of a few hundred in memory, and each takes
its time in a handler: without a bound a request of 100 MiB would take the broker's memory and
its loop. The largest that is asked for in earnest, ten thousand partitions, is far below.
"""


def wire(
    kind: Kind | type[Struct],
    *,
    default: object = None,
    factory: Callable[[], object] | None = None,
    since: int = 0,
    until: int = NEVER,
    nullable: int = NEVER,
    tag: int | None = None,
    ignorable: bool = False,
) -> Any:
    """Declare one field; `since`, `until` are its first and last version, inclusive.

    `nullable` is the first version in which the field may be null (None). `tag` makes it
    a tagged field: then a struct has the default None, which means "not sent". A field
    with a value is left out where a version lacks it if `ignorable`, else refused.
    Arrays take `factory=list`; everything else an immutable `default`.
    """
    return Field(
        name="",
        kind=_as_kind(kind),
        default=default,
        factory=factory,
        since=since,
        until=until,
        nullable_since=nullable,
        tag=tag,
        ignorable=ignorable,
    )


def array(element: Primitive | type[Struct]) -> ArrayOf:
    """The kind of an array of primitives or structs."""
    return ArrayOf(element if isinstance(element, Primitive) else element.SCHEMA)


def _as_kind(kind: Kind | type[Struct]) -> Kind:
    return kind.SCHEMA if isinstance(kind, StructType) else kind


@dataclass_transform(kw_only_default=True, field_specifiers=(wire,))
class StructType(type):
    """Turns the `wire()` lines of a class body into slots and a schema."""

    def __new__(
        cls, name: str, bases: tuple[type, ...], namespace: dict[str, Any], **options: Any
    ) -> Any:
        fields = tuple(
            namespace.pop(key)._replace(name=key)
            for key, value in list(namespace.items())
            if isinstance(value, Field)
        )
        namespace["__slots__"] = tuple(field.name for field in fields)
        made: Any = super().__new__(cls, name, bases, namespace, **options)
        made.SCHEMA = StructSchema(made, name, fields)
        return made


class Struct(metaclass=StructType):  # noqa: PLW1641  mutable, hence not hashable
    """A part of a message: fields by keyword, compared by value, mutable."""

    SCHEMA: ClassVar[StructSchema]

    def __init__(self, **values: object) -> None:
        _install_constructor(type(self))
        type(self).__init__(self, **values)

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return all(
            getattr(self, field.name) == getattr(other, field.name) for field in self.SCHEMA.fields
        )

    def __repr__(self) -> str:
        values = (f"{field.name}={getattr(self, field.name)!r}" for field in self.SCHEMA.fields)
        return f"{type(self).__name__}({', '.join(values)})"


def _install_constructor(cls: type[Struct]) -> None:
    """Give the class an __init__ of its own, written for its fields."""
    missing = object()
    values: dict[str, object] = {"MISSING": missing}
    parameters, lines = [], []
    for field in cls.SCHEMA.fields:
        name = field.name
        if field.factory is None:
            values[f"DEFAULT_{name}"] = field.default
            parameters.append(f"{name}=DEFAULT_{name}")
            lines.append(f"    self.{name} = {name}")
        else:
            values[f"make_{name}"] = field.factory
            parameters.append(f"{name}=MISSING")
            lines.append(f"    self.{name} = make_{name}() if {name} is MISSING else {name}")
    keywords = f", *, {', '.join(parameters)}" if parameters else ""
    source = "\n".join([f"def __init__(self{keywords}):", *(lines or ["    pass"])])
    exec(compile(source, f"<trioq.wire {cls.__name__}>", "exec"), values)  # noqa: S102  made from declarations alone
    type.__setattr__(cls, "__init__", values["__init__"])


class Message(Struct):
    """A request or response body.

    Declared with class keywords: `versions` are those that can be encoded and decoded
    (what is advertised is api_keys.py's business), `flexible` the first of them with
    compact lengths and tagged fields. A `hot` one has the native codec, the others have
    generated Python code. What is called ...Request, and what is `from_client`, is decoded
    within MAX_REQUEST_ELEMENTS.
    From `tail_from` on, bytes after the message are not looked at:
    for messages that a widespread client sends with something behind them.
    """

    FIRST_VERSION: ClassVar[int]
    LAST_VERSION: ClassVar[int]
    FLEXIBLE_FROM: ClassVar[int]
    _is_hot: ClassVar[bool]
    _tail_from: ClassVar[int]
    _max_elements: ClassVar[int]
    _decoders: ClassVar[dict[int, Decoder]]
    _encoders: ClassVar[dict[int, Encoder]]

    def __init_subclass__(
        cls,
        *,
        versions: tuple[int, int],
        flexible: int = NEVER,
        hot: bool = False,
        tail_from: int = NEVER,
        from_client: bool = False,
    ) -> None:
        assert tail_from == NEVER or not hot, "the native codec takes no tail"
        cls.FIRST_VERSION, cls.LAST_VERSION = versions
        cls.FLEXIBLE_FROM = flexible
        cls._is_hot = hot
        cls._tail_from = tail_from
        is_bounded = from_client or cls.__name__.endswith("Request")
        cls._max_elements = MAX_REQUEST_ELEMENTS if is_bounded else UNBOUNDED
        cls._decoders = {}
        cls._encoders = {}

    @classmethod
    def decode(cls, buf: memoryview, position: int, end: int, version: int) -> Self:
        """Decode the body in buf[position:end].

        Args:
            buf: at least `end` bytes; fields of kind records borrow it.
            position: start of the body, behind the header.
            end: where the body ends, exactly (but see `tail_from`).
            version: one the class declares.

        Raises:
            ProtocolViolation: the bytes are not exactly one message, or one with too many
                elements; names message, version, field and byte. Nothing is allocated by a
                claimed length alone.

        """
        decoder = cls._decoders.get(version)
        if decoder is None:
            if not cls.FIRST_VERSION <= version <= cls.LAST_VERSION:
                raise ProtocolViolation(f"{cls.__name__} has no version {version}")
            flexible = version >= cls.FLEXIBLE_FROM
            if cls._is_hot:
                plan = message_plan(
                    cls.SCHEMA, version, flexible=flexible, max_elements=cls._max_elements
                )
                decoder = plan.decode
            else:
                decoder = generate_decoder(
                    cls.SCHEMA,
                    version,
                    flexible=flexible,
                    tail=version >= cls._tail_from,
                    max_elements=cls._max_elements,
                )
            cls._decoders[version] = decoder
        message: Self = decoder(buf, position, end)
        return message

    def encode_into(self, out: bytearray, parts: list[Part] | None, version: int) -> None:
        """Append the body to `out`.

        With `parts`, `records` are not copied: they, and what `out` held before each,
        are moved to `parts`, and what comes behind the last is left in `out`. Without,
        they are copied.

        Raises:
            EncodeError: the version is unknown or cannot express a value, or a file
                region would have to be copied.

        """
        encoder = self._encoders.get(version)
        if encoder is None:
            if not self.FIRST_VERSION <= version <= self.LAST_VERSION:
                raise EncodeError(f"{type(self).__name__} has no version {version}")
            flexible = version >= self.FLEXIBLE_FROM
            if self._is_hot:
                encoder = message_plan(self.SCHEMA, version, flexible=flexible).encode
            else:
                encoder = generate_encoder(self.SCHEMA, version, flexible=flexible)
            self._encoders[version] = encoder
        encoder(self, out, parts)

    def encode(self, version: int) -> bytes:
        """The body as bytes; `records` are copied. Raises as `encode_into`."""
        out = bytearray()
        self.encode_into(out, None, version)
        return bytes(out)

    def encode_parts(self, version: int) -> list[Part]:
        """The body as pieces to send in order; `records` are pieces of their own, not copied.

        File regions are passed on with their reference. Raises as `encode_into`.
        """
        out = bytearray()
        parts: list[Part] = []
        self.encode_into(out, parts, version)
        if out:
            parts.append(bytes(out))
        return parts
