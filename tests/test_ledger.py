"""Rows in a real Redis: joined, promoted, cancelled, leased, fenced, told about."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator

import msgspec
import pytest
import redis.asyncio
from redis_server import redis_in, socket_url, start_redis

from scanner.contract import ScanRequest, ScanRow
from scanner.errors import KeyReused
from scanner.service import ledger as ledger_module
from scanner.service.ledger import Ledger

URL = "https://example.org/a.jpg"
OUTCOME = b'{"source":"x","failure":{"code":"gone","message":"it is gone","retryable":false}}'


@pytest.fixture(scope="module")
def url(tmp_path_factory) -> Iterator[str]:
    with redis_in(tmp_path_factory.mktemp("r")) as found:
        yield found


def with_ledger(url: str, steps: Callable[[Ledger], Awaitable[None]]) -> None:
    async def run() -> None:
        async with redis.asyncio.Redis.from_url(url) as client:
            await client.flushall()
            await steps(Ledger(client))

    asyncio.run(run())


def ask(source_url: str = URL, tenant: str = "t", **more) -> ScanRequest:
    return ScanRequest(source_url=source_url, tenant=tenant, **more)


async def call(ledger: Ledger, step: str, *arguments: object) -> object:
    return await ledger._step(args=[step, *arguments])


async def end(ledger: Ledger, row: ScanRow, outcome: bytes = OUTCOME) -> None:
    fence = (await call(ledger, "start", row.id, "w", 15_000))[0]
    assert await call(ledger, "finish", row.id, fence, "done", outcome, 60) == 1


def test_an_accepted_scan_waits_in_its_place(url: str) -> None:
    async def steps(ledger: Ledger) -> None:
        first = await ledger.accept(ask())
        second = await ledger.accept(ask("https://example.org/b.jpg"))
        assert (first.state, first.position, first.attempt, first.outcome) == ("queued", 0, 0, None)
        assert second.position == 1
        assert (await ledger.get(first.id, tenant="t")) == first
        assert await ledger.depths() == {"interactive": 2, "bulk": 0, "running": 0}

    with_ledger(url, steps)


def test_other_tenants_see_nothing_and_do_nothing(url: str) -> None:
    async def steps(ledger: Ledger) -> None:
        row = await ledger.accept(ask())
        assert (await ledger.accept(ask(tenant="u"))).id != row.id  # nor do they learn that it was asked for
        assert await ledger.get(row.id, tenant="u") is None
        assert await ledger.cancel(row.id, tenant="u") is None
        assert await ledger.wait(row.id, tenant="u", timeout_s=0.1) is None
        assert [event async for event in ledger.events(row.id, tenant="u")] == []
        assert (await ledger.get(row.id, tenant="t")) == row
        await end(ledger, row)
        await ledger.redis.hset(f"laescan:artifact:{row.id}", mapping={"fence": 1, "overlay.jpg": b"x"})
        assert await ledger.artifact(row.id, "overlay.jpg", tenant="u") is None
        assert await ledger.artifact(row.id, "overlay.jpg", tenant="t") == b"x"
        assert not await ledger.forget(row.id, tenant="u")

    with_ledger(url, steps)


def test_the_same_ask_joins_until_the_first_has_ended(url: str) -> None:
    async def steps(ledger: Ledger) -> None:
        first = await ledger.accept_for_queue(ask())
        again = await ledger.accept_for_queue(ask())
        assert (first.enqueue, again.enqueue, again.row.id) == (True, False, first.row.id)
        assert (await ledger.accept(ask(rescan=True))).id != first.row.id
        await end(ledger, first.row)
        assert (await ledger.accept(ask())).id != first.row.id
        assert (await ledger.tally())["joined"] == 1

    with_ledger(url, steps)


def test_an_interactive_ask_pulls_a_bulk_scan_forward(url: str) -> None:
    async def steps(ledger: Ledger) -> None:
        bulk = await ledger.accept(ask(queue="bulk"))
        joined = await ledger.accept_for_queue(ask())
        assert (joined.row.id, joined.row.queue, joined.row.position, joined.enqueue) == (
            bulk.id,
            "interactive",
            0,
            True,
        )
        back = await ledger.accept_for_queue(ask(queue="bulk"))
        assert (back.row.id, back.row.queue, back.enqueue) == (bulk.id, "interactive", False)
        assert await ledger.depths() == {"interactive": 1, "bulk": 0, "running": 0}
        _fence, _attempt, request, _ms = await call(ledger, "start", bulk.id, "w", 15_000)
        assert msgspec.json.decode(request, type=ScanRequest).queue == "interactive", "so that it is drawn"

    with_ledger(url, steps)


def test_an_interactive_ask_waits_for_no_running_scan_that_nobody_draws(url: str) -> None:
    async def steps(ledger: Ledger) -> None:
        bulk = await ledger.accept(ask(queue="bulk"))
        fence = (await call(ledger, "start", bulk.id, "w", 15_000))[0]
        own = await ledger.accept_for_queue(ask())
        assert (own.row.id != bulk.id, own.row.queue, own.enqueue) == (True, "interactive", True)
        assert await call(ledger, "finish", bulk.id, fence, "done", OUTCOME, 60) == 1
        assert (await ledger.accept_for_queue(ask(queue="bulk"))).row.id == own.row.id, "what is drawn serves both"

    with_ledger(url, steps)


def test_an_idempotency_key_stands_for_one_request_also_after_its_end(url: str) -> None:
    async def steps(ledger: Ledger) -> None:
        row = await ledger.accept(ask(), idempotency_key="k")
        await end(ledger, row)
        again = await ledger.accept_for_queue(ask(), idempotency_key="k")
        assert (again.row.id, again.row.state, again.enqueue) == (row.id, "done", False)
        with pytest.raises(KeyReused):
            await ledger.accept(ask("https://example.org/b.jpg"), idempotency_key="k")
        assert (await ledger.accept(ask(tenant="u"), idempotency_key="k")).id != row.id

    with_ledger(url, steps)


def test_a_batch_is_accepted_in_order_with_its_doubles_joined(url: str) -> None:
    async def steps(ledger: Ledger) -> None:
        asks = [ask(f"https://example.org/{i % 40}.jpg", queue="bulk") for i in range(50)]
        accepted = await ledger.accept_many(asks)
        assert [one.enqueue for one in accepted] == [True] * 40 + [False] * 10
        assert [one.row.source for one in accepted] == [one.source_url for one in asks]
        assert [one.row.position for one in accepted[:40]] == list(range(40))
        rows = await ledger.get_many([accepted[3].row.id, "unknown"], tenant="t")
        assert rows == [accepted[3].row, None]

    with_ledger(url, steps)


def test_cancelling_ends_a_scan_and_its_worker_can_write_no_more(url: str) -> None:
    async def steps(ledger: Ledger) -> None:
        row = await ledger.accept(ask())
        fence = (await call(ledger, "start", row.id, "w", 15_000))[0]
        cancelled = await ledger.cancel(row.id, tenant="t")
        assert (cancelled.state, cancelled.outcome.failure.code) == ("cancelled", "cancelled")
        assert await call(ledger, "renew", row.id, fence, 15_000) == 0
        assert await call(ledger, "progress", row.id, fence, "fetch", 50) == 0
        assert await call(ledger, "finish", row.id, fence, "done", OUTCOME, 60) == 0
        assert await ledger.cancel(row.id, tenant="t") == cancelled
        assert await ledger.depths() == {"interactive": 0, "bulk": 0, "running": 0}
        assert await call(ledger, "start", row.id, "w", 15_000) == []

    with_ledger(url, steps)


def test_only_the_holder_of_the_lease_writes(url: str) -> None:
    async def steps(ledger: Ledger) -> None:
        row = await ledger.accept(ask())
        old = (await call(ledger, "start", row.id, "w1", 0))[0]
        assert await call(ledger, "start", row.id, "w2", 15_000) == []
        (_, taken) = await call(ledger, "take_expired", 10, 15_000)
        assert await call(ledger, "finish", row.id, old, "done", OUTCOME, 60) == 0
        assert await call(ledger, "take_expired", 10, 15_000) == []  # one reconciler, not all of them
        assert await call(ledger, "give_back", row.id, taken, 1, 0) == b"interactive"
        new, attempt, *_ = await call(ledger, "start", row.id, "w2", 15_000)
        assert attempt == 2
        assert await call(ledger, "finish", row.id, new, "done", OUTCOME, 60) == 1
        assert await call(ledger, "finish", row.id, new, "failed", OUTCOME, 60) == 0
        assert (await ledger.get(row.id, tenant="t")).state == "done"

    with_ledger(url, steps)


def test_a_scan_given_back_keeps_its_place_and_its_attempts(url: str) -> None:
    async def steps(ledger: Ledger) -> None:
        first = await ledger.accept(ask())
        await ledger.accept(ask("https://example.org/b.jpg"))
        fence = (await call(ledger, "start", first.id, "w", 15_000))[0]
        assert await call(ledger, "give_back", first.id, fence, 0, 0) == b"interactive"
        row = await ledger.get(first.id, tenant="t")
        assert (row.state, row.position, row.attempt) == ("queued", 0, 0)
        fence = (await call(ledger, "start", first.id, "w", 15_000))[0]
        assert await call(ledger, "give_back", first.id, fence, 1, 1) == b"later"
        await asyncio.sleep(0.01)
        assert await call(ledger, "take_due", 10, 60_000) == [first.id.encode(), b"interactive"]
        assert await call(ledger, "take_due", 10, 60_000) == []

    with_ledger(url, steps)


def test_events_tell_each_change_and_end_with_the_outcome(url: str) -> None:
    async def steps(ledger: Ledger) -> None:
        row = await ledger.accept(ask())
        seen: asyncio.Queue[tuple[object, ...]] = asyncio.Queue()

        async def listen() -> None:
            async for event in ledger.events(row.id, tenant="t"):
                await seen.put((event.state, event.stage, event.percent))

        async def comes(*what: object) -> None:
            async with asyncio.timeout(60):
                while await seen.get() != what:
                    pass

        listening = asyncio.create_task(listen())
        assert await seen.get() == ("queued", None, None)
        fence = (await call(ledger, "start", row.id, "w", 15_000))[0]
        await call(ledger, "progress", row.id, fence, "fetch", 50)
        await comes("running", "fetch", 50.0)
        await call(ledger, "finish", row.id, fence, "done", OUTCOME, 60)
        await comes("done", None, None)
        await listening
        assert seen.empty()

    with_ledger(url, steps)


def test_changes_are_told_and_not_only_found(url: str, monkeypatch) -> None:
    """No row is read again in time here, so that a message which is lost would be missed."""
    monkeypatch.setattr(ledger_module, "_POLL_S", 0.05)  # how soon a lost connection is made anew
    monkeypatch.setattr(ledger_module, "_HEARD_POLL_S", 3_600.0)

    async def steps(ledger: Ledger) -> None:
        row = await ledger.accept(ask())
        async with asyncio.timeout(60), contextlib.aclosing(ledger.events(row.id, tenant="t")) as events:
            assert (await anext(events)).state == "queued"
            running = asyncio.ensure_future(anext(events))
            while not ledger._changes.is_heard:  # noqa: ASYNC110 - it tells nobody
                await asyncio.sleep(0.01)
            fence = (await call(ledger, "start", row.id, "w", 15_000))[0]
            assert (await running).state == "running"
            ended = asyncio.ensure_future(anext(events))
            assert await ledger.redis.client_kill_filter(_type="pubsub") == 1
            await call(ledger, "finish", row.id, fence, "done", OUTCOME, 60)  # told to nobody, or to who came back
            assert (await ended).state == "done"
        assert not ledger._changes.is_heard

    with_ledger(url, steps)


def test_nobody_listens_on_whenever_the_last_one_stops_waiting(url: str) -> None:
    """Redis's client loses a cancellation that comes while it connects: at every step of that one is tried."""

    async def steps(_ledger: Ledger) -> None:
        for step in range(30):
            async with redis.asyncio.Redis.from_url(url) as client:
                changes = ledger_module._Changes(client)
                async with changes.of("a scan"):
                    task = changes._task
                    for _ in range(step):
                        await asyncio.sleep(0)
                assert task is not None
                assert await asyncio.wait([task], timeout=60) == ({task}, set()), step

    with_ledger(url, steps)


def test_who_waits_is_told_at_once_that_redis_is_gone(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(ledger_module, "_HEARD_POLL_S", 3_600.0)

    async def steps(ledger: Ledger, server) -> None:
        row = await ledger.accept(ask())
        async with asyncio.timeout(60):
            waiting = asyncio.create_task(ledger.wait(row.id, tenant="t", timeout_s=3_600))
            while not ledger._changes.is_heard:  # noqa: ASYNC110 - it tells nobody
                await asyncio.sleep(0.01)
            server.kill()
            with pytest.raises(redis.exceptions.ConnectionError):
                await waiting

    async def run() -> None:
        server = start_redis(tmp_path)
        try:
            async with redis.asyncio.Redis.from_url(socket_url(tmp_path)) as client:
                await steps(Ledger(client), server)
        finally:
            server.kill()
            server.wait()

    asyncio.run(run())


def test_waiting_ends_with_the_scan_or_with_the_time(url: str) -> None:
    async def steps(ledger: Ledger) -> None:
        row = await ledger.accept(ask())
        assert (await ledger.wait(row.id, tenant="t", timeout_s=0.05)).state == "queued"
        waiters = [asyncio.create_task(ledger.wait(row.id, tenant="t", timeout_s=20)) for _ in range(20)]
        await asyncio.sleep(0.05)
        await end(ledger, row)
        assert {one.state for one in await asyncio.gather(*waiters)} == {"done"}
        assert await ledger.wait("unknown", tenant="t", timeout_s=5) is None

    with_ledger(url, steps)


def test_an_outcome_is_forgotten_in_time_and_no_sooner(url: str) -> None:
    async def steps(ledger: Ledger) -> None:
        row = await ledger.accept(ask())
        assert await ledger.redis.ttl(f"laescan:scan:{row.id}") == -1  # what is owed stays
        await end(ledger, row)
        assert 0 < await ledger.redis.ttl(f"laescan:scan:{row.id}") <= 60

    with_ledger(url, steps)


def test_no_key_shows_a_url(url: str) -> None:
    async def steps(ledger: Ledger) -> None:
        await ledger.accept(ask("https://example.org/secret-token"), idempotency_key="secret-key")
        assert [key for key in await ledger.redis.keys("*") if b"secret" in key] == []

    with_ledger(url, steps)
