"""Every request passes here: refused or let in, answered in one shape even when it fails, counted and logged.

One reason: `STATUSES` is the only table from error codes to HTTP statuses, and this is one of the three places of the
house where `except Exception` stands: a bug becomes a 500 with a request id, and its trace goes to the log.
"""

import logging
import math
import secrets
import time
from collections.abc import Awaitable, Callable
from typing import Final

import msgspec
from aiohttp import web
from redis.exceptions import RedisError

from api.access import LOCAL, Door, caller_key
from api.bodies import stream_key
from api.errors import ApiError, BadRequest, HungUp, MethodNotAllowed, NotFound, Unavailable
from api.messages import ErrorBody, ErrorDetail
from api.metrics import Metrics
from api.routes import Endpoint
from scanner.errors import ScanError

log = logging.getLogger(__name__)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

STATUSES: Final = {
    # what the API refuses (api.errors)
    "bad_request": 400,
    "unauthenticated": 401,
    "scope_missing": 403,
    "origin_refused": 403,
    "proxy_refused": 403,
    "not_found": 404,
    "method_not_allowed": 405,
    "body_too_slow": 408,
    "body_too_large": 413,
    "unsupported_type": 415,
    "host_refused": 421,
    "invalid": 422,
    "too_many_requests": 429,
    "hung_up": 499,  # nginx's; nobody is left to be told
    "internal": 500,
    "queue_full": 503,
    "unavailable": 503,
    # what the scanner says of a source before it is queued (scanner.errors); all else comes in an outcome, with 200
    "bad_source": 422,
    "empty": 422,
    "too_large": 413,
    "unsupported_media": 415,
    "idempotency_conflict": 409,
}
RETRY_AFTER_S: Final = 2.0
"""When Redis is away: the client's own reconnect takes about as long."""
SAFE_HEADERS: Final = {
    "Server": "laescan",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Vary": "Origin",
}
ANY: Final = "*"
"""aiohttp's word for every method."""
EXPOSED: Final = "Location, Retry-After, RateLimit, RateLimit-Policy, X-Request-Id"
PREFLIGHT: Final = {
    "Access-Control-Allow-Methods": "GET, POST, DELETE",
    "Access-Control-Allow-Headers": "Authorization, Content-Type, Idempotency-Key",
    "Access-Control-Max-Age": "600",
}


class Edge:
    """Around every handler.

    Functions around handlers and a route for all the rest, no middleware and no signal of aiohttp's: the same work
    through these costs a cached lookup a fifth of its time.
    """

    def __init__(self, door: Door, metrics: Metrics) -> None:
        self._door, self._metrics = door, metrics

    def guarding(self, endpoint: Endpoint) -> Handler:
        """A handler that lets in who may come and then asks the endpoint's."""
        door, handler, path = self._door, endpoint.handler, endpoint.path
        scope, policy = endpoint.scope, endpoint.policy

        async def work(request: web.Request) -> web.StreamResponse:
            door.check_host(request)
            if scope is not None:  # else it is a page or a probe: nothing to guard
                door.check_origin(request)
                caller = door.stranger(request) or await door.identify(request, scope=scope, policy=policy)
                request[caller_key] = caller
            return await handler(request)

        return self._answering(work, path)

    def lost(self) -> Handler:
        """A handler for what is no endpoint: preflights, wrong methods, paths that lead nowhere."""

        async def work(request: web.Request) -> web.StreamResponse:
            self._door.check_host(request)
            if request.method == "OPTIONS":
                self._door.check_origin(request)
                return web.Response(status=204, headers=PREFLIGHT)
            found = [await resource.resolve(request) for resource in request.app.router.resources()]
            allowed = {method for _, methods in found for method in methods} - {ANY}
            raise web.HTTPMethodNotAllowed(request.method, allowed) if allowed else web.HTTPNotFound

        return self._answering(work, "unknown")

    def _answering(self, work: Handler, path: str) -> Handler:
        """As `work`, but it answers whatever happens, in full dress; is counted, and noted in the log."""

        async def answer(request: web.Request) -> web.StreamResponse:
            begun = time.perf_counter()
            try:
                response = await work(request)
                status = response.status
            except Exception as error:  # noqa: BLE001 - the edge: `answer_for` logs what is a bug
                refusal = answer_for(error, request)
                response, status = _cut(request) or refusal, refusal.status
            if not response.prepared:
                self.dress(request, response)
            seconds = time.perf_counter() - begun
            self._metrics.count_request(path, request.method, status, seconds)
            _note(request, path, status, seconds)
            return response

        return answer

    def dress(self, request: web.Request, response: web.StreamResponse) -> None:
        """Headers that every answer carries; `api.bodies.open_stream` adds them to a stream before it begins."""
        headers = response.headers
        headers.update(SAFE_HEADERS)
        headers.setdefault("Cache-Control", "no-store")
        caller = request.get(caller_key)
        if caller is not None and caller.leave is not None:
            headers.update(caller.leave.headers(caller.policy))
        origin = self._door.extension(request)
        if origin is not None:
            headers.update({"Access-Control-Allow-Origin": origin, "Access-Control-Expose-Headers": EXPOSED})


def _cut(request: web.Request) -> web.StreamResponse | None:
    """End a stream that has begun without its end, by which its reader knows that it is not whole; None: none has."""
    stream = request.get(stream_key)
    if stream is not None and request.transport is not None:
        request.transport.close()  # what was written before is still sent
    return stream


def answer_for(error: Exception, request: web.Request) -> web.Response:
    """`{"error": {"code", "message", "request_id", "retryable"}}` with the status and headers that belong to it."""
    request_id = secrets.token_hex(6)
    refusal = _refusal(error, request)
    if refusal is None:
        log.error("request %s failed by a bug", request_id, exc_info=error)
        code, message = "internal", "a bug in laescan, not in your request; the log of the server has the trace"
        refusal = ApiError(message)
    else:
        code, message = getattr(refusal, "code", "internal"), str(refusal)
    retry_after_s = getattr(refusal, "retry_after_s", None)
    detail = ErrorDetail(code=code, message=message, request_id=request_id, retryable=retry_after_s is not None)
    headers = {**getattr(refusal, "headers", {}), "X-Request-Id": request_id}
    if retry_after_s is not None:
        headers["Retry-After"] = str(max(1, math.ceil(retry_after_s)))
    body = msgspec.json.encode(ErrorBody(error=detail))
    answer = web.Response(status=STATUSES[code], body=body, content_type="application/json", headers=headers)
    if not request.content.is_eof():  # what is left of a refused body is not waited for
        answer.force_close()
    return answer


def _refusal(error: Exception, request: web.Request) -> ApiError | ScanError | None:
    """The same as one of our errors; null for a bug."""
    if isinstance(error, ApiError) or (isinstance(error, ScanError) and error.code in STATUSES):
        return error
    if isinstance(error, ConnectionError) and request.transport is None:
        return HungUp("the client hung up")
    if isinstance(error, RedisError | ConnectionError | TimeoutError):
        log.warning("the ledger is away: %s", type(error).__name__)
        return Unavailable("the service has lost its memory (Redis) for now; ask again", retry_after_s=RETRY_AFTER_S)
    if isinstance(error, web.HTTPMethodNotAllowed):
        allowed = ", ".join(sorted(error.allowed_methods))
        return MethodNotAllowed(f"this path takes {allowed}", headers={"Allow": allowed})
    if isinstance(error, web.HTTPNotFound):
        return NotFound("there is nothing here; /docs lists what there is")
    if isinstance(error, web.HTTPException):
        return BadRequest(error.reason)
    return None


def _note(request: web.Request, path: str, status: int, seconds: float) -> None:
    """One line in logfmt: the route's pattern, so that neither ids nor query strings nor URLs can be in it."""
    level = logging.INFO if request.method in {"POST", "DELETE"} else logging.DEBUG
    if status >= 500 and path != "/readyz":  # which is asked again and again until it says yes
        level = logging.WARNING
    if log.isEnabledFor(level):
        caller = request.get(caller_key, LOCAL)
        log.log(
            level,
            "method=%s route=%s status=%d ms=%.1f tenant=%s token=%s",
            request.method if request.method in {"GET", "HEAD", "POST", "DELETE", "OPTIONS"} else "other",
            path,
            status,
            1000 * seconds,
            caller.tenant,
            caller.token or "-",
        )
