"""Hosts that asked to be left alone for a while: what their servers said in, how long their bulk scans wait out.

One reason: a batch asks one host thousands of times, by workers that know nothing of each other; its Retry-After is
meant for all of them. Who waits for an answer at a page (interactive) is not held back: it is one request. Each tenant
hears a host for itself: it must not learn from its waiting whom another asks.

laescan:quiet:HOST      is there while the host wants no request; HOST is a digest of the tenant and its name
laescan:unheeded:HOST   since it first said so, and answered nothing else: 2 x PATIENCE_S, then it begins anew
"""

import hashlib
import math
from typing import Final
from urllib.parse import urlsplit

import redis
from redis.client import Pipeline

from scanner.contract import Outcome, ScanRequest
from scanner.errors import RateLimited

PATIENCE_S: Final = 600.0
"""For how long one host is waited for, as `laescan bulk` does; then its scans end, so that a batch does, too."""
_QUIET, _UNHEEDED = "laescan:quiet:", "laescan:unheeded:"


def hear(pipe: Pipeline, request: ScanRequest, outcome: Outcome) -> None:
    """Note what a scan's host said; the writes go into `pipe`."""
    host, failure = _digest(request), outcome.failure
    if host is None:
        return
    if failure is None:
        pipe.delete(_UNHEEDED + host)
    elif failure.code == RateLimited.code and failure.retry_after_s:
        quiet_ms = math.ceil(1000 * min(failure.retry_after_s, 2 * PATIENCE_S))
        pipe.set(_QUIET + host, b"", px=quiet_ms)
        pipe.set(_UNHEEDED + host, b"", px=int(2000 * PATIENCE_S), nx=True)


def wait_s(client: redis.Redis, request: ScanRequest) -> float:
    """How long a scan is to wait for its host, 0 when it need not.

    Raises RateLimited when that would be longer than PATIENCE_S after the host first said so.
    """
    host = _digest(request) if request.queue == "bulk" else None
    if host is None:
        return 0.0
    with client.pipeline(transaction=False) as pipe:
        pipe.pttl(_QUIET + host)
        pipe.pttl(_UNHEEDED + host)
        quiet_ms, unheeded_ms = pipe.execute()
    if quiet_ms <= 0:
        return 0.0
    left_ms = unheeded_ms if unheeded_ms > 0 else 2000 * PATIENCE_S  # it has answered another scan meanwhile
    if quiet_ms > left_ms - 1000 * PATIENCE_S:
        msg = (
            "its server has asked for fewer requests, again and again or for a long time, and was not asked this time; "
            f"try again in {quiet_ms / 1000:.0f} s"
        )
        raise RateLimited(msg, retry_after_s=quiet_ms / 1000)
    return float(quiet_ms / 1000)


def _digest(request: ScanRequest) -> str | None:
    """Of its host; None for an upload, and for what is no URL."""
    try:
        host = urlsplit(request.source_url or "").hostname
    except ValueError:
        return None
    name = f"{request.tenant}\0{host}".encode("utf-8", "surrogatepass")
    return hashlib.sha256(name).hexdigest()[:32] if host else None
