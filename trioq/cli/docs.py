"""`python -m trioq.cli.docs docs` writes what is made from the code's tables: pages, and diagrams
in pages that are otherwise written by hand.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from trioq.config.key import INT_MAX, LONG_MAX, Fallback, Key, Kind
from trioq.config.loading import SHORT_NAMES
from trioq.config.table import BROKER_KEYS, TOPIC_KEYS
from trioq.coordinator.group_phases import TRANSITIONS, GroupPhase
from trioq.wire.api_keys import APIS
from trioq.wire.kinds import NEVER

_NOTICE: Final = "<!-- Made by `make docs` from the code: do not edit. -->"
_DIAGRAM_BEGIN: Final = (
    "<!-- Made by `make docs` from the code: do not edit up to the end of the diagram. -->\n\n"
)
_DIAGRAM_END: Final = "\n<!-- End of the diagram. -->"


def pages() -> dict[str, str]:
    """The text of each generated page by its file name."""
    return {"configuration.md": configuration_page(), "protocol.md": protocol_page()}


def diagrams() -> dict[str, str]:
    """The diagram that is made from the code, by the file name of the page that it stands in."""
    return {"consumer-groups.md": group_diagram()}


def group_diagram() -> str:
    """The phases of a group of the classic protocol, as Mermaid: TRANSITIONS and nothing else."""
    lines = ["stateDiagram-v2", f"    [*] --> {GroupPhase.EMPTY.value}"]
    for phase, following in TRANSITIONS.items():
        lines += [f"    {phase.value} --> {to.value}: {why}" for to, why in following.items()]
        if not following:
            lines.append(f"    {phase.value} --> [*]")
    return "\n".join(["```mermaid", *lines, "```", ""])


def with_diagram(page: str, diagram: str) -> str:
    """The page with `diagram` between its marks. Raises ValueError for a page without them."""
    before, begin, rest = page.partition(_DIAGRAM_BEGIN)
    _, end, after = rest.partition(_DIAGRAM_END)
    if not begin or not end:
        raise ValueError(f"the page has no place for a diagram: {_DIAGRAM_BEGIN.strip()}")
    return f"{before}{begin}{diagram}{end}{after}"


def configuration_page() -> str:
    """Every key of the one table."""
    short = "\n".join(f"| `{variable}` | `{key}` |" for variable, key in SHORT_NAMES.items())
    return f"""{_NOTICE}

# Configuration

Names and meanings are Apache Kafka's wherever Kafka has the key. A broker key is set, first wins, by

1. a flag of `trioq serve`: `--set log.segment.bytes=1048576`, or the key's own flag (`trioq serve -h`);
2. the environment: `TRIOQ_LOG_SEGMENT_BYTES=1048576`, upper case with underscores for dots;
3. a TOML file, named by `--config FILE.toml` or `TRIOQ_CONFIG`;
4. its default.

```toml
"log.dirs" = ["/srv/trioq"]
"listeners" = ["0.0.0.0:9092"]
"advertised.listeners" = ["queue.example.org:9092"]
"log.retention.hours" = 48
```

Quotes around the keys are needed only where one key is the beginning of another (`max.connections`). An unknown key or a bad value stops the start with a sentence that names the key, the value, what is allowed and the nearest known key.

Some variables are named after their flags:

| variable | key |
|---|---|
{short}

Where one thing has keys in several units (`log.retention.ms`, `.minutes`, `.hours`), the finest that is set wins, whatever source it comes from.

## Broker keys

Those marked *dynamic* can be changed while the broker runs, with IncrementalAlterConfigs or AlterConfigs.

{_key_table(BROKER_KEYS.values())}

## Topic keys

Set with `trioq topic create --config KEY=VALUE`, `trioq topic alter`, or any admin client; all can be changed at any time. What a topic does not set is the broker's.

{_topic_table(TOPIC_KEYS.values())}
"""


def protocol_page() -> str:
    """Every API and version that is served."""
    rows = [
        (
            str(int(api.key)),
            api.name,
            _versions(api.implemented_min, api.max_version),
            _versions(api.min_version, api.max_version) if api.advertised else "to brokers only",
            "never" if api.flexible_from == NEVER else str(api.flexible_from),
        )
        for api in sorted(APIS.values(), key=lambda api: api.key)
    ]
    columns = ["key", "API", "versions served", "advertised", "flexible from"]
    return f"""{_NOTICE}

# Protocol

trioq speaks Apache Kafka's wire protocol. It advertises only what it serves; clients choose the versions by asking ApiVersions first. Produce is advertised from version 0 because older librdkafka stops compressing otherwise; versions that are advertised but not served get the error UNSUPPORTED_VERSION.

{_table(columns, rows)}

A request of an API or version that is not in this table closes the connection, as in Kafka; an unknown version of ApiVersions is answered in version 0 with the error UNSUPPORTED_VERSION.
"""


def _key_table(keys: Iterable[Key]) -> str:
    rows = [
        (
            f"`{key.name}`",
            _kind(key),
            _default(key),
            _allowed(key),
            key.doc + (" *dynamic*" if key.dynamic else ""),
        )
        for key in keys
    ]
    return _table(["key", "type", "default", "allowed", "meaning"], rows)


def _topic_table(keys: Iterable[Key]) -> str:
    rows = [
        (
            f"`{key.name}`",
            _kind(key),
            ", else ".join(_fallback(fallback) for fallback in key.fallbacks),
            _default(key),
            _allowed(key),
            key.doc,
        )
        for key in keys
    ]
    columns = ["key", "type", "broker key", "default", "allowed", "meaning"]
    return _table(columns, rows)


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join(lines)


def _kind(key: Key) -> str:
    kind = key.kind.name.lower()
    return f"{kind}, {key.unit}" if key.unit else kind


def _default(key: Key) -> str:
    written = key.write(key.default)
    if written is None:
        return "unset"
    return f"`{written}`" if written else "empty"


def _allowed(key: Key) -> str:
    if key.kind is Kind.BOOLEAN or key.choices:
        return ", ".join(f"`{choice}`" for choice in key.choices or ("true", "false"))
    if key.minimum is None or key.maximum is None:
        return ""
    if key.maximum in (INT_MAX, LONG_MAX):
        return f"from {key.minimum}"
    return _versions(key.minimum, key.maximum)


def _fallback(fallback: Fallback) -> str:
    return f"`{fallback.broker_key}`"


def _versions(first: int, last: int) -> str:
    return str(first) if first == last else f"{first} to {last}"


def main(arguments: Sequence[str]) -> int:
    """Write the pages into the directory given; the exit status."""
    if len(arguments) != 1:
        sys.stderr.write("usage: python -m trioq.cli.docs DIRECTORY\n")
        return 2
    directory = Path(arguments[0])
    directory.mkdir(parents=True, exist_ok=True)
    for name, text in pages().items():
        (directory / name).write_text(text, encoding="utf-8")
    for name, diagram in diagrams().items():
        page = directory / name
        if page.exists():
            text = page.read_text(encoding="utf-8")
            page.write_text(with_diagram(text, diagram), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
