"""After which ends a broker vouches for its logs, so that the next start need not check them."""

from __future__ import annotations

import pytest
import trio

from trioq.broker import _is_orderly
from trioq.errors import BrokerBug, MetastoreError, StartupError
from trioq.metastore.bootstrap import RegistrationTaken


def cancelled() -> BaseException:
    caught: list[BaseException] = []

    async def main() -> None:
        with trio.CancelScope() as scope:
            scope.cancel()
            try:
                await trio.lowlevel.checkpoint()
            except trio.Cancelled as error:
                caught.append(error)
                raise

    trio.run(main)
    return caught[0]


@pytest.mark.parametrize(
    ("errors", "is_orderly"),
    [
        ([StartupError("taken")], True),
        ([RegistrationTaken("this one stops"), cancelled()], True),
        ([cancelled()], True),
        ([StartupError("taken"), BrokerBug("a log")], False),
        ([cancelled(), MetastoreError("corrupt")], False),
        ([ZeroDivisionError()], False),
    ],
)
def test_only_a_stop_or_a_refusal_leaves_logs_as_they_should_be(errors, is_orderly):
    for wrapped in (
        errors[0],
        BaseExceptionGroup("nursery", [BaseExceptionGroup("inner", errors)]),
    ):
        if wrapped is errors[0] and len(errors) > 1:
            continue
        assert _is_orderly(wrapped) is is_orderly
