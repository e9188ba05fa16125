"""A leader's changes of the in-sync replicas, by compare-and-set, one at a time."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from trioq.metastore.layout import PartitionState
from trioq.replication.isr_state import changed_isr, with_failed_log

if TYPE_CHECKING:
    from tests.sim.cluster.process import Process


class IsrChanges:
    def __init__(self, process: Process) -> None:
        self._process = process
        self._world = process.world
        self._in_flight = False

    def tick(self) -> None:
        self._look()
        self._world.later(self._process, self._world.random.uniform(20, 60), self.tick)

    def _look(self) -> None:
        process = self._process
        partition, isr = process.partition, process.partition.isr
        if self._in_flight:
            return
        if isr is None:
            self._say_failed()
            return
        log = process.log
        now_s = process.clock.monotonic_s()
        joining = {
            replica: epoch
            for replica, epoch in isr.joiners(log.high_watermark, now_s).items()
            if (one := process.image.brokers.get(replica)) is not None and one.broker_epoch == epoch
        }
        leaving = isr.laggards(
            log.written_end_offset,
            now_s,
            max_lag_s=self._world.settings.lag_ms / 1000,
            max_lag_messages=0,
        )
        leaving |= isr.failed()
        harmed = isr.harmed()
        must_write = isr.is_undecided or isr.keeps_others_electable
        if not (joining or leaving or harmed or must_write):
            return
        before = isr.state
        after = changed_isr(
            before,
            joining=joining,
            leaving=leaving,
            min_insync=partition.config.min_insync_replicas,
            harmed=harmed,
        )
        partition.propose_isr(dict(zip(after.isr, after.broker_epochs, strict=True)))
        self._write(before, after)

    def _say_failed(self) -> None:
        """A replica whose log has failed says so, whether it leads or not."""
        partition, me = self._process.partition, self._process.broker_id
        state, epoch = partition.state, self._process.broker_epoch
        if state is None or not partition.log.failed or epoch < 0 or me not in state.replicas:
            return
        if state.failed_logs.get(me) != epoch:
            self._write(state, with_failed_log(state, me, epoch))

    def _write(self, before: PartitionState, after: PartitionState) -> None:
        self._in_flight = True
        self._world.call(
            self._process,
            partial(self._world.metastore.set_state, before, after),
            self._answered,
        )

    def _answered(self, result: Any) -> None:
        if isinstance(result, PartitionState):
            self._in_flight = False
            self._process.see_state(result)
            return
        # Whether it was refused or its outcome is unknown: what is there now?
        self._world.call(self._process, lambda: self._world.metastore.state, self._read_back)

    def _read_back(self, result: Any) -> None:
        """Where it is unchanged, the write may still come: it is made again until one is known."""
        self._in_flight = False
        if isinstance(result, PartitionState):
            self._process.see_state(result)
