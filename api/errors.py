"""What the API refuses, as one tree like `scanner.errors`: each leaf has a stable `code`.

One reason: handlers raise what happened; `api.middleware` alone knows which status and headers that makes.
"""

from typing import ClassVar


class ApiError(Exception):
    """A request that is not served; the message tells the caller what to change.

    `retry_after_s` becomes the Retry-After header, `headers` are added to the answer.
    """

    code: ClassVar[str] = "internal"

    def __init__(
        self, message: str, *, retry_after_s: float | None = None, headers: dict[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s
        self.headers = headers or {}


class BadRequest(ApiError):
    """The request is not what HTTP or JSON calls well-formed."""

    code = "bad_request"


class Invalid(ApiError):
    """Well-formed, but a value does not fit what /openapi.json says."""

    code = "invalid"


class Unauthenticated(ApiError):
    """No token, or one that is unknown, revoked or expired: one answer for all four."""

    code = "unauthenticated"


class ScopeMissing(ApiError):
    """The token is good, but not for this."""

    code = "scope_missing"


class OriginRefused(ApiError):
    """A web page or an extension that is not listed asked."""

    code = "origin_refused"


class HostRefused(ApiError):
    """The Host header names somebody else: DNS rebinding, or a name that is not in `api_hosts`."""

    code = "host_refused"


class ProxyRefused(ApiError):
    """Somebody whom a proxy speaks for asked without a token, where only this machine's own may."""

    code = "proxy_refused"


class NotFound(ApiError):
    """No such path, scan or batch, or it is another tenant's: one answer for all."""

    code = "not_found"


class MethodNotAllowed(ApiError):
    """The path is there, but not for this method."""

    code = "method_not_allowed"


class BodyTooLarge(ApiError):
    """More bytes than this request may have."""

    code = "body_too_large"


class BodyTooSlow(ApiError):
    """The body stands still, or takes longer than one may."""

    code = "body_too_slow"


class HungUp(ApiError):
    """Who asked has gone: nobody hears this answer, but it is counted."""

    code = "hung_up"


class UnsupportedType(ApiError):
    """The Content-Type is none that this endpoint reads."""

    code = "unsupported_type"


class TooManyRequests(ApiError):
    """The token asks more often than it may."""

    code = "too_many_requests"


class QueueFull(ApiError):
    """More scans wait than we take."""

    code = "queue_full"


class Unavailable(ApiError):
    """Redis, or what else the answer needs, is away for now."""

    code = "unavailable"
