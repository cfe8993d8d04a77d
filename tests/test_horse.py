"""One scan of a horse: drawn for who waits, but not on the last attempt, which must not die of its drawings."""

import asyncio
import contextlib
from types import SimpleNamespace

import pytest
import redis.asyncio

from scanner.contract import Failure, Outcome, ScanRequest
from scanner.pipeline import ScanResult
from scanner.service.horse import Horse
from scanner.service.lease import MOST_ATTEMPTS
from scanner.service.stable import Task
from scanner.settings import Settings

NOWHERE = "unix:///nowhere"
GONE = Outcome(source="", failure=Failure(code="gone", message="it is gone", retryable=False))


class Recording:
    """Stands where the scanner does and keeps what it was asked."""

    def __init__(self):
        self.model = SimpleNamespace(info=SimpleNamespace(model_id="m"))
        self.asked = None

    async def scan(self, source, **how):
        self.asked = source, how
        return ScanResult(GONE)


@contextlib.asynccontextmanager
async def aboard(name, memory):
    yield


def scanned(attempt, queue):
    scanner = Recording()
    memory = redis.asyncio.Redis.from_url(NOWHERE)  # never asked
    horse = Horse(scanner, SimpleNamespace(aboard=aboard), memory, Settings(redis_url=NOWHERE))
    request = ScanRequest(source_url="https://example.org/a.jpg", tenant="local", queue=queue)
    task = Task("a", 1, attempt, 0.0, request)
    result = asyncio.run(horse._scan(task, SimpleNamespace(progress=lambda *_: None), drawn=False))
    assert result.outcome.source == "https://example.org/a.jpg"
    return scanner.asked[1]


@pytest.mark.parametrize(
    ("attempt", "queue", "is_drawn"),
    [(1, "interactive", True), (MOST_ATTEMPTS, "interactive", False), (1, "bulk", False)],
)
def test_what_is_drawn(attempt, queue, is_drawn):
    how = scanned(attempt, queue)
    assert how["keep_frames"] is is_drawn
    assert how["urgent"] is (queue == "interactive")
