"""Generates the function that decodes one version of one message.

The function is straight-line code with one loop per array: adjacent fields of fixed
size, and the length prefix behind them, are read by one struct call. What it reads is
never trusted: lengths and counts are compared with the bytes left before anything is
allocated, and any failure becomes a ProtocolViolation with message, version, field and
position (taken from the line that failed, so that good bytes pay nothing for it).
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

from trioq.wire.kinds import (
    BOOL,
    BYTES,
    LENGTH_BYTES,
    STRING,
    UNBOUNDED,
    UUID,
    ArrayOf,
    Field,
    Primitive,
    StructSchema,
    element_field,
)
from trioq.wire.primitives import MalformedError, read_uvarint, uuid_from_bytes, violation
from trioq.wire.source import Source, joined

Decoder = Callable[[memoryview, int, int], Any]


def generate_decoder(
    schema: StructSchema,
    version: int,
    *,
    flexible: bool,
    tail: bool = False,
    max_elements: int = UNBOUNDED,
) -> Decoder:
    """The decoder of `schema` in `version`: (buf, position, end) -> instance.

    It raises ProtocolViolation unless the bytes in [position, end) are exactly one
    message, or begin with one if `tail`; buf must hold at least `end` bytes and is
    borrowed by `records` fields. All arrays of a message together may have `max_elements`.
    """
    generator = _Generator(schema, version, flexible=flexible, tail=tail, max_elements=max_elements)
    return generator.generate()


class _Generator:
    def __init__(
        self,
        schema: StructSchema,
        version: int,
        *,
        flexible: bool,
        tail: bool,
        max_elements: int,
    ) -> None:
        self.schema = schema
        self.version = version
        self.flexible = flexible
        self.tail = tail
        self.max_elements = max_elements
        self.source = Source()
        self.after_read: list[str] = []
        self.source.values.update(
            new=object.__new__,
            struct_error=struct.error,
            MalformedError=MalformedError,
            read_uvarint=read_uvarint,
            uuid_from_bytes=uuid_from_bytes,
            violation=violation,
            PATHS=self.source.paths,
            NAME=schema.name,
        )

    def generate(self) -> Decoder:
        source = self.source
        with source.block("def decode(buf, position, end):"):
            source.line("p = position")
            source.line("v = buf[:end]")
            source.line(f"elements_left = {self.max_elements}")
            with source.block("try:"):
                self.struct(self.schema, "message", 0)
                if not self.tail:
                    source.line("if p != end: raise MalformedError(f'{end - p} bytes left over')")
                source.line("return message")
            with source.block("except (struct_error, IndexError, ValueError) as error:"):
                source.line(
                    f"raise violation(NAME, {self.version}, PATHS, error, p - position) from None"
                )
        return source.compile("decode")

    # Reading ---------------------------------------------------------------------------

    def take(self, code: str, target: str) -> None:
        """Read one item of fixed size, together with its neighbours, into `target`."""
        self.source.pending.append((code, target))

    def flush(self) -> None:
        """Read everything held back."""
        source = self.source
        pending, source.pending = source.pending, []
        if pending:
            unpack, size = source.struct(joined(pending), "unpack_from")
            targets = ", ".join(target for _, target in pending)
            source.line(f"{targets}{',' if len(pending) == 1 else ''} = {unpack}(v, p)")
            source.line(f"p += {size}")
        for text in self.after_read:
            source.line(text)
        self.after_read.clear()

    def uvarint(self, target: str) -> None:
        self.take("B", target)
        self.flush()
        self.source.line(f"if {target} > 127: {target}, p = read_uvarint(v, p - 1)")

    def count(self, target: str, prefix_code: str) -> str:
        """Read a length or count into `target`; returns the condition that it means null."""
        if self.flexible:
            self.uvarint(target)
            self.source.line(f"{target} -= 1")
        else:
            self.take(prefix_code, target)
            self.flush()
        return f"{target} < 0"

    def refuse_if(self, condition: str, claim: str) -> None:
        """Raise when the bytes claim more than there is; checked before anything is made."""
        self.source.line(
            f"if {condition}: raise MalformedError(f'{claim}, but {{end - p}} bytes left')"
        )

    # Structs and fields ----------------------------------------------------------------

    def struct(self, schema: StructSchema, target: str, depth: int) -> None:
        """Read a struct into the local `target`; its fields become locals of this depth."""
        source = self.source
        tagged = []
        for field in schema.fields:
            local = f"{field.name}_{depth}"
            present = field.in_version(self.version)
            if present and field.tag is None:
                with source.field(field.name):
                    self.field(field, local, depth)
                continue
            source.line(f"{local} = {self.default(field)}")
            if present:
                tagged.append(field)
        if self.flexible:
            with source.field("tagged fields"):
                self.tags(tagged, depth)
        self.flush()
        source.line(f"{target} = new({source.value(schema.name, schema.cls)})")
        for field in schema.fields:
            source.line(f"{target}.{field.name} = {field.name}_{depth}")

    def default(self, field: Field) -> str:
        if field.factory is not None:
            return f"{self.source.value(f'make_{field.name}', field.factory)}()"
        return self.source.value(f"DEFAULT_{field.name}", field.default)

    def field(self, field: Field, local: str, depth: int) -> None:
        kind = field.kind
        nullable = field.nullable_in(self.version)
        if isinstance(kind, ArrayOf):
            self.array(kind, local, depth, nullable=nullable)
        elif isinstance(kind, StructSchema):
            self.nested(kind, local, depth, nullable=nullable)
        elif kind.format:
            self.take(kind.format, local)
            if kind is UUID:
                self.after_read.append(f"{local} = uuid_from_bytes({local})")
        else:
            self.sized(kind, local, depth, nullable=nullable)

    def sized(self, kind: Primitive, local: str, depth: int, *, nullable: bool) -> None:
        """A string, bytes or records: a length, then that many bytes."""
        source, length = self.source, f"n{depth}"
        null = self.count(length, "h" if LENGTH_BYTES[kind] == 2 else "i")
        with source.block(f"if {null}:"):
            source.line(
                f"{local} = None" if nullable else "raise MalformedError('must not be null')"
            )
        with source.block("else:"):
            source.line(f"q = p + {length}")
            self.refuse_if("q > end", f"length {{{length}}}")
            if kind is STRING:
                source.line(f"{local} = str(v[p:q], 'utf-8')")
            else:
                source.line(f"{local} = bytes(v[p:q])" if kind is BYTES else f"{local} = v[p:q]")
            source.line("p = q")

    def nested(self, kind: StructSchema, local: str, depth: int, *, nullable: bool) -> None:
        if not nullable:
            self.flush()
            self.struct(kind, local, depth + 1)
            return
        self.take("b", "marker")
        self.flush()
        with self.source.block("if marker < 0:"):
            self.source.line(f"{local} = None")
        with self.source.block("else:"):
            self.struct(kind, local, depth + 1)

    def array(self, kind: ArrayOf, local: str, depth: int, *, nullable: bool) -> None:
        source, element, count = self.source, kind.element, f"n{depth}"
        null = self.count(count, "i")
        with source.block(f"if {null}:"):
            source.line(
                f"{local} = None" if nullable else "raise MalformedError('must not be null')"
            )
        with source.block("else:"):
            if isinstance(element, StructSchema):
                least = element.min_bytes(self.version, flexible=self.flexible)
            else:
                least = element.size_bytes or (1 if self.flexible else LENGTH_BYTES[element])
            self.refuse_if(f"{count} * {least} > end - p", f"{{{count}}} elements")
            source.line(f"elements_left -= {count}")
            source.line(
                "if elements_left < 0: raise MalformedError("
                f"f'{{{count}}} elements, {{-elements_left}} more than a message may have')"
            )
            if isinstance(element, Primitive) and element.format and element not in (BOOL, UUID):
                unpack = source.value("unpack_from", struct.unpack_from)
                source.line(f"{local} = list({unpack}(f'>{{{count}}}{element.format}', v, p))")
                source.line(f"p += {count} * {element.size_bytes}")
                return
            source.line(f"{local} = []")
            with source.block(f"for _ in range({count}):"), source.field("[]"):
                item = f"item{depth}"
                if isinstance(element, StructSchema):
                    self.struct(element, item, depth + 1)
                else:
                    self.field(element_field(element), item, depth + 1)
                    self.flush()
                source.line(f"{local}.append({item})")

    def tags(self, tagged: list[Field], depth: int) -> None:
        """The tagged fields at the end of a struct: those of `tagged`; all others are skipped."""
        source, count, tag, edge = self.source, f"tags{depth}", f"tag{depth}", f"edge{depth}"
        self.uvarint(count)
        with source.block(f"if {count}:"):
            self.refuse_if(f"{count} * 2 > end - p", f"{{{count}}} of them")
            with source.block(f"for _ in range({count}):"):
                self.uvarint(tag)
                self.uvarint(edge)
                self.refuse_if(f"{edge} > end - p", f"length {{{edge}}}")
                source.line(f"{edge} += p")
                for field in tagged:
                    with source.block(f"if {tag} == {field.tag}:"), source.field(field.name):
                        self.field(field, f"{field.name}_{depth}", depth)
                        self.flush()
                        source.line(
                            f"if p != {edge}: raise MalformedError('length of the tag is wrong')"
                        )
                        source.line("continue")
                source.line(f"p = {edge}")
