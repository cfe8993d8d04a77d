"""What the workers measure and the API's /metrics shows: one hash of counters in Redis, and how to read it.

In: observations of any process. Out: `Series` with their labels, counters and histograms.
One reason: the work is done by processes that live short and may die, and is asked for from another one.

Fields of the hash `laescan:metrics` are JSON arrays, so that no label can break out of its place:

    ["outcomes_total", {"code": "done"}]                 a counter
    ["stage_seconds", {"stage": "fetch"}, 0.25]          this many took <= 0.25 s and more than the bound below
    ["stage_seconds", {"stage": "fetch"}, "sum"]         their sum, in microseconds
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

import msgspec

KEY: Final = "laescan:metrics"
BUCKETS_S: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
QUEUE_WAIT: Final = "queue_wait_seconds"
"""From accepted (or given back) to begun; label queue."""
SERVICE: Final = "service_seconds"
"""From begun to ended, one attempt; label queue."""
STAGE: Final = "stage_seconds"
"""One stage of one scan; label stage."""
OUTCOMES: Final = "outcomes_total"
"""Ended scans; label code: the verdict's label, or the failure's code."""
CACHE: Final = "verdicts_total"
"""Verdicts; label kind: miss, exact or near, as in Verdict.cache."""


class Counters(Protocol):
    """A Redis client or pipeline, as far as it is needed here."""

    def hincrby(self, name: str, key: str, amount: int, /) -> object:
        """HINCRBY."""


@dataclass
class Series:
    """One metric with one set of labels; `buckets` (not cumulative, the last one is +Inf) only for a histogram."""

    name: str
    labels: dict[str, str]
    count: int = 0
    sum_s: float = 0.0
    buckets: list[int] = field(default_factory=list)


def count(counters: Counters, name: str, **labels: str) -> None:
    """One more."""
    counters.hincrby(KEY, _field(name, labels), 1)


def observe(counters: Counters, name: str, seconds: float, **labels: str) -> None:
    """One more duration in a histogram."""
    bucket = next((bound for bound in BUCKETS_S if seconds <= bound), None)
    counters.hincrby(KEY, _field(name, labels, bucket), 1)
    counters.hincrby(KEY, _field(name, labels, "sum"), round(seconds * 1e6))


def read(found: Mapping[bytes, bytes]) -> list[Series]:
    """What HGETALL of KEY answered, as series in the order of their names and labels."""
    series: dict[tuple[str, str], Series] = {}
    for encoded, value in sorted(found.items()):
        name, labels, *bucket = msgspec.json.decode(encoded)
        one = series.setdefault((name, str(labels)), Series(name, labels))
        if not bucket:
            one.count += int(value)
            continue
        one.buckets = one.buckets or [0] * (len(BUCKETS_S) + 1)
        if bucket[0] == "sum":
            one.sum_s = int(value) / 1e6
            continue
        one.count += int(value)
        one.buckets[len(BUCKETS_S) if bucket[0] is None else BUCKETS_S.index(bucket[0])] += int(value)
    return list(series.values())


def _field(name: str, labels: Mapping[str, str], *bucket: float | str | None) -> str:
    return msgspec.json.encode([name, dict(sorted(labels.items())), *bucket]).decode()
