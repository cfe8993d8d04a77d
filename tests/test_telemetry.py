"""What is written by one process reads the same in another."""

from collections import Counter

from scanner.service import telemetry


class Memory:
    """HINCRBY, and what HGETALL would answer."""

    def __init__(self) -> None:
        self.hash: Counter[bytes] = Counter()

    def hincrby(self, name: str, key: str, amount: int, /) -> object:
        assert name == telemetry.KEY
        self.hash[key.encode()] += amount
        return self.hash[key.encode()]

    def read(self) -> list[telemetry.Series]:
        return telemetry.read({key: str(value).encode() for key, value in self.hash.items()})


def test_counters_are_told_apart_by_their_labels() -> None:
    memory = Memory()
    telemetry.count(memory, telemetry.OUTCOMES, code="gone")
    telemetry.count(memory, telemetry.OUTCOMES, code="gone")
    telemetry.count(memory, telemetry.OUTCOMES, code='"],x')
    assert {one.labels["code"]: one.count for one in memory.read()} == {"gone": 2, '"],x': 1}


def test_a_histogram_has_its_counts_between_the_bounds_and_its_sum() -> None:
    memory = Memory()
    for seconds in (0.001, 0.005, 0.02, 1.0, 1e6):
        telemetry.observe(memory, telemetry.STAGE, seconds, stage="fetch")
    (series,) = memory.read()
    assert (series.name, series.labels, series.count) == ("stage_seconds", {"stage": "fetch"}, 5)
    assert series.buckets[0] == 2  # 0.005 s is in the bucket that ends there
    assert series.buckets[telemetry.BUCKETS_S.index(0.025)] == 1
    assert series.buckets[telemetry.BUCKETS_S.index(1.0)] == 1
    assert series.buckets[-1] == 1
    assert abs(series.sum_s - 1_000_001.026) < 1e-6


def test_labels_in_any_order_are_one_series() -> None:
    memory = Memory()
    telemetry.observe(memory, telemetry.SERVICE, 0.1, queue="bulk", worker="a")
    telemetry.observe(memory, telemetry.SERVICE, 0.2, worker="a", queue="bulk")
    assert [one.count for one in memory.read()] == [2]
