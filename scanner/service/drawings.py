"""What was drawn of scans (report, overlay, picture): beside the remembered verdicts, within a budget, for an hour.

In: a worker's artifacts of one attempt at a scan. Out: those of the attempt whose outcome was taken, for the API; and
for a later scan of that URL by that tenant, since a server that answers 304 sends no picture, and a report needs one.
One reason: all of it may be lost, and it is large; the ledger may lose nothing, and must never be full of it.

    laescan:artifact:{id}                      see `drawings.lua`            `artifact_ttl_s`, or less
    laescan:drawn:{tenant, url, model_id}      the id, and the sha256 drawn  as long

Every method may raise redis.exceptions.RedisError. Light: the API imports it.
"""

import hashlib
from collections.abc import Mapping
from importlib import resources
from typing import Final, NamedTuple, Self, cast

import msgspec
import redis
import redis.asyncio
from redis.backoff import NoBackoff
from redis.retry import Retry

from scanner.contract import ScanRequest
from scanner.settings import Settings

ARTIFACT: Final = "laescan:artifact:"
_DRAWN: Final = "laescan:drawn:"
_STEPS: Final = resources.files("scanner.service").joinpath("drawings.lua").read_text("utf-8")
_TIMEOUT_S: Final = 5.0  # a verdict does not wait longer for its pictures to be kept


class Drawn(NamedTuple):
    """The scan that has the artifacts, and what it looked at."""

    scan: str
    sha256: str


class Drawings:
    """A worker's hand on them, for one model's verdicts. Blocking."""

    def __init__(self, client: redis.Redis, settings: Settings, *, model_id: str) -> None:
        self._redis, self._model_id = client, model_id
        self._limits = (int(settings.artifact_ttl_s), settings.max_artifact_bytes)
        self._step = client.register_script(_STEPS)

    @classmethod
    def connect(cls, settings: Settings, *, model_id: str) -> Self:
        """On a client of its own, which gives up soon."""
        client = redis.Redis.from_url(
            settings.cache_url or settings.redis_url,
            socket_timeout=_TIMEOUT_S,
            socket_connect_timeout=_TIMEOUT_S,
            retry=Retry(NoBackoff(), 1),  # once, for a connection that a restarted Redis has cut
        )
        return cls(client, settings, model_id=model_id)

    def keep(self, id_: str, fence: int, made: Mapping[str, bytes]) -> bool:
        """Lay them beside the scan; False when they alone are over the budget, or a later attempt's are there.

        They are shown once the outcome is written under the same fence, so this comes before.
        """
        drawn = [word for pair in made.items() for word in pair]
        return bool(self._step(args=["keep", id_, fence, *self._limits, *drawn]))

    def copy(self, id_: str, fence: int, *, of: str) -> bool:
        """As `keep`, of what lies beside another scan; False when that is gone."""
        return bool(self._step(args=["copy", id_, fence, *self._limits, of]))

    def take_back(self, id_: str, fence: int) -> None:
        """Drop what this attempt laid there: its outcome was not taken."""
        self._step(args=["take_back", id_, fence])

    def find(self, request: ScanRequest) -> Drawn | None:
        """What is there of this tenant's URL."""
        value = None if request.source_url is None else cast("bytes | None", self._redis.get(self._key(request)))
        if value is None:
            return None
        drawn = Drawn(*value.decode().split())
        return drawn if self._redis.exists(ARTIFACT + drawn.scan) else None

    def note(self, drawn: Drawn, request: ScanRequest) -> None:
        """Say that a scan, which has ended, has artifacts of what its URL led to."""
        if request.source_url is not None:
            self._redis.set(self._key(request), f"{drawn.scan} {drawn.sha256}", ex=self._limits[0])

    def _key(self, request: ScanRequest) -> str:
        parts = msgspec.json.encode([request.tenant, request.source_url, self._model_id])
        return _DRAWN + hashlib.sha256(parts).hexdigest()


async def read(client: redis.asyncio.Redis, id_: str, fence: bytes, name: str) -> bytes | None:
    """What the attempt with this fence left under this name; None when it left none, or it is there no more."""
    async with client.pipeline(transaction=False) as pipe:
        pipe.hmget(ARTIFACT + id_, "fence", name)
        ((theirs, data),) = await pipe.execute()
    return data if theirs == fence else None


async def forget(client: redis.asyncio.Redis, id_: str) -> None:
    """Drop all that was drawn of a scan."""
    await client.register_script(_STEPS)(args=["forget", id_])
