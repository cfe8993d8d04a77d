"""Scans over HTTP: submit, wait, watch, read, cancel. The one file of the API that knows jobs.

A URL or file whose verdict is remembered is answered at once (200) and nothing is queued; all else is written into the
ledger first, then acknowledged (202): what was acknowledged ends in an outcome, whatever dies in between.
"""

import asyncio
import contextlib
import hashlib
import logging
import math
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

import msgspec
from aiohttp import web
from redis.exceptions import RedisError
from yarl import URL

from api.access import caller_key
from api.bodies import SUBMIT_BYTES, answer, open_stream, read_json, read_query
from api.errors import BadRequest, NotFound, QueueFull
from api.messages import OverlayQuery, Scan, SubmitQuery, SubmitScan, WaitQuery
from api.service import SERVICE, Service
from api.uploads import receive
from scanner.cache.failures import KnownFailure
from scanner.cache.urls import is_plain
from scanner.contract import CacheInfo, Outcome, QueueName, ScanRequest, ScanRow, Verdict
from scanner.errors import BadSource, KeyReused
from scanner.folders import spool_folder
from scanner.settings import Settings

log = logging.getLogger(__name__)

KEY_SHAPE: Final = re.compile(r"[\x21-\x7e]{1,200}")
CONTROL: Final = re.compile(r"[\x00-\x20\x7f]")
KEY_TTL_S: Final = 86_400
POLL_S: Final = 2
"""What Retry-After advises while a scan runs: a picture takes about as long."""
FULL_S: Final = 15.0
"""What Retry-After advises when the queue is full."""
BEAT_S: Final = 15.0
"""A comment goes down a silent event stream this often: proxies cut what is silent for a minute."""
REPORT_HEADERS: Final = {  # the page says the same in a <meta>; here it holds even if the page were another
    "Content-Security-Policy": "default-src 'none'; img-src data:; style-src 'unsafe-inline'; sandbox",
}


async def submit(request: web.Request) -> web.Response:
    """POST /v1/scans."""
    rescan = read_query(request, SubmitQuery).rescan
    if request.content_type == "multipart/form-data":
        return await _submit_upload(request, rescan=rescan)
    service, tenant = request.app[SERVICE], request[caller_key].tenant
    asked = await read_json(request, SubmitScan, limit_bytes=SUBMIT_BYTES)
    asked = msgspec.structs.replace(asked, rescan=asked.rescan or rescan)
    url = clean_url(asked.url, service.settings)
    key = await claim_key(request, msgspec.json.encode(asked))
    if not asked.rescan and not await _is_repeated(service, key, tenant):
        known, failed = await _known_of(service, url, tenant)
        if known:
            return await _remembered(service, tenant, url, url, known)
        if failed:
            return await _failed_lately(service, tenant, url, failed)
    return await _enqueue(service, ScanRequest(source_url=url, tenant=tenant, rescan=asked.rescan), key)


async def _submit_upload(request: web.Request, *, rescan: bool) -> web.Response:
    service, tenant = request.app[SERVICE], request[caller_key].tenant
    if not await _is_repeated(service, _key_of(request), tenant):
        await refuse_when_full(service, "interactive")  # before the file is sent
    upload = await receive(request, spool_folder(service.settings), service.settings)
    key = await claim_key(request, upload.sha256.encode() + b" again" * rescan)
    known = None
    if not rescan and not await _is_repeated(service, key, tenant):
        with contextlib.suppress(RedisError):  # a help, never a condition
            model_id = await service.lookups.model_id()
            known = model_id and await service.cache.by_sha256(upload.sha256, model_id=model_id)
            if model_id and known:  # whoever has the file may find it by its first bits
                await service.cache.index([upload.sha256], scope=service.cache.scope(model_id), tenant=tenant)
    if known:
        return await _remembered(service, tenant, upload.sha256, upload.name, known)
    asked = ScanRequest(upload=upload.sha256, name=upload.name, tenant=tenant, rescan=rescan)
    return await _enqueue(service, asked, key)


async def _is_repeated(service: Service, key: str | None, tenant: str) -> bool:
    """Whether this very request was accepted before: its scan is the answer then, not what is remembered since."""
    return key is not None and await service.ledger.knows(key, tenant=tenant)


async def _known_of(service: Service, url: str, tenant: str) -> tuple[Verdict | None, KnownFailure | None]:
    """What is remembered of a URL: the verdict, or why there is none; nothing when the memory is away."""
    with contextlib.suppress(RedisError):  # a help, never a condition: if the ledger is away, too, that will tell
        model_id = await service.lookups.model_id()
        known = model_id and await service.cache.by_url(url, tenant=tenant, model_id=model_id)
        return (known, None) if known else (None, await service.failures.known(url, tenant=tenant))
    return None, None


async def _enqueue(service: Service, asked: ScanRequest, key: str | None) -> web.Response:
    if not await _is_repeated(service, key, asked.tenant):  # what is there already needs no room
        await refuse_when_full(service, asked.queue)
    accepted = await service.ledger.accept_for_queue(asked, idempotency_key=key)
    row = accepted.row
    if accepted.enqueue:
        await enqueue(service, [row])
    await service.redis.set(_last_key(asked.tenant, asked.source_url or asked.upload or ""), row.id, ex=KEY_TTL_S)
    headers = {"Location": f"/v1/scans/{row.id}", "Retry-After": str(POLL_S)}
    return answer(Scan.of(row), status=202, headers=headers)


async def enqueue(service: Service, rows: Sequence[ScanRow]) -> None:
    """Put jobs for accepted rows into their queues; if that fails the reconciler does it, since the rows are there."""
    try:
        await service.jobs.enqueue_many(rows)
    except RedisError as error:
        log.warning("%d accepted scans wait for the reconciler: %s", len(rows), type(error).__name__)


async def _remembered(service: Service, tenant: str, what: str, source: str, verdict: Verdict) -> web.Response:
    """200: the verdict, under the id of the tenant's own scan that gave it as long as that is kept.

    Where that scan said anything else there is no id: its report and its receipt are another verdict's.
    """
    outcome = Outcome(source=source, verdict=verdict)
    row = await _last(service, tenant, what)
    first = row.outcome.verdict if row and row.outcome else None
    if row is None or first is None or _said(first) != _said(verdict):
        return answer(Scan(id=None, state="done", source=source, outcome=outcome))
    scan = msgspec.structs.replace(Scan.of(row), source=source, outcome=outcome)
    return answer(scan, headers={"Location": f"/v1/scans/{row.id}"})


def _said(verdict: Verdict) -> Verdict:
    """A verdict without when and how long it took to have it."""
    return msgspec.structs.replace(verdict, cache=CacheInfo(), timings_s={})


async def _failed_lately(service: Service, tenant: str, url: str, known: KnownFailure) -> web.Response:
    """200: why its last scan gave no verdict, and when it is worth another one."""
    service.cache.counts["hit:failure"] += 1
    outcome = Outcome(source=url, failure=known.failure)
    row = await _last(service, tenant, url)
    headers = {"Retry-After": str(math.ceil(known.left_s))}
    if row is None or row.outcome is None or row.outcome.failure != known.failure:
        return answer(Scan(id=None, state="failed", source=url, outcome=outcome), headers=headers)
    return answer(Scan.of(row), headers={"Location": f"/v1/scans/{row.id}", **headers})


async def _last(service: Service, tenant: str, what: str) -> ScanRow | None:
    """The tenant's last scan of a URL or of an upload's sha256, while that is kept."""
    last = await service.redis.get(_last_key(tenant, what))
    return await service.ledger.get(last.decode(), tenant=tenant) if isinstance(last, bytes) else None


async def show(request: web.Request) -> web.Response:
    """GET /v1/scans/{id}."""
    service = request.app[SERVICE]
    wait_s = read_query(request, WaitQuery).wait
    row = await row_of(request)
    if not row.is_terminal and wait_s:
        with _held(request):
            row = await service.ledger.wait(row.id, tenant=row.tenant, timeout_s=wait_s) or await row_of(request)
    headers = {} if row.is_terminal else {"Retry-After": str(POLL_S)}
    return answer(Scan.of(row), headers=headers)


async def remove(request: web.Request) -> web.Response:
    """DELETE /v1/scans/{id}: cancel what has not ended; forget what has. The answer is the last that is seen of it."""
    service, row = request.app[SERVICE], await row_of(request)
    if not row.is_terminal:
        return answer(Scan.of(await service.ledger.cancel(row.id, tenant=row.tenant) or row))
    await service.ledger.forget(row.id, tenant=row.tenant)
    await service.redis.delete(_last_key(row.tenant, row.source))
    with contextlib.suppress(RedisError):  # a pointer that is left behind ends within a day
        await service.cache.forget_url(row.source, tenant=row.tenant)
        await service.failures.forget(row.source, tenant=row.tenant)
    service.kept.change(None)  # Redis may tell it only after our answer
    return answer(Scan.of(row))


async def events(request: web.Request) -> web.StreamResponse:
    """GET /v1/scans/{id}/events: every change as `scan`, the last one as `end`."""
    row = await row_of(request)
    with _held(request):
        return await _watched(request, row)


def _held(request: web.Request) -> contextlib.AbstractContextManager[None]:
    """While an answer is held open: for a token only so many are. Who needs none is not counted, as with rates."""
    token = request[caller_key].token
    return contextlib.nullcontext() if token is None else request.app[SERVICE].held.one(token, request)


async def _watched(request: web.Request, row: ScanRow) -> web.StreamResponse:
    service = request.app[SERVICE]
    stream = await open_stream(request, "text/event-stream", X_Accel_Buffering="no")
    try:
        async with asyncio.TaskGroup() as tasks:
            beat = tasks.create_task(_beat(stream))  # it is what notices that nobody listens any more
            async with contextlib.aclosing(service.ledger.events(row.id, tenant=row.tenant)) as changes:
                async for now in changes:
                    name = b"end" if now.is_terminal else b"scan"
                    await stream.write(b"event: %b\ndata: %b\n\n" % (name, msgspec.json.encode(Scan.of(now))))
            beat.cancel()
    except* (RedisError, ConnectionError):  # the client comes again, and is told by a 503 if Redis is still away
        pass
    return stream


async def _beat(stream: web.StreamResponse) -> None:
    await stream.write(b"retry: 2000\n\n")
    while True:
        await asyncio.sleep(BEAT_S)
        await stream.write(b": still there\n\n")


async def report(request: web.Request) -> web.Response:
    """GET /v1/scans/{id}/report: the page that the worker made, as it is."""
    data = await _artifact(request, "report.html")
    return web.Response(body=data, content_type="text/html", charset="utf-8", headers=REPORT_HEADERS)


async def overlay(request: web.Request) -> web.Response:
    """GET /v1/scans/{id}/overlay: the picture, or a video's worst frame, with the evidence drawn on it."""
    name = "plain.jpg" if read_query(request, OverlayQuery).plain else "overlay.jpg"
    data = await _artifact(request, name)
    return web.Response(body=data, content_type="image/jpeg", headers={"Cache-Control": "private, max-age=3600"})


async def _artifact(request: web.Request, name: str) -> bytes:
    row = await row_of(request)
    data = await request.app[SERVICE].ledger.artifact(row.id, name, tenant=row.tenant)
    if data is None:
        msg = "there is none: the scan has not ended, gave no verdict, or its pictures were not kept"
        raise NotFound(msg)
    return data


async def row_of(request: web.Request) -> ScanRow:
    """The row that the path names; raises NotFound, in the same words for nobody's and for another tenant's."""
    row = await request.app[SERVICE].ledger.get(request.match_info["id"], tenant=request[caller_key].tenant)
    if row is None:
        msg = f"no such scan; outcomes are kept for a day, {await since(request)}"
        raise NotFound(msg)
    return row


async def since(request: web.Request) -> str:
    """What to tell who asks for something that is not there: whether it may have been lost with the memory."""
    begun_s = await request.app[SERVICE].ledger.since()
    if begun_s is None:
        return "and the service's memory (Redis) is empty: what was submitted before is lost, submit it again"
    moment = datetime.fromtimestamp(begun_s, UTC).isoformat(timespec="seconds").removesuffix("+00:00")
    return f"and nothing is known from before {moment}Z, when the service's memory (Redis) was last empty"


async def refuse_when_full(service: Service, queue: QueueName, more: int = 1) -> None:
    """Raise QueueFull when more scans wait than we promise to get to."""
    limits = {"interactive": service.settings.max_queued, "bulk": service.settings.max_queued_bulk}
    waiting = (await service.ledger.depths())[queue]
    if waiting + more > limits[queue]:
        msg = f"{waiting} scans wait already; ask again a little later"
        raise QueueFull(msg, retry_after_s=FULL_S)


async def claim_key(request: web.Request, body: bytes) -> str | None:
    """The Idempotency-Key, bound to this body for 24 h; raises KeyReused when it was sent with another one."""
    key = _key_of(request)
    if key is None:
        return None
    digest = hashlib.sha256(request.path.encode() + b"\n" + body).hexdigest().encode()
    place = f"laescan:claim:{digest_of(request[caller_key].tenant, key)}"
    redis = request.app[SERVICE].redis
    is_new = await redis.set(place, digest, nx=True, ex=KEY_TTL_S)
    if not is_new and await redis.get(place) != digest:
        msg = "this Idempotency-Key came with another request; use a new key for a new request"
        raise KeyReused(msg)
    return key


def _key_of(request: web.Request) -> str | None:
    """The Idempotency-Key as it was sent; raises BadRequest when it is none."""
    key = request.headers.get("Idempotency-Key")
    if key is not None and not KEY_SHAPE.fullmatch(key):
        msg = "an Idempotency-Key is 1 to 200 visible ASCII characters"
        raise BadRequest(msg)
    return key


def clean_url(text: str, settings: Settings) -> str:
    """A URL that a worker would fetch, in the form in which it is asked for; raises BadSource."""
    if len(text) <= settings.max_url_bytes and is_plain(text):
        return text
    try:
        url = URL(text)
        fits = url.scheme in {"http", "https"} and bool(url.host) and bool(url.port) and not CONTROL.search(text)
    except ValueError:
        fits = False
    if not fits or len(text.encode("utf-8", "surrogatepass")) > settings.max_url_bytes:
        msg = f"not an http or https URL of at most {settings.max_url_bytes} bytes"
        raise BadSource(msg)
    return text


def _last_key(tenant: str, what: str) -> str:
    """Where the id of the tenant's last scan of a URL or of an upload's sha256 stands."""
    return f"laescan:last:{digest_of(tenant, what)}"


def digest_of(*parts: str) -> str:
    """One name for several strings; what they say stands in no key."""
    return hashlib.sha256("\n".join(parts).encode("utf-8", "surrogatepass")).hexdigest()
