"""The load generator: what it sends, how it counts, and that it compiles without a warning."""

from __future__ import annotations

import subprocess

import pytest

from bench.histogram import Histogram, bucket_of, bucket_range
from bench.path import frames, loadgen
from bench.path.work import CASES, CODECS, Work, produce
from bench.programs import FLAGS, SOURCES, compile_program, program
from tests.reference import batch as reference
from trioq.record.batch import read_records
from trioq.wire.api_keys import APIS, ApiKey
from trioq.wire.header import decode_request_header
from trioq.wire.messages.fetch import FetchRequest
from trioq.wire.messages.produce import ProduceRequest

pytestmark = pytest.mark.skipif("sys.platform != 'linux'", reason="epoll, timerfd, sendfile")


@pytest.mark.parametrize("name", SOURCES)
def test_it_compiles_without_a_warning(name, tmp_path):
    assert compile_program(name, tmp_path / name, (*FLAGS, "-Werror", "-Wstrict-prototypes")) == ""


def split(template):
    size = template.frame_bytes
    return [template.frames[at : at + size] for at in range(0, len(template.frames), size)]


def decoded(frame, version, message_type):
    """Header and message of one frame, which must be exactly that long."""
    assert int.from_bytes(frame[:4], "big") == len(frame) - 4
    header = decode_request_header(memoryview(frame), 4, len(frame))
    assert header.api_version == version
    message = message_type.decode(memoryview(frame), header.position, len(frame), version)
    return header, message


def produced(frame):
    """Topic, partition and batch of one produce frame."""
    _, message = decoded(frame, frames.PRODUCE_VERSION, ProduceRequest)
    (topic,) = message.topic_data
    (partition,) = topic.partition_data
    return topic.name, partition.index, bytes(partition.records)


@pytest.mark.parametrize("codec", CODECS)
def test_produce_templates_decode(codec):
    work = Work(
        "produce", connections=3, record_bytes=50, records=20, partitions=2, codec=codec, acks=-1
    )
    template = frames.produce_template("topic", work, [7, 8, 9])
    found = [produced(frame) for frame in split(template)]
    assert [(name, index) for name, index, _ in found] == [("topic", 0), ("topic", 1), ("topic", 0)]
    for (_, _, batch), producer_id in zip(found, [7, 8, 9], strict=True):
        header = reference.validate(batch)
        assert (header.producer_id, header.base_sequence, header.record_count) == (
            producer_id, 0, 20,
        )  # fmt: skip
        values = [record.value for record in read_records(batch)]
        assert [len(value) for value in values] == [50] * 20
        assert len(set(values)) == 20
    assert template.batch_bytes == len(found[0][2])


def test_no_two_frames_share_producer_and_partition():
    """Each frame counts its own sequence."""
    for connections, partitions in [(64, 4), (4, 64), (3, 7), (16, 16), (1, 1)]:
        work = produce(connections, 1, 1, 10, partitions=partitions)
        template = frames.produce_template("t", work, list(range(100, 100 + connections)))
        pairs = [
            (reference.validate(batch).producer_id, index)
            for _, index, batch in map(produced, split(template))
        ]
        assert len(set(pairs)) == len(pairs) == max(connections, partitions)
        assert {index for _, index in pairs} == set(range(partitions))


def test_without_producer_ids_nothing_is_patched():
    template = frames.produce_template("topic", Work())
    assert template.batch_at == 0
    first, second = loadgen.patched(template, 2)
    assert produced(first) == produced(second)
    assert reference.validate(produced(first)[2]).producer_id == -1


@pytest.mark.parametrize("codec", ["none", "zstd"])
def test_patched_sequences_and_crcs_are_right(codec):
    work = Work("produce", record_bytes=100, records=17, codec=codec)
    template = frames.produce_template("topic", work, [4711])
    patched = loadgen.patched(template, 5)
    assert patched[0][12:] == template.frames[12:]
    for number, frame in enumerate(patched):
        header, _ = decoded(frame, frames.PRODUCE_VERSION, ProduceRequest)
        assert header.correlation_id == number
        batch = reference.validate(produced(frame)[2])  # checks the CRC
        assert (batch.producer_id, batch.base_sequence) == (4711, 17 * number)


def test_sequences_wrap_as_kafka_counts_them():
    step = 1 << 30
    template = frames.produce_template("topic", Work(), [1])._replace(records=step)
    found = [reference.validate(produced(one)[2]) for one in loadgen.patched(template, 4)]
    assert [batch.base_sequence for batch in found] == [0, step, 0, step]


def test_fetch_offsets_run_through_the_partition():
    work = Work("fetch", records=10, record_bytes=100)
    template = frames.fetch_template("topic", work, 30, 2048)
    offsets = []
    for frame in loadgen.patched(template, 5):
        _, message = decoded(frame, frames.FETCH_VERSION, FetchRequest)
        (partition,) = message.topics[0].partitions
        offsets.append(partition.fetch_offset)
        assert partition.partition_max_bytes == message.max_bytes == 2048
    assert offsets == [0, 10, 20, 0, 10]


def test_the_other_templates_decode():
    work = Work("list_offsets", 3, partitions=2)
    for template, key, version in [
        (frames.metadata_template("topic", 2), ApiKey.METADATA, frames.METADATA_VERSION),
        (
            frames.list_offsets_template("topic", work),
            ApiKey.LIST_OFFSETS,
            frames.LIST_OFFSETS_VERSION,
        ),
        (frames.api_versions_template(1), ApiKey.API_VERSIONS, 0),
        (frames.long_poll_template("topic", work), ApiKey.FETCH, frames.FETCH_VERSION),
    ]:
        for frame in split(template):
            header, _ = decoded(frame, version, APIS[key].request_class)
            assert header.api_key == key


def test_every_case_fits_what_brokers_allow():
    for name, work in CASES.items():
        if work.kind == "produce":
            template = frames.produce_template("t", work, list(range(work.connections)))
            assert template.batch_bytes <= 1_048_588, name


# ---- histograms


def test_buckets_are_those_of_the_c_program():
    values = [0, 1, 2047, 2048, 2049, 4095, 4096, 10**6, 123_456_789, 10**12, 2**63, 2**64 - 1]
    command = [str(program("loadgen")), "buckets", *map(str, values)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert [int(line) for line in done.stdout.split()] == [bucket_of(value) for value in values]


def test_ranges_meet_without_gap():
    end = 0
    for bucket in range(20_000):
        first, following = bucket_range(bucket)
        assert first == end
        assert bucket_of(first) == bucket_of(following - 1) == bucket
        end = following


def test_a_bucket_is_narrower_than_a_thousandth():
    for value in [2048, 10**6, 10**9 + 1, 10**12]:
        first, end = bucket_range(bucket_of(value))
        assert first <= value < end
        assert (end - first) / first <= 1 / 1000


def test_percentiles():
    histogram = Histogram()
    for value_ms in range(1, 101):
        histogram.add(value_ms * 1_000_000)
    assert histogram.total == 100
    for percent in (1, 50, 99, 100):
        assert histogram.percentile_ms(percent) == pytest.approx(percent, rel=0.001)
    assert histogram.percentile_ms(50) >= 50  # never better than what was seen
    assert Histogram().percentile_ms(99) == 0


def test_histograms_add_up():
    one, other = Histogram([[5, 2]]), Histogram([[5, 1], [7, 4]])
    assert (one + other).as_list() == [[5, 3], [7, 4]]
    assert one.as_list() == [[5, 2]]
