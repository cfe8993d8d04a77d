"""Media with a few bits flipped, through the whole pipeline: `python tests/bitflips.py [--count N] [--book FILE]`.

fetch -> recall -> jailed decode -> recall -> detect, score, judge -> remember -> draw, with the shipped model and a
real Redis. Out: how many ended how, the slowest, and `bitflips, cases, failures`; exit code 1 when one failed.
A failure is a bug of ours (code `internal`, an uncoded error in the jail, drawings that cannot be made), a hang past
the deadline, or something left behind. A decoder that crashes in its jail is an outcome, and counted by its signal.
With `--book FILE` each slice of 250 is a line there, and a next run goes on after the last one.
"""

import argparse
import asyncio
import itertools
import json
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import fuzz_targets
import redis.asyncio
from redis_server import redis_in

from scanner.cache.recall import Recall
from scanner.detection.model import Model
from scanner.pipeline import Scanner, ScanResult
from scanner.report.artifacts import artifacts_of
from scanner.settings import Settings

MEDIA = Path(__file__).parent / "media"
SETTINGS = Settings(decode_timeout_s=15.0, max_image_pixels=4_000_000, max_decoded_bytes=60_000_000)
SLACK_S = 2.0
SLICE = 250


def whole() -> list[tuple[str, bytes]]:
    """Small media of every format, and photographs with faces."""
    made = [*fuzz_targets.pictures(), *fuzz_targets.clips()]
    photos = [path.read_bytes() for path in sorted(MEDIA.glob("fellow_*.jpg"))]
    return [
        *((f"made {at}", data) for at, data in enumerate(made)),
        *((f"photo {at}", d) for at, d in enumerate(photos)),
    ]


def flipped(count: int, seed: int) -> Iterator[tuple[str, bytes]]:
    """`count` damaged copies, the same for the same seed: 1 to 64 bits, at times a tail cut off or a block repeated."""
    dice, sources = random.Random(seed), whole()
    for number in range(count):
        name, data = sources[number % len(sources)]
        body = bytearray(data)
        for _ in range(dice.choice((1, 2, 8, 64))):
            body[dice.randrange(len(body))] ^= 1 << dice.randrange(8)
        match dice.randrange(8):
            case 0:
                del body[dice.randrange(1, len(body)) :]
            case 1:
                at = dice.randrange(len(body))
                body[at:at] = body[at : at + dice.randrange(1, 512)]
            case _:
                pass
        yield name, bytes(body)


class Tally:
    """What became of them."""

    def __init__(
        self, codes: Mapping[str, int] | None = None, failures: Iterable[str] = (), slowest_s: float = 0.0
    ) -> None:
        self.codes: Counter[str] = Counter(codes)
        self.failures = list(failures)
        self.slowest_s = slowest_s

    def add(self, other: "Tally") -> None:
        self.codes += other.codes
        self.failures += other.failures
        self.slowest_s = max(self.slowest_s, other.slowest_s)

    def count(self, name: str, result: ScanResult, seconds: float) -> None:
        outcome = result.outcome
        if outcome.verdict is not None:
            code = str(outcome.verdict.label)
        else:
            assert outcome.failure is not None
            code, words = outcome.failure.code, outcome.failure.message
            if "SIG" in words:
                code += " (crashed in its jail)"
            if code == "internal" or "stopped on this file" in words or "no answer" in words:
                self.failures.append(f"{name}: {words}")
        self.codes[code] += 1
        self.slowest_s = max(self.slowest_s, seconds)
        if seconds > 2 * SETTINGS.decode_timeout_s + SLACK_S:  # a JPEG may be tried by two decoders
            self.failures.append(f"{name}: took {seconds:.1f} s")


@asynccontextmanager
async def remembering(folder: Path, model: Model) -> AsyncIterator[Recall]:
    with redis_in(folder / "redis") as url:
        async with redis.asyncio.Redis.from_url(url) as client:
            yield Recall(client, SETTINGS, model_id=model.info.model_id, tenant="t")


async def scan_all(damaged: Iterable[tuple[str, bytes]], folder: Path, model: Model | None = None) -> Tally:
    """Scan them, two at a time; `folder` is the system's folder for temporary files meanwhile."""
    tally, room = Tally(), asyncio.Semaphore(2)
    scratch = folder / "scratch"
    scratch.mkdir()
    with _temporary(scratch), Scanner(SETTINGS, model=model) as scanner:
        async with remembering(folder, scanner.model) as memory:
            scanner._memory = memory

            async def one(number: int, name: str, data: bytes) -> None:
                place = folder / f"medium-{number}"
                async with room:
                    await asyncio.to_thread(place.write_bytes, data)
                    begun = time.monotonic()
                    result = await scanner.scan(str(place), keep_frames=number % 2 == 0)
                    tally.count(name, result, time.monotonic() - begun)
                    await asyncio.to_thread(place.unlink)
                if result.frames:
                    try:
                        await asyncio.to_thread(artifacts_of, result)
                    except Exception as error:  # noqa: BLE001 - it is counted
                        tally.failures.append(f"{name}: no drawings: {error!r}")

            async with asyncio.TaskGroup() as group:
                for number, (name, data) in enumerate(damaged):
                    while room.locked():  # noqa: ASYNC110 - not all of the bytes in memory at once
                        await asyncio.sleep(0.001)
                    group.create_task(one(number, name, data))
                    await asyncio.sleep(0)
    left = await asyncio.to_thread(lambda: [path.name for path in (*scratch.iterdir(), *folder.glob("medium-*"))])
    tally.failures += [f"left behind: {name}" for name in left]
    return tally


@contextmanager
def _temporary(folder: Path) -> Iterator[None]:
    before, tempfile.tempdir = tempfile.tempdir, str(folder)
    try:
        yield
    finally:
        tempfile.tempdir = before


def scan_slices(count: int, seed: int, book: Path | None, model: Model | None = None) -> Tally:
    """All of them, a slice at a time; what the book has of this seed is not scanned again."""
    text = book.read_text("utf-8") if book and book.exists() else ""
    written = [json.loads(line) for line in text.splitlines()]
    tally, done = Tally(), 0
    for line in (line for line in written if line["seed"] == seed):
        tally.add(Tally(line["codes"], line["failures"], line["slowest_s"]))
        done = line["until"]
    damaged = itertools.islice(flipped(count, seed), done, None)
    while some := list(itertools.islice(damaged, SLICE)):
        with tempfile.TemporaryDirectory() as folder:
            found = asyncio.run(scan_all(some, Path(folder), model))
        tally.add(found)
        done += len(some)
        if book:
            with book.open("a", encoding="utf-8") as file:
                json.dump({"seed": seed, "until": done, **vars(found)}, file)
                file.write("\n")
    return tally


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--count", type=int, default=5_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--book", type=Path, help="where slices that are done are noted, to go on after them")
    given = parser.parse_args(arguments)
    tally = scan_slices(given.count, given.seed, given.book)
    for code, count in tally.codes.most_common():
        print(f"# {count:6} {code}")
    print(f"# slowest {tally.slowest_s:.1f} s")
    for words in tally.failures:
        print(f"# FAILED {words}")
    print(f"bitflips, {tally.codes.total()}, {len(tally.failures)}")
    return 1 if tally.failures else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
