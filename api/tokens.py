"""Who may call: tokens are made, listed, revoked and recognised here, and stand in Redis only as hashes.

A token is `lae_<id>_<secret>`: the id (public, for lists and logs) names the record, the secret has 256 random bits.
A secret of that size needs no slow hash: SHA-256 cannot be searched back, and every request pays for it.
"""

import hashlib
import hmac
import re
import secrets
import time
from enum import IntEnum
from typing import TYPE_CHECKING, Final

import msgspec

if TYPE_CHECKING:
    from redis.asyncio import Redis

SHAPE: Final = re.compile(r"lae_([0-9a-f]{12})_([A-Za-z0-9_-]{43})")
PREFIX: Final = "laescan:token:"


class Scope(IntEnum):
    """What a token is for; each scope includes those before it."""

    LOOKUP = 1
    SUBMIT = 2
    BULK = 3
    ADMIN = 4

    @classmethod
    def named(cls, name: str) -> "Scope":
        """`lookup`, `submit`, `bulk` or `admin`."""
        return cls[name.upper()]


class Token(msgspec.Struct, frozen=True, kw_only=True):
    """What is kept of a token; times are seconds since 1970."""

    id: str
    digest: str  # SHA-256 of the secret, hex
    scope: str
    tenant: str
    note: str = ""
    created_s: float
    expires_s: float | None = None
    revoked_s: float | None = None

    def is_valid(self, now_s: float) -> bool:
        """Neither revoked nor expired."""
        return self.revoked_s is None and (self.expires_s is None or now_s < self.expires_s)


class Tokens:
    """The tokens of one service, in Redis."""

    def __init__(self, redis: "Redis") -> None:
        self._redis = redis

    async def create(
        self, scope: Scope, *, tenant: str, note: str = "", lifetime_s: float | None = None
    ) -> tuple[str, Token]:
        """A new token and its record; the token itself is never seen again."""
        identity, secret, now_s = secrets.token_hex(6), secrets.token_urlsafe(32), time.time()
        record = Token(
            id=identity,
            digest=_digest(secret),
            scope=scope.name.lower(),
            tenant=tenant,
            note=note,
            created_s=now_s,
            expires_s=None if lifetime_s is None else now_s + lifetime_s,
        )
        await self._redis.set(PREFIX + identity, msgspec.json.encode(record))
        return f"lae_{identity}_{secret}", record

    async def find(self, text: str) -> Token | None:
        """The record of a token that is whole, known and valid now; else null."""
        parts = SHAPE.fullmatch(text)
        record = await self._read(parts[1]) if parts else None
        if parts is None or record is None or not hmac.compare_digest(record.digest, _digest(parts[2])):
            return None
        return record if record.is_valid(time.time()) else None

    async def revoke(self, identity: str) -> Token | None:
        """Takes hold at once; null when there is no such token. The record stays, for the list."""
        record = await self._read(identity)
        if record is None:
            return None
        revoked = msgspec.structs.replace(record, revoked_s=record.revoked_s or time.time())
        await self._redis.set(PREFIX + identity, msgspec.json.encode(revoked))
        return revoked

    async def all(self) -> list[Token]:
        """Every record, oldest first."""
        keys = [key async for key in self._redis.scan_iter(match=PREFIX + "*", count=1_000)]
        found = [data for data in (await self._redis.mget(keys) if keys else []) if data is not None]
        return sorted((msgspec.json.decode(data, type=Token) for data in found), key=lambda token: token.created_s)

    async def _read(self, identity: str) -> Token | None:
        data = await self._redis.get(PREFIX + identity)
        return None if data is None else msgspec.json.decode(data, type=Token)


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
