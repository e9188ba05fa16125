"""The v2 record batch, byte by byte: the one place where the format is written down.

    batch, big-endian
      0  int64  base offset            set by the broker
      8  int32  batch length           bytes after this field
     12  int32  partition leader epoch set by the broker
     16  int8   magic                  2
     17  uint32 CRC-32C                of everything from the attributes to the end
     21  int16  attributes             see below
     23  int32  last offset delta
     27  int64  base timestamp         ms; with the delete horizon bit, the horizon
     35  int64  max timestamp          ms
     43  int64  producer id            -1: none
     51  int16  producer epoch
     53  int32  base sequence
     57  int32  record count
     61  ...    records, compressed as one block if the attributes name a codec

    record (varint, varlong: zigzag, at most 5 and 10 bytes)
      varint length of what follows | int8 attributes | varlong timestamp delta |
      varint offset delta | varint key length, key | varint value length, value (-1: null) |
      varint header count, each: varint key length, key (UTF-8) | varint value length, value

Stored batches differ from produced ones in base offset and leader epoch only (and, with append
time, timestamp type, max timestamp and CRC). The native layer repeats these numbers in
`_native/batch_header.pxd`; a test compares the two.
"""

from __future__ import annotations

import struct
from typing import Final

BASE_OFFSET_AT: Final = 0
BATCH_LENGTH_AT: Final = 8
LEADER_EPOCH_AT: Final = 12
MAGIC_AT: Final = 16
CRC_AT: Final = 17
ATTRIBUTES_AT: Final = 21
LAST_OFFSET_DELTA_AT: Final = 23
BASE_TIMESTAMP_AT: Final = 27
MAX_TIMESTAMP_AT: Final = 35
PRODUCER_ID_AT: Final = 43
PRODUCER_EPOCH_AT: Final = 51
BASE_SEQUENCE_AT: Final = 53
RECORD_COUNT_AT: Final = 57

HEADER_BYTES: Final = 61
LOG_OVERHEAD: Final = 12
"""Base offset and batch length: the bytes that batch length does not count."""

HEADER: Final = struct.Struct(">qiibIhiqqqhii")
"""All fields of the header, in order."""

MAGIC_V2: Final = 2

CODEC_MASK: Final = 0x07
APPEND_TIME_BIT: Final = 0x08
"""All records have the max timestamp, which the broker set when it appended."""
TRANSACTIONAL_BIT: Final = 0x10
CONTROL_BIT: Final = 0x20
DELETE_HORIZON_BIT: Final = 0x40
"""Compaction put the time after which tombstones may go into base timestamp."""
UNUSED_ATTRIBUTES: Final = 0xFF80

ATTRIBUTES: Final = struct.Struct(">h")
PRODUCER: Final = struct.Struct(">qhi")
"""Producer id, producer epoch and base sequence, from PRODUCER_ID_AT on."""

NO_PRODUCER_ID: Final = -1
NO_PRODUCER_EPOCH: Final = -1
NO_SEQUENCE: Final = -1
NO_TIMESTAMP: Final = -1
NO_LEADER_EPOCH: Final = -1
