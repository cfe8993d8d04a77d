"""`laescan token create | list | revoke`: the command's arguments in, lines to print out.

Tokens stand in the service's Redis, so this runs where that can be reached: beside `laescan serve`, or with
LAESCAN_REDIS_URL.
"""

import argparse
import asyncio
import re
import time
from typing import Final

from redis.asyncio import Redis

from api.tokens import Scope, Token, Tokens
from scanner.service.embedded import service_url
from scanner.settings import Settings, SettingsError

UNITS_S: Final = {"h": 3_600, "d": 86_400, "w": 604_800}
TENANT: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")


def run(given: argparse.Namespace, settings: Settings) -> list[str]:
    """Do what is asked; raises SettingsError for a bad argument and redis.RedisError when there is no Redis."""
    return asyncio.run(_run(given, settings))


async def _run(given: argparse.Namespace, settings: Settings) -> list[str]:
    async with Redis.from_url(service_url(settings)) as redis:
        tokens = Tokens(redis)
        if given.action == "create":
            return await _create(given, tokens)
        if given.action == "revoke":
            return await _revoke(given.id, tokens)
        return [_line(token) for token in await tokens.all()]


async def _create(given: argparse.Namespace, tokens: Tokens) -> list[str]:
    if not TENANT.fullmatch(given.tenant):
        msg = "a tenant is 1 to 64 letters, digits, dots, dashes or underscores"
        raise SettingsError(msg)
    lifetime_s = None if given.expires is None else seconds(given.expires)
    text, _ = await tokens.create(Scope.named(given.scope), tenant=given.tenant, note=given.note, lifetime_s=lifetime_s)
    return [text]


async def _revoke(identity: str, tokens: Tokens) -> list[str]:
    token = await tokens.revoke(identity)
    if token is None:
        msg = f"no token has the id {identity}; `laescan token list` shows them"
        raise SettingsError(msg)
    return [_line(token)]


def seconds(text: str) -> float:
    """`12h`, `90d` or `4w` in seconds; raises SettingsError."""
    found = re.fullmatch(r"(\d{1,5})([hdw])", text)
    if found is None:
        msg = f"not a time: {text}; write e.g. 12h, 90d or 4w"
        raise SettingsError(msg)
    return float(found[1]) * UNITS_S[found[2]]


def _line(token: Token) -> str:
    now_s = time.time()
    state = "valid" if token.is_valid(now_s) else "revoked" if token.revoked_s is not None else "expired"
    expires = "never" if token.expires_s is None else time.strftime("%Y-%m-%d %H:%M", time.gmtime(token.expires_s))
    parts = [token.id, token.scope, f"tenant={token.tenant}", f"expires={expires}", state, token.note]
    return "  ".join(part for part in parts if part)
