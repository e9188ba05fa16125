"""Plans of wire messages: declarations resolved for one version, for the native codec.

Instances are made and read through the slots of their classes, so a plan holds the slot of each
field. The plans are immutable; hot_wire.MessagePlan runs them.
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
