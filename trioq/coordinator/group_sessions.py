"""When members of a group are to be looked at: a heap that heartbeats never touch."""

from __future__ import annotations

import heapq
import math

_SLACK = 64


class Sessions:
    """By member id when its session may have ended; each id is watched at most once.

    Whoever is due is handed out and watched no longer: the owner looks at when the session really
    ends, which a heartbeat may have moved, and watches it again. So a heartbeat costs nothing
    here, and a member that lives is looked at about once per session timeout. A heap entry whose
    id is watched for another time, or not at all, is stale and skipped; they are never more than
    half of the heap for long.
    """

    __slots__ = ("_heap", "_watched")

    def __init__(self) -> None:
        self._heap: list[tuple[float, str]] = []
        self._watched: dict[str, float] = {}

    def watch(self, member_id: str, due_s: float) -> None:
        """Hand the id out at `due_s`, or before where it is watched for an earlier time."""
        if due_s >= self._watched.get(member_id, math.inf):
            return
        self._watched[member_id] = due_s
        heap = self._heap
        heapq.heappush(heap, (due_s, member_id))
        if len(heap) > 2 * len(self._watched) + _SLACK:
            self._heap = [(due, watched) for watched, due in self._watched.items()]
            heapq.heapify(self._heap)

    def forget(self, member_id: str) -> None:
        """Watch the id no longer; unknown ones are ignored."""
        self._watched.pop(member_id, None)

    def next_s(self) -> float:
        """When the first is due; infinite if none."""
        heap, watched = self._heap, self._watched
        while heap and watched.get(heap[0][1]) != heap[0][0]:
            heapq.heappop(heap)
        return heap[0][0] if heap else math.inf

    def pop_due(self, now_s: float) -> list[str]:
        """The ids that are due, the longest due first."""
        due: list[str] = []
        heap, watched = self._heap, self._watched
        while heap and heap[0][0] <= now_s:
            due_s, member_id = heapq.heappop(heap)
            if watched.get(member_id) == due_s:
                del watched[member_id]
                due.append(member_id)
        return due
