"""Decodes and encodes wire messages by plans, natively.

What a message looks like is declared once, in trioq.wire; trioq.wire.hot turns a declaration and
a version into a plan. What comes out of decoding is the declared class itself.
"""

from typing import Any

from trioq._native.wire_plan import StructPlan, Tables

class MessagePlan:
    """One message in one version."""

    def __init__(
        self, body: StructPlan, name: str, version: int, tables: Tables, *, max_elements: int
    ) -> None:
        """`max_elements` bounds what all arrays of one message may have together, on decode."""

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
