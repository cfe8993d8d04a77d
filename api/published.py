"""What the service says of itself to programs that check what it says: the schema of its outcomes."""

from typing import Final

from aiohttp import web

from scanner.schema.published import published_text

SCHEMA: Final = published_text()


async def schema(_request: web.Request) -> web.Response:
    """GET /v1/schema: as `laescan schema` prints it."""
    headers = {"Content-Type": "application/schema+json", "Cache-Control": "public, max-age=3600"}
    return web.Response(body=SCHEMA, headers=headers)
