"""What was judged before, as the pipeline asks for it: the exact tiers, then the near one with its rules.

In: what was fetched and decoded for one tenant. Out: a remembered verdict, or None; and fresh ones kept.
One reason: here it is decided what may be inherited. Equal bytes or pixels: everything. A copy that looks the same:
provisionally, only the labels of `near_labels`, only when all pictures that it is a copy of say the same; the first two
of every picture and one in twenty after them are scanned afterwards (`cache.audit`), and who is contradicted by a scan
is not inherited from again. Videos and animations are never alike, only equal.
"""

import asyncio
import logging
import random
from collections.abc import Sequence
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import msgspec
from redis.asyncio import Redis
from redis.exceptions import RedisError

from scanner.cache.fingerprint import Box, Look, pixel_digest
from scanner.cache.near import Match, NearTier
from scanner.cache.urls import tenant_digest
from scanner.cache.validators import Validators
from scanner.cache.verdicts import PREFIX, VERDICT_TTL_S, VerdictCache
from scanner.contract import CacheInfo, FaceEvidence, Media, Verdict
from scanner.decoding.decode import Decoded
from scanner.fetching.fetch import Fetched
from scanner.pipeline import media_of
from scanner.settings import Settings

log = logging.getLogger(__name__)

ALWAYS_AUDITED = 2
PROVISIONAL = "This was not scanned itself: the picture and every face in it look the same as in one scanned before."
"""Among the warnings of every inherited verdict."""


@dataclass(frozen=True, eq=False)
class _Print:
    """What a medium is recognised by; `look` only of a still picture."""

    pixels: str
    look: Look | None


class Recall:
    """`scanner.memory.Memory` in Redis, for one model and one tenant.

    Equal bytes and pixels are everybody's; URLs, and pictures that are merely alike, are the tenant's own.
    When Redis is away nothing is remembered, and scans go on.
    """

    def __init__(self, redis: Redis, settings: Settings, *, model_id: str, tenant: str) -> None:
        self.cache = VerdictCache(redis, settings)
        self.near = NearTier(redis, self.cache, tenant=tenant)
        self._redis = redis
        self._settings = settings
        self._model_id = model_id
        self._tenant = tenant
        self._prints: WeakKeyDictionary[Decoded, _Print] = WeakKeyDictionary()

    async def expected(self, source: str) -> tuple[Validators, Verdict] | None:
        """The verdict on what a URL led to, and what its server can be asked to find out whether it still does."""
        try:
            known = await self.cache.known_url(source, tenant=self._tenant)
            if known is None or not known.validators.headers():
                return None
            verdict = await self.cache.by_sha256(known.sha256, model_id=self._model_id)
        except RedisError as error:
            _warn(error)
            return None
        return None if verdict is None else (known.validators, verdict)

    async def confirm(self, source: str) -> None:
        """What a URL led to is what it leads to."""
        try:
            known = await self.cache.known_url(source, tenant=self._tenant)
            if known is not None:
                await self.cache.remember_url(
                    known.sha256, url=source, tenant=self._tenant, validators=known.validators
                )
        except RedisError as error:
            _warn(error)

    async def recall(self, fetched: Fetched) -> Verdict | None:
        """The verdict on these very bytes."""
        try:
            verdict = await self.cache.by_sha256(fetched.sha256, model_id=self._model_id)
            url = _url(fetched)
            if verdict is None:
                return None
            await self.cache.index([fetched.sha256], scope=self.cache.scope(self._model_id), tenant=self._tenant)
            if url is not None:
                await self.cache.remember_url(
                    fetched.sha256, url=url, tenant=self._tenant, validators=fetched.validators
                )
        except RedisError as error:
            _warn(error)
            return None
        return verdict

    async def recall_decoded(self, fetched: Fetched, decoded: Decoded) -> Verdict | None:
        """The verdict on these very pixels, or provisionally that on a picture that this one is a copy of."""
        seen = await self._print(decoded)
        try:
            verdict = await self.cache.by_pixels(seen.pixels, model_id=self._model_id)
            if verdict is not None:
                verdict = msgspec.structs.replace(verdict, media=media_of(fetched, decoded))
                await self._keep(fetched, verdict, pixels=None)
                return verdict
            if seen.look is None or not self._settings.near_labels:
                return None
            return await self._inherited(fetched, decoded, seen.look)
        except RedisError as error:
            _warn(error)
            return None

    async def remember(self, fetched: Fetched, decoded: Decoded, verdict: Verdict) -> None:
        """Keep a fresh verdict; from a picture that it contradicts nothing is inherited any more."""
        seen = await self._print(decoded)
        try:
            await self._keep(fetched, verdict, pixels=seen.pixels)
            if seen.look is not None:
                await self._add_look(verdict, seen.look)
        except RedisError as error:
            _warn(error)

    # ------------------------------------------------------------ the near tier's rules

    async def _inherited(self, fetched: Fetched, decoded: Decoded, look: Look) -> Verdict | None:
        found = await self._judged(await self.near.find(look))
        if not found:
            return None
        labels = {verdict.label for _, verdict in found}
        if len(labels) > 1:
            await self.cache.count("near:conflict")
            return None
        match, verdict = found[0]
        if verdict.label not in self._settings.near_labels:
            return None
        audit = await self._is_audit_due(match.sha256)
        await self.cache.count("near:audit", int(audit))
        cache = CacheInfo(
            kind="near", distance=match.distance, age_s=verdict.cache.age_s, root=match.sha256, audit=audit
        )
        return carried_over(verdict, media_of(fetched, decoded), cache)

    async def _judged(self, matches: Sequence[Match]) -> list[tuple[Match, Verdict]]:
        """Those of the scanned pictures whose verdict is still there and was never contradicted."""
        if not matches:
            return []
        digests = [match.sha256 for match in matches]
        verdicts = await self.cache.verdicts(digests, model_id=self._model_id)
        barred = await self._redis.mget([self._key("x", sha256) for sha256 in digests])
        return [
            (match, verdicts[match.sha256])
            for match, bar in zip(matches, barred, strict=True)
            if bar is None and match.sha256 in verdicts and has_size(verdicts[match.sha256])
        ]

    async def _is_audit_due(self, root: str) -> bool:
        """Whether this hit is scanned afterwards: the first two of each picture, and a share of the others."""
        async with self._redis.pipeline(transaction=False) as pipe:
            pipe.incr(self._key("a", root))
            pipe.expire(self._key("a", root), VERDICT_TTL_S)
            hits, _ = await pipe.execute()
        return int(hits) <= ALWAYS_AUDITED or random.random() < self._settings.near_audit_share  # noqa: S311 - a sample

    async def _add_look(self, verdict: Verdict, look: Look) -> None:
        """Index a scanned picture, unless a larger one that looks the same and was judged the same is there."""
        sha256 = verdict.media.sha256
        alike = [pair for pair in await self._judged(await self.near.find(look)) if pair[0].sha256 != sha256]
        contradicted = [match.sha256 for match, other in alike if other.label is not verdict.label]
        for other in contradicted:
            await self._redis.set(self._key("x", other), b"", ex=VERDICT_TTL_S)
        await self.cache.count("near:contradicted", len(contradicted))
        if contradicted:
            await self._redis.set(self._key("x", sha256), b"", ex=VERDICT_TTL_S)
        if all(other.media.width < look.width for _, other in alike):
            await self.near.add(sha256, look, [_relative(face, verdict) for face in verdict.faces])

    # ------------------------------------------------------------ within

    async def _print(self, decoded: Decoded) -> _Print:
        """Computed once for each decoded medium, off the event loop: 50 Mpx take about 0.3 s."""
        if decoded not in self._prints:
            self._prints[decoded] = await asyncio.to_thread(_print_of, decoded)
        return self._prints[decoded]

    async def _keep(self, fetched: Fetched, verdict: Verdict, *, pixels: str | None) -> None:
        await self.cache.remember(
            verdict, url=_url(fetched), tenant=self._tenant, validators=fetched.validators, pixels=pixels
        )

    def _key(self, kind: str, sha256: str) -> str:
        return f"{PREFIX}{kind}:{self.cache.scope(self._model_id)}:{tenant_digest(self._tenant)}:{sha256}"


def has_size(verdict: Verdict) -> bool:
    """Whether its medium has one, as every medium has; a damaged entry may say otherwise."""
    return min(verdict.media.width, verdict.media.height) > 0


def carried_over(verdict: Verdict, media: Media, cache: CacheInfo) -> Verdict:
    """A picture's verdict as that of its copy: boxes, maps and sizes in the copy's pixels, and a warning."""
    across, down = media.width / verdict.media.width, media.height / verdict.media.height
    return msgspec.structs.replace(
        verdict,
        media=media,
        cache=cache,
        faces=tuple(_stretched(face, across, down) for face in verdict.faces),
        regions=tuple(msgspec.structs.replace(r, box=_box(r.box, across, down)) for r in verdict.regions),
        frames=tuple(
            msgspec.structs.replace(f, width=round(f.width * across), height=round(f.height * down))
            for f in verdict.frames
        ),
        warnings=(*verdict.warnings, PROVISIONAL),
    )


def _stretched(face: FaceEvidence, across: float, down: float) -> FaceEvidence:
    attention = face.attention
    if attention is not None:
        a, b, c, d, e, f = attention.crop_to_frame
        moved = (a * across, b * across, c * across, d * down, e * down, f * down)
        attention = msgspec.structs.replace(attention, crop_to_frame=moved)
    return msgspec.structs.replace(face, box=_box(face.box, across, down), attention=attention)


def _box(box: Box, across: float, down: float) -> Box:
    return box[0] * across, box[1] * down, box[2] * across, box[3] * down


def _relative(face: FaceEvidence, verdict: Verdict) -> Box:
    frame = verdict.frames[face.frame]
    return _box(face.box, 1 / frame.width, 1 / frame.height)


def _print_of(decoded: Decoded) -> _Print:
    look = Look(decoded.frames[0].pixels) if decoded.kind == "image" else None
    if look is not None:
        look.perceptual_hash, look.thumbnail  # noqa: B018 - computed here, in the thread
    return _Print(pixel_digest(decoded), look)


def _url(fetched: Fetched) -> str | None:
    """The URL to remember; uploads and files name none, whatever they claim."""
    return fetched.source if fetched.via in {"http", "page"} else None


def _warn(error: RedisError) -> None:
    log.warning("nothing is remembered, Redis is away: %s", error)
