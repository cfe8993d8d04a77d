"""One scan of a horse: drawn for who waits, but not on the last attempt, which must not die of its drawings."""

import asyncio
import contextlib
from types import SimpleNamespace

import pytest
import redis.asyncio

from scanner.contract import Failure, Outcome, ScanRequest
from scanner.errors import ScanError
from scanner.fetching.fetch import fetch
from scanner.pipeline import ScanResult
from scanner.service.horse import Horse, _is_to_be_retried
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


class Fetching(Recording):
    """Reads the source as a scanner does, and stops there."""

    async def scan(self, source, **_how):
        try:
            await fetch(source, folder=None, settings=Settings())
        except ScanError as error:
            return ScanResult(Outcome(source=source, failure=Failure(error.code, str(error), error.retryable)))
        raise AssertionError(source)


def run(scanner, attempt, settings, request):
    memory = redis.asyncio.Redis.from_url(NOWHERE)  # never asked
    horse = Horse(scanner, SimpleNamespace(aboard=aboard), memory, settings)
    task = Task("a", 1, attempt, 0.0, request)
    return asyncio.run(horse._scan(task, SimpleNamespace(progress=lambda *_: None), drawn=False)).outcome


def scanned(attempt, queue):
    scanner = Recording()
    request = ScanRequest(source_url="https://example.org/a.jpg", tenant="local", queue=queue)
    outcome = run(scanner, attempt, Settings(redis_url=NOWHERE), request)
    assert outcome.source == "https://example.org/a.jpg"
    return scanner.asked[1]


@pytest.mark.parametrize(
    ("attempt", "queue", "is_drawn"),
    [(1, "interactive", True), (MOST_ATTEMPTS, "interactive", False), (1, "bulk", False)],
)
def test_what_is_drawn(attempt, queue, is_drawn):
    how = scanned(attempt, queue)
    assert how["keep_frames"] is is_drawn
    assert how["urgent"] is (queue == "interactive")


@pytest.mark.parametrize(
    ("lay", "code", "words"),
    [
        (lambda _: None, "lost_upload", "LAESCAN_SPOOL"),
        (lambda place: place.mkdir(), "lost_upload", "send it again"),
        (lambda place: place.write_bytes(b"<!doctype html>"), "unsupported_media", "me.jpg is a web page"),
    ],
    ids=["missing", "a folder", "a page"],
)
def test_what_is_wrong_with_an_upload_is_said_without_a_path_and_a_lost_one_is_looked_for_again(
    tmp_path, lay, code, words
):
    lay(tmp_path / "d1")
    request = ScanRequest(upload="d1", name="me.jpg", tenant="local")
    outcome = run(Fetching(), 1, Settings(redis_url=NOWHERE, spool=str(tmp_path)), request)
    assert (outcome.source, outcome.failure.code) == ("me.jpg", code)
    assert words in outcome.failure.message
    assert str(tmp_path) not in outcome.failure.message
    assert _is_to_be_retried(outcome, 1) is outcome.failure.retryable is (code == "lost_upload")
