"""`laescan feedback`: the reports that verdicts are wrong, one JSON object to a line, oldest first.

They stand in the service's Redis, so this runs where that can be reached, as `laescan token` does.
"""

import asyncio

import msgspec
from redis.asyncio import Redis

from api.feedback import reports
from scanner.service.embedded import service_url
from scanner.settings import Settings


def run(settings: Settings, *, tenant: str | None = None) -> list[str]:
    """The lines, of one tenant or of all; raises redis.RedisError when there is no Redis."""
    return asyncio.run(_run(settings, tenant))


async def _run(settings: Settings, tenant: str | None) -> list[str]:
    async with Redis.from_url(service_url(settings)) as redis:
        found = [one async for one in reports(redis) if tenant in {None, one.tenant}]
    found.sort(key=lambda report: report.feedback.created_s)
    return [
        msgspec.json.encode({"tenant": one.tenant, **msgspec.structs.asdict(one.feedback)}).decode() for one in found
    ]
