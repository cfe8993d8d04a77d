"""What is remembered, asked by key: a URL, a file's digest, a list of both, a digest's first bits. Never scans.

Nothing known is an answer (200 and an empty list), not an error: a client that asks first is a good client.
"""

import re
from typing import Final

import msgspec
from aiohttp import web

from api.access import caller_key
from api.alike import alike
from api.bodies import BATCH_BYTES, answer, read_json, read_query
from api.errors import Invalid, NotFound
from api.messages import Found, LookedUp, LookUp, PrefixMatches, PrefixRow, VerdictQuery, Verdicts
from api.scans import clean_url
from api.service import SERVICE, Service
from scanner.contract import Verdict

PREFIX_SHAPE: Final = re.compile(r"[01]{4,64}")
KEEP_PREFIX_S: Final = 300


async def one(request: web.Request) -> web.Response:
    """GET /v1/verdicts?url=|sha256=|phash=."""
    service, tenant = request.app[SERVICE], request[caller_key].tenant
    question, changes = (tenant, request.rel_url.raw_query_string), service.kept.changes
    body = service.kept.answer(question) if service.changes.is_heard else None
    if body is None:
        asked = read_query(request, VerdictQuery)
        found = [verdict for verdict in await _found(service, tenant, asked) if verdict is not None]
        body = msgspec.json.encode(Verdicts(found))
        if found and asked.phash is None:  # what is not known yet may be in a moment
            keys = service.cache.keys_of(found[0], url=asked.url, tenant=tenant)
            service.kept.keep(question, body, keys, changes=changes)
    return web.Response(body=body, content_type="application/json")


async def _found(service: Service, tenant: str, asked: VerdictQuery) -> list[Verdict | None]:
    if (asked.url, asked.sha256, asked.phash).count(None) != 2:
        msg = "give exactly one of url, sha256 and phash"
        raise Invalid(msg)
    key = asked.sha256 if asked.url is None else clean_url(asked.url, service.settings)
    model_id = await service.lookups.model_id()
    if model_id is None:  # no engine was ever here, so nothing can be known
        return []
    if key is not None:
        return [await service.lookups.find(key, tenant=tenant, model_id=model_id)]
    return list(await alike(service.memory, service.cache, asked.phash or "", tenant=tenant, model_id=model_id))


async def many(request: web.Request) -> web.Response:
    """POST /v1/verdicts/lookup: all keys in one round trip."""
    service, tenant = request.app[SERVICE], request[caller_key].tenant
    asked = await read_json(request, LookUp, limit_bytes=BATCH_BYTES)
    model_id = await service.lookups.model_id()
    if model_id is None:
        return answer(LookedUp([Found(key=key) for key in asked.keys]))
    found = await service.cache.gists(asked.keys, tenant=tenant, model_id=model_id)
    return answer(LookedUp([Found(key=key, known=known) for key, known in zip(asked.keys, found, strict=True)]))


async def prefix(request: web.Request) -> web.Response:
    """GET /v1/verdicts/prefix/{bits}: the tenant's files whose SHA-256 begins so; the caller picks its own."""
    service, tenant = request.app[SERVICE], request[caller_key].tenant
    bits = request.match_info["bits"]
    if not PREFIX_SHAPE.fullmatch(bits):
        msg = "a prefix is 4 to 64 characters, each 0 or 1: the first bits of a SHA-256"
        raise NotFound(msg)
    model_id = await service.lookups.model_id()
    try:
        found = [] if model_id is None else await service.cache.by_prefix(bits, tenant=tenant, model_id=model_id)
    except ValueError as error:
        raise Invalid(str(error)) from error
    rows = [PrefixRow(sha256=sha256, known=known) for sha256, known in found]
    headers = {"Cache-Control": f"private, max-age={KEEP_PREFIX_S}"}
    return answer(PrefixMatches(matches=rows, keep_s=KEEP_PREFIX_S), headers=headers)
