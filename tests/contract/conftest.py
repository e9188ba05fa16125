from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.contract.backends import BACKENDS, Backend


@pytest.fixture(scope="module", params=sorted(BACKENDS))
def backend(request, tmp_path_factory) -> Iterator[Backend]:
    with BACKENDS[request.param](tmp_path_factory.mktemp(request.param)) as made:
        yield made
