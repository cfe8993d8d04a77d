"""The API as it runs: a real Redis in a folder, the application on a port of 127.0.0.1, a client that speaks HTTP."""

import asyncio
import contextlib
from dataclasses import dataclass

import aiohttp
import msgspec
import redis
from aiohttp import web
from redis_server import redis_in

from api.app import connect, make_app
from api.service import SERVICE, Service
from api.tokens import Scope, Tokens
from scanner.contract import ModelInfo, Outcome
from scanner.service.drawings import Drawings
from scanner.service.lease import Lease
from scanner.settings import Settings

MODEL = ModelInfo(model_id="test", backend="cpu", precision="fp32")
URL = "https://example.org/a.jpg"


@dataclass
class Running:
    """One API, and the way to it."""

    url: str
    service: Service
    http: aiohttp.ClientSession

    async def ask(self, method, path, **options):
        """Status, decoded body (bytes unless JSON), headers."""
        async with self.http.request(method, self.url + path, **options) as response:
            data = await response.read()
            is_json = response.content_type == "application/json"
            return response.status, msgspec.json.decode(data) if is_json and data else data, response.headers

    async def submit(self, url=URL, **options):
        status, scan, _ = await self.ask("POST", "/v1/scans", json={"url": url, **options})
        assert status == 202, scan
        return scan["id"]

    async def token(self, scope="submit", tenant="local", **options):
        """Headers with a new token."""
        text, _ = await Tokens(self.service.redis).create(Scope.named(scope), tenant=tenant, **options)
        return {"Authorization": f"Bearer {text}"}

    def begin(self, id_):
        """Do what a worker does first: take the row."""
        client = redis.Redis.from_url(self.service.settings.redis_url)
        lease = Lease.start(client, id_, owner="test")
        assert lease
        return lease

    def draw(self, lease, **artifacts):
        """Leave what was drawn, e.g. report_html=b"page"."""
        settings, made = self.service.settings, {name.replace("_", "."): data for name, data in artifacts.items()}
        with redis.Redis.from_url(settings.cache_url or settings.redis_url) as client:
            assert Drawings(client, settings, model_id=MODEL.model_id).keep(lease.id, lease.fence, made)

    def finish(self, id_, verdict, source=URL, **artifacts):
        """Do all that a worker does: take the row, leave artifacts, write the outcome."""
        lease = self.begin(id_)
        if artifacts:
            self.draw(lease, **artifacts)
        assert lease.finish(Outcome(source=source, verdict=verdict), self.service.settings)
        lease.client.close()


@contextlib.asynccontextmanager
async def serving(settings, port=0):
    """Serve on a port of 127.0.0.1 until the block ends; Redis is there (or not) already."""
    app = make_app(settings, connect(settings.redis_url))
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.2)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", port)
        await site.start()
        port = site._server.sockets[0].getsockname()[1]
        async with aiohttp.ClientSession() as http:
            yield Running(f"http://127.0.0.1:{port}", app[SERVICE], http)
    finally:
        await runner.cleanup()


@contextlib.asynccontextmanager
async def running(folder, **options):
    """The same with a Redis of its own."""
    with redis_in(folder / "redis") as redis_url:
        async with serving(Settings(redis_url=redis_url, spool=str(folder / "spool"), **options)) as api:
            yield api


def served(redis_url, folder, test, **options):
    """Run one async test against an API on an emptied Redis."""

    async def run():
        with redis.Redis.from_url(redis_url) as client:
            client.flushall()
        settings = Settings(redis_url=redis_url, spool=str(folder / "spool"), **options)
        async with serving(settings) as api:
            await test(api)

    asyncio.run(run())
