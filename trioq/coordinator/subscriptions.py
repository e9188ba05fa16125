"""Which topics a member is subscribed to: names, and regular expressions over all names.

Regular expressions are RE2's, as in Kafka (KIP-848): matched against the whole name, in time
linear in its length whatever the pattern.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, Final, Protocol

from trioq.coordinator.consumer_requests import Topics
from trioq.errors import InvalidRegularExpression
from trioq.types import TopicId

_MAX_PATTERNS: Final = 1_000
_MAX_PATTERN_MEMORY_BYTES: Final = 1 << 20


class _Pattern(Protocol):
    def fullmatch(self, text: str) -> object | None: ...


class _Matches:
    """A pattern, the names it was tried on, and which of them it matched."""

    __slots__ = ("generation", "matching", "pattern", "tried")

    def __init__(self, pattern: _Pattern) -> None:
        self.pattern = pattern
        self.generation: int | None = None
        self.tried: frozenset[str] = frozenset()
        self.matching: frozenset[str] = frozenset()


class TopicPatterns:
    """Matches of regular expressions, each tried once on each name; groups may share one.

    Holds the patterns used last, up to a thousand; a pattern that fell out is compiled and
    matched anew.
    """

    def __init__(self) -> None:
        self._patterns: OrderedDict[str, _Matches] = OrderedDict()
        # The names of that generation: one object for all patterns, of which there may be many.
        self._names = frozenset[str]()
        self._generation: int | None = None

    def check(self, regex: str) -> None:
        """Raises InvalidRegularExpression, saying what is wrong with it."""
        self._get(regex)

    def matching(self, regex: str, topics: Topics) -> frozenset[str]:
        """The names that all of `regex` matches. Raises InvalidRegularExpression."""
        matches = self._get(regex)
        if matches.generation != topics.generation:
            if self._generation != topics.generation:
                self._names = frozenset(topics.names())
                self._generation = topics.generation
            names = self._names
            fullmatch = matches.pattern.fullmatch
            found = {name for name in names - matches.tried if fullmatch(name)}
            matches.matching = (matches.matching & names) | found
            matches.tried = names
            matches.generation = topics.generation
        return matches.matching

    def _get(self, regex: str) -> _Matches:
        matches = self._patterns.get(regex)
        if matches is None:
            matches = self._patterns[regex] = _Matches(_compile(regex))
            if len(self._patterns) > _MAX_PATTERNS:
                self._patterns.popitem(last=False)
        else:
            self._patterns.move_to_end(regex)
        return matches


def _compile(regex: str) -> _Pattern:
    import re2  # noqa: PLC0415 - only groups that subscribe by pattern pay for it

    options = re2.Options()
    options.log_errors = False
    options.max_mem = _MAX_PATTERN_MEMORY_BYTES
    try:
        pattern: Any = re2.compile(regex, options)
    except re2.error as error:
        reason = error.args[0] if error.args else "malformed"
        if isinstance(reason, bytes):
            reason = reason.decode("utf-8", "replace")
        raise InvalidRegularExpression(
            f"SubscribedTopicRegex {regex!r} is not a valid RE2 expression: {reason}"
        ) from error
    compiled: _Pattern = pattern
    return compiled


class Subscriptions:
    """Topic ids by subscription, resolved once per generation of topics."""

    def __init__(self, patterns: TopicPatterns) -> None:
        self.patterns = patterns
        self._generation: int | None = None
        self._ids: dict[tuple[frozenset[str], str | None], frozenset[TopicId]] = {}

    def topic_ids(
        self, names: frozenset[str], regex: str | None, topics: Topics
    ) -> frozenset[TopicId]:
        """The ids of those topics that exist; equal subscriptions get the same object."""
        if self._generation != topics.generation:
            self._generation = topics.generation
            self._ids.clear()
        key = (names, regex)
        ids = self._ids.get(key)
        if ids is None:
            all_names = names | self.patterns.matching(regex, topics) if regex else names
            found = (topics.id_of(name) for name in all_names)
            ids = self._ids[key] = frozenset(i for i in found if i is not None)
        return ids
