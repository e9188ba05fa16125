"""Tests of code that uses trioq, against a real broker that pytest starts: no container.

pytest examples/test_orders.py

The fixtures come with the plugin that trioq installs; see docs/testing.md.
"""

import pytest

import trioq
from trioq.errors import NotLeaderOrFollower

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["trio", "asyncio"])
def anyio_backend(request):
    return request.param


async def confirm_orders(client, orders, confirmations, count):
    """The code under test: answer each order."""
    async with (
        client.producer() as producer,
        client.consumer(orders, group="clerks", auto_offset_reset="earliest") as consumer,
    ):
        async for record in consumer:
            await producer.send(confirmations, b"confirmed " + record.value, key=record.key)
            count -= 1
            if not count:
                break


async def test_every_order_is_confirmed(trioq_broker):
    orders, confirmations = trioq_broker.create_topic(), trioq_broker.create_topic()
    async with trioq.connect(trioq_broker.address) as client:
        async with client.producer() as producer:
            await (await producer.send_many(orders, [b"coffee", b"tea"]))
        await confirm_orders(client, orders, confirmations, 2)
    records = await trioq_broker.async_wait_for_records(confirmations, 2)
    assert [record.value for record in records] == [b"confirmed coffee", b"confirmed tea"]
    await trioq_broker.async_wait_for_lag("clerks", orders)


async def test_a_broker_that_refuses_at_first(trioq_in_process_broker):
    """What may pass is retried: the code under test does not notice."""
    broker = trioq_in_process_broker
    topic = broker.create_topic()
    broker.refuse("Produce", NotLeaderOrFollower, times=2)
    async with trioq.connect(broker.address) as client, client.producer() as producer:
        await producer.send(topic, b"third time lucky")
    assert len(broker.records(topic)) == 1
