"""The code in the README and on the pages about the client works as it is written."""

from __future__ import annotations

import re
import uuid
from pathlib import Path

import anyio
import pytest

import trioq

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parents[2]


def programs(page):
    blocks = re.findall(
        r"^```python\n(.*?)^```", (ROOT / page).read_text(), re.DOTALL | re.MULTILINE
    )
    return [block for block in blocks if "import trioq" in block]


def loaded(program, broker, printer):
    """The names that a program defines, with the broker's address and without running it."""
    names = {"print": printer}
    source = program.replace("127.0.0.1:9092", broker.address)
    source = source.replace('"billing"', f'"billing-{uuid.uuid4()}"')
    exec(
        compile(re.sub(r"^anyio\.run\(main\).*$", "", source, flags=re.MULTILINE), "page", "exec"),
        names,
    )
    return names


async def test_the_lines_of_the_readme(broker):
    (program,) = programs("README.md")
    with anyio.fail_after(60), anyio.CancelScope() as scope:
        printed = []

        def printer(*words):
            printed.append(words)
            scope.cancel()

        await loaded(program, broker, printer)["main"]()
    assert scope.cancelled_caught
    assert printed[0][0] == 0
    assert printed[0][2:] == (b"key", b"value")


@pytest.mark.parametrize("number", range(4))
async def test_the_page_on_producing(broker, number):
    printed = []
    names = loaded(
        programs("docs/producing.md")[number], broker, lambda *words: printed.append(words)
    )
    if "main" in names:
        await names["main"]()
    if number == 1:
        assert len(printed[0][0]) == 10
        assert printed[1][0] == 100_000


def test_every_program_of_the_page_is_run():
    assert len(programs("docs/producing.md")) == 4


@pytest.mark.parametrize("number", range(5))
async def test_the_page_on_consuming(group_broker, number):
    async with trioq.connect(group_broker.address) as client, client.producer() as producer:
        await producer.send("orders", b"two coffees", key=b"customer-7")
    printed = []
    program = programs("docs/consuming.md")[number]
    with anyio.fail_after(60):
        await loaded(program, group_broker, lambda *words: printed.append(words))["main"]()
    first = {
        0: lambda words: words[0] == "orders" and words[4] == b"two coffees",
        1: lambda words: words[2] == b"two coffees",
        2: lambda words: words == (b"two coffees",),
        3: lambda words: words == (2,),
        4: lambda words: "orders" in words[0],
    }
    assert first[number](printed[0])


def test_every_program_of_the_page_on_consuming_is_run():
    assert len(programs("docs/consuming.md")) == 5
