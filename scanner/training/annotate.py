"""A folder of candidates in, a local page on which a person draws the forged part of each, masks in that folder out.

A server and not a program with windows: every machine has a browser, and the one that has the pictures may be far away.
Only this machine can reach it, only with the token in the address, and only for files that candidates.json names:
a page of a stranger in the same browser gets neither pictures nor masks (checks of Host, Origin and token).
"""

import asyncio
import hmac
import ipaddress
import logging
import re
import secrets
import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
from aiohttp import web
from numpy.typing import NDArray

from scanner.report import palette
from scanner.training.candidates import (
    Candidate,
    CandidatesError,
    Source,
    difference_mask,
    inside,
    note_source,
    read_candidates,
    read_mask,
    read_picture,
    read_sources,
    size_of,
    write_mask,
)

log = logging.getLogger(__name__)

HOST: Final = "127.0.0.1"
LARGEST_PIXELS: Final = 100_000_000
"""A mask comes as one bit per pixel: 12.5 MB at most."""
HEADERS: Final = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'",
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",  # the address holds the token
    "X-Content-Type-Options": "nosniff",
}
TYPES: Final = {".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Shown(msgspec.Struct, frozen=True):
    """What the page knows of one candidate."""

    name: str
    width: int
    height: int
    attention: bool
    original: bool
    source: Source | None  # null: no mask yet


class Listing(msgspec.Struct, frozen=True):
    """All that the page asks for at first; `ramp` has 256 RGB colours for the attention map."""

    folder: str
    ramp: list[list[int]]
    candidates: list[Shown]


@dataclass(frozen=True)
class Annotator:
    """The server's handlers over one folder; raises CandidatesError when the folder cannot be annotated."""

    folder: Path
    candidates: dict[str, Candidate]
    sizes: dict[str, tuple[int, int]]  # width, height
    token: str

    @classmethod
    def of(cls, folder: Path) -> "Annotator":
        """Check everything in the folder once, so that a fault shows in the terminal and not as a blank page."""
        candidates = {candidate.name: candidate for candidate in read_candidates(folder)}
        if not candidates:
            msg = f"{folder} has no candidates"
            raise CandidatesError(msg)
        sizes = {name: size_of(folder / candidate.picture) for name, candidate in candidates.items()}
        for name, candidate in candidates.items():
            if sizes[name][0] * sizes[name][1] > LARGEST_PIXELS:
                msg = f"{folder / candidate.picture} has more than {LARGEST_PIXELS} px: cut it into tiles"
                raise CandidatesError(msg)
            if candidate.original and size_of(folder / candidate.original) != sizes[name]:
                msg = f"{folder / candidate.original} is not as large as its forgery"
                raise CandidatesError(msg)
            read_mask(folder, candidate)
        read_sources(folder)
        return cls(folder, candidates, sizes, secrets.token_urlsafe(24))

    def application(self) -> web.Application:
        """The routes, behind the guard."""
        app = web.Application(middlewares=[self.guard], client_max_size=LARGEST_PIXELS // 8)
        app.router.add_get("/{token}/", self.page)
        app.router.add_get(r"/{token}/{file:[a-z]+\.(?:js|css|svg)}", self.page)
        app.router.add_get("/{token}/candidates", self.listing)
        app.router.add_get("/{token}/{kind:pictures|attention|originals}/{name}", self.picture)
        app.router.add_get("/{token}/masks/{name}", self.mask)
        app.router.add_put("/{token}/masks/{name}", self.draw)
        app.router.add_get("/{token}/differences/{name}", self.difference)
        app.router.add_put("/{token}/skips/{name}", self.skip)
        return app

    @web.middleware
    async def guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Let through only who was given the address, by that address; every answer has the security headers."""
        try:
            if not _is_ours(request):
                raise web.HTTPForbidden(text="not by this address")
            if not hmac.compare_digest(request.path.split("/")[1].encode(), self.token.encode()):
                raise web.HTTPNotFound
            answer = await handler(request)
        except web.HTTPException as refusal:
            refusal.headers.update(HEADERS)
            raise
        except CandidatesError as error:  # a file changed under us
            answer = web.Response(status=409, text=str(error))
        answer.headers.update(HEADERS)
        return answer

    async def page(self, request: web.Request) -> web.Response:
        """The page and its parts, from the package."""
        name = request.match_info.get("file", "index.html")
        file = resources.files("scanner.training").joinpath("annotate_page", name)
        if not file.is_file():
            raise web.HTTPNotFound
        return web.Response(text=file.read_text("utf-8"), content_type=TYPES[Path(name).suffix])

    async def listing(self, _: web.Request) -> web.Response:
        """Every candidate with where its mask comes from."""
        sources = read_sources(self.folder)
        shown = []
        for name, candidate in self.candidates.items():
            there = read_mask(self.folder, candidate) is not None
            source = sources.get(name, Source.HUMAN if there else None)
            known = source if there or source is Source.SKIPPED else None
            shown.append(Shown(name, *self.sizes[name], bool(candidate.attention), bool(candidate.original), known))
        listing = Listing(str(self.folder), palette.ramp().tolist(), shown)
        return web.Response(body=msgspec.json.encode(listing), content_type="application/json")

    async def picture(self, request: web.Request) -> web.FileResponse:
        """A picture, an attention map or an original, as candidates.json names it."""
        candidate = self.candidate(request)
        files = {"pictures": candidate.picture, "attention": candidate.attention, "originals": candidate.original}
        file = files[request.match_info["kind"]]
        if file is None:
            raise web.HTTPNotFound
        return web.FileResponse(inside(self.folder, file), headers={"Content-Type": "image/png"})

    async def mask(self, request: web.Request) -> web.Response:
        """The mask, one bit per pixel row by row from the top left, most significant bit first; 204 when none."""
        mask = read_mask(self.folder, self.candidate(request))
        return web.Response(status=204) if mask is None else _bits(mask >= 0.5)

    async def difference(self, request: web.Request) -> web.Response:
        """The automatic mask, in the bits of `mask`, for a person to begin from."""
        candidate = self.candidate(request)
        if candidate.original is None:
            raise web.HTTPNotFound
        fake, original = (read_picture(inside(self.folder, f)) for f in (candidate.picture, candidate.original))
        return _bits(difference_mask(fake, original) > 0)

    async def draw(self, request: web.Request) -> web.Response:
        """Keep what a person drew; in the bits of `mask`."""
        name = self.candidate(request).name
        width, height = self.sizes[name]
        body = await request.read()
        if len(body) != -(-width * height // 8):
            raise web.HTTPBadRequest(text=f"a mask of {width} x {height} px has another size")
        bits = np.unpackbits(np.frombuffer(body, np.uint8), count=width * height)
        write_mask(self.folder, name, bits.reshape(height, width), Source.HUMAN)
        return web.Response(status=204)

    async def skip(self, request: web.Request) -> web.Response:
        """Keep a candidate out of the masked set; drawing on it takes it in again."""
        note_source(self.folder, self.candidate(request).name, Source.SKIPPED)
        return web.Response(status=204)

    def candidate(self, request: web.Request) -> Candidate:
        """The candidate that the address names; raises HTTPNotFound."""
        found = self.candidates.get(request.match_info["name"])
        if found is None:
            raise web.HTTPNotFound
        return found


def _is_ours(request: web.Request) -> bool:
    """Whether Host is our own loopback address (else DNS rebinding) and Origin, where there is one, is that host."""
    host = re.fullmatch(r"(localhost|[0-9.]+)(?::(\d+))?", request.host)
    if host is None or (host[1] != "localhost" and not _is_loopback(host[1])):
        return False
    return request.headers.get("Origin", f"http://{request.host}") == f"http://{request.host}"


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _bits(mask: NDArray[np.bool_]) -> web.Response:
    return web.Response(body=np.packbits(mask).tobytes(), content_type="application/octet-stream")


async def serve(folder: Path, *, port: int = 0, ready: Callable[[str], None]) -> None:
    """Serve until SIGINT or SIGTERM; `ready` gets the address. Port 0 takes any free one.

    Raises CandidatesError when the folder cannot be annotated, OSError when the port is taken.
    """
    annotator = Annotator.of(folder)
    stop = asyncio.Event()
    for sent in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(sent, stop.set)
    runner = web.AppRunner(annotator.application(), access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        site = web.TCPSite(runner, HOST, port)
        await site.start()
        ready(f"http://{HOST}:{runner.addresses[0][1]}/{annotator.token}/")
        await stop.wait()
    finally:
        await runner.cleanup()
