"""Random histories of administration: the answers, the image and a fresh load agree."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.test_controller_topics import opened
from trioq.controller.config_changes import ConfigChange, ConfigOperation, ConfigResource
from trioq.controller.topic_rules import NewPartitions, NewTopic

pytestmark = pytest.mark.trio

names = st.sampled_from(["a", "a.b", "a_b", "c"])
counts = st.integers(0, 6)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("create"), st.lists(st.tuples(names, counts), max_size=4)),
        st.tuples(st.just("delete"), st.lists(names, max_size=3)),
        st.tuples(st.just("grow"), st.lists(st.tuples(names, counts), max_size=3)),
        st.tuples(st.just("config"), st.lists(st.tuples(names, counts), max_size=3)),
        st.tuples(st.just("restart"), st.just(())),
    ),
    max_size=12,
)


async def carry_out(cluster, model, kind, items):
    """Do one request, and to the model what the answers say was done."""
    admin = cluster.admin
    if kind == "create":
        answers = await admin.create_topics([NewTopic(name, count) for name, count in items])
        for (name, count), answer in zip(items, answers, strict=True):
            if answer.error is None:
                assert name not in model
                assert count > 0
                model[name] = [answer.topic_id, count, {}]
    elif kind == "delete":
        for answer in await admin.delete_topics(items):
            if answer.error is None:
                assert model.pop(answer.name)[0] == answer.topic_id
    elif kind == "grow":
        answers = await admin.create_partitions([NewPartitions(*item) for item in items])
        for (name, count), answer in zip(items, answers, strict=True):
            if answer.error is None:
                assert count > model[name][1]
                model[name][1] = count
    else:
        changes = [
            (
                ConfigResource(2, name),
                [ConfigChange("retention.ms", ConfigOperation.SET, str(count))],
            )
            for name, count in items
        ]
        answers = await admin.incremental_alter_configs(changes)
        for (name, count), answer in zip(items, answers, strict=True):
            if answer.error is None:
                model[name][2]["retention.ms"] = str(count)


async def check(cluster, model):
    image = cluster.image
    assert image == await cluster.reloaded()
    shown = {
        name: [topic.topic_id, len(topic.partitions), dict(topic.config)]
        for name, topic in image.topics.items()
    }
    assert shown == model
    assert not {"a.b", "a_b"} <= shown.keys()


@settings(max_examples=25, deadline=None)
@given(history=steps)
async def test_what_is_answered_is_done_and_stays(history):
    model: dict[str, list] = {}
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "metastore.sqlite")
        pending = list(history)
        while True:
            async with opened(path) as cluster:
                await check(cluster, model)
                while pending and pending[0][0] != "restart":
                    await carry_out(cluster, model, *pending.pop(0))
                    await check(cluster, model)
            if not pending:
                break
            pending.pop(0)
