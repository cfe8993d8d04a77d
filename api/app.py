"""Settings and a Redis in, the web application out: everything that lives as long as the process is made here, once."""

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Final

from aiohttp import web
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from api.access import Door
from api.assets import DESCRIPTION
from api.bodies import BATCH_BYTES, DRESS
from api.changes import Changes
from api.kept import Kept
from api.limits import Held, Limiter
from api.line import Line
from api.lookups import Lookups
from api.metrics import Metrics
from api.middleware import ANY, Edge
from api.openapi import describe
from api.routes import ENDPOINTS
from api.service import SERVICE, Service
from api.tokens import Tokens
from api.unreadable import handler_args
from scanner.cache.failures import Failures
from scanner.cache.verdicts import FOLLOW, TOLD_BY, VerdictCache
from scanner.receipts import Signer
from scanner.service.jobs import Jobs
from scanner.service.ledger import Ledger
from scanner.settings import Settings

log = logging.getLogger(__name__)

REDIS_TIMEOUT_S: Final = 1.0
"""A Redis that is slower than this is away: the caller gets its 503 instead of waiting."""
MOST_CONNECTIONS: Final = 256


def connect(url: str) -> Redis:
    """A client that fails fast: whoever waits is told to ask again, and the next request tries anew."""
    return Redis.from_url(
        url,
        socket_connect_timeout=REDIS_TIMEOUT_S,
        socket_timeout=REDIS_TIMEOUT_S,
        max_connections=MOST_CONNECTIONS,
        retry=Retry(NoBackoff(), 1),  # once, for a connection that a restarted Redis has cut
    )


def make_app(settings: Settings, redis: Redis) -> web.Application:
    """The application; the client is closed with it. Jobs go to `settings.redis_url`."""
    memory = connect(settings.cache_url) if settings.cache_url else redis
    line, kept = Line(memory, FOLLOW), Kept()
    changes = Changes(memory, TOLD_BY, kept.change)
    ledger, cache = Ledger(redis, settings, drawings=memory), VerdictCache(memory, settings, follow=line)
    metrics = Metrics(ledger, cache)
    door = Door(settings, Tokens(redis), Limiter(redis))
    edge = Edge(door, metrics)
    app = web.Application(client_max_size=BATCH_BYTES, handler_args=handler_args())
    jobs = Jobs.connect(settings.redis_url)
    app[SERVICE] = Service(
        settings=settings,
        redis=redis,
        memory=memory,
        ledger=ledger,
        cache=cache,
        jobs=jobs,
        failures=Failures(memory),
        lookups=Lookups(cache),
        kept=kept,
        held=Held(),
        changes=changes,
        metrics=metrics,
        signer=Signer(settings),
    )
    app[DESCRIPTION] = describe(ENDPOINTS)
    app[DRESS] = edge.dress
    for endpoint in ENDPOINTS:
        app.router.add_route(endpoint.method, endpoint.path, edge.guarding(endpoint))
    app.router.add_route(ANY, "/{path:.*}", edge.lost())

    async def close(_app: web.Application) -> AsyncIterator[None]:
        listening = asyncio.create_task(changes.listen())
        yield
        listening.cancel()
        await asyncio.wait([listening])
        await line.aclose()
        await redis.aclose()
        await memory.aclose()
        jobs.close()

    app.cleanup_ctx.append(close)
    return app
