"""Somebody says that a verdict is wrong: one report for each scan, kept until it is taken back or its time is over.

In: what the sender knows better. Out: that, beside the verdict in question, for `laescan feedback`.
One reason: a wrong verdict is worth the most to who trains the next model, and the medium itself is never kept.
"""

import time
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Final

import msgspec
from aiohttp import web

from api.access import caller_key
from api.bodies import SUBMIT_BYTES, answer, read_json
from api.errors import NotFound
from api.messages import Feedback, SubmitFeedback
from api.scans import row_of
from api.service import SERVICE

if TYPE_CHECKING:
    from redis.asyncio import Redis

PLACE: Final = "laescan:feedback:"


class Report(msgspec.Struct, frozen=True):
    """What is stored: the feedback, and whose it is."""

    tenant: str
    feedback: Feedback


async def submit(request: web.Request) -> web.Response:
    """POST /v1/scans/{id}/feedback: the later report replaces the earlier one."""
    asked = await read_json(request, SubmitFeedback, limit_bytes=SUBMIT_BYTES)
    row = await row_of(request)
    verdict = row.outcome.verdict if row.outcome else None
    if verdict is None:
        msg = "this scan has no verdict that could be wrong"
        raise NotFound(msg)
    service = request.app[SERVICE]
    feedback = Feedback(
        scan=row.id,
        created_s=time.time(),
        expected=asked.expected,
        note=asked.note,
        source=row.source,
        sha256=verdict.media.sha256,
        label=verdict.label,
        score=verdict.score,
        model_id=verdict.model.model_id,
    )
    report = msgspec.json.encode(Report(row.tenant, feedback))
    await service.redis.set(PLACE + row.id, report, ex=service.settings.feedback_ttl_s)
    return answer(feedback, status=201)


async def withdraw(request: web.Request) -> web.Response:
    """DELETE /v1/scans/{id}/feedback; also when the scan itself is forgotten already."""
    redis, place = request.app[SERVICE].redis, PLACE + request.match_info["id"]
    data = await redis.get(place)
    report = None if data is None else msgspec.json.decode(data, type=Report)
    if report is None or report.tenant != request[caller_key].tenant:
        msg = "nothing was reported of this scan, or it is forgotten"
        raise NotFound(msg)
    await redis.delete(place)
    return answer(report.feedback)


async def reports(redis: "Redis") -> AsyncIterator[Report]:
    """Every report that is kept, in no order."""
    async for place in redis.scan_iter(match=PLACE + "*", count=1_000):
        data = await redis.get(place)
        if data is not None:  # its time may have come in between
            yield msgspec.json.decode(data, type=Report)
