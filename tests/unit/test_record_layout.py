"""The layout is written down once; what must repeat it repeats it rightly."""

from __future__ import annotations

import re
import struct
import subprocess
import sys
from pathlib import Path

import trioq._native
from trioq._native import batch as native
from trioq.record import layout

PXD = Path(trioq._native.__file__).with_name("batch_header.pxd")


def test_native_constants_repeat_the_layout():
    constants = {
        name.removesuffix("_C"): int(value, 0)
        for name, value in re.findall(r"^    ([A-Z0-9_]+) = (\w+)", PXD.read_text(), re.MULTILINE)
    }
    shared = {name: value for name, value in vars(layout).items() if name in constants}
    assert shared == {name: constants[name] for name in shared}
    assert set(constants) - set(shared) == {"HIGHEST_CODEC"}
    assert (native.HEADER_BYTES, native.LOG_OVERHEAD) == (layout.HEADER_BYTES, layout.LOG_OVERHEAD)


def test_header_struct_has_its_fields_at_their_positions():
    positions = [
        layout.BASE_OFFSET_AT,
        layout.BATCH_LENGTH_AT,
        layout.LEADER_EPOCH_AT,
        layout.MAGIC_AT,
        layout.CRC_AT,
        layout.ATTRIBUTES_AT,
        layout.LAST_OFFSET_DELTA_AT,
        layout.BASE_TIMESTAMP_AT,
        layout.MAX_TIMESTAMP_AT,
        layout.PRODUCER_ID_AT,
        layout.PRODUCER_EPOCH_AT,
        layout.BASE_SEQUENCE_AT,
        layout.RECORD_COUNT_AT,
    ]
    codes = layout.HEADER.format.lstrip(">")
    assert positions == [struct.calcsize(">" + codes[:i]) for i in range(len(codes))]
    assert layout.HEADER.size == layout.HEADER_BYTES


def test_codec_libraries_are_imported_at_first_use():
    code = (
        "import sys, trioq.record.validate, trioq.record.control\n"
        "print(sorted({'cramjam', 'zstandard', 'trio', 'asyncio'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
