"""What the service has done, in Prometheus's words: requests of this process, and the workers' counters from Redis.

One reason: wait and work are kept apart. A slow answer because of a long queue needs workers, one because of slow
stages needs a faster machine.
"""

from collections.abc import Iterable, Iterator
from itertools import accumulate
from typing import Final, cast

from prometheus_client import CollectorRegistry, Counter, Histogram, disable_created_metrics, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from redis.exceptions import RedisError

from scanner import telemetry
from scanner.cache import VerdictCache
from scanner.ledger import Ledger

BUCKETS_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0)
METHODS: Final = frozenset({"GET", "HEAD", "POST", "DELETE", "OPTIONS"})
HELP: Final = {
    telemetry.QUEUE_WAIT: "From accepted, or given back, to begun.",
    telemetry.SERVICE: "From begun to ended, one attempt.",
    telemetry.STAGE: "One stage of one scan.",
    telemetry.OUTCOMES: "Ended scans by label or failure code.",
    telemetry.CACHE: "Verdicts by where they came from.",
}


disable_created_metrics()  # type: ignore[no-untyped-call] # a series more for each one, that nobody reads


class Metrics(Collector):
    """Counters of this process; those of the others are read from Redis when Prometheus asks."""

    def __init__(self, ledger: Ledger, cache: VerdictCache) -> None:
        self._ledger, self._cache = ledger, cache
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "laescan_requests", "Requests answered.", ("route", "method", "status"), registry=self._registry
        )
        self._seconds = Histogram(
            "laescan_request_seconds",
            "Time to answer; long polls and streams count until they end.",
            ("route",),
            buckets=BUCKETS_S,
            registry=self._registry,
        )
        self._told: list[Metric] = []
        self._registry.register(self)
        self._kept: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}

    def count_request(self, route: str, method: str, status: int, seconds: float) -> None:
        """Count one answered request; the label sets are kept, since `labels()` takes a lock and builds a tuple."""
        method = method if method in METHODS else "other"
        kept = self._kept.get((route, method, status))
        if kept is None:
            kept = (self._requests.labels(route, method, str(status)), self._seconds.labels(route))
            self._kept[route, method, status] = kept
        kept[0].inc()
        kept[1].observe(seconds)

    async def render(self) -> bytes:
        """Everything, now; with Redis away, what this process knows."""
        try:
            depths, tally = await self._ledger.depths(), await self._ledger.tally()
            found = telemetry.read(cast("dict[bytes, bytes]", await self._ledger.redis.hgetall(telemetry.KEY)))
        except RedisError:
            self._told = [GaugeMetricFamily("laescan_redis_up", "Whether Redis answered just now.", 0)]
        else:
            self._told = [*self._own(depths, tally), *_families(found)]
        return generate_latest(self._registry)

    def collect(self) -> Iterable[Metric]:
        """What `render` has read."""
        return self._told

    def _own(self, depths: dict[str, int], tally: dict[str, int]) -> Iterator[Metric]:
        yield GaugeMetricFamily("laescan_redis_up", "Whether Redis answered just now.", 1)
        waiting = GaugeMetricFamily(
            "laescan_scans_now", "Scans that wait, by queue, and those running.", labels=["where"]
        )
        scans = CounterMetricFamily("laescan_scans", "Scans since Redis was empty.", labels=["what"])
        lookups = CounterMetricFamily("laescan_lookups", "Lookups answered by this process.", labels=["tier"])
        for metric, counts in ((waiting, depths), (scans, tally), (lookups, self._cache.counts)):
            for name, count in counts.items():
                metric.add_metric([name], count)
        yield from (waiting, scans, lookups)


def _families(found: Iterable[telemetry.Series]) -> Iterator[Metric]:
    """The workers' series, one family for each name."""
    histograms: dict[str, HistogramMetricFamily] = {}
    counters: dict[str, CounterMetricFamily] = {}
    bounds = [*map(str, telemetry.BUCKETS_S), "+Inf"]
    for one in found:
        labels, values, about = list(one.labels), list(one.labels.values()), HELP.get(one.name, one.name)
        name = f"laescan_{one.name}"
        if one.buckets:
            histogram = histograms.setdefault(name, HistogramMetricFamily(name, about, labels=labels))
            histogram.add_metric(values, list(zip(bounds, accumulate(one.buckets), strict=True)), one.sum_s)
        else:
            counters.setdefault(name, CounterMetricFamily(name, about, labels=labels)).add_metric(values, one.count)
    yield from (*histograms.values(), *counters.values())
