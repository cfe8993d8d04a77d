"""What was drawn of a URL, so that a URL that has not changed needs no download to be shown again.

In: the artifacts of one scan. Out: the same for a later scan of that URL by that tenant, as long as they are kept.
One reason: a server that answers 304 sends no picture, and a report needs one.

    laescan:artifact:{id}:{name}               what the API serves           `artifact_ttl_s`
    laescan:drawn:{tenant, url, model_id}      the id, and the sha256 drawn  as long
"""

import hashlib
from collections.abc import Mapping
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

    def keep(self, scan: str, request: ScanRequest, made: Mapping[str, bytes], sha256: str | None) -> None:
        """Leave them beside the outcome, for a shorter time: a report is a hundred times as large."""
        with self._redis.pipeline(transaction=False) as pipe:
            for name, data in made.items():
                pipe.set(_place(scan, name), data, ex=self._life_s)
            if made and sha256 is not None and request.source_url is not None:
                pipe.set(self._key(request), f"{scan} {sha256}", ex=self._life_s)
            pipe.execute()

    def carry_over(self, drawn: Drawn, scan: str) -> None:
        """The same for another scan."""
        with self._redis.pipeline(transaction=False) as pipe:
            for name in ARTIFACTS:
                pipe.copy(_place(drawn.scan, name), _place(scan, name), replace=True)
                pipe.expire(_place(scan, name), self._life_s)
            pipe.execute()

    def _key(self, request: ScanRequest) -> str:
        parts = msgspec.json.encode([request.tenant, request.source_url, self._model_id])
        return _PREFIX + hashlib.sha256(parts).hexdigest()


def _place(scan: str, name: str) -> str:
    return f"{ARTIFACT}{scan}:{name}"
