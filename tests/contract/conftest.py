from __future__ import annotations

import pytest

from tests.contract.backends import BACKENDS, Backend


@pytest.fixture(scope="module", params=sorted(BACKENDS))
def backend(request, tmp_path_factory) -> Backend:
    return BACKENDS[request.param](tmp_path_factory.mktemp(request.param))
