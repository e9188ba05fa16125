"""Share the orders of a topic with everybody else in a group, until Ctrl-C.

python examples/consumer.py [HOST:PORT [TOPIC [GROUP]]]

Start it several times: each process gets a part of the partitions. An order is committed once
it is processed, so that after a crash it is processed again, by whoever has its partition then.
"""

import json
import sys

import trio

import trioq


async def assigned(partitions):
    print("reading", ", ".join(sorted(map(str, partitions))) or "nothing for now")


async def revoked(partitions):
    print("giving up", ", ".join(sorted(map(str, partitions))))


async def process(record):
    order = record.value
    print(f"{record.partition}/{record.offset}: {order['cups']} of {order['item']}")


async def main(bootstrap="127.0.0.1:9092", topic="orders", group="billing"):
    async with (
        trioq.connect(bootstrap) as client,
        client.consumer(
            topic,
            group=group,
            commit="after_processing",
            auto_offset_reset="earliest",
            value_deserializer=json.loads,
            on_assigned=assigned,
            on_revoked=revoked,
        ) as consumer,
    ):
        async for record in consumer:
            await process(record)


if __name__ == "__main__":
    try:
        trio.run(main, *sys.argv[1:])
    except* KeyboardInterrupt:  # an exception group, as always where tasks were under way
        print("left the group")
