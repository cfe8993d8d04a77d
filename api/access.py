"""A request in, who calls it out, or a refusal: Host, Origin, token, scope and rate, in this order, before any handler.

One reason: a service on 127.0.0.1 is reachable by every web page that its user visits, by form posts, by `fetch` and by
DNS rebinding. The browser sends the truth in Host, Origin and Sec-Fetch-Site, and pages cannot forge these.
"""

from dataclasses import dataclass
from functools import lru_cache
from ipaddress import ip_address
from typing import Final

from aiohttp import HttpVersion11, web

from api.errors import HostRefused, OriginRefused, ProxyRefused, ScopeMissing, TooManyRequests, Unauthenticated
from api.limits import Leave, Limiter
from api.tokens import Scope, Tokens
from scanner.settings import Settings, SettingsError

LOCAL_TENANT: Final = "local"
"""Whose scans are those of callers without a token; a token's default too, so that a token sees what its owner did."""
EXTENSION_SCHEMES: Final = ("chrome-extension", "moz-extension")
PROXIED: Final = (
    "Forwarded",
    "Via",
    "X-Real-IP",
    *(f"X-Forwarded-{what}" for what in ("For", "Host", "Proto", "Port")),
)
"""What a proxy says of itself; whose Host may be ours, since nginx puts its upstream's name there."""
FAILURES_PER_MIN: Final = 20
"""Wrong tokens that one address may try: 2^256 are out of reach anyway, this keeps the log short."""


@dataclass(frozen=True)
class Caller:
    """Who asks, and what the limiter said of the request (null: not counted) by which policy."""

    tenant: str
    scope: Scope
    token: str | None = None
    leave: Leave | None = None
    policy: str = ""


caller_key: Final = web.RequestKey("caller", Caller)
LOCAL: Final = Caller(LOCAL_TENANT, Scope.ADMIN)


@lru_cache(1024)  # asked for every request, and a client's Host stays the same
def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a server that listens there."""
    if host.rstrip(".").lower() == "localhost":
        return True
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def refuse_to_expose(settings: Settings) -> None:
    """Raise SettingsError when others could call and nobody said whether they need a token."""
    reachable = not is_loopback(settings.api_host) or bool(settings.api_hosts)
    if settings.access == "auto" and reachable:
        msg = (
            f"others can reach {settings.api_host}: set LAESCAN_ACCESS=token (`laescan token create` makes one), or "
            "LAESCAN_ACCESS=open if everyone who can reach it may scan"
        )
        raise SettingsError(msg)


class Door:
    """Lets a request in or raises why not."""

    def __init__(self, settings: Settings, tokens: Tokens, limiter: Limiter) -> None:
        self._hosts = frozenset(host.lower() for host in settings.api_hosts)
        self._extensions = frozenset(f"{scheme}://{i}" for scheme in EXTENSION_SCHEMES for i in settings.extension_ids)
        self._access = settings.access
        self._per_min = {
            "submit": settings.submits_per_min,
            "lookup": settings.lookups_per_min,
            "bulk": settings.batches_per_min,
        }
        self._tokens, self._limiter = tokens, limiter

    def check_host(self, request: web.Request) -> None:
        """Refuse a name that is not ours (421): the way in of DNS rebinding."""
        given = request.headers.getall("Host", [])
        name = _name(given[0]) if len(given) == 1 else ""
        if name not in self._hosts and not is_loopback(name):
            msg = "this server does not go by that name; list it in LAESCAN_API_HOSTS if it is yours"
            raise HostRefused(msg)

    def extension(self, request: web.Request) -> str | None:
        """The origin of the listed extension that asks; null when none does."""
        origin = request.headers.get("Origin")
        return origin if origin in self._extensions else None

    def check_origin(self, request: web.Request) -> None:
        """Refuse what a stranger's page or extension sends (403); programs send no Origin."""
        origins = request.headers.getall("Origin", [])
        if len(origins) == 1 and (origins[0] in self._extensions or _is_own(origins[0], request)):
            return
        if len(origins) == 1 and _shows_a_token(origins[0], request):
            return
        crossed = request.headers.get("Sec-Fetch-Site", "none") not in {"none", "same-origin"}
        if origins or crossed:
            msg = "only pages of this server, extensions with a token and those in LAESCAN_EXTENSION_IDS may call it"
            raise OriginRefused(msg)

    def stranger(self, request: web.Request) -> Caller | None:
        """Who asks without a token, where none is needed; at once, since every local request does.

        Raises ProxyRefused where only this machine's own may, and a proxy on it speaks for who knows whom.
        """
        if self._access == "token" or "Authorization" in request.headers:
            return None
        if self._access == "auto" and _is_proxied(request):
            msg = "this came through a proxy, so from who knows where: set LAESCAN_ACCESS=token and give out tokens"
            raise ProxyRefused(msg)
        return LOCAL

    async def identify(self, request: web.Request, *, scope: Scope, policy: str) -> Caller:
        """The caller with this token, counted; raises Unauthenticated, ScopeMissing or TooManyRequests."""
        kind, _, text = request.headers.get("Authorization", "").partition(" ")
        token = await self._tokens.find(text.strip()) if kind.lower() == "bearer" else None
        if token is None:
            await self._count_failure(request)
            msg = "give a token that is neither expired nor revoked: `Authorization: Bearer lae_...`"
            raise Unauthenticated(msg, headers={"WWW-Authenticate": 'Bearer realm="laescan"'})
        leave = await self._limiter.spend(token.id, policy=policy, per_min=self._per_min[policy])
        if not leave.passed:
            msg = f"this token may do {leave.limit} such requests per minute; wait as Retry-After says"
            raise TooManyRequests(msg, retry_after_s=leave.wait_s, headers=leave.headers(policy))
        if Scope.named(token.scope) < scope:
            msg = f"this token has the scope `{token.scope}`, the request needs `{scope.name.lower()}`"
            raise ScopeMissing(msg)
        return Caller(token.tenant, Scope.named(token.scope), token.id, leave, policy)

    async def _count_failure(self, request: web.Request) -> None:
        leave = await self._limiter.spend(request.remote or "", policy="failures", per_min=FAILURES_PER_MIN)
        if not leave.passed:
            msg = "too many wrong tokens from this address"
            raise TooManyRequests(msg, retry_after_s=leave.wait_s)


@lru_cache(1024)  # asked for every request, and a client's Host stays the same
def _name(host: str) -> str:
    """The name in a Host header, without the port; "" for nonsense."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0].lower().rstrip(".")


def _is_own(origin: str, request: web.Request) -> bool:
    """Whether the page is one of ours; a proxy in front may have ended TLS, so the scheme does not count."""
    scheme, _, rest = origin.partition("://")
    return scheme in {"http", "https"} and rest == request.headers.get("Host")


def _is_proxied(request: web.Request) -> bool:
    """Whether a proxy says so; nginx, which says nothing unless told, gives itself away by its HTTP/1.0."""
    return request.version < HttpVersion11 or any(name in request.headers for name in PROXIED)


def _shows_a_token(origin: str, request: web.Request) -> bool:
    """Whether an extension sends a token, which `identify` looks at next.

    Firefox gives each installation of an extension another id, so nobody could list them; no page has such an origin.
    """
    scheme, _, _ = origin.partition("://")
    return scheme in EXTENSION_SCHEMES and "Authorization" in request.headers
