"""The targets, by name; the modules beside this one say what each of them checks."""

from __future__ import annotations

from tests.fuzz.target import Target
from tests.fuzz.targets import (
    batches,
    clients,
    codecs,
    compaction,
    files,
    groups,
    lane,
    logs,
    metastore,
    tools,
    wire,
)

TARGETS: dict[str, Target] = {
    target.name: target
    for module in (
        wire,
        batches,
        clients,
        codecs,
        compaction,
        files,
        logs,
        tools,
        metastore,
        groups,
        lane,
    )
    for target in module.TARGETS
}
