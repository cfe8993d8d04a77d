"""What was drawn of a URL, so that a URL that has not changed needs no download to be shown again.

In: the artifacts of one scan. Out: the same for a later scan of that URL by that tenant, as long as they are kept.
One reason: a server that answers 304 sends no picture, and a report needs one.

    laescan:artifact:{id}:{name}               what the API serves           `artifact_ttl_s`
    laescan:drawn:{tenant, url, model_id}      the id, and the sha256 drawn  as long
"""

import hashlib
from typing import Final, NamedTuple, cast

import msgspec
import redis

from scanner.contract import ScanRequest
from scanner.service.ledger import ARTIFACT, ARTIFACTS
from scanner.settings import Settings

_PREFIX: Final = "laescan:drawn:"


class Drawn(NamedTuple):
    """The scan that has the artifacts, and what it looked at."""

    scan: str
    sha256: str


class Drawings:
    """The artifacts of one model's verdicts."""

    def __init__(self, client: redis.Redis, settings: Settings, *, model_id: str) -> None:
        self._redis, self._life_s, self._model_id = client, int(settings.artifact_ttl_s), model_id

    def find(self, request: ScanRequest) -> Drawn | None:
        """What is there of this tenant's URL."""
        value = None if request.source_url is None else cast("bytes | None", self._redis.get(self._key(request)))
        if value is None:
            return None
        drawn = Drawn(*value.decode().split())
        return drawn if self._redis.exists(_place(drawn.scan, ARTIFACTS[0])) else None

    def note(self, drawn: Drawn, request: ScanRequest) -> None:
        """Say that a scan, which has ended, has artifacts of what its URL led to."""
        if request.source_url is not None:
            self._redis.set(self._key(request), f"{drawn.scan} {drawn.sha256}", ex=self._life_s)

    def _key(self, request: ScanRequest) -> str:
        parts = msgspec.json.encode([request.tenant, request.source_url, self._model_id])
        return _PREFIX + hashlib.sha256(parts).hexdigest()


def _place(scan: str, name: str) -> str:
    return f"{ARTIFACT}{scan}:{name}"
