"""Two scans of the same thing: one works, the other waits and recalls."""

import asyncio
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
import redis.asyncio
from redis_server import redis_in

from scanner.service.flight import SingleFlight

FETCHED = SimpleNamespace(sha256="d1")


@pytest.fixture(scope="module")
def url(tmp_path_factory) -> Iterator[str]:
    with redis_in(tmp_path_factory.mktemp("r")) as found:
        yield found


class Memory:
    """Remembers one verdict, for everybody who shares it."""

    def __init__(self) -> None:
        self.verdict = None
        self.asked = 0

    async def expected(self, _source):
        return None

    async def recall(self, _fetched):
        self.asked += 1
        return self.verdict

    async def recall_decoded(self, _fetched, _decoded):
        return self.verdict

    async def remember(self, _fetched, _decoded, verdict) -> None:
        self.verdict = verdict


async def tries(client) -> int:
    """How often somebody has asked for a flight: each is a SET."""
    return (await client.info("commandstats"))["cmdstat_set"]["calls"]


def with_redis(url, steps) -> None:
    async def run() -> None:
        async with redis.asyncio.Redis.from_url(url) as client:
            await client.flushall()
            await steps(client)

    asyncio.run(run())


def test_the_second_waits_for_the_first_and_gets_its_verdict(url: str) -> None:
    async def steps(client) -> None:
        memory = Memory()
        first, second = (SingleFlight(client, model_id="m") for _ in range(2))
        recalled = []

        async def wait_for_it() -> None:
            async with second.aboard("b:1", memory):
                recalled.append(await second.recall(FETCHED))

        async with first.aboard("a:1", memory):
            assert await first.recall(FETCHED) is None
            before = await tries(client)
            waiting = asyncio.create_task(wait_for_it())
            async with asyncio.timeout(20):
                while await tries(client) < before + 2:  # noqa: ASYNC110 - refused once, it waits and tries again
                    await asyncio.sleep(0.01)
            assert (recalled, memory.asked) == ([], 1)
            await first.remember(FETCHED, None, "verdict")
        await waiting
        assert recalled == ["verdict"]
        assert await client.keys("*") == []

    with_redis(url, steps)


def test_other_bytes_and_other_models_do_not_wait(url: str) -> None:
    async def steps(client) -> None:
        flights = [SingleFlight(client, model_id=model_id) for model_id in ("m", "m", "n")]
        first, second, third = flights
        async with first.aboard("a:1", Memory()), second.aboard("b:1", Memory()), third.aboard("c:1", Memory()):
            async with asyncio.timeout(20):
                await first.recall(FETCHED)
                await second.recall(SimpleNamespace(sha256="d2"))
                await third.recall(FETCHED)

    with_redis(url, steps)


def test_a_flight_whose_scan_died_is_taken_by_the_next(url: str) -> None:
    async def steps(client) -> None:
        await client.set("laescan:flight:bytes:m:d1", "dead:1", px=50)
        flight = SingleFlight(client, model_id="m")
        async with flight.aboard("b:1", Memory()), asyncio.timeout(20):
            assert await flight.recall(FETCHED) is None

    with_redis(url, steps)


def test_who_lands_late_does_not_end_the_flight_of_another(url: str) -> None:
    async def steps(client) -> None:
        flight = SingleFlight(client, model_id="m")
        async with flight.aboard("a:1", Memory()):
            await flight.recall(FETCHED)
            await client.set("laescan:flight:bytes:m:d1", "b:1")
        assert await client.get("laescan:flight:bytes:m:d1") == b"b:1"

    with_redis(url, steps)


def test_without_redis_nobody_waits(tmp_path) -> None:
    async def run() -> None:
        async with redis.asyncio.Redis.from_url(f"unix://{tmp_path}/none.sock") as client:
            flight = SingleFlight(client, model_id="m")
            async with flight.aboard("a:1", Memory()), asyncio.timeout(20):
                assert await flight.recall(FETCHED) is None

    asyncio.run(run())
