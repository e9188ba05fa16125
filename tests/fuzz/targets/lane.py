"""The lane of ordinary requests against the general way, on requests that are cut and changed.

Two brokers' worth of stage 1 over memory are fed the same bytes, one with the lane and one without.
After every step their answers, logs, producers and connections are the same, or the lane is wrong.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

from tests.fuzz.target import Choices, Target, seeded
from tests.unit.lane_support import (
    API_VERSIONS,
    FETCH,
    LIST_OFFSETS,
    PRODUCE,
    Asked,
    Groups,
    Rig,
    Script,
    frame,
)
from trioq._native.crc32c import crc32c
from trioq.server.limits import Limits
from trioq.wire.messages.heartbeat import HeartbeatRequest

HEARTBEAT = 12
_SERVED = {PRODUCE, FETCH, LIST_OFFSETS, HEARTBEAT, API_VERSIONS}
_UNKNOWN = 100  # APIs from here on are refused at once; others are not the lane's
_KEY_AT = 4
_LAST_VERSIONS = {PRODUCE: 12, FETCH: 12, LIST_OFFSETS: 8, HEARTBEAT: 4, API_VERSIONS: 5}
_MOST_STEPS = 24

_CONFIGS: tuple[dict[str, str], ...] = (
    {},
    {},
    {"message_timestamp_before_max_ms": "1000", "message_timestamp_after_max_ms": "1000"},
    {"message_timestamp_type": "LogAppendTime"},
    {"min_insync_replicas": "2"},
    {"flush_policy": "commit"},
    {"compression_type": "uncompressed", "segment_bytes": "1024"},
    {"max_message_bytes": "80"},
)
_LIMITS = (Limits(), Limits(max_parked_requests=3))
_WAITS_S = (0.0, 0.05, 0.15, 0.3)
_OFFSETS = (0, 0, 1, 2, 3, 5, 8, 10_000, -1, 2**63 - 1)
_SIZES = (1, 200, 1 << 20, 0, -1)
_WAITS_MS = (0, 50, 200, 500, 1 << 30, -1)


def check_lane(data: bytes) -> None:
    choices = Choices(data)
    config = _CONFIGS[choices.byte() % len(_CONFIGS)]
    limits = _LIMITS[choices.byte() % len(_LIMITS)]
    script = Script()
    rigs = [Rig(has_lane=has_lane, limits=limits, **config) for has_lane in (False, True)]
    for rig in rigs:
        rig.ctx.groups = Groups()  # type: ignore[assignment]
    try:
        for _ in range(_MOST_STEPS):
            if choices.is_used_up:
                break
            if not _step(choices, script, rigs):
                break
        assert rigs[0].taken == 0
    finally:
        for rig in rigs:
            rig.close()


def _step(choices: Choices, script: Script, rigs: list[Rig]) -> bool:
    """Requests that come at once, the end of a pass, or time; False when no more can come."""
    what = choices.byte()
    if what % 8 == 0:
        for rig in rigs:
            rig.dirs.end_pass()
    elif what % 8 == 1:
        wait_s = _WAITS_S[choices.byte() % len(_WAITS_S)]
        for rig in rigs:
            rig.wait(wait_s)
    else:
        sent = b"".join(_request(choices, script) for _ in range(1 + what // 8 % 3))
        for rig in rigs:
            rig.feed(sent)
    shown = [_shown(rig) for rig in rigs]
    assert shown[0] == shown[1], (what, *shown)
    connection = rigs[0].connection
    return not (connection.muted or connection.is_closing or connection.inbox.length)


def _shown(rig: Rig) -> Any:
    groups: Any = rig.ctx.groups
    inbox = rig.connection.inbox
    # The lane may ask first, and leave to the general way what is not welcome.
    return rig.shown(), set(groups.seen), inbox.length, bytes(inbox.buffer[: inbox.length])


def _request(choices: Choices, script: Script) -> bytes:
    """One request, some bytes of which may be others, more or fewer."""
    key = sorted(_SERVED)[choices.byte() % len(_SERVED)]
    version = choices.byte() % (_LAST_VERSIONS[key] + 1)
    made = bytearray(_sound(key, version, choices, script))
    changes = choices.byte()
    for _ in range(changes % 4 if changes & 16 else 0):
        _change(made, choices)
    if changes & 4 and len(made) >= _KEY_AT:
        made[:_KEY_AT] = struct.pack(">i", len(made) - _KEY_AT)
    if changes & 8 and key == PRODUCE:
        _mend_crc(made)
    sent_key = int.from_bytes(made[_KEY_AT : _KEY_AT + 2], "big")
    if sent_key not in _SERVED and sent_key < _UNKNOWN and len(made) > _KEY_AT + 1:
        made[_KEY_AT : _KEY_AT + 2] = struct.pack(">h", key)
    return bytes(made)


def _sound(key: int, version: int, choices: Choices, script: Script) -> bytes:
    if key == HEARTBEAT:
        return frame(HEARTBEAT, version, _heartbeat(version, choices), 5)
    detail, other = choices.byte(), choices.byte()
    asked = Asked(
        key,
        max(version, 1) if key in (FETCH, LIST_OFFSETS) else version,
        number=detail % 3,
        acks=(1, 1, -1, -1, 0, 2)[other % 6],
        producer=(None, 0, 1, 2)[detail // 4 % 4],
        step=(0, 0, 0, 0, 0, 0, -1, 1)[detail // 16 % 8],
        records=1 + other // 64,
        age_ms=(0, 0, 0, 10**7, -(10**8))[other // 8 % 5],
        isolation=other // 128,
        epoch=(-1, -1, 0, 1)[detail // 64],
        timestamp=(-1, -1, -2, 5)[other % 4],
        offset=_OFFSETS[other % len(_OFFSETS)],
        max_bytes=_SIZES[detail // 3 % len(_SIZES)],
        min_bytes=(1, 0, 1, 300)[detail // 16 % 4],
        wait_ms=_WAITS_MS[other // 16 % len(_WAITS_MS)],
    )
    if key == FETCH:
        asked = asked._replace(version=max(asked.version, 4))
    return script.bytes_of(asked)


def _heartbeat(version: int, choices: Choices) -> bytes:
    kind = choices.byte()
    return HeartbeatRequest(
        group_id=("group", "", "ä")[kind % 3],
        generation_id=7 + kind // 3 % 2,
        member_id=("member", "ü")[kind // 6 % 2],
        group_instance_id="instance" if version >= 3 and kind & 128 else None,
    ).encode(version)


def _change(made: bytearray, choices: Choices) -> None:
    """Overwrite, cut out or put in some bytes."""
    kind = choices.byte()
    at = choices.number(2) % (len(made) + 1)
    size = 1 + kind // 4 % 8
    if kind % 4 < 2:
        made[at : at + size] = choices.take(min(size, len(made) - at))
    elif kind % 4 == 2:
        del made[at : at + size]
    else:
        made[at:at] = choices.take(size)


def _mend_crc(made: bytearray) -> None:
    """The checksum of what now is where the batch was, found by its magic, is right again."""
    key_at = bytes(made).find(b"key")
    batch_at = key_at - 61 - 5
    if batch_at < 0:
        return
    length = int.from_bytes(made[batch_at + 8 : batch_at + 12], "big")
    end = batch_at + 12 + length
    if end <= len(made):
        made[batch_at + 17 : batch_at + 21] = struct.pack(">I", crc32c(made[batch_at + 21 : end]))


def _seeds() -> Iterator[bytes]:
    chance = seeded("lane")
    for key in range(len(_SERVED)):
        for version in range(13):
            step = bytes([2, key, version, 4, 0, 0])
            yield bytes([0, 0]) + step * 3 + b"\0" + step + bytes([1, 3])
            for at in range(0, 60, 7):
                changed = bytes([2, key, version, 4, 0, 16 + 4 + 8 + 1, 0, 0, at, 1])
                yield bytes([0, 0]) + step * 2 + b"\0" + changed + bytes([1, 3])
    for _ in range(300):
        yield chance.randbytes(80)


TARGETS = (Target("lane", check_lane, _seeds, 400),)
