"""What the service has done, in Prometheus's words: requests of this process, and the workers' counters from Redis.

One reason: wait and work are kept apart. A slow answer because of a long queue needs workers, one because of slow
stages needs a faster machine.
"""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from typing import Final, cast

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from redis.exceptions import RedisError

from scanner.cache.verdicts import VerdictCache
from scanner.service import telemetry
from scanner.service.ledger import Ledger
from scanner.service.roll import living

BUCKETS_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0)
METHODS: Final = frozenset({"GET", "HEAD", "POST", "DELETE", "OPTIONS"})
HELP: Final = {
    telemetry.QUEUE_WAIT: "From accepted, or given back, to begun.",
    telemetry.SERVICE: "From begun to ended, one attempt.",
    telemetry.STAGE: "One stage of one scan.",
    telemetry.OUTCOMES: "Ended scans by label or failure code.",
    telemetry.CACHE: "Verdicts by where they came from.",
}


class Metrics(Collector):
    """Counters of this process; those of the others are read from Redis when Prometheus asks."""

    def __init__(self, ledger: Ledger, cache: VerdictCache) -> None:
        self._ledger, self._cache = ledger, cache
        self._registry = CollectorRegistry()
        self._registry.register(self)
        self._requests: defaultdict[tuple[str, str, int], int] = defaultdict(int)  # by route, method, status
        self._buckets: defaultdict[str, list[int]] = defaultdict(lambda: [0] * (len(BUCKETS_S) + 1))  # by route
        self._sums_s: defaultdict[str, float] = defaultdict(float)
        self._told: list[Metric] = []

    def count_request(self, route: str, method: str, status: int, seconds: float) -> None:
        """Count one answered request; plain dictionaries: the library's own locks cost 2 us of the 10 that we add."""
        self._requests[route, method if method in METHODS else "other", status] += 1
        self._buckets[route][bisect_left(BUCKETS_S, seconds)] += 1
        self._sums_s[route] += seconds

    async def render(self) -> bytes:
        """Everything, now; with Redis away, what this process knows."""
        try:
            depths, tally = await self._ledger.depths(), await self._ledger.tally()
            workers = len(await living(self._ledger.redis))
            found = telemetry.read(cast("dict[bytes, bytes]", await self._ledger.redis.hgetall(telemetry.KEY)))
        except RedisError:
            self._told = [GaugeMetricFamily("laescan_redis_up", "Whether Redis answered just now.", 0)]
        else:
            self._told = [*self._shared(depths, tally, workers), *_families(found)]
        self._told += self._own()
        return generate_latest(self._registry)

    def collect(self) -> Iterable[Metric]:
        """What `render` has read."""
        return self._told

    def _shared(self, depths: dict[str, int], tally: dict[str, int], workers: int) -> Iterator[Metric]:
        yield GaugeMetricFamily("laescan_redis_up", "Whether Redis answered just now.", 1)
        yield GaugeMetricFamily("laescan_workers", "Workers that live and have found an engine.", workers)
        now = GaugeMetricFamily("laescan_scans_now", "Scans that wait, by queue, and those running.", labels=["where"])
        scans = CounterMetricFamily("laescan_scans", "Scans since Redis was empty.", labels=["what"])
        for metric, counts in ((now, depths), (scans, tally)):
            for name, count in counts.items():
                metric.add_metric([name], count)
        yield from (now, scans)

    def _own(self) -> Iterator[Metric]:
        """What this process has counted."""
        labels = ["route", "method", "status"]
        requests = CounterMetricFamily("laescan_requests", "Requests answered.", labels=labels)
        for (route, method, status), count in self._requests.items():
            requests.add_metric([route, method, str(status)], count)
        about = "Time to answer; long polls and streams count until they end."
        seconds = HistogramMetricFamily("laescan_request_seconds", about, labels=["route"])
        for route, buckets in self._buckets.items():
            seconds.add_metric([route], _cumulative(BUCKETS_S, buckets), self._sums_s[route])
        lookups = CounterMetricFamily("laescan_lookups", "Verdicts looked up in Redis by tier.", labels=["tier"])
        for tier, count in self._cache.counts.items():
            lookups.add_metric([tier], count)
        yield from (requests, seconds, lookups)


def _families(found: Iterable[telemetry.Series]) -> Iterator[Metric]:
    """The workers' series, one family for each name."""
    histograms: dict[str, HistogramMetricFamily] = {}
    counters: dict[str, CounterMetricFamily] = {}
    for one in found:
        labels, values, about = list(one.labels), list(one.labels.values()), HELP.get(one.name, one.name)
        name = f"laescan_{one.name}"
        if one.buckets:
            histogram = histograms.setdefault(name, HistogramMetricFamily(name, about, labels=labels))
            histogram.add_metric(values, _cumulative(telemetry.BUCKETS_S, one.buckets), one.sum_s)
        else:
            counters.setdefault(name, CounterMetricFamily(name, about, labels=labels)).add_metric(values, one.count)
    yield from (*histograms.values(), *counters.values())


def _cumulative(bounds: Sequence[float], buckets: Sequence[int]) -> list[tuple[str, float]]:
    """Counts per bucket as Prometheus wants them: with its bound, and of all up to it."""
    return list(zip([*map(str, bounds), "+Inf"], map(float, accumulate(buckets)), strict=True))
