"""Hypothesis strategies: records, batches, and bytes with something broken in them."""

from __future__ import annotations

import struct

from hypothesis import strategies as st

from tests.reference import batch, records

INT64 = st.integers(-(2**63), 2**63 - 1)
INT32 = st.integers(-(2**31), 2**31 - 1)
INT16 = st.integers(-(2**15), 2**15 - 1)
TIMESTAMPS = st.one_of(st.integers(0, 10_000), st.integers(-1, 2**45), INT64)
FIELDS = st.one_of(st.none(), st.binary(max_size=20), st.binary(min_size=60, max_size=300))
HEADERS = st.lists(
    st.tuples(st.text(max_size=8), st.one_of(st.none(), st.binary(max_size=8))), max_size=4
)
NEW_RECORDS = st.lists(st.tuples(TIMESTAMPS, FIELDS, FIELDS, HEADERS), min_size=1, max_size=12)

ATTRIBUTES = st.integers(0, 15).map(lambda bits: bits << 3)

BATCHES = st.builds(
    batch.build,
    NEW_RECORDS,
    base_offset=st.one_of(st.integers(0, 1000), INT64),
    leader_epoch=INT32,
    attributes=ATTRIBUTES,
    producer_id=INT64,
    producer_epoch=INT16,
    base_sequence=INT32,
)

RAW_RECORDS = st.builds(
    records.RawRecord,
    timestamp_delta=TIMESTAMPS,
    offset_delta=st.integers(-2, 12),
    key=FIELDS,
    value=FIELDS,
    headers=st.lists(
        st.tuples(st.binary(max_size=8), st.one_of(st.none(), st.binary(max_size=8))), max_size=4
    ).map(tuple),
)


@st.composite
def mutated(draw, source):
    """Bytes of `source` after up to four overwrites, insertions, removals and cuts."""
    data = bytearray(draw(source))
    for _ in range(draw(st.integers(0, 4))):
        position = draw(st.integers(0, max(0, len(data) - 1)))
        match draw(st.integers(0, 4)):
            case 0:
                data[position : position + 1] = draw(st.binary(min_size=1, max_size=1))
            case 1:
                data[position:position] = draw(st.binary(min_size=1, max_size=6))
            case 2:
                del data[position : position + draw(st.integers(1, 6))]
            case 3:
                del data[position:]
            case 4 if data:
                data[position] ^= 1 << draw(st.integers(0, 7))
    return bytes(data)


HEADER_CHANGES = {
    "base_offset": (">q", 0),
    "batch_length": (">i", 8),
    "magic": (">b", 16),
    "attributes": (">h", 21),
    "last_offset_delta": (">i", 23),
    "base_timestamp": (">q", 27),
    "record_count": (">i", 57),
}


@st.composite
def broken_batches(draw):
    """A batch with changes anywhere, its length and CRC often made right again.

    So that the checks behind the CRC are met too.
    """
    data = draw(mutated(BATCHES))
    if len(data) >= 61 and draw(st.booleans()):
        out = bytearray(data)
        name = draw(st.sampled_from(sorted(HEADER_CHANGES)))
        form, position = HEADER_CHANGES[name]
        bits = 8 * struct.calcsize(form)
        near = st.integers(-3, 16)
        value = draw(st.one_of(near, st.integers(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)))
        struct.pack_into(form, out, position, value)
        data = bytes(out)
    if len(data) >= 61 and draw(st.integers(0, 3)):
        data = batch.seal(data)
    return data


def outcome(function, *arguments, **options):
    """What a call gives: its result, or the type of what it raises."""
    try:
        return function(*arguments, **options)
    except Exception as error:
        return type(error)
