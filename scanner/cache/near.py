"""A picture in; the scanned pictures out that it is a re-encoded copy of, as far as pixels can tell.

    perceptual hash within 15 bits  ->  nominates
    same shape, every face big enough, thumbnail and every face alike in each window  ->  believed, provisionally

One reason: no distance between hashes tells a copy from a forgery (40 % of local forgeries have the very hash of the
untouched picture), so pixels decide, and the worst window decides alone: a forgery is small.
Only pictures that were scanned are compared with, never copies of copies.
"""

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import msgspec
import numpy as np
from msgspec import Meta
from redis.asyncio import Redis

from scanner.cache import alike
from scanner.cache.bands import bands_of, root_key
from scanner.cache.fingerprint import FACE_MARGIN, FACE_PX, THUMB_PX, Box, Look, pack, unpack
from scanner.cache.gist import decoded
from scanner.cache.verdicts import VERDICT_TTL_S, VerdictCache

log = logging.getLogger(__name__)

MAX_CANDIDATES = 16  # the nearest hashes whose pictures are compared
ROOTS_PER_HASH = 8  # pictures with the same hash that are kept
MAX_ENLARGED = 2.1
"""How much larger than the scanned picture a copy may be: its detail was not there to be judged."""
MIN_FACE_PX = 20.0
"""A face smaller than this, in either picture, cannot be compared."""
MIN_CONTRAST = 8.0
"""Standard deviation of the thumbnail, in grey levels: a flatter picture has a hash of noise."""
_Share = Annotated[float, Meta(ge=-8, le=9)]  # a box may reach out of the picture


class RootFace(msgspec.Struct, frozen=True, array_like=True):
    """A face of a scanned picture: its box in 0..1 of the picture, and its crop."""

    box: tuple[_Share, _Share, _Share, _Share]
    crop: bytes


class Root(msgspec.Struct, frozen=True, array_like=True):
    """A scanned picture as it is compared with."""

    width: Annotated[int, Meta(ge=1)]
    height: Annotated[int, Meta(ge=1)]
    thumbnail: bytes
    faces: tuple[RootFace, ...]

    @classmethod
    def of(cls, look: Look, boxes: Sequence[Box]) -> "Root":
        """From a picture and its faces' boxes in 0..1."""
        faces = tuple(RootFace(box, pack(look.crop(box))) for box in boxes)
        return cls(look.width, look.height, pack(look.thumbnail), faces)


@dataclass(frozen=True)
class Match:
    """A scanned picture that looks the same: by how many bits its hash is off, and `difference`, below 1."""

    sha256: str
    distance: int
    difference: float


class NearTier:
    """One tenant's scanned pictures by what they look like: nobody learns of a picture that merely resembles theirs."""

    def __init__(self, redis: Redis, cache: VerdictCache, *, tenant: str) -> None:
        self._redis = redis
        self._cache = cache
        self._tenant = tenant
        self._bands = bands_of(redis, tenant)

    async def add(self, sha256: str, look: Look, boxes: Sequence[Box]) -> None:
        """Keep a scanned picture; a flat one is not kept."""
        if not is_comparable(look):
            return
        key, root = root_key(look.perceptual_hash, self._tenant), msgspec.msgpack.encode(Root.of(look, boxes))
        if await self._redis.hlen(key) >= ROOTS_PER_HASH:
            await self._cache.count("full:n")
            return
        async with self._redis.pipeline(transaction=False) as pipe:
            pipe.hset(key, sha256, root)
            pipe.expire(key, VERDICT_TTL_S)
            await pipe.execute()
        await self._cache.count("full:b", await self._bands.add(look.perceptual_hash))

    async def find(self, look: Look) -> list[Match]:
        """Every scanned picture that this one is a copy of, the most alike first."""
        if not is_comparable(look):
            return []
        near, corrupt = await self._bands.near(look.perceptual_hash)
        await self._cache.count("corrupt:b", corrupt)
        hashes = sorted(near, key=near.__getitem__)[:MAX_CANDIDATES]
        if not hashes:
            return []
        async with self._redis.pipeline(transaction=False) as pipe:
            for code in hashes:
                pipe.hgetall(root_key(code, self._tenant))
            found = await pipe.execute(raise_on_error=False)
        roots: list[tuple[str, int, bytes]] = []
        for code, some in zip(hashes, found, strict=True):
            if not isinstance(some, dict):  # an error: something else lies there
                await self._cache.count("corrupt:n")
                continue
            roots += [(sha256.decode(), near[code], data) for sha256, data in some.items()]
        matches, corrupt = await asyncio.to_thread(_matches, look, roots)
        await self._cache.count("corrupt:n", corrupt)
        return matches


def _matches(look: Look, roots: Sequence[tuple[str, int, bytes]]) -> tuple[list[Match], int]:
    """Those (sha256, distance, packed root) that it is a copy of, the most alike first, and how many are corrupt.

    In a thread: each takes milliseconds, and among variants of one picture there are 128.
    """
    matches, corrupt = [], 0
    for sha256, distance, data in roots:
        try:
            match = Match(sha256, distance, difference(look, decoded(_ROOT, data)))
        except ValueError as error:
            log.warning("a corrupt picture in the near tier is no match: %s", error)
            corrupt += 1
        else:
            matches += [match] if match.difference < 1 else []
    return sorted(matches, key=lambda match: match.difference), corrupt


def is_comparable(look: Look) -> bool:
    """Whether there is enough in the picture to tell it from others."""
    return float(look.thumbnail[..., 0].std()) >= MIN_CONTRAST


def difference(look: Look, root: Root) -> float:
    """How much a picture differs from a scanned one where it differs most, below 1 for a copy (`alike.difference`).

    Infinite when the two cannot be compared. Raises ValueError when the stored pictures are none.
    """
    if not _same_shape(look, root):
        return np.inf
    if any(min(look.side_px(face.box), _side_px(root, face.box)) < MIN_FACE_PX for face in root.faces):
        return np.inf
    width, height = min(look.width, root.width), min(look.height, root.height)
    thumbnail = unpack(root.thumbnail, THUMB_PX)
    drift, worst = alike.drift_and_difference(thumbnail, look.thumbnail, detail=(width, height))
    for face in root.faces:
        if drift is not None and worst < 1:
            crop = look.crop((*drift.moved(*face.box[:2]), *drift.moved(*face.box[2:])))
            worst = max(worst, alike.difference(unpack(face.crop, FACE_PX), crop, detail=_detail(face, width, height)))
    return worst


def _detail(face: RootFace, width: int, height: int) -> tuple[float, float]:
    """The pixels that a face's crop has in the smaller of the two pictures."""
    x0, y0, x1, y1 = face.box
    return (x1 - x0) * (1 + 2 * FACE_MARGIN) * width, (y1 - y0) * (1 + 2 * FACE_MARGIN) * height


def _same_shape(look: Look, root: Root) -> bool:
    """Width and height scaled alike, up to the pixel that rounding takes, and not enlarged beyond what was judged."""
    across, down = look.width / root.width, look.height / root.height
    rounding = 1 / min(look.width, look.height, root.width, root.height)
    return max(across, down) <= MAX_ENLARGED and abs(across / down - 1) <= 0.005 + rounding


def _side_px(root: Root, box: Box) -> float:
    return min((box[2] - box[0]) * root.width, (box[3] - box[1]) * root.height)


_ROOT = msgspec.msgpack.Decoder(Root)
