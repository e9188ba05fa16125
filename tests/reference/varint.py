"""Zigzag varints: at most 5 bytes in int32, at most 10 in int64."""

from __future__ import annotations


class VarintError(Exception):
    """No valid number stands there."""


def encode(value: int) -> bytes:
    raw = value << 1 if value >= 0 else (-value << 1) - 1
    out = bytearray()
    while raw >= 0x80:
        out.append(raw & 0x7F | 0x80)
        raw >>= 7
    out.append(raw)
    return bytes(out)


def decode(data: bytes, position: int, end: int, bits: int) -> tuple[int, int]:
    """(value, position after it); `bits` is 32 or 64."""
    raw = 0
    for index in range((bits + 6) // 7):
        if position >= end:
            raise VarintError("cut off")
        byte = data[position]
        position += 1
        raw |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            if raw >= 1 << bits:
                raise VarintError("out of range")
            return (raw >> 1) ^ -(raw & 1), position
    raise VarintError("too long")
