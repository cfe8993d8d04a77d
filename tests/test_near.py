"""The near tier on a real Redis: every neighbour is nominated, copies are believed, forgeries are not."""

import asyncio
import io
from pathlib import Path

import msgspec
import numpy as np
import pytest
import redis.asyncio
from PIL import Image, ImageDraw, ImageFilter
from redis_server import redis_in

from scanner.cache import alike
from scanner.cache import bands as bands_module
from scanner.cache.bands import HASH_BITS, HASH_BYTES, RADIUS, Bands
from scanner.cache.buckets import Buckets
from scanner.cache.fingerprint import FACE_PX, THUMB_PX, Look, pack, unpack
from scanner.cache.near import NearTier, Root, RootFace, difference, is_comparable
from scanner.cache.verdicts import VerdictCache

MEDIA = Path(__file__).parent / "media"
FACE = (0.28, 0.22, 0.72, 0.8)
NAMES = ("london_1", "london_2", "fellow_1")


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with redis_in(tmp_path_factory.mktemp("redis")) as url:
        yield url


@pytest.fixture
def with_redis(server):
    def run(work):
        async def main():
            async with redis.asyncio.Redis.from_url(server) as client:
                await client.flushall()
                await work(client)

        asyncio.run(main())

    return run


def portrait(name):
    with Image.open(MEDIA / f"{name}.jpg") as picture:
        return picture.convert("RGB")


def coded(picture, kind, quality):
    buffer = io.BytesIO()
    picture.save(buffer, kind, quality=quality)
    return Image.open(buffer).convert("RGB")


def resized(picture, factor):
    return picture.resize([round(side * factor) for side in picture.size], Image.Resampling.LANCZOS, reducing_gap=2)


def look(picture):
    return Look(np.asarray(picture))


REENCODED = {
    "jpeg 90": lambda p: coded(p, "JPEG", 90),
    "jpeg 60": lambda p: coded(p, "JPEG", 60),
    "webp 80": lambda p: coded(p, "WEBP", 80),
    "half": lambda p: resized(p, 0.5),
    "double": lambda p: resized(p, 2),
}


def with_bar(picture):
    forged = picture.copy()
    width, height = picture.size
    box = [0.42 * width, 0.62 * height, 0.58 * width, 0.66 * height]
    ImageDraw.Draw(forged).rectangle(box, fill=(60, 20, 20))
    return forged


def with_part(picture, box, change):
    box = [round(part * side) for part, side in zip(box, picture.size * 2, strict=True)]
    forged = picture.copy()
    forged.paste(change(picture.crop(box)), box[:2])
    return forged


def recoloured(picture):
    luma, blue, red = picture.convert("YCbCr").split()
    return Image.merge("YCbCr", (luma, blue, red.point(lambda level: min(255, level + 14)))).convert("RGB")


def shifted(picture):
    return picture.transform(picture.size, Image.Transform.AFFINE, (1, 0, 0, 0, 1, picture.height * 0.06))


FORGED = {
    "mouth painted over": with_bar,
    "face recoloured, luma untouched": lambda p: with_part(p, (0.35, 0.3, 0.65, 0.7), recoloured),
    "eyes blurred": lambda p: with_part(
        p, (0.3, 0.35, 0.7, 0.5), lambda part: part.filter(ImageFilter.GaussianBlur(12))
    ),
    "mouth moved": lambda p: with_part(p, (0.38, 0.55, 0.62, 0.72), shifted),
    "mirrored": lambda p: p.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
    "cropped": lambda p: p.crop((0, 0, p.width, round(p.height * 0.9))),
}


# ---------------------------------------------------------------- nominated


def test_no_neighbour_within_the_radius_is_missed_and_none_is_invented(with_redis):
    rng = np.random.default_rng(3)
    kept = [int.from_bytes(rng.bytes(HASH_BYTES)) for _ in range(150)]
    # a cluster as crops of one picture make: neighbours of each other at every distance up to twice the radius
    kept += [kept[0] ^ sum(1 << int(bit) for bit in rng.choice(HASH_BITS, n % 32, replace=False)) for n in range(150)]

    async def work(client):
        bands = Bands(client, "t:", life_s=1_000)
        for code in kept:
            assert await bands.add(code) == 0
        nearby = 0
        for number in range(200):
            flips = rng.choice(HASH_BITS, number % 20, replace=False)
            query = kept[int(rng.integers(len(kept)))] ^ sum(1 << int(bit) for bit in flips)
            brute = {code: (code ^ query).bit_count() for code in kept if (code ^ query).bit_count() <= RADIUS}
            assert await bands.near(query) == (brute, 0)
            nearby += len(brute)
        assert nearby > 500, "the test looks at too little"

    with_redis(work)


def test_the_worst_place_for_fifteen_bits_is_one_in_each_band_but_one(with_redis):
    async def work(client):
        bands = Bands(client, "t:", life_s=1_000)
        await bands.add(0)
        order = bands_module._order(await client.get("t:seed"))
        for spared in range(16):
            query = sum(1 << (HASH_BITS - 1 - order[band * 16 + 5]) for band in range(16) if band != spared)
            assert await bands.near(query) == ({0: 15}, 0)

    with_redis(work)


def test_a_radius_that_the_bands_cannot_hold_is_refused(with_redis):
    async def work(client):
        with pytest.raises(ValueError, match="15"):
            await Bands(client, "t:", life_s=1_000).near(0, radius=16)

    with_redis(work)


def test_hashes_are_found_over_the_turn_of_a_generation_and_after_a_lost_seed_only_missed(with_redis, monkeypatch):
    async def work(client):
        bands = Bands(client, "t:", life_s=100_000)
        await bands.add(5)
        now = bands._buckets._generation()
        with monkeypatch.context() as patch:
            patch.setattr(Buckets, "_generation", lambda _self: now + 1)
            assert await bands.near(5) == ({5: 0}, 0)
        await client.delete("t:seed")
        assert (await bands.near(5))[0] in ({}, {5: 0})
        await bands.add(5)
        assert await bands.near(5) == ({5: 0}, 0)

    with_redis(work)


# ---------------------------------------------------------------- believed


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("change", REENCODED)
def test_a_reencoded_copy_is_the_same_picture(name, change):
    original = look(portrait(name))
    copy = look(REENCODED[change](portrait(name)))
    assert (original.perceptual_hash ^ copy.perceptual_hash).bit_count() <= RADIUS
    assert difference(copy, Root.of(original, [FACE])) < 1


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("change", FORGED)
def test_a_local_forgery_is_not_the_same_picture_even_where_the_hash_says_so(name, change):
    original = look(portrait(name))
    assert difference(look(FORGED[change](portrait(name))), Root.of(original, [FACE])) > 1


def test_a_hash_alone_would_have_taken_a_forgery():
    """The reason for all of this: if it fails, the forgeries above are too easy."""
    apart = [
        (look(portrait(name)).perceptual_hash ^ look(FORGED[change](portrait(name))).perceptual_hash).bit_count()
        for name in NAMES
        for change in ("mouth painted over", "face recoloured, luma untouched", "mouth moved")
    ]
    assert sum(distance <= RADIUS for distance in apart) >= len(apart) // 2


def test_small_faces_are_compared_at_their_own_scale():
    """Four portraits on one canvas: a changed mouth is below what the thumbnail shows, and the face crop tells."""
    canvas = Image.new("RGB", (1_600, 1_600), (90, 90, 90))
    for number, name in enumerate((*NAMES, "london_3")):
        canvas.paste(portrait(name).resize((400, 400)), (number % 2 * 800 + 200, number // 2 * 800 + 200))
    forged = canvas.copy()
    forged.paste(Image.new("RGB", (30, 10), (100, 50, 50)), (385, 470))
    box = (260 / 1_600, 260 / 1_600, 540 / 1_600, 540 / 1_600)
    with_crop, without = Root.of(look(canvas), [box]), Root.of(look(canvas), [])
    assert difference(look(coded(canvas, "JPEG", 80)), with_crop) < 1
    assert difference(look(forged), without) < 1 < difference(look(forged), with_crop)


def test_a_face_too_small_to_compare_makes_no_match():
    original = look(portrait("london_1"))
    speck = (0.5, 0.5, 0.5 + 10 / original.width, 0.5 + 10 / original.height)
    assert difference(original, Root.of(original, [speck])) == np.inf


def test_a_much_larger_or_stretched_copy_is_not_what_was_judged():
    picture = resized(portrait("london_1"), 0.5)
    root = Root.of(look(picture), [])
    assert difference(look(resized(picture, 2)), root) < 1
    assert difference(look(resized(picture, 2.5)), root) == np.inf
    assert difference(look(picture.resize((picture.width, round(picture.height * 0.9)))), root) == np.inf


def test_half_a_row_lost_in_resizing_is_made_up_for():
    picture = portrait("fellow_1").crop((0, 0, 481, 481))
    half = picture.crop((0, 0, 480, 480)).resize((240, 240), Image.Resampling.BOX)
    assert difference(look(half), Root.of(look(picture), [])) < 1
    thumbnails = look(picture).thumbnail, look(half).thumbnail
    assert alike.difference(*thumbnails, detail=(240, 240)) > 1, "the drift no longer matters"


@pytest.mark.parametrize("name", NAMES)
def test_what_a_way_of_resizing_makes_sharper_everywhere_is_made_up_for(name, monkeypatch):
    picture = portrait(name)
    smaller = picture.resize((picture.width // 2, picture.height // 2), Image.Resampling.BILINEAR)
    root = Root.of(look(picture), [FACE])
    assert difference(look(smaller), root) < 0.5
    monkeypatch.setattr(alike, "MAX_SHARPER", 0.0)
    assert difference(look(smaller), root) > 1, "sharpness no longer matters"


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("radius", [2, 4])
def test_a_face_that_is_smoothed_as_a_whole_is_not_the_same_picture(name, radius):
    picture = portrait(name)
    forged, box = picture.copy(), tuple(round(side * part) for part, side in zip(FACE, 2 * picture.size, strict=True))
    forged.paste(picture.crop(box).filter(ImageFilter.GaussianBlur(radius)), box[:2])
    assert difference(look(forged), Root.of(look(picture), [FACE])) > 1


def test_a_flat_picture_is_like_nothing():
    assert not is_comparable(look(Image.new("RGB", (300, 300), (70, 80, 90))))


# ---------------------------------------------------------------- kept


def test_scanned_pictures_are_found_again_and_others_are_not(with_redis):
    async def work(client):
        near = NearTier(client, VerdictCache(client), tenant="a")
        for name in NAMES:
            await near.add(name, look(portrait(name)), [FACE])
        for name in NAMES:
            (match,) = await near.find(look(REENCODED["jpeg 60"](portrait(name))))
            assert match.sha256 == name
            assert match.distance <= RADIUS
            assert await near.find(look(with_bar(portrait(name)))) == []
        assert await near.find(look(portrait("london_3"))) == []
        assert await near.find(look(Image.new("RGB", (300, 300)))) == []

    with_redis(work)


@pytest.mark.parametrize("damage", [b"", b"\xc1", b"\x94\x00\x01\xc4\x01x\x90", "no picture", "half a picture", "type"])
def test_a_damaged_picture_is_no_match_and_counted(with_redis, damage):
    async def work(client):
        cache = VerdictCache(client)
        near = NearTier(client, cache, tenant="a")
        await near.add("a", look(portrait("london_1")), [FACE])
        (key,) = [key async for key in client.scan_iter(match="m1:n:r:*")]
        if damage == "type":
            await client.set(key, "another type")
        elif isinstance(damage, str):
            root = Root.of(look(portrait("london_1")), [])
            thumbnail = b"x" if damage == "no picture" else root.thumbnail[: len(root.thumbnail) // 2]
            await client.hset(key, "a", msgspec.msgpack.encode(msgspec.structs.replace(root, thumbnail=thumbnail)))
        else:
            await client.hset(key, "a", damage)
        assert await near.find(look(portrait("london_1"))) == []
        assert (await cache.stats())["corrupt:n"] == 1

    with_redis(work)


def test_pictures_with_one_hash_have_an_end(with_redis):
    async def work(client):
        cache = VerdictCache(client)
        near = NearTier(client, cache, tenant="a")
        for number in range(10):
            await near.add(str(number), look(portrait("london_1")), [])
        assert len(await near.find(look(portrait("london_1")))) == 8
        assert (await cache.stats())["full:n"] == 2
        (key,) = [key async for key in client.scan_iter(match="m1:n:r:*")]
        assert await client.ttl(key) > 0

    with_redis(work)


# ---------------------------------------------------------------- stored


def test_what_is_stored_is_what_is_compared():
    thumbnail = look(portrait("london_1")).thumbnail
    packed = pack(thumbnail)
    assert len(packed) < 25_000
    assert alike.difference(unpack(packed, THUMB_PX), thumbnail, detail=(THUMB_PX, THUMB_PX)) < 0.5


@pytest.mark.parametrize("data", [b"", b"RIFF....WEBP", pack(np.zeros((64, 64, 3), np.uint8))])
def test_what_is_no_stored_picture_is_a_value_error(data):
    with pytest.raises(ValueError, match="picture"):
        unpack(data, FACE_PX)


def test_a_face_that_reaches_out_of_the_picture_can_be_kept():
    original = look(portrait("london_1"))
    root = Root.of(original, [(-0.2, 0.5, 0.4, 1.3), (1.2, 1.2, 1.4, 1.4)])
    assert all(unpack(face.crop, FACE_PX).shape == (FACE_PX, FACE_PX, 3) for face in root.faces)
    assert isinstance(root.faces[0], RootFace)
