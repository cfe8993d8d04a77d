"""A list of URLs in, one row for each out, in its order and as it goes: scans of the bulk queue under one id.

A batch is a list of its scans' ids and URLs and nothing more: what became of each one stands in the ledger only.
"""

import secrets
import time
from collections import Counter
from collections.abc import Sequence
from itertools import takewhile
from typing import Final

import msgspec
from aiohttp import web

from api.access import caller_key
from api.bodies import BATCH_BYTES, answer, open_stream, read_json, read_query
from api.errors import Invalid, NotFound
from api.messages import Batch, BatchRow, ResultsQuery, SubmitBatch
from api.scans import claim_key, clean_url, digest_of, enqueue, refuse_when_full, since
from api.service import SERVICE, Service
from scanner.contract import ScanRequest, ScanRow
from scanner.errors import BadSource

KEPT_S: Final = 7 * 86_400
ACCEPTED_AT_ONCE: Final = 500
"""Rows written in one round trip: 10,000 at once would hold up everyone else's."""
READ_AT_ONCE: Final = 100
COUNTED_AT_ONCE: Final = 2_000
PREFIX: Final = "laescan:batch:"


class Member(msgspec.Struct, frozen=True, array_like=True):
    """One URL of a batch and the scan that was accepted for it."""

    scan: str
    source: str


class Header(msgspec.Struct, frozen=True):
    """What is kept of a batch beside its members."""

    tenant: str
    count: int
    created_s: float


async def submit(request: web.Request) -> web.Response:
    """POST /v1/batches."""
    service, tenant = request.app[SERVICE], request[caller_key].tenant
    asked = await read_json(request, SubmitBatch, limit_bytes=BATCH_BYTES)
    urls = _cleaned(asked, service)
    body = msgspec.json.encode(asked)
    key = await claim_key(request, body)  # for a day, a batch is kept for a week: a key alone names no list
    id_ = secrets.token_hex(16) if key is None else digest_of(tenant, "batch", key, body.decode())[:32]
    header = await _header(service, id_, tenant)
    if header is None:
        await refuse_when_full(service, "bulk", len(urls))
        for start in range(0, len(urls), ACCEPTED_AT_ONCE):
            await _accept(service, id_, tenant, urls, start, rescan=asked.rescan)
        header = Header(tenant, len(urls), time.time())
        await service.redis.set(PREFIX + id_, msgspec.json.encode(header), ex=KEPT_S)  # last: now it is whole
    batch = await _batch(service, id_, header)
    return answer(batch, status=202, headers={"Location": f"/v1/batches/{id_}", "Retry-After": "5"})


async def _accept(service: Service, id_: str, tenant: str, urls: Sequence[str], start: int, *, rescan: bool) -> None:
    """Accept a chunk of the list. Each member is written at its position: whatever is done twice changes nothing."""
    chunk = urls[start : start + ACCEPTED_AT_ONCE]
    requests = [ScanRequest(source_url=url, tenant=tenant, queue="bulk", rescan=rescan) for url in chunk]
    accepted = await service.ledger.accept_many(requests)
    await enqueue(service, [one.row for one in accepted if one.enqueue])
    members: list[str | bytes] = []
    for at, (one, url) in enumerate(zip(accepted, chunk, strict=True), start=start):
        members += [str(at), msgspec.json.encode(Member(one.row.id, url))]
    async with service.redis.pipeline(transaction=True) as pipe:
        pipe.hset(f"{PREFIX}{id_}:members", items=members)
        pipe.expire(f"{PREFIX}{id_}:members", KEPT_S)
        await pipe.execute()


async def show(request: web.Request) -> web.Response:
    """GET /v1/batches/{id}."""
    service = request.app[SERVICE]
    id_ = request.match_info["id"]
    return answer(await _batch(service, id_, await _known(request)))


async def remove(request: web.Request) -> web.Response:
    """DELETE /v1/batches/{id}: end what waits or runs of it, then forget the list."""
    service, id_ = request.app[SERVICE], request.match_info["id"]
    header = await _known(request)
    for start in range(0, header.count, ACCEPTED_AT_ONCE):
        members = await _members(service, id_, start, ACCEPTED_AT_ONCE)
        rows = await service.ledger.get_many([member.scan for member in members], tenant=header.tenant)
        await service.ledger.cancel_many([row for row in rows if row is not None and _is_for_lists_only(row)])
    batch = await _batch(service, id_, header)
    await service.redis.delete(PREFIX + id_, f"{PREFIX}{id_}:members")
    return answer(batch)


def _is_for_lists_only(row: ScanRow) -> bool:
    """Whether it has not ended, and nobody asked for it but lists: what a person waits for goes on."""
    return not row.is_terminal and row.queue == "bulk"


async def results(request: web.Request) -> web.StreamResponse:
    """GET /v1/batches/{id}/results: NDJSON, one row per URL; those that have not ended come with their state.

    Where Redis goes away or the batch is deleted meanwhile, the stream is cut (`api.middleware`), never ended.
    """
    service, tenant = request.app[SERVICE], request[caller_key].tenant
    position = read_query(request, ResultsQuery).after
    header = await _known(request)
    stream = await open_stream(request, "application/x-ndjson")
    while position < header.count:
        members = await _members(service, request.match_info["id"], position, READ_AT_ONCE)
        if not members:
            msg = "the batch was deleted while it was read"
            raise NotFound(msg)
        rows = await service.ledger.get_many([member.scan for member in members], tenant=tenant)
        lines = bytearray()
        for at, (member, row) in enumerate(zip(members, rows, strict=True), start=position):
            lines += msgspec.json.encode(_line(at, member, row)) + b"\n"
        await stream.write(bytes(lines))
        position += len(members)
    return stream


def _line(position: int, member: Member, row: ScanRow | None) -> BatchRow:
    if row is None:
        return BatchRow(position=position, source=member.source, scan=member.scan, state="forgotten")
    return BatchRow(position=position, source=member.source, scan=member.scan, state=row.state, outcome=row.outcome)


def _cleaned(asked: SubmitBatch, service: Service) -> list[str]:
    """Every URL as a worker would fetch it; raises Invalid with the place of the first that is none."""
    if len(asked.urls) > service.settings.max_batch_urls:
        msg = f"a batch may have {service.settings.max_batch_urls} URLs at most"
        raise Invalid(msg)
    urls = []
    for at, url in enumerate(asked.urls):
        try:
            urls.append(clean_url(url, service.settings))
        except BadSource as error:
            msg = f"{error} - at `$.urls[{at}]`"
            raise Invalid(msg) from error
    return urls


async def _known(request: web.Request) -> Header:
    header = await _header(request.app[SERVICE], request.match_info["id"], request[caller_key].tenant)
    if header is None:
        msg = f"no such batch; batches are kept for a week, {await since(request)}"
        raise NotFound(msg)
    return header


async def _header(service: Service, id_: str, tenant: str) -> Header | None:
    data = await service.redis.get(PREFIX + id_)
    header = None if data is None else msgspec.json.decode(data, type=Header)
    return header if header is not None and header.tenant == tenant else None


async def _batch(service: Service, id_: str, header: Header) -> Batch:
    counts: Counter[str] = Counter()
    for start in range(0, header.count, COUNTED_AT_ONCE):
        members = await _members(service, id_, start, COUNTED_AT_ONCE)
        counts.update(await service.ledger.states([member.scan for member in members], tenant=header.tenant))
    return Batch(
        id=id_,
        count=header.count,
        created_s=header.created_s,
        states=dict(counts),
        results=f"/v1/batches/{id_}/results",
    )


async def _members(service: Service, id_: str, start: int, count: int) -> list[Member]:
    """The members from `start` on, without a gap."""
    places = [str(at) for at in range(start, start + count)]
    found = await service.redis.hmget(f"{PREFIX}{id_}:members", places)
    return [msgspec.json.decode(data, type=Member) for data in takewhile(bool, found) if data]
