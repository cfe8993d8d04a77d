"""Remembered verdicts out of Redis into a file, and back: JSON lines that another laescan can take in.

    {"laescan": "verdicts", "version": 1}                               the schema of the verdicts
    {"scope": "a1b2", "stored_s": 1.7e9, "verdict": {...}}              one line each, in no order
    {"count": 1, "sha256": "..."}                                       of all lines before it

One reason: what was paid for with hours of scanning must be able to move. No URL is in it, nor what stands for one:
verdicts are kept by the sha256 of the bytes that they are about.
All or nothing: a file is read to its end, and its digest and every line checked, before the first verdict is taken in.
The digest finds accidents, not forgers: who can write the file can say what is authentic. Take in only your own.
"""

import hashlib
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Annotated, BinaryIO, Final, Literal, TypeVar

import msgspec
from msgspec import Meta
from redis.asyncio import Redis

from scanner.cache.upkeep import model_of, pieces
from scanner.cache.verdicts import PREFIX, VerdictCache, is_sha256, lifetime_s, packed, raw, unpacked
from scanner.contract import VERDICT_VERSION, Verdict

LINE_BYTES: Final = 16_000_000
_STEP: Final = 200
_SKEW_S: Final = 86_400.0  # clocks of two machines differ
T = TypeVar("T")


class ArchiveError(Exception):
    """A file that is not taken in; the message says what is wrong and in which line."""


class _Head(msgspec.Struct, frozen=True):
    laescan: Literal["verdicts"]
    version: int


class _Line(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    scope: Annotated[str, Meta(pattern=r"^[!-9;-~]{1,200}$")]  # no colon: it is a part of a key
    stored_s: Annotated[float, Meta(ge=0)]
    verdict: Verdict


class _Tail(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    count: int
    sha256: str


async def export(redis: Redis, is_meant: Callable[[str], bool]) -> AsyncIterator[bytes]:
    """The lines of a file with every verdict by the models that are meant, by `model_id`; unreadable ones are left."""
    digest, count = hashlib.sha256(), 0
    head = _line(_Head("verdicts", VERDICT_VERSION))
    digest.update(head)
    yield head
    async for keys in pieces(redis, f"{PREFIX}v:*"):
        for key, value in zip(keys, await redis.mget(keys), strict=True):
            line = None if value is None else _of_key(key, value)
            if line is None or not is_meant(model_of(line.scope)):
                continue
            encoded = _line(line)
            digest.update(encoded)
            count += 1
            yield encoded
    yield _line(_Tail(count, digest.hexdigest()))


def inspect(path: Path) -> int:
    """Read a file to its end; out: how many verdicts are in it. Raises ArchiveError for what is not whole, OSError."""
    digest, count = hashlib.sha256(), 0
    with path.open("rb") as file:
        lines = _numbered(file)
        _, head = next(lines, (1, b""))
        found = _decode(head, _Head, 1)
        if found.version != VERDICT_VERSION:
            msg = f"its verdicts are of version {found.version}, this laescan reads {VERDICT_VERSION}"
            raise ArchiveError(msg)
        digest.update(head)
        for number, line in lines:
            if line.startswith(b'{"count":'):
                _check_tail(_decode(line, _Tail, number), count, digest.hexdigest(), rest=file.read(1))
                return count
            _check(_decode(line, _Line, number), number)
            digest.update(line)
            count += 1
    msg = "its end is missing: it was cut off"
    raise ArchiveError(msg)


async def take_in(redis: Redis, path: Path, *, tenant: str) -> tuple[int, int]:
    """Remember what an inspected file holds; out: verdicts taken in, and left out as too old or known already.

    Whoever has a file can ask for its verdict by the digest; by a digest's first bits only the `tenant` finds it.
    What is remembered already stays, and a verdict lives on for the rest of its time only.
    Raises ArchiveError when the file is not the one that was inspected any more, OSError.
    """
    taken, left = 0, 0
    with path.open("rb") as file:
        lines = (
            _check(_decode(line, _Line, number), number)
            for number, line in _numbered(file)
            if number > 1 and not line.startswith(b'{"count":')
        )
        while piece := list(islice(lines, _STEP)):
            new = await _keep(redis, piece, tenant)
            taken, left = taken + new, left + len(piece) - new
    return taken, left


async def _keep(redis: Redis, lines: Sequence[_Line], tenant: str) -> int:
    now = time.time()
    rests = [(line, int(line.stored_s + lifetime_s(line.verdict) - now)) for line in lines]
    async with redis.pipeline(transaction=False) as pipe:
        for line, rest_s in rests:
            if rest_s > 0:
                key = f"{PREFIX}v:{line.scope}:{line.verdict.media.sha256}"
                pipe.set(key, packed(line.verdict, line.stored_s), ex=rest_s, nx=True)
        answers = await pipe.execute()
    young = [line for line, rest_s in rests if rest_s > 0]
    new = [line for line, answer in zip(young, answers, strict=True) if answer]
    cache = VerdictCache(redis)
    for scope in sorted({line.scope for line in new}):
        digests = [line.verdict.media.sha256 for line in new if line.scope == scope]
        await cache.index(digests, scope=scope, tenant=tenant)
        await cache.count(f"remembered:{scope}", len(digests))
    return len(new)


def _of_key(key: bytes, value: bytes | str) -> _Line | None:
    """None for an entry that a lookup would take for a miss."""
    _, _, scope, sha256 = key.decode("utf-8", "replace").split(":", 3)
    try:
        verdict, stored_s = unpacked(raw(value))
        line = _Line(scope, stored_s, verdict)
        return _check(line, 0) if verdict.media.sha256 == sha256 else None
    except (ValueError, ArchiveError):
        return None


def _check(line: _Line, number: int) -> _Line:
    """A verdict that says what a scan can say, under the scope of its own model; raises ArchiveError."""
    verdict = line.verdict
    if (
        verdict.version != VERDICT_VERSION
        or verdict.model.model_id != model_of(line.scope)
        or not is_sha256(verdict.media.sha256)
        or not 0 <= (verdict.score or 0) <= 1
        or line.stored_s > time.time() + _SKEW_S
    ):
        msg = f"line {number} holds no verdict that a scan could have given"
        raise ArchiveError(msg)
    return line


def _check_tail(tail: _Tail, count: int, digest: str, *, rest: bytes) -> None:
    if rest or tail != _Tail(count, digest):
        msg = "what is in it and what its last line says differ: it was changed, or put together from pieces"
        raise ArchiveError(msg)


def _numbered(file: BinaryIO) -> Iterator[tuple[int, bytes]]:
    number = 0
    while line := file.readline(LINE_BYTES):
        number += 1
        yield number, line


def _decode(line: bytes, kind: type[T], number: int) -> T:
    try:
        return msgspec.json.decode(line, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        msg = f"line {number} is not what laescan writes: {error}"
        raise ArchiveError(msg) from error


def _line(struct: msgspec.Struct) -> bytes:
    return msgspec.json.encode(struct) + b"\n"
