"""The API as it runs: a real Redis in a folder, the application on a port of 127.0.0.1, a client that speaks HTTP."""

import contextlib
from dataclasses import dataclass

import aiohttp
import msgspec
import redis
from aiohttp import web
from redis_server import redis_in

from api.app import connect, make_app
from api.service import SERVICE, Service
from scanner.contract import ModelInfo, Outcome
from scanner.lease import Lease
from scanner.settings import Settings

MODEL = ModelInfo(model_id="test", backend="cpu", precision="fp32")


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

    async def finish(self, id_, outcome=None, **artifacts):
        """Do what a worker does: take the row and write its outcome."""
        with redis.Redis.from_url(self.service.settings.redis_url) as client:
            lease = Lease.start(client, id_, owner="test")
            assert lease
            for name, data in artifacts.items():
                client.set(f"laescan:artifact:{id_}:{name.replace('_', '.')}", data)
            if outcome:
                assert lease.finish(outcome, self.service.settings)
            return lease


@contextlib.asynccontextmanager
async def running(folder, **options):
    """Serve on a free port until the block ends."""
    with redis_in(folder / "redis") as redis_url:
        settings = Settings(redis_url=redis_url, spool=str(folder / "spool"), **options)
        async with serving(settings) as api:
            yield api


@contextlib.asynccontextmanager
async def serving(settings):
    """The same, with a Redis that is there (or not) already."""
    app = make_app(settings, connect(settings.redis_url))
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.2)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port = site._server.sockets[0].getsockname()[1]
        async with aiohttp.ClientSession() as http:
            yield Running(f"http://127.0.0.1:{port}", app[SERVICE], http)
    finally:
        await runner.cleanup()


def verdict_outcome(verdict, source="https://example.org/a.jpg"):
    return Outcome(source=source, verdict=verdict)
