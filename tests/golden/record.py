"""Records the request frames that real clients send, as hex files beside this script.

    python -m tests.golden.record [CLIENT ...]

runs confluent-kafka, aiokafka and kafka-python, or those named, against a stub broker that knows
just enough to lead them through producing, fetching, groups and admin calls, and writes the first
frame of each (client, API, version) to tests/golden/<client>/<Api>-v<version>.hex. Java's
kafka-clients, which no extra installs, is recorded where it is named and KAFKA_CLIENTS_CLASSPATH
has its jars. Correlation ids, timestamps and ports differ from run to run; nothing else should.
"""

from __future__ import annotations

import asyncio
import os
import socketserver
import struct
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from tests.golden.record_groups import (
    group_answer,
    run_aiokafka_groups,
    run_confluent_groups,
    run_kafka_python_groups,
)
from trioq.wire.api_keys import APIS, ApiKey
from trioq.wire.framing import response_frame
from trioq.wire.header import RequestHeader, decode_request_header
from trioq.wire.messages.api_versions import ApiVersionsResponse, ApiVersionsResponseKey
from trioq.wire.messages.create_topics import CreateTopicsResponse, CreateTopicsResponseTopic
from trioq.wire.messages.describe_configs import DescribeConfigsResponse
from trioq.wire.messages.fetch import FetchResponse, FetchResponsePartition, FetchResponseTopic
from trioq.wire.messages.init_producer_id import InitProducerIdResponse
from trioq.wire.messages.list_offsets import (
    ListOffsetsResponse,
    ListOffsetsResponsePartition,
    ListOffsetsResponseTopic,
)
from trioq.wire.messages.metadata import (
    MetadataResponse,
    MetadataResponseBroker,
    MetadataResponsePartition,
    MetadataResponseTopic,
)
from trioq.wire.messages.offset_for_leader_epoch import (
    OffsetForLeaderEpochResponse,
    OffsetForLeaderEpochResponsePartition,
    OffsetForLeaderEpochResponseTopic,
)
from trioq.wire.messages.produce import (
    ProduceResponse,
    ProduceResponsePartition,
    ProduceResponseTopic,
)
from trioq.wire.schema import Message

HERE = Path(__file__).parent
TOPIC = "golden"
TOPIC_ID = uuid.UUID("5f2f6a3c-6e0c-4d4a-9d1b-0a7a3b6f1c01")


class Stub(socketserver.BaseRequestHandler):
    """One client connection."""

    client: ClassVar[str]

    def handle(self) -> None:
        while frame := self.frame():
            self.record(frame)

    def frame(self) -> bytes:
        prefix = self.read(4)
        return self.read(struct.unpack(">i", prefix)[0]) if prefix else b""

    def read(self, length: int) -> bytes:
        data = b""
        while len(data) < length:
            try:
                more = self.request.recv(length - len(data))
            except OSError:
                return b""
            if not more:
                return b""
            data += more
        return data

    def record(self, frame: bytes) -> None:
        buf = memoryview(frame)
        header = decode_request_header(buf, 0, len(frame))
        api = APIS.get(header.api_key)
        if api is None:
            print(f"{self.client}: API {header.api_key} v{header.api_version} is not served")
            self.request.close()
            return
        path = HERE / self.client / f"{api.name}-v{header.api_version}.hex"
        if not path.exists():
            path.parent.mkdir(exist_ok=True)
            text = frame.hex()
            lines = [text[at : at + 64] for at in range(0, len(text), 64)]
            path.write_text("\n".join(lines) + "\n")
        request = api.request_class.decode(buf, header.position, len(frame), header.api_version)
        response = answer(header, request, self.server.server_address[1])
        if response is not None:
            parts = response_frame(*header[:3], response)
            self.request.sendall(b"".join(parts))  # type: ignore[arg-type]


def answer(header: RequestHeader, request: Message, port: int) -> Message | None:
    """Enough of a broker that holds one empty partition."""
    match header.api_key:
        case ApiKey.API_VERSIONS:
            return ApiVersionsResponse(
                api_keys=[
                    ApiVersionsResponseKey(
                        api_key=api.key, min_version=api.min_version, max_version=api.max_version
                    )
                    for api in APIS.values()
                    if api.advertised
                ]
            )
        case ApiKey.METADATA:
            return metadata(header.api_version, port)
        case ApiKey.INIT_PRODUCER_ID:
            return InitProducerIdResponse(producer_id=7, producer_epoch=0)
        case ApiKey.PRODUCE:
            return None if request.acks == 0 else produced(request)  # type: ignore[attr-defined]
        case ApiKey.FETCH:
            time.sleep(0.05)
            return fetched()
        case ApiKey.LIST_OFFSETS:
            partition = ListOffsetsResponsePartition(
                timestamp=-1, offset=0, leader_epoch=0 if header.api_version >= 4 else -1
            )
            return ListOffsetsResponse(
                topics=[ListOffsetsResponseTopic(name=TOPIC, partitions=[partition])]
            )
        case ApiKey.OFFSET_FOR_LEADER_EPOCH:
            ended = OffsetForLeaderEpochResponsePartition(leader_epoch=0, end_offset=0)
            return OffsetForLeaderEpochResponse(
                topics=[OffsetForLeaderEpochResponseTopic(topic=TOPIC, partitions=[ended])]
            )
        case ApiKey.CREATE_TOPICS:
            return CreateTopicsResponse(topics=[CreateTopicsResponseTopic(name="created")])
        case ApiKey.DESCRIBE_CONFIGS:
            return DescribeConfigsResponse()
    in_group = group_answer(header, request, port, TOPIC_ID)
    return APIS[header.api_key].response_class() if in_group is None else in_group


def metadata(version: int, port: int) -> Message:
    partition = MetadataResponsePartition(
        leader_id=1, leader_epoch=0 if version >= 7 else -1, replica_nodes=[1], isr_nodes=[1]
    )
    return MetadataResponse(
        brokers=[MetadataResponseBroker(node_id=1, host="127.0.0.1", port=port)],
        cluster_id="golden-cluster",
        controller_id=1,
        topics=[MetadataResponseTopic(name=TOPIC, topic_id=TOPIC_ID, partitions=[partition])],
    )


def produced(request: Message) -> Message:
    topics = [
        ProduceResponseTopic(
            name=topic.name,
            partition_responses=[
                ProduceResponsePartition(index=partition.index)
                for partition in topic.partition_data
            ],
        )
        for topic in request.topic_data  # type: ignore[attr-defined]
    ]
    return ProduceResponse(responses=topics)


def fetched() -> Message:
    partition = FetchResponsePartition(
        last_stable_offset=0, log_start_offset=0, aborted_transactions=None, records=b""
    )
    topic = FetchResponseTopic(topic=TOPIC, topic_id=TOPIC_ID, partitions=[partition])
    return FetchResponse(responses=[topic])


def run_confluent(address: str) -> None:
    from confluent_kafka import Consumer, ElectionType, Producer, TopicPartition
    from confluent_kafka.admin import AdminClient, ConfigResource, NewPartitions, NewTopic

    for codec in ("none", "lz4"):
        producer = Producer(
            {
                "bootstrap.servers": address,
                "client.id": "golden",
                "enable.idempotence": codec == "none",
                "compression.type": codec,
            }
        )
        for number in range(3):
            producer.produce(
                TOPIC, key=b"k", value=b"v%d" % number * 20, headers={"h": b"x"}, partition=0
            )
        producer.flush(10)
    consumer = Consumer({"bootstrap.servers": address, "client.id": "golden", "group.id": "g"})
    consumer.assign([TopicPartition(TOPIC, 0, 0)])
    consumer.poll(1.0)
    consumer.get_watermark_offsets(TopicPartition(TOPIC, 0), timeout=5)
    consumer.close()
    admin = AdminClient({"bootstrap.servers": address, "client.id": "golden"})
    admin.create_topics([NewTopic("created", 3, 1, config={"retention.ms": "1000"})])
    admin.create_partitions([NewPartitions("created", 5)])
    admin.delete_topics(["created"])
    admin.describe_configs([ConfigResource(ConfigResource.Type.TOPIC, TOPIC)])
    admin.delete_records([TopicPartition(TOPIC, 0, 5)])
    admin.describe_cluster()
    admin.elect_leaders(ElectionType.PREFERRED, [TopicPartition(TOPIC, 0)])
    admin.poll(2)
    run_confluent_groups(address, TOPIC)


async def run_aiokafka(address: str) -> None:
    from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
    from aiokafka.admin import AIOKafkaAdminClient, NewTopic

    for idempotent in (True, False):
        producer = AIOKafkaProducer(
            bootstrap_servers=address, client_id="golden", enable_idempotence=idempotent
        )
        await producer.start()
        await producer.send_and_wait(TOPIC, b"value", key=b"k", headers=[("h", b"x")], partition=0)
        await producer.stop()
    consumer = AIOKafkaConsumer(bootstrap_servers=address, client_id="golden")
    await consumer.start()
    consumer.assign([TopicPartition(TOPIC, 0)])
    await consumer.getmany(timeout_ms=500)
    await consumer.end_offsets([TopicPartition(TOPIC, 0)])
    await consumer.stop()
    admin = AIOKafkaAdminClient(bootstrap_servers=address, client_id="golden")
    await admin.start()
    await admin.create_topics([NewTopic("created", 3, 1)])
    await admin.close()
    await run_aiokafka_groups(address, TOPIC)


def run_kafka_python(address: str) -> None:
    from kafka import KafkaConsumer, KafkaProducer, TopicPartition
    from kafka.admin import KafkaAdminClient, NewTopic

    producer = KafkaProducer(bootstrap_servers=address, client_id="golden")
    producer.send(TOPIC, b"value", key=b"k", headers=[("h", b"x")], partition=0).get(timeout=10)
    producer.close()
    consumer = KafkaConsumer(bootstrap_servers=address, client_id="golden")
    consumer.assign([TopicPartition(TOPIC, 0)])
    consumer.seek(TopicPartition(TOPIC, 0), 0)
    consumer.poll(timeout_ms=500)
    consumer.end_offsets([TopicPartition(TOPIC, 0)])
    consumer.close()
    admin = KafkaAdminClient(bootstrap_servers=address, client_id="golden")
    admin.create_topics([NewTopic("created", 3, 1)])
    admin.elect_leaders(1, {TOPIC: [0]})
    admin.alter_partition_reassignments(
        {TopicPartition(TOPIC, 0): [2, 1], TopicPartition(TOPIC, 1): None}
    )
    admin.list_partition_reassignments([TopicPartition(TOPIC, 0)])
    admin.close()
    run_kafka_python_groups(address, TOPIC)


def run_kafka_clients(address: str) -> None:
    classpath = os.environ["KAFKA_CLIENTS_CLASSPATH"]
    program = HERE / "KafkaClients.java"
    subprocess.run(["java", "-cp", classpath, str(program), address], check=True)


def record(names: Sequence[str]) -> None:
    clients = {
        "confluent-kafka": run_confluent,
        "aiokafka": lambda address: asyncio.run(run_aiokafka(address)),
        "kafka-python": run_kafka_python,
        "kafka-clients": run_kafka_clients,
    }
    for client in names or [name for name in clients if name != "kafka-clients"]:
        run = clients[client]
        for path in HERE.glob(f"{client}/*.hex"):
            path.unlink()
        handler = type("ClientStub", (Stub,), {"client": client})
        with socketserver.ThreadingTCPServer(("127.0.0.1", 0), handler) as server:
            server.daemon_threads = True
            threading.Thread(target=server.serve_forever, daemon=True).start()
            try:
                run(f"127.0.0.1:{server.server_address[1]}")
            finally:
                server.shutdown()
        print(f"{client}: {len(list((HERE / client).glob('*.hex')))} frames")


if __name__ == "__main__":
    record(sys.argv[1:])
