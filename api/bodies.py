"""Bytes of a request in, structs out; structs in, JSON out. Limits hold before the bytes are read.

One reason: a body of 1 GB or JSON nested 10,000 deep is refused in the same way, and with flat memory, everywhere.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Final, TypeVar

import msgspec
from aiohttp import web

from api.errors import BadRequest, BodyTooLarge, BodyTooSlow, Invalid, UnsupportedType

SUBMIT_BYTES: Final = 64_000
BATCH_BYTES: Final = 2_000_000
BODY_S: Final = 60.0
"""For a whole body of JSON, or the head of a form: the largest needs 33 kB/s."""

DRESS: Final[web.AppKey[Callable[[web.Request, web.StreamResponse], None]]] = web.AppKey("dress")
"""What adds the headers that every answer carries."""

stream_key: Final = web.RequestKey("stream", web.StreamResponse)
"""The answer that has begun: another one would be written into it."""

T = TypeVar("T")


async def read_json(request: web.Request, kind: type[T], *, limit_bytes: int) -> T:
    """The body as `kind`; raises UnsupportedType, BodyTooLarge, BodyTooSlow, BadRequest or Invalid."""
    if request.content_type != "application/json" or "Content-Encoding" in request.headers:
        msg = "send plain application/json"
        raise UnsupportedType(msg)
    refuse_length(request, limit_bytes)
    body = bytearray()
    async with in_time(BODY_S):
        async for chunk in request.content.iter_any():
            body += chunk
            if len(body) > limit_bytes:
                raise _too_large(limit_bytes)
    try:
        return msgspec.json.decode(bytes(body), type=kind)
    except msgspec.ValidationError as error:
        raise Invalid(str(error)) from error
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        msg = f"the body is not JSON: {error}"
        raise BadRequest(msg) from error


@contextlib.asynccontextmanager
async def in_time(limit_s: float) -> AsyncIterator[None]:
    """Raise BodyTooSlow when what is read in the block has not come by then."""
    try:
        async with asyncio.timeout(limit_s):
            yield
    except TimeoutError as error:
        msg = f"the body did not come within {limit_s:g} s; send it faster, or less at once"
        raise BodyTooSlow(msg) from error


def refuse_length(request: web.Request, limit_bytes: int) -> None:
    """Refuse by the announced length, before a byte of the body is read; raises BodyTooLarge."""
    if (request.content_length or 0) > limit_bytes:
        raise _too_large(limit_bytes)


def read_query(request: web.Request, kind: type[T]) -> T:
    """The query string as `kind`, each name once; raises Invalid."""
    pairs = list(request.query.items())
    given = dict(pairs)
    if len(given) != len(pairs):
        msg = "a parameter is given twice"
        raise Invalid(msg)
    try:
        return msgspec.convert(given, kind, strict=False)
    except msgspec.ValidationError as error:
        raise Invalid(str(error)) from error


def answer(body: msgspec.Struct, *, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    """A struct as JSON."""
    return web.Response(status=status, body=msgspec.json.encode(body), content_type="application/json", headers=headers)


async def open_stream(request: web.Request, content_type: str, **headers: str) -> web.StreamResponse:
    """An answer that is written as it comes to be known; the names of further headers are written with `_`."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    stream = web.StreamResponse(headers={"Content-Type": content_type, **named})
    request.app[DRESS](request, stream)
    await stream.prepare(request)
    request[stream_key] = stream
    return stream


def _too_large(limit_bytes: int) -> BodyTooLarge:
    return BodyTooLarge(f"the body may have {limit_bytes} bytes at most")
