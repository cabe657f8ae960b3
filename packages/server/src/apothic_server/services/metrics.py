"""Numbers for Prometheus, read from the live parts when somebody scrapes."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from apothic_server.domain.jobs import JobStatus
from apothic_server.services.dispatch.board import Board
from apothic_server.services.dispatch.maps import Maps
from apothic_server.store.disk import Disk
from apothic_server.store.writer import Counters


class Metrics:
    """Collects from the dispatcher's board, the writer's counters and the disk; holds no state of its own."""

    def __init__(self, board: Board, maps: Maps, counters: Counters, disk: Disk) -> None:
        self._board = board
        self._maps = maps
        self._counters = counters
        self._disk = disk
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)

    def render(self) -> bytes:
        """Return the exposition text."""
        return generate_latest(self._registry)

    def collect(self) -> Iterable[Metric]:
        """Yield the metric families; called by the registry."""
        yield self._jobs()
        yield GaugeMetricFamily("apothic_groups_unfinished", "unfinished groups", value=len(self._maps.groups))
        yield from self._fleet()
        disk = self._disk
        yield GaugeMetricFamily("apothic_disk_free_bytes", "free bytes of the store's disk", value=disk.free_bytes)
        yield GaugeMetricFamily("apothic_disk_takes_work", "0 while it is too full for new work", value=disk.takes_new)
        counters = self._counters
        for name, text, value in (
            ("apothic_store_records", "records appended to the batching writer", counters.records),
            ("apothic_store_commits", "transactions made durable by the batching writer", counters.commits),
            ("apothic_store_refused", "records whose guard did not match", counters.refused),
            ("apothic_reports_fenced", "worker reports refused for an old fence", self._board.fenced_reports),
        ):
            family = CounterMetricFamily(name, text)
            family.add_metric([], value)
            yield family

    def _jobs(self) -> GaugeMetricFamily:
        family = GaugeMetricFamily("apothic_jobs_unfinished", "unfinished jobs by status", labels=["status"])
        counts = dict.fromkeys((status for status in JobStatus if not status.is_final), 0)
        for job in self._board.jobs.values():
            if not job.status.is_final:
                counts[job.status] += 1
        for status, count in counts.items():
            family.add_metric([status.value], count)
        return family

    def _fleet(self) -> Iterable[Metric]:
        fleet = self._board.fleet
        linked = sum(worker.is_linked for worker in fleet.workers.values())
        yield GaugeMetricFamily("apothic_workers_connected", "workers with an open link", value=linked)
        impaired = sum(worker.is_impaired for worker in fleet.workers.values())
        yield GaugeMetricFamily("apothic_workers_impaired", "workers that beat but echo no ping", value=impaired)
        yield GaugeMetricFamily("apothic_dispatches", "1 on the server that dispatches", value=self._board.dispatches)
        yield GaugeMetricFamily("apothic_runners", "live runners", value=len(fleet.runners))
