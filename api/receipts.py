"""Signed receipts over HTTP: a scan's verdict to be passed on, and the key that checks it."""

import logging
import time

from aiohttp import web

from api.bodies import answer
from api.errors import NotFound, Unavailable
from api.scans import row_of
from api.service import SERVICE
from scanner.receipts import Receipt, ReceiptError, without_secrets

log = logging.getLogger(__name__)


async def receipt(request: web.Request) -> web.Response:
    """GET /v1/scans/{id}/receipt."""
    row = await row_of(request)
    verdict = row.outcome.verdict if row.outcome else None
    if verdict is None or row.finished_s is None:
        msg = "there is none: the scan has not ended, or gave no verdict"
        raise NotFound(msg)
    written = Receipt(
        scan=row.id,
        source=without_secrets(row.source),
        judged_s=row.finished_s - (verdict.cache.age_s or 0.0),  # a remembered one was judged before it was asked for
        issued_s=time.time(),
        verdict=verdict,
    )
    headers = {"Content-Disposition": f'attachment; filename="receipt-{row.id}.json"'}
    try:
        return answer(request.app[SERVICE].signer.sign(written), headers=headers)
    except ReceiptError as error:
        raise _cannot(error) from error


async def key(request: web.Request) -> web.Response:
    """GET /v1/key."""
    try:
        pem = request.app[SERVICE].signer.public_pem()
    except ReceiptError as error:
        raise _cannot(error) from error
    return web.Response(body=pem, headers={"Content-Type": "application/x-pem-file", "Cache-Control": "no-cache"})


def _cannot(error: ReceiptError) -> Unavailable:
    """The caller is not told where our files are."""
    log.error("no receipt can be signed: %s", error)
    return Unavailable("this server cannot sign receipts; its log says why")
