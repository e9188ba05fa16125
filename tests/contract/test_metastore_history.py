"""Random histories of writes, compared with a model of the tree after each step."""

from __future__ import annotations

from copy import deepcopy

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trioq.metastore import store
from trioq.metastore.store import ANY_VERSION, Check, Create, Delete, Node, Set

pytestmark = pytest.mark.trio

NAMES = ("a", "b", "a-b")
PATHS = sorted(
    [f"/{x}" for x in NAMES]
    + [f"/{x}/{y}" for x in NAMES for y in NAMES]
    + [f"/{x}/{y}/{z}" for x in NAMES for y in NAMES for z in NAMES]
)
paths = st.sampled_from(PATHS[:20])
values = st.binary(max_size=3)
versions = st.integers(ANY_VERSION, 3)
operations = st.one_of(
    st.builds(Create, paths, values, st.booleans(), st.just(False)),
    st.builds(Set, paths, values, versions),
    st.builds(Delete, paths, versions),
    st.builds(Check, paths, versions),
)
REOPEN = "reopen"
steps = st.lists(
    st.one_of(st.lists(operations, max_size=5), st.just(REOPEN)), min_size=1, max_size=25
)


class Model:
    """The tree as a dict: path to (value, version, ephemeral)."""

    def __init__(self):
        self.nodes: dict[str, tuple[bytes, int, bool]] = {}

    def multi(self, ops):
        before = deepcopy(self.nodes)
        results = []
        for index, operation in enumerate(ops):
            try:
                results.append(self.one(operation))
            except store.NodeError as error:
                self.nodes = before
                return type(error), error.path, index
        return results

    def one(self, operation):
        path = operation.path
        if isinstance(operation, Create):
            parent = store.parent_of(path)
            if parent != "/" and parent not in self.nodes:
                raise store.NoNode(parent)
            if parent != "/" and self.nodes[parent][2]:
                raise store.EphemeralParent(path)
            if path in self.nodes:
                raise store.NodeExists(path)
            self.nodes[path] = (operation.value, 0, operation.ephemeral)
            return path
        if path not in self.nodes:
            raise store.NoNode(path)
        _, version, ephemeral = self.nodes[path]
        if operation.version not in {ANY_VERSION, version}:
            raise store.VersionConflict(path)
        if isinstance(operation, Set):
            self.nodes[path] = (operation.value, version + 1, ephemeral)
            return version + 1
        if isinstance(operation, Delete):
            if any(store.parent_of(other) == path for other in self.nodes):
                raise store.NotEmpty(path)
            del self.nodes[path]
        return None

    def reopen(self):
        self.nodes = {path: node for path, node in self.nodes.items() if not node[2]}

    def tree(self):
        return {path: Node(value, version) for path, (value, version, _) in self.nodes.items()}


async def apply(metastore, ops):
    try:
        return await metastore.multi(ops)
    except store.NodeError as error:
        return type(error), error.path, error.index


@settings(max_examples=60, deadline=None)
@given(history=steps)
async def test_any_history_gives_the_models_results_and_tree(backend, history):
    site, model = backend.site(), Model()
    opening = site.open()
    metastore = await opening.__aenter__()
    try:
        for step in history:
            if step == REOPEN:
                await opening.__aexit__(None, None, None)
                opening = site.open()
                metastore = await opening.__aenter__()
                model.reopen()
            else:
                assert await apply(metastore, step) == model.multi(step)
            tree = await metastore.read_tree("/")
            del tree["/"]
            assert tree == model.tree()
        for path in ("/", *model.nodes):
            assert await metastore.children(path) == sorted(
                other.rpartition("/")[2] for other in model.nodes if store.parent_of(other) == path
            )
    finally:
        await opening.__aexit__(None, None, None)
