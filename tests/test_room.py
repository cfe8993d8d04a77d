"""Room for pixels: never more than there is, and nobody waits for ever."""

import asyncio
import contextlib

from scanner.decoding.room import Room


async def through(room, sizes):
    """Send media of these sizes through; out: the most bytes, and the most media, that were held at once."""
    held, most, decoding = [], [0, 0], []

    async def one(number, size):
        async with contextlib.AsyncExitStack() as stack:
            async with room.decoding():
                decoding.append(number)
                assert len(decoding) <= 2
                await asyncio.sleep(0)
                await stack.enter_async_context(room.holding(size))
                decoding.remove(number)
            held.append(size)
            most[0], most[1] = max(most[0], sum(held)), max(most[1], len(held))
            for _ in range(20):
                await asyncio.sleep(0)
            held.remove(size)

    tasks = [asyncio.create_task(one(number, size)) for number, size in enumerate(sizes)]
    await asyncio.gather(*tasks)
    return most


def test_small_ones_wait_together_and_large_ones_by_twos():
    async def test():
        room = Room(2, most_bytes=100)
        assert await through(room, [10] * 50) == [100, 10]
        assert await through(room, [1000] * 9) == [2000, 2]
        sizes, media = await through(room, [1000, 10, 60, 10, 1000, 10] * 5)
        assert sizes <= 2000
        assert media <= 10

    asyncio.run(asyncio.wait_for(test(), 30))


def test_who_gives_up_leaves_the_room_as_it_was():
    async def test():
        room = Room(2, most_bytes=100)

        async def give_up():
            async with room.holding(90), room.holding(90):
                waiting = asyncio.create_task(room.holding(90).__aenter__())
                await asyncio.sleep(0)
                waiting.cancel()
                await asyncio.wait((waiting,))

        await give_up()
        assert await through(room, [10] * 30) == [100, 10]

    asyncio.run(asyncio.wait_for(test(), 30))
