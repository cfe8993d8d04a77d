"""Every request passes here: refused or let in, answered in one shape even when it fails, counted and logged.

One reason: `STATUSES` is the only table from error codes to HTTP statuses, and this is one of the two places of the
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
from api.errors import ApiError, BadRequest, MethodNotAllowed, NotFound, Unavailable
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
    "not_found": 404,
    "method_not_allowed": 405,
    "body_too_large": 413,
    "unsupported_type": 415,
    "host_refused": 421,
    "invalid": 422,
    "too_many_requests": 429,
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
}
EXPOSED: Final = "Location, Retry-After, RateLimit, RateLimit-Policy, X-Request-Id"
PREFLIGHT: Final = {
    "Access-Control-Allow-Methods": "GET, POST, DELETE",
    "Access-Control-Allow-Headers": "Authorization, Content-Type, Idempotency-Key",
    "Access-Control-Max-Age": "600",
}


class Edge:
    """The outermost middleware of the app."""

    def __init__(self, door: Door, metrics: Metrics, endpoints: dict[tuple[str, str], Endpoint]) -> None:
        self._door, self._metrics, self._endpoints = door, metrics, endpoints

    async def __call__(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Serve one request; never raises for what went wrong in it, except a cancelled one."""
        begun = time.perf_counter()
        resource = request.match_info.route.resource
        path = resource.canonical if resource else "unknown"
        endpoint = self._endpoints.get((request.method, path))
        try:
            response = await self._serve(request, handler, endpoint)
        except Exception as error:  # noqa: BLE001 - the edge: `answer_for` logs what is a bug
            response = answer_for(error, request)
        seconds = time.perf_counter() - begun
        self._metrics.count_request(path, request.method, response.status, seconds)
        _note(request, path, response.status, seconds)
        return response

    async def _serve(self, request: web.Request, handler: Handler, endpoint: Endpoint | None) -> web.StreamResponse:
        self._door.check_host(request)
        if endpoint is None and request.method == "OPTIONS":
            self._door.check_origin(request)
            return web.Response(status=204, headers=PREFLIGHT)
        if endpoint is None:  # no such path or method; what is not in the table is not served, whatever the router says
            raise request.match_info.http_exception or web.HTTPNotFound
        if endpoint.scope is None:  # a page or a probe: nothing to guard
            return await handler(request)
        self._door.check_origin(request)
        request[caller_key] = await self._door.identify(request, scope=endpoint.scope, policy=endpoint.policy)
        return await handler(request)

    async def dress(self, request: web.Request, response: web.StreamResponse) -> None:
        """Headers that every answer carries; a signal, since a stream's headers are gone before its handler returns."""
        headers = response.headers
        headers.update(SAFE_HEADERS)
        headers.setdefault("Cache-Control", "no-store")
        caller = request.get(caller_key)
        if caller is not None and caller.leave is not None:
            endpoint = self._endpoints[request.method, request.match_info.route.resource.canonical]  # type: ignore[union-attr]
            headers.update(caller.leave.headers(endpoint.policy))
        origin = self._door.extension(request)
        if origin is not None:
            headers.update({"Access-Control-Allow-Origin": origin, "Access-Control-Expose-Headers": EXPOSED})
        headers.add("Vary", "Origin")


def answer_for(error: Exception, request: web.Request) -> web.Response:
    """`{"error": {"code", "message", "request_id", "retryable"}}` with the status and headers that belong to it."""
    request_id = secrets.token_hex(6)
    refusal = _refusal(error)
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


def _refusal(error: Exception) -> ApiError | ScanError | None:
    """The same as one of our errors; null for a bug."""
    if isinstance(error, ApiError) or (isinstance(error, ScanError) and error.code in STATUSES):
        return error
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
