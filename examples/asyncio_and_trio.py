"""The same code under asyncio and under Trio: the client runs in whichever loop it finds.

python examples/asyncio_and_trio.py asyncio|trio [HOST:PORT]
"""

import asyncio
import sys

import trio

import trioq


async def ping(bootstrap="127.0.0.1:9092", topic="pings"):
    """Write a record and read it back."""
    async with (
        trioq.connect(bootstrap) as client,
        client.producer() as producer,
        client.consumer() as consumer,
    ):
        written = await producer.send(topic, b"ping")
        place = topic, written.partition
        consumer.assign([place])
        consumer.seek(place, written.offset)
        record = await anext(consumer)
        return record.value


if __name__ == "__main__":
    loop, *arguments = sys.argv[1:]
    if loop == "trio":
        print(trio.run(ping, *arguments))
    else:
        print(asyncio.run(ping(*arguments)))
