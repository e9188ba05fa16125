"""Generates the function that encodes one version of one message.

Like the decoder, it is straight-line code with one loop per array, and adjacent fields
of fixed size become one struct call. A value in a field that the version lacks is left
out where Kafka's definition calls the field ignorable; else it raises EncodeError.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

from trioq.wire.kinds import (
    BOOL,
    RECORDS,
    STRING,
    UUID,
    ArrayOf,
    Field,
    Primitive,
    StructSchema,
    element_field,
)
from trioq.wire.primitives import EncodeError, Part, records_length, splice, write_uvarint
from trioq.wire.source import Source, joined

Encoder = Callable[[Any, bytearray, "list[Part] | None"], None]

MAX_STRING_BYTES = 0x7FFF


def generate_encoder(schema: StructSchema, version: int, *, flexible: bool) -> Encoder:
    """The encoder of `schema` in `version`: (instance, out, parts) -> None.

    It appends to `out`; with `parts` not None, records become parts of their own (see
    `splice`), and what comes behind the last of them is left in `out`. It raises
    EncodeError for what this version cannot express.
    """
    return _Generator(schema, version, flexible=flexible).generate()


class _Generator:
    def __init__(self, schema: StructSchema, version: int, *, flexible: bool) -> None:
        self.schema = schema
        self.version = version
        self.flexible = flexible
        self.source = Source()
        self.sinks = ["out"]
        self.source.values.update(
            struct_error=struct.error,
            pack=struct.pack,
            EncodeError=EncodeError,
            records_length=records_length,
            splice=splice,
            write_uvarint=write_uvarint,
            PATHS=self.source.paths,
            NAME=schema.name,
            failure=failure,
        )

    @property
    def out(self) -> str:
        """The local that holds the bytearray being written to."""
        return self.sinks[-1]

    def generate(self) -> Encoder:
        source = self.source
        with source.block("def encode(message, out, parts):"):
            with source.block("try:"):
                self.struct(self.schema, "message", 0)
                self.flush()
            with source.block(
                "except (struct_error, AttributeError, TypeError, UnicodeError) as error:"
            ):
                source.line(f"raise failure(NAME, {self.version}, PATHS, error) from error")
        return source.compile("encode")

    # Writing ---------------------------------------------------------------------------

    def put(self, code: str, expression: str) -> None:
        """Write one item of fixed size, together with its neighbours."""
        self.source.pending.append((code, expression))

    def flush(self) -> None:
        """Write everything held back."""
        pending, self.source.pending = self.source.pending, []
        if pending:
            pack, _ = self.source.struct(joined(pending), "pack")
            values = ", ".join(expression for _, expression in pending if expression)
            self.source.line(f"{self.out} += {pack}({values})")

    def uvarint(self, expression: str) -> None:
        self.flush()
        source = self.source
        source.line(f"u = {expression}")
        source.line(f"if u < 128: {self.out}.append(u)")
        source.line(f"else: write_uvarint({self.out}, u)")

    def count(self, expression: str, prefix_code: str) -> None:
        """Write a length or count, as a uvarint of one more in flexible versions."""
        if self.flexible:
            self.uvarint(f"{expression} + 1")
        else:
            self.put(prefix_code, expression)

    def null(self, code: str) -> None:
        """Write the length that means null."""
        if self.flexible:
            self.put("x", "")
        else:
            self.put(code, "-1")
        self.flush()

    # Structs and fields ----------------------------------------------------------------

    def struct(self, schema: StructSchema, local: str, depth: int) -> None:
        """Write the struct in `local`; what is held back at the end is left so."""
        tagged = []
        for field in schema.fields:
            with self.source.field(field.name):
                if not field.in_version(self.version):
                    self.refuse(field, local, depth)
                elif field.tag is not None:
                    tagged.append(field)
                else:
                    self.field(field, f"{local}.{field.name}", depth)
        if self.flexible:
            self.tags(tagged, local, depth)

    def refuse(self, field: Field, local: str, depth: int) -> None:
        """Raise if a field that this version lacks, and that matters, has a value."""
        if field.ignorable:
            return
        self.flush()
        value = f"value{depth}"
        self.source.line(f"{value} = {local}.{field.name}")
        self.source.line(
            f"if {self.differs(field, value)}: raise EncodeError("
            f"f'{self.schema.name} v{self.version} has no {self.source.place}: "
            f"{{{value}!r}}')"
        )

    def differs(self, field: Field, value: str) -> str:
        """The condition that `value` is not the field's default."""
        if field.factory is not None:  # an array
            return f"{value} is None or {value}"
        if field.default is None:
            present = f"{value} is not None"
            if not isinstance(field.kind, StructSchema) or field.nullable_in(self.version):
                return present
            # A struct that says nothing but defaults is as good as none.
            leaves = " or ".join(
                f"{value}.{leaf.name} != {leaf.default!r}" for leaf in field.kind.fields
            )
            return f"{present} and ({leaves})"
        return f"{value} != {self.source.value(f'DEFAULT_{field.name}', field.default)}"

    def field(self, field: Field, expression: str, depth: int) -> None:
        kind = field.kind
        if isinstance(kind, Primitive) and kind.format:
            self.put(kind.format, f"{expression}.bytes" if kind is UUID else expression)
            return
        self.flush()
        value = f"value{depth}"
        self.source.line(f"{value} = {expression}")
        nullable = field.nullable_in(self.version)
        if isinstance(kind, StructSchema):
            self.nested(kind, value, depth, nullable=nullable)
            return
        code = "h" if kind is STRING else "i"
        with self.source.block(f"if {value} is None:"):
            if nullable:
                self.null(code)
            else:
                self.source.line("raise TypeError('must not be null')")
        with self.source.block("else:"):
            if isinstance(kind, ArrayOf):
                self.array(kind.element, value, depth)
            else:
                self.sized(kind, value, code, depth)

    def sized(self, kind: Primitive, value: str, code: str, depth: int) -> None:
        """A string, bytes or records: a length, then that many bytes."""
        source, length = self.source, f"n{depth}"
        if kind is RECORDS:
            assert self.out == "out", "records are never inside a tagged field"
            source.line(f"{length} = records_length({value})")
        elif kind is STRING:
            source.line(f"{value} = {value}.encode()")
            source.line(f"{length} = len({value})")
            source.line(
                f"if {length} > {MAX_STRING_BYTES}: "
                f"raise TypeError(f'a string of {{{length}}} bytes is too long')"
            )
        else:
            source.line(f"{length} = len({value})")
        self.count(length, code)
        self.flush()
        source.line(f"splice(out, parts, {value})" if kind is RECORDS else f"{self.out} += {value}")

    def nested(self, kind: StructSchema, value: str, depth: int, *, nullable: bool) -> None:
        if not nullable:
            self.struct(kind, value, depth + 1)
            return
        with self.source.block(f"if {value} is None:"):
            self.put("b", "-1")
            self.flush()
        with self.source.block("else:"):
            self.put("b", "1")
            self.struct(kind, value, depth + 1)
            self.flush()

    def array(self, element: Primitive | StructSchema, value: str, depth: int) -> None:
        source = self.source
        self.count(f"len({value})", "i")
        self.flush()
        if isinstance(element, Primitive) and element.format and element not in (BOOL, UUID):
            source.line(f"{self.out} += pack(f'>{{len({value})}}{element.format}', *{value})")
            return
        item = f"item{depth}"
        with source.block(f"for {item} in {value}:"), source.field("[]"):
            if isinstance(element, StructSchema):
                self.struct(element, item, depth + 1)
            else:
                self.field(element_field(element), item, depth + 1)
            self.flush()

    def tags(self, tagged: list[Field], local: str, depth: int) -> None:
        """The tagged fields that differ from their defaults, in the order of their tags."""
        if not tagged:
            self.put("x", "")
            return
        self.flush()
        source, count, sink = self.source, f"tags{depth}", f"out{depth}"
        tagged = sorted(tagged, key=lambda field: field.tag or 0)
        present = " or ".join(f"({self.differs(f, f'{local}.{f.name}')})" for f in tagged)
        with source.block(f"if not ({present}):"):
            source.line(f"{self.out}.append(0)")
        with source.block("else:"):
            source.line(f"{count} = 0")
            source.line(f"{sink} = bytearray()")
            for field in tagged:
                value = f"{local}.{field.name}"
                with source.field(field.name), source.block(f"if {self.differs(field, value)}:"):
                    source.line(f"{count} += 1")
                    self.tag(field, value, sink, depth)
            self.uvarint(count)
            source.line(f"{self.out} += {sink}")

    def tag(self, field: Field, value: str, sink: str, depth: int) -> None:
        """Append one tagged field to the local `sink`: tag, length, content."""
        content = f"{sink}_content"
        self.source.line(f"{content} = bytearray()")
        self.sinks.append(content)
        self.field(field, value, depth)
        self.flush()
        self.sinks[-1] = sink
        self.uvarint(str(field.tag))
        self.uvarint(f"len({content})")
        self.sinks.pop()
        self.source.line(f"{sink} += {content}")


def failure(message: str, version: int, paths: dict[int, str], error: Exception) -> EncodeError:
    """The error for a value that does not fit its field: which message, version and field."""
    traceback = error.__traceback__
    path = paths.get(traceback.tb_lineno, "") if traceback is not None else ""
    return EncodeError(f"{message} v{version}: {path}: {error}")
