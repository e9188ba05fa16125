"""trioq: a distributed message queue on Trio that every Kafka client can talk to.

The client's names are here, imported when they are first used: `import trioq` loads no event
loop and none of the client.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from trioq import errors as errors
    from trioq._native.send_path import Delivery as Delivery
    from trioq.client.client import Client as Client
    from trioq.client.client import ClientStatistics as ClientStatistics
    from trioq.client.client import connect as connect
    from trioq.client.consumer import Consumer as Consumer
    from trioq.client.group_calls import OffsetAndMetadata as OffsetAndMetadata
    from trioq.client.producer import Deliveries as Deliveries
    from trioq.client.producer import Producer as Producer
    from trioq.client.producer import ProducerStatistics as ProducerStatistics
    from trioq.client.sasl import SaslOAuthBearer as SaslOAuthBearer
    from trioq.client.sasl import SaslPlain as SaslPlain
    from trioq.client.sasl import SaslScram as SaslScram
    from trioq.errors import ClientError as ClientError
    from trioq.errors import KafkaError as KafkaError
    from trioq.errors import TrioqError as TrioqError
    from trioq.types import RecordMetadata as RecordMetadata
    from trioq.types import TopicPartition as TopicPartition

__version__ = "0.1.0"

_LAZY: Final = {
    "Client": "trioq.client.client",
    "ClientError": "trioq.errors",
    "ClientStatistics": "trioq.client.client",
    "Consumer": "trioq.client.consumer",
    "Deliveries": "trioq.client.producer",
    "Delivery": "trioq._native.send_path",
    "KafkaError": "trioq.errors",
    "OffsetAndMetadata": "trioq.client.group_calls",
    "Producer": "trioq.client.producer",
    "ProducerStatistics": "trioq.client.producer",
    "RecordMetadata": "trioq.types",
    "SaslOAuthBearer": "trioq.client.sasl",
    "SaslPlain": "trioq.client.sasl",
    "SaslScram": "trioq.client.sasl",
    "TopicPartition": "trioq.types",
    "TrioqError": "trioq.errors",
    "connect": "trioq.client.client",
}
"""Public names and the modules that have them."""


def __getattr__(name: str) -> object:
    if name == "errors":
        return importlib.import_module("trioq.errors")
    module = _LAZY.get(name)
    if module is None:
        raise AttributeError(f"module 'trioq' has no attribute {name!r}")
    found: object = getattr(importlib.import_module(module), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})
