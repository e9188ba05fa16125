"""The plugin under test, whether or not this checkout was installed with its entry point."""

from __future__ import annotations

import pytest

from trioq.testing import plugin


def pytest_configure(config: pytest.Config) -> None:
    if not config.pluginmanager.has_plugin("trioq"):
        config.pluginmanager.register(plugin, "trioq")
