"""Our pages and what they load: read once at the start, served with headers that forbid anything from elsewhere."""

from importlib import resources
from typing import Final

from aiohttp import web

from api.errors import NotFound

HEADERS: Final = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Cache-Control": "no-cache",
}
TYPES: Final = {".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}


def _read() -> dict[str, tuple[bytes, str]]:
    """Every page and asset by name: 60 kB in all."""
    found = {}
    for file in resources.files("api").joinpath("pages").iterdir():
        suffix = "." + file.name.rpartition(".")[2]
        if suffix in TYPES:
            found[file.name] = (file.read_bytes(), TYPES[suffix])
    return found


FILES: Final = _read()
DESCRIPTION: Final = web.AppKey("description", bytes)


async def index(_request: web.Request) -> web.Response:
    """GET /."""
    return _file("index.html")


async def docs(_request: web.Request) -> web.Response:
    """GET /docs."""
    return _file("docs.html")


async def openapi(request: web.Request) -> web.Response:
    """GET /openapi.json."""
    return web.Response(body=request.app[DESCRIPTION], content_type="application/json")


async def asset(request: web.Request) -> web.Response:
    """GET /assets/{name}."""
    return _file(request.match_info["name"])


def _file(name: str) -> web.Response:
    if name not in FILES:
        msg = "no such page"
        raise NotFound(msg)
    body, kind = FILES[name]
    return web.Response(body=body, content_type=kind, charset="utf-8", headers=HEADERS)
