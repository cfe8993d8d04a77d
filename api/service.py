"""What every handler works with, made once at the start: `request.app[SERVICE]`."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from aiohttp import web

from api.changes import Changes
from api.kept import Kept
from api.limits import Held
from api.lookups import Lookups
from scanner.cache.failures import Failures
from scanner.cache.verdicts import VerdictCache
from scanner.receipts import Signer
from scanner.service.jobs import Jobs
from scanner.service.ledger import Ledger
from scanner.settings import Settings

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from api.metrics import Metrics


@dataclass(frozen=True)
class Service:
    """The API's hands: nothing in here loads a model or touches media.

    `redis` has queue and ledger, `memory` what `cache` and `failures` remember: the same Redis, or one that may evict.
    """

    settings: Settings
    redis: "Redis"
    memory: "Redis"
    ledger: Ledger
    cache: VerdictCache
    jobs: Jobs
    failures: Failures
    lookups: Lookups
    kept: Kept
    held: Held
    changes: Changes
    metrics: "Metrics"
    signer: Signer


SERVICE: Final = web.AppKey("service", Service)
