"""What may be inherited, on a real Redis: equal bytes and pixels always, alike pictures by the rules."""

import asyncio
import dataclasses
import hashlib
import io
from pathlib import Path

import msgspec
import numpy as np
import pytest
import redis.asyncio
import verdicts
from PIL import Image, ImageDraw
from redis_server import redis_in

from scanner.cache.fingerprint import pixel_digest
from scanner.cache.recall import PROVISIONAL, Recall
from scanner.cache.validators import Validators
from scanner.contract import Label, Region
from scanner.decoding.decode import Decoded, Frame
from scanner.fetching.fetch import Fetched
from scanner.pipeline import media_of
from scanner.settings import Settings

MEDIA = Path(__file__).parent / "media"
MODEL = verdicts.MODEL.model_id
URL = "https://example.org/face.jpg"
NEVER, ALWAYS = {"near_audit_share": 0.0}, {"near_audit_share": 1.0}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with redis_in(tmp_path_factory.mktemp("redis")) as url:
        yield url


@pytest.fixture
def with_recall(server):
    """Run an async function with a memory whose Redis is empty; audits only where they are always."""

    def run(work, **settings):
        async def main():
            async with redis.asyncio.Redis.from_url(server) as client:
                await client.flushall()
                await work(Recall(client, Settings(**{**NEVER, **settings}), model_id=MODEL, tenant="a"))

        asyncio.run(main())

    return run


def portrait(name="london_1"):
    with Image.open(MEDIA / f"{name}.jpg") as picture:
        return picture.convert("RGB")


def copy_of(picture, quality=70):
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer).convert("RGB")


def forged(picture):
    twin = picture.copy()
    width, height = picture.size
    ImageDraw.Draw(twin).rectangle([0.4 * width, 0.6 * height, 0.6 * width, 0.65 * height], fill=(90, 20, 30))
    return twin


def scanned(*pictures, kind="image", data=None, via="http"):
    """What fetching and decoding would have made of the pictures; the bytes are invented unless given."""
    frames = tuple(Frame(np.asarray(p), n, None if kind == "image" else n / 2) for n, p in enumerate(pictures))
    width, height = pictures[0].size
    decoded = Decoded(kind, "jpeg", width, height, None if kind == "image" else 2.0, len(frames), frames, ())
    data = data or b"".join(picture.tobytes()[::997] for picture in pictures)
    sha256 = hashlib.sha256(data).hexdigest()
    return Fetched(Path("x"), URL, URL, sha256, len(data), via, Validators('"1"', None)), decoded


def judged(fetched, decoded, raw=verdicts.HIGH):
    """A verdict on it, with one face in the middle."""
    verdict = verdicts.still(verdicts.scored(raw, side_px=0.4 * decoded.width))
    frame = msgspec.structs.replace(verdict.frames[0], width=decoded.width, height=decoded.height)
    box = (0.3 * decoded.width, 0.3 * decoded.height, 0.7 * decoded.width, 0.7 * decoded.height)
    face = msgspec.structs.replace(verdict.faces[0], box=box)
    return msgspec.structs.replace(verdict, media=media_of(fetched, decoded), faces=(face,), frames=(frame,))


async def scan(memory, *pictures, raw=verdicts.HIGH, **options):
    """Remember a scan; out: what was fetched and decoded, and its verdict."""
    fetched, decoded = scanned(*pictures, **options)
    verdict = judged(fetched, decoded, raw)
    await memory.remember(fetched, decoded, verdict)
    return fetched, decoded, verdict


async def ask(memory, *pictures, **options):
    fetched, decoded = scanned(*pictures, **options)
    return await memory.recall(fetched) or await memory.recall_decoded(fetched, decoded)


# ---------------------------------------------------------------- equal


def test_equal_bytes_have_the_very_verdict_whoever_asks(with_recall):
    async def work(memory):
        fetched, _, verdict = await scan(memory, portrait())
        found = await memory.recall(fetched)
        assert msgspec.structs.replace(found, cache=verdict.cache) == verdict
        assert found.cache.kind == "exact"
        other = Recall(memory._redis, Settings(), model_id=MODEL, tenant="b")
        assert (await other.recall(fetched)).label is Label.MANIPULATED
        assert await Recall(memory._redis, Settings(), model_id="newer", tenant="a").recall(fetched) is None

    with_recall(work)


def test_a_tenant_learns_of_no_file_but_its_own(with_recall):
    """Of another's picture only who has the very bytes or pixels learns, and then lists it among its own."""

    async def work(memory):
        fetched, _, verdict = await scan(memory, portrait())
        bits = f"{int(fetched.sha256, 16):0256b}"[:8]
        other = Recall(memory._redis, Settings(**NEVER), model_id=MODEL, tenant="b")

        async def listed():
            return [sha256 for sha256, _ in await other.cache.by_prefix(bits, tenant="b", model_id=MODEL)]

        assert await listed() == []
        assert await ask(other, copy_of(portrait())) is None, "a copy would name the picture it was made of"
        assert await ask(memory, copy_of(portrait())) is not None
        assert (await other.recall(fetched)).label is verdict.label
        assert await listed() == [fetched.sha256]

    with_recall(work)


def test_what_one_tenant_finds_says_nothing_of_what_another_inherits(with_recall):
    async def work(memory):
        await scan(memory, portrait())
        other = Recall(memory._redis, Settings(**NEVER), model_id=MODEL, tenant="b")
        await scan(other, copy_of(portrait(), 80), raw=verdicts.LOW)
        assert (await memory.cache.stats()).get("near:contradicted", 0) == 0
        assert (await ask(memory, copy_of(portrait(), 70))).cache.kind == "near"

    with_recall(work)


def test_a_hit_by_bytes_is_a_look_at_the_url(with_recall):
    async def work(memory):
        fetched, _, verdict = await scan(memory, portrait(), via="file")
        assert await memory.cache.known_url(URL, tenant="a") is None, "an upload named a URL"
        await memory.recall(dataclasses.replace(fetched, via="http"))
        assert (await memory.cache.known_url(URL, tenant="a")).sha256 == verdict.media.sha256
        assert (await memory.cache.by_url(URL, tenant="a", model_id=MODEL)).label is Label.MANIPULATED

    with_recall(work)


def test_a_server_is_asked_whether_it_changed_only_where_the_answer_is_at_hand(with_recall):
    async def work(memory):
        assert await memory.expected(URL) is None
        fetched, _, verdict = await scan(memory, portrait())
        validators, found = await memory.expected(URL)
        assert validators == fetched.validators
        assert found.media == verdict.media
        await memory.cache.forget(verdict.media.sha256, model_id=MODEL)
        assert await memory.expected(URL) is None

    with_recall(work)


def test_equal_pixels_in_other_bytes_have_the_verdict_on_these_bytes(with_recall):
    async def work(memory):
        _, _, verdict = await scan(memory, portrait(), data=b"a jpeg with metadata")
        found = await ask(memory, portrait(), data=b"a jpeg without")
        assert found.cache.kind == "exact"
        assert found.media.sha256 == hashlib.sha256(b"a jpeg without").hexdigest()
        assert found.faces == verdict.faces
        again, _ = scanned(portrait(), data=b"a jpeg without")
        assert (await memory.recall(again)).media == found.media, "the second time its bytes are known"

    with_recall(work)


@pytest.mark.parametrize("change", ["pixel", "size", "order", "time", "kind"])
def test_any_difference_makes_another_digest(change):
    one, two = portrait(), copy_of(portrait())
    _, decoded = scanned(one, two, kind="video")
    other = {
        "pixel": lambda: scanned(one, forged(two), kind="video")[1],
        "size": lambda: dataclasses.replace(decoded, width=decoded.width + 1),
        "order": lambda: scanned(two, one, kind="video")[1],
        "time": lambda: dataclasses.replace(
            decoded, frames=tuple(dataclasses.replace(frame, time_s=9.0) for frame in decoded.frames)
        ),
        "kind": lambda: dataclasses.replace(decoded, kind="animation"),
    }[change]()
    assert pixel_digest(scanned(one, two, kind="video")[1]) == pixel_digest(decoded)
    assert pixel_digest(other) != pixel_digest(decoded)


# ---------------------------------------------------------------- alike


def test_a_copy_inherits_provisionally_and_its_forged_twin_does_not(with_recall):
    async def work(memory):
        _, _, verdict = await scan(memory, portrait())
        found = await ask(memory, copy_of(portrait()))
        assert (found.label, found.score) == (verdict.label, verdict.score)
        assert found.cache.kind == "near"
        assert found.cache.root == verdict.media.sha256 != found.media.sha256
        assert found.cache.distance <= 15
        assert PROVISIONAL in found.warnings
        assert await ask(memory, forged(portrait())) is None
        assert await ask(memory, portrait("london_2")) is None

    with_recall(work)


def test_what_was_inherited_is_never_inherited_from(with_recall):
    async def work(memory):
        await scan(memory, portrait())
        fetched, decoded = scanned(copy_of(portrait()))
        found = await memory.recall_decoded(fetched, decoded)
        assert found.cache.kind == "near"
        assert await memory.recall(fetched) is None, "the copy's bytes have no verdict of their own"
        assert await memory.cache.by_url(URL, tenant="a", model_id=MODEL) is not None, "the original's URL has"

    with_recall(work)


def test_evidence_lies_in_the_copys_pixels(with_recall):
    async def work(memory):
        fetched, decoded = scanned(portrait())
        verdict = msgspec.structs.replace(judged(fetched, decoded), regions=(Region((10.0, 20.0, 30.0, 40.0), 0.5),))
        await memory.remember(fetched, decoded, verdict)
        half = portrait().resize([side // 2 for side in portrait().size], Image.Resampling.BOX)
        found = await ask(memory, half)
        assert (found.media.width, found.frames[0].width) == (half.width, half.width)
        assert found.faces[0].box == pytest.approx([side / 2 for side in verdict.faces[0].box])
        assert found.regions[0].box == pytest.approx((5, 10, 15, 20))
        there = [number / 2 for number in verdict.faces[0].attention.crop_to_frame]
        assert found.faces[0].attention.crop_to_frame == pytest.approx(there)

    with_recall(work)


@pytest.mark.parametrize(
    ("raw", "labels", "inherits"),
    [
        (verdicts.LOW, ("manipulated", "inconclusive"), False),
        (verdicts.LOW, ("authentic",), True),
        (0.0, ("manipulated", "inconclusive"), True),
        (verdicts.HIGH, ("authentic",), False),
        (verdicts.HIGH, (), False),
    ],
)
def test_only_the_labels_of_the_settings_are_inherited(with_recall, raw, labels, inherits):
    async def work(memory):
        await scan(memory, portrait(), raw=raw)
        assert (await ask(memory, copy_of(portrait())) is not None) is inherits

    with_recall(work, near_labels=labels)


def test_the_first_two_copies_are_scanned_afterwards_and_a_share_of_the_rest(with_recall):
    async def work(memory):
        await scan(memory, portrait())
        return [(await ask(memory, copy_of(portrait(), 60 + n))).cache.audit for n in range(5)]

    async def never(memory):
        assert await work(memory) == [True, True, False, False, False]

    async def always(memory):
        assert await work(memory) == [True] * 5

    with_recall(never)
    with_recall(always, **ALWAYS)


def test_a_scan_that_contradicts_ends_the_inheritance_for_both(with_recall):
    async def work(memory):
        await scan(memory, portrait())
        assert await ask(memory, copy_of(portrait(), 70)) is not None
        await scan(memory, copy_of(portrait(), 80), raw=verdicts.LOW)
        assert await ask(memory, copy_of(portrait(), 70)) is None
        assert (await memory.cache.stats())["near:contradicted"] == 1
        fetched, _ = scanned(portrait())
        assert (await memory.recall(fetched)).label is Label.MANIPULATED, "its own bytes keep their verdict"

    with_recall(work, near_labels=("manipulated", "authentic"))


def test_pictures_that_disagree_answer_nothing(with_recall):
    """As after a race: two workers scan two copies at once, and neither sees the other's."""

    async def work(memory):
        for picture, raw in ((portrait(), verdicts.HIGH), (copy_of(portrait(), 90), verdicts.LOW)):
            fetched, decoded = scanned(picture)
            verdict = judged(fetched, decoded, raw)
            await memory.cache.remember(verdict)
            look = (await memory._print(decoded)).look
            await memory.near.add(fetched.sha256, look, [])
        assert await ask(memory, copy_of(portrait(), 70)) is None
        assert (await memory.cache.stats())["near:conflict"] == 1

    with_recall(work, near_labels=("manipulated", "authentic"))


def test_a_smaller_copy_with_the_same_verdict_takes_no_room(with_recall):
    async def work(memory):
        await scan(memory, portrait())
        await scan(memory, copy_of(portrait()))
        await scan(memory, portrait().resize((300, 300 * portrait().height // portrait().width)))
        keys = [key async for key in memory._redis.scan_iter(match="m1:n:r:*")]
        assert sum([await memory._redis.hlen(key) for key in keys]) == 1

    with_recall(work)


def test_a_verdict_of_another_model_is_no_candidate(with_recall):
    async def work(memory):
        await scan(memory, portrait())
        newer = Recall(memory._redis, Settings(), model_id="newer", tenant="a")
        assert await ask(newer, copy_of(portrait())) is None

    with_recall(work)


@pytest.mark.parametrize("kind", ["video", "animation"])
def test_what_moves_is_equal_or_unknown_never_alike(with_recall, kind):
    async def work(memory):
        await scan(memory, portrait(), portrait("london_2"), kind=kind)
        assert await ask(memory, copy_of(portrait(), 95), portrait("london_2"), kind=kind) is None
        assert await ask(memory, copy_of(portrait(), 95)) is None
        assert (await ask(memory, portrait(), portrait("london_2"), kind=kind, data=b"rewrapped")).cache.kind == "exact"

    with_recall(work)


def test_without_redis_nothing_is_known_and_nothing_breaks(tmp_path, caplog):
    async def work():
        async with redis.asyncio.Redis.from_url(f"unix://{tmp_path}/none.sock") as client:
            memory = Recall(client, Settings(), model_id=MODEL, tenant="a")
            fetched, decoded, _ = await scan(memory, portrait())
            assert await memory.expected(URL) is None
            assert await memory.recall(fetched) is None
            assert await memory.recall_decoded(fetched, decoded) is None

    asyncio.run(work())
    assert "Redis is away" in caplog.text
