"""The short form of `make torture`: the whole service, three kills, one history without a flaw."""

import asyncio
import signal
from pathlib import Path

import pytest
import torture
from chaos import VERDICT, Rig, Source

PROGRAM = (str(Path(__file__).with_name("chaos.py")),)
"""`laescan` with an engine that needs no weights and is there at once."""


async def short_torment(folder):
    async with Rig(folder, program=PROGRAM, workers=1) as rig:
        loading = asyncio.create_task(rig.load(rig.sources.good(12) + rig.sources.bad()))
        for kind in ("horse", "api", "redis"):
            await asyncio.sleep(0.1)
            assert await rig.until(lambda kind=kind: rig.signal(kind, signal.SIGKILL)), f"no {kind} to kill"
        ids = await loading
        flaws = await rig.flaws(ids)
        codes = rig.codes()
        broken = await checked_against_lies(rig, ids)
    return flaws, codes, broken


async def checked_against_lies(rig, ids):
    """What the checker says of a history with one lie of each kind in it: it would be worth nothing if it said none."""
    first, good = ids[0], next(id_ for id_ in ids if rig.accepted[id_].sha256)
    found = []
    for lie in (
        lambda: rig.redis.hset(f"laescan:scan:{first}", "state", "running"),
        lambda: rig.redis.hset(f"laescan:scan:{first}", "state", "done"),
        lambda: rig.redis.zadd("laescan:leases", {"nobody": 9e15}),
        lambda: rig.redis.hincrby("laescan:tally", "done", 1),
        lambda: rig.accepted.update({good: Source(rig.accepted[good].url, {VERDICT}, "of another")}),
    ):
        lie()
        row = rig.rows(ids)[good]
        found.append([rig.flaw(good, row, ()) is not None, bool(rig.left()), rig.tally_flaw() is not None])
        found[-1].append(any(rig.flaw(id_, one, ()) for id_, one in rig.rows(ids).items()))
    return found


def test_under_kills_every_accepted_scan_ends_exactly_once(tmp_path):
    flaws, codes, lies = asyncio.run(short_torment(tmp_path))
    assert flaws == []
    assert codes[VERDICT] == 12
    running, done, lease, tally, other = lies
    assert running[3]
    assert not done[3]
    assert lease[1]
    assert tally[2]
    assert other[0]


@pytest.mark.parametrize("text", ["", "before\n<!-- torture -->\nold\n<!-- /torture -->\nafter\n"])
def test_the_table_is_put_between_its_marks(text, tmp_path):
    table = torture.Table()
    table.add("a row", 1_000, ["a flaw"], 12.0, "a remark")
    place = tmp_path / "S.md"
    place.write_text(text or f"{torture.BEGIN}{torture.END}")
    table.write(place, "make torture")
    assert "| a row | 1,000 | 1 | 12 | a remark |" in place.read_text()
    assert "old" not in place.read_text()
    assert place.read_text().count(torture.BEGIN) == place.read_text().count(torture.END) == 1
