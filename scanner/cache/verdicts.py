"""Verdicts in Redis: by URL, by the bytes' sha256, by the pixels' digest; and nothing that is merely alike.

In: a key and a `model_id`. Out: the remembered verdict with its age, or None.
One reason: who may say "this was checked already" is decided here: only equal bytes or equal pixels, judged by this
very model. Light (redis, msgspec): the API answers from it. What looks alike is `scanner.cache.near`'s business.

    m1:u:{tenant, url}          sha256, then validators         a day; believed unasked for `url_fresh_s`
    m1:p:{pixel digest}         sha256                          30 days
    m1:v:{model_id}:{sha256}    the verdict and when it was     30 days, inconclusive ones 7
    m1:f:{tenant, url}          why there is no verdict         1 to 10 minutes
    m1:k:{model_id}:{tenant}:.. sha256s by their first 12 bits  see `buckets`

Who knows a digest may ask for its verdict, whoever had it scanned; lists of digests are each tenant's own.

An entry that cannot be read is a miss, counted and logged. Losing any key costs a scan and nothing else, so this Redis
may evict; the ledger's must not.
"""

import logging
import re
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, Literal, TypeVar

import msgspec
from redis.asyncio import Redis

from scanner.cache.buckets import Buckets
from scanner.cache.gist import decoded, gist_in, insist
from scanner.cache.urls import tenant_digest, url_digest
from scanner.cache.validators import NO_VALIDATORS, Validators
from scanner.contract import CacheInfo, Known, Label, ModelInfo, Verdict
from scanner.settings import Settings

log = logging.getLogger(__name__)

PREFIX = "m1:"
"""Of every key; the number is the schema's."""
DAY_S = 86_400
VERDICT_TTL_S, UNSURE_TTL_S, URL_TTL_S = 30 * DAY_S, 7 * DAY_S, DAY_S
PREFIX_BITS = 12  # 4,096 buckets: 244 digests in each at a million entries
MAX_PREFIX_ANSWERS = 1_000
_MODEL_KEY = f"{PREFIX}model"
TOLD_BY = (f"{PREFIX}u:", f"{PREFIX}v:", _MODEL_KEY)
"""Prefixes of the keys on which what is looked up stands."""
_HEX = re.compile(r"[0-9a-f]{64}")
T = TypeVar("T")

# Answers (first, verdict) for each key: a pointer begins with the sha256 under which the verdict is.
FOLLOW = """
local function get(key)
    local value = redis.pcall('GET', key)
    return type(value) == 'string' and value
end
local answers = {}
for _, key in ipairs(KEYS) do
    local first = get(key)
    local pointer = string.sub(key, 4, 4) ~= 'v' and first
    answers[#answers + 1] = first
    answers[#answers + 1] = pointer and get(ARGV[1] .. string.sub(pointer, 1, 64)) or false
end
return answers
"""


class KnownUrl(msgspec.Struct, frozen=True, array_like=True):
    """What a URL was found to lead to, and when."""

    sha256: str
    checked_s: float
    validators: Validators


class _Remembered(msgspec.Struct, frozen=True, array_like=True):
    """A verdict as it lies in Redis."""

    stored_s: float
    verdict: Verdict


class VerdictCache:
    """The exact tiers; every method raises redis.RedisError when Redis is away, and only then."""

    def __init__(self, redis: Redis, settings: Settings | None = None, *, follow: "_Follow | None" = None) -> None:
        self._redis = redis
        given = settings or Settings()
        self._url_fresh_s = given.url_fresh_s
        self._judging = given.judging()
        self._follow: _Follow = follow or redis.register_script(FOLLOW)
        self.counts: Counter[str] = Counter()
        """Hits by tier and misses of this process."""

    # ------------------------------------------------------------ look up

    async def by_url(self, url: str, *, tenant: str, model_id: str, max_age_s: float | None = None) -> Verdict | None:
        """The verdict on what this tenant's URL led to, if it was looked at within `max_age_s` (url_fresh_s)."""
        (verdict,) = await self._followed([_url_key(url, tenant)], model_id, max_age_s, _verdict_in)
        return self._counted("url", verdict)

    async def by_sha256(self, sha256: str, *, model_id: str) -> Verdict | None:
        """The verdict on these very bytes (64 hex digits)."""
        (verdict,) = await self._followed([self._verdict_key(model_id, sha256)], model_id, None, _verdict_in)
        return self._counted("sha256", verdict)

    async def by_pixels(self, digest: str, *, model_id: str) -> Verdict | None:
        """The verdict on media whose decoded pixels are these (`fingerprint.pixel_digest`); its `media` are theirs."""
        (verdict,) = await self._followed([_pixels_key(digest)], model_id, None, _verdict_in)
        return self._counted("pixels", verdict)

    async def look_up_many(self, keys: Sequence[str], *, tenant: str, model_id: str) -> list[Verdict | None]:
        """Answer any number of sha256s (64 hex digits) and URLs in one round trip, in their order."""
        places = [self._verdict_key(model_id, key) if is_sha256(key) else _url_key(key, tenant) for key in keys]
        return await self._followed(places, model_id, None, _verdict_in)

    async def gists(self, keys: Sequence[str], *, tenant: str, model_id: str) -> list[Known | None]:
        """As `look_up_many`, without the evidence."""
        places = [self._verdict_key(model_id, key) if is_sha256(key) else _url_key(key, tenant) for key in keys]
        return await self._followed(places, model_id, None, gist_in)

    async def by_prefix(self, bits: str, *, tenant: str, model_id: str) -> list[tuple[str, Known]]:
        """The verdicts that this tenant was given on bytes whose sha256 begins with these bits, e.g. "010011010010101".

        So a client can ask without saying what it asks for, and learns of no file that it could not name.
        Raises ValueError unless there are 4 to 256 bits, and when they fit more than 1,000 digests.
        """
        if not 4 <= len(bits) <= 256 or set(bits) - {"0", "1"}:
            msg = "a prefix is 4 to 256 characters, each 0 or 1"
            raise ValueError(msg)
        free = max(0, PREFIX_BITS - len(bits))
        first = int(bits[:PREFIX_BITS], 2) << free
        buckets = [b"%03x" % (first + i) for i in range(1 << free)]
        records, corrupt = await self._digests(self.scope(model_id), tenant).read(buckets)
        await self._corrupt("k", corrupt)
        digests = sorted(record.hex() for record in records if f"{int.from_bytes(record):0256b}".startswith(bits))
        if len(digests) > MAX_PREFIX_ANSWERS:
            msg = f"{len(digests)} digests begin so; ask with more bits"
            raise ValueError(msg)
        found = await self.gists(digests, tenant=tenant, model_id=model_id)
        return [(sha256, known) for sha256, known in zip(digests, found, strict=True) if known is not None]

    async def verdicts(self, digests: Sequence[str], *, model_id: str) -> dict[str, Verdict]:
        """Those of many sha256s that are remembered, in one round trip."""
        found = await self._followed(
            [self._verdict_key(model_id, sha256) for sha256 in digests], model_id, None, _verdict_in
        )
        return {sha256: verdict for sha256, verdict in zip(digests, found, strict=True) if verdict is not None}

    async def known_url(self, url: str, *, tenant: str) -> KnownUrl | None:
        """What the URL led to when this tenant last looked, for asking its server whether that still holds."""
        value = await self._redis.get(_url_key(url, tenant))
        try:
            return None if value is None else _read_pointer(raw(value))
        except ValueError:
            await self._corrupt("u", 1)
            return None

    async def model(self) -> ModelInfo | None:
        """Who judges now, as the engine's side last announced it: what to ask for before any model is loaded."""
        value = await self._redis.get(_MODEL_KEY)
        try:
            return None if value is None else decoded(_MODEL, raw(value))
        except ValueError:
            await self._corrupt("model", 1)
            return None

    def keys_of(self, verdict: Verdict, *, url: str | None, tenant: str) -> list[bytes]:
        """On which keys it stands that this verdict is what was looked up."""
        names = [_MODEL_KEY, self._verdict_key(verdict.model.model_id, verdict.media.sha256)]
        return [name.encode() for name in (names if url is None else [*names, _url_key(url, tenant)])]

    # ------------------------------------------------------------ remember

    async def remember(
        self,
        verdict: Verdict,
        *,
        url: str | None = None,
        tenant: str = "",
        validators: Validators = NO_VALIDATORS,
        pixels: str | None = None,
    ) -> None:
        """Keep a verdict for its bytes, for its pixels and for the URL that led to them.

        The keys are what *we* fetched, hashed and decoded; never take them from a client.
        """
        sha256, model_id = verdict.media.sha256, verdict.model.model_id
        age_s = verdict.cache.age_s or 0.0
        async with self._redis.pipeline(transaction=False) as pipe:
            pipe.set(self._verdict_key(model_id, sha256), packed(verdict, time.time() - age_s), ex=lifetime_s(verdict))
            if pixels is not None:
                pipe.set(_pixels_key(pixels), sha256, ex=VERDICT_TTL_S)
            if url is not None:
                pipe.set(_url_key(url, tenant), _pointer_to(sha256, validators), ex=URL_TTL_S)
            pipe.hincrby(f"{PREFIX}stats", f"remembered:{self.scope(model_id)}", 1)
            await pipe.execute()
        await self.index([sha256], scope=self.scope(model_id), tenant=tenant)

    async def index(self, digests: Sequence[str], *, scope: str, tenant: str) -> None:
        """Let `by_prefix` find what is kept in a scope, for a tenant that has these files."""
        full = await self._digests(scope, tenant).add(
            [(sha256[:3].encode(), bytes.fromhex(sha256)) for sha256 in digests]
        )
        await self.count("full:k", full)

    async def remember_url(self, sha256: str, *, url: str, tenant: str, validators: Validators = NO_VALIDATORS) -> None:
        """Keep what a URL was found to lead to just now."""
        await self._redis.set(_url_key(url, tenant), _pointer_to(sha256, validators), ex=URL_TTL_S)

    async def announce(self, model: ModelInfo) -> None:
        """Say who judges from now on."""
        await self._redis.set(_MODEL_KEY, msgspec.msgpack.encode(model))

    # ------------------------------------------------------------ look after

    async def forget(self, sha256: str, *, model_id: str) -> None:
        """Drop the verdict on these bytes; pointers to it then lead nowhere, which is a miss."""
        await self._redis.delete(self._verdict_key(model_id, sha256))

    async def forget_url(self, url: str, *, tenant: str) -> None:
        """Drop what a URL was found to lead to, for this tenant."""
        await self._redis.delete(_url_key(url, tenant))

    async def stats(self) -> dict[str, int]:
        """Verdicts remembered, corrupt and full keys met, near hits refused, since the last purge, by all processes."""
        found = await self._redis.hgetall(f"{PREFIX}stats")
        return {raw(name).decode(): int(value) for name, value in found.items()}

    async def count(self, name: str, times: int = 1) -> None:
        """Add to `stats`; for what is rare, since it costs a round trip."""
        if times:
            await self._redis.hincrby(f"{PREFIX}stats", name, times)

    # ------------------------------------------------------------ within

    def _digests(self, scope: str, tenant: str) -> Buckets:
        prefix = f"{PREFIX}k:{scope}:{tenant_digest(tenant)}:".encode()
        return Buckets(self._redis, prefix, size_bytes=32, life_s=VERDICT_TTL_S)

    def scope(self, model_id: str) -> str:
        """What a verdict is bound to beside its bytes: the model, and the settings that decide which faces it saw."""
        return model_id + self._judging

    def _verdict_key(self, model_id: str, sha256: str) -> str:
        return f"{PREFIX}v:{self.scope(model_id)}:{sha256}"

    async def _followed(
        self, keys: Sequence[str], model_id: str, max_age_s: float | None, read: "_Reader[T]"
    ) -> list[T | None]:
        """What lies at each key or where it points to; URLs looked at longer ago than `max_age_s` lead nowhere."""
        if not keys:
            return []
        answers = await self._follow(keys, [self._verdict_key(model_id, "")])
        now = time.time()
        oldest_s = now - (self._url_fresh_s if max_age_s is None else max_age_s)
        found: list[T | None] = []
        corrupt = Counter[str]()
        for key, first, second in zip(keys, answers[::2], answers[1::2], strict=True):
            try:
                value = _value_of(key, first, second, oldest_s)
                found.append(None if value is None else read(*value, model_id, now, key))
            except ValueError as error:  # msgspec's are some, too
                log.warning("a corrupt entry at %s is a miss: %s", key, error)
                corrupt[key[len(PREFIX)]] += 1
                found.append(None)
        for kind, times in corrupt.items():
            await self._corrupt(kind, times)
        return found

    async def _corrupt(self, kind: str, times: int) -> None:
        await self.count(f"corrupt:{kind}", times)

    def _counted(self, tier: str, verdict: Verdict | None) -> Verdict | None:
        self.counts[f"{'miss' if verdict is None else 'hit'}:{tier}"] += 1
        return verdict


def packed(verdict: Verdict, stored_s: float) -> bytes:
    """A verdict as it lies in Redis; when it was made is told by `stored_s`, and how it came here is forgotten."""
    return msgspec.msgpack.encode(_Remembered(stored_s, msgspec.structs.replace(verdict, cache=CacheInfo())))


def unpacked(value: bytes) -> tuple[Verdict, float]:
    """What `packed` packed; raises ValueError."""
    found = decoded(_REMEMBERED, value)
    return found.verdict, found.stored_s


def lifetime_s(verdict: Verdict) -> int:
    """How long it is remembered."""
    return UNSURE_TTL_S if verdict.label is Label.INCONCLUSIVE else VERDICT_TTL_S


def is_sha256(text: str) -> bool:
    """Whether it is the 64 lower-case hex digits of a sha256."""
    return _HEX.fullmatch(text) is not None


def raw(value: bytes | str) -> bytes:
    """What Redis answers, whose client may be one that decodes."""
    return value.encode("utf-8", "surrogateescape") if isinstance(value, str) else value


def _url_key(url: str, tenant: str) -> str:
    return f"{PREFIX}u:{url_digest(url, tenant)}"


def _pixels_key(digest: str) -> str:
    return f"{PREFIX}p:{digest}"


def _pointer_to(sha256: str, validators: Validators) -> bytes:
    return sha256.encode() + msgspec.msgpack.encode((time.time(), validators))


def _read_pointer(value: bytes) -> KnownUrl:
    """Raises ValueError when it is none."""
    sha256 = value[:64].decode("ascii", "replace")
    if not is_sha256(sha256):
        msg = "no sha256"
        raise ValueError(msg)
    checked_s, validators = decoded(_POINTER, value[64:])
    return KnownUrl(sha256, checked_s, validators)


def _value_of(key: str, first: bytes | None, second: bytes | None, oldest_s: float) -> tuple[str, bytes] | None:
    """A verdict's sha256 and its bytes; None where there are none. Raises ValueError for a pointer that is none."""
    if first is None:
        return None
    kind = key[len(PREFIX)]
    if kind == "v":
        return key[-64:], first
    if kind == "u" and _read_pointer(first).checked_s < oldest_s:
        return None
    return None if second is None else (first[:64].decode("ascii", "replace"), second)


def _verdict_in(sha256: str, value: bytes, model_id: str, now: float, key: str) -> Verdict:
    """The verdict, if it is on the bytes and by the model that were asked for; raises ValueError if not."""
    found = decoded(_REMEMBERED, value)
    insist(found.verdict, sha256, model_id)
    age_s = max(0.0, now - found.stored_s)
    return msgspec.structs.replace(found.verdict, cache=CacheInfo(kind="exact", age_s=age_s, by=_BY[key[len(PREFIX)]]))


_Reader = Callable[[str, bytes, str, float, str], T]  # sha256, value, model_id, now, key
_Follow = Callable[[Sequence[str], Sequence[str]], Awaitable[Any]]
_BY: Final[dict[str, Literal["url", "sha256", "pixels"]]] = {"u": "url", "v": "sha256", "p": "pixels"}
_REMEMBERED = msgspec.msgpack.Decoder(_Remembered)
_MODEL = msgspec.msgpack.Decoder(ModelInfo)
_POINTER = msgspec.msgpack.Decoder(tuple[float, Validators])
