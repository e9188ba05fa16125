"""Decodes and encodes wire messages by plans, natively.

What a message looks like is declared once, in trioq.wire; trioq.wire.hot turns a declaration and
a version into a plan. Instances are made and read through the slots of their classes, so what
comes out is the declared class itself.
"""

from collections.abc import Callable, Iterable
from typing import Any

class StructPlan:
    """One struct class in one version; `fields` are all it declares, in wire order.

    Raises TypeError when a field is not a slot of exactly `cls`, or structs nest too deeply.
    """

    def __init__(self, cls: type, fields: Iterable[FieldPlan], *, flexible: bool) -> None: ...

class FieldPlan:
    """One field in one version.

    `descriptor` is the slot's (a member descriptor, else TypeError). `kind` and `element` name
    wire types as trioq.wire.kinds does, or "struct" and "array"; `element` is empty unless the
    kind is "array". `tag` is -1 for a field that is not tagged.
    """

    name: str
    tag: int
    def __init__(
        self,
        descriptor: object,
        *,
        kind: str,
        element: str,
        struct: StructPlan | None,
        element_least_bytes: int,
        present: bool,
        nullable: bool,
        ignorable: bool,
        tag: int,
        default: object,
        is_list_by_default: bool,
    ) -> None: ...

class Tables:
    """What the plans need of higher floors: functions, and the error that encoding raises."""

    def __init__(
        self,
        *,
        uuid_from_bytes: Callable[[bytes], Any],
        records_length: Callable[[Any], int],
        splice: Callable[[bytearray, Any, Any], None],
        refusal: type[Exception],
    ) -> None: ...

class MessagePlan:
    """One message in one version."""

    name: str
    version: int
    def __init__(self, body: StructPlan, name: str, version: int, tables: Tables) -> None: ...
    def decode(self, buf: memoryview, position: int, end: int) -> Any:
        """The message in buf[position:end]; `records` in it borrow `buf`.

        Raises ProtocolViolation, naming message, version, field and byte, unless the bytes are
        exactly one message; a count or length is compared with the bytes left before anything is
        allocated. ValueError if [position, end) is not within `buf`.
        """

    def encode(self, message: Any, out: bytearray, parts: list[Any] | None) -> None:
        """Append `message` to `out`; `records` go through `splice(out, parts, records)`.

        Raises the `refusal` of the tables, naming the field, for a value that the version cannot
        express; `out` and `parts` then hold an undefined beginning.
        """
