"""Send orders: with the acknowledgement of each, and many at once.

python examples/producer.py [HOST:PORT]
"""

import json
import sys

import trio

import trioq


async def main(bootstrap="127.0.0.1:9092", topic="orders"):
    async with (
        trioq.connect(bootstrap) as client,
        client.producer(
            compression="lz4",
            key_serializer=str.encode,
            value_serializer=lambda order: json.dumps(order).encode(),
        ) as producer,
    ):
        # One order, and where it was written. Orders of one customer keep their order.
        written = await producer.send(topic, {"item": "coffee", "cups": 2}, key="customer-7")
        print(f"written to partition {written.partition} at offset {written.offset}")

        # Without waiting for each: what a delivery is awaited for is its outcome.
        tea = producer.send_nowait(
            topic,
            {"item": "tea", "cups": 1},
            key="customer-8",
            headers=[("source", b"examples")],
        )

        # Many: the fastest way.
        water = [{"item": "water", "cups": cups} for cups in range(1000)]
        many = await producer.send_many(topic, water)

        await tea
        print(f"{1 + 1 + await many} orders are acknowledged")


if __name__ == "__main__":
    trio.run(main, *sys.argv[1:])
