"""Python source in the making: indented lines, the values they refer to, their compilation."""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Callable, Iterator
from typing import Any


class Source:
    """Collects the lines of one generated function and knows which field each serves.

    Adjacent items of fixed size are held back and become one struct call.
    """

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.paths: dict[int, str] = {}
        self.path: list[str] = []
        self.values: dict[str, object] = {}
        self.pending: list[tuple[str, str]] = []
        self._depth = 0

    @property
    def place(self) -> str:
        """The field being served, as in "topics[].name"."""
        return ".".join(self.path).replace(".[]", "[]") or "the body"

    def line(self, text: str) -> None:
        self.lines.append("    " * self._depth + text)
        self.paths[len(self.lines)] = self.place

    @contextlib.contextmanager
    def block(self, opening: str) -> Iterator[None]:
        """An indented block; nothing held back crosses its edges."""
        assert not self.pending
        self.line(opening)
        self._depth += 1
        before = len(self.lines)
        yield
        assert not self.pending
        if len(self.lines) == before:
            self.line("pass")
        self._depth -= 1

    @contextlib.contextmanager
    def field(self, name: str) -> Iterator[None]:
        """Lines written meanwhile serve the field `name` of the current struct."""
        self.path.append(name)
        yield
        self.path.pop()

    def value(self, name: str, value: object) -> str:
        """Make `value` known to the generated code; returns the name that it got there."""
        while self.values.setdefault(name, value) is not value:
            name += "_"
        return name

    def struct(self, formats: str, method: str) -> tuple[str, int]:
        """The bound method of a big-endian Struct, and the bytes it covers."""
        compiled = struct.Struct(f">{formats}")
        name = f"{method}_{formats}".replace("?", "t")
        self.values.setdefault(name, getattr(compiled, method))
        return name, compiled.size

    def compile(self, name: str) -> Callable[..., Any]:
        """Run the collected source, which defines the function `name`, and return that."""
        namespace: dict[str, Any] = dict(self.values)
        code = compile("\n".join(self.lines) + "\n", f"<trioq.wire {name}>", "exec")
        exec(code, namespace)  # noqa: S102  the source is made from declarations alone
        function: Callable[..., Any] = namespace[name]
        return function


def joined(pending: list[tuple[str, str]]) -> str:
    """The struct format of held-back items: "iih" for two int32 and an int16."""
    return "".join(code for code, _ in pending)
