"""How fast the API answers what is known, beside an idle aiohttp: `python tests/bench_api.py [SECONDS]`.

The API runs as `python -m api` on a real Redis, the no-op as a process like it; one loader with 32 connections asks
both in turns, so that what else the machine does hits both. Printed: CPU per request of both servers, which a busy
machine blurs least, requests per second, their ratio (median over turns), p50 and p99, keys per second of the batch
lookup, and the memory of the API's process.
"""

import asyncio
import itertools
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

import aiohttp
import msgspec
import redis.asyncio
import verdicts
from redis_server import redis_in
from service import MODEL

from scanner.cache.verdicts import VerdictCache

CONNECTIONS = 32
LISTS = 4
TURNS = 7
LENGTH = re.compile(rb"Content-Length: (\d+)")
KEYS = 1_000
NO_OP = """
import sys
from aiohttp import web
async def answer(request): return web.Response(body=b'{"verdicts":[]}', content_type="application/json")
app = web.Application()
app.router.add_get("/", answer)
web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), access_log=None, print=None)
"""
FORGED = verdicts.still(verdicts.scored(verdicts.HIGH))


class Caller(asyncio.Protocol):
    """One connection that asks again as soon as it is answered: about as light as a Python client can be."""

    def __init__(self, requests, latencies, until):
        self.requests, self.latencies, self.until = requests, latencies, until
        self.done = asyncio.get_running_loop().create_future()
        self.wanted, self.buffer = 0, b""

    def connection_made(self, transport):
        self.transport = transport
        self.ask()

    def ask(self):
        self.begun = time.perf_counter()
        self.transport.write(next(self.requests))

    def data_received(self, data):
        self.buffer = data = self.buffer + data
        head = data.find(b"\r\n\r\n")
        if head < 0:
            return None
        length = LENGTH.search(data)
        if len(data) < head + 4 + int(length[1]):
            return None
        assert data.startswith(b"HTTP/1.1 200"), data
        self.buffer = b""
        now = time.perf_counter()
        self.latencies.append(now - self.begun)
        if now < self.until:
            return self.ask()
        self.transport.close()
        return self.done.set_result(None)


async def load(port, paths, seconds, headers=""):
    """Requests per second, p50 and p99 in ms, requests."""
    latencies = []
    until = time.perf_counter() + seconds

    asked = [f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{headers}\r\n".encode() for path in paths]

    def requests(start):
        begin = start * 31 % len(asked)
        return itertools.cycle(asked[begin:] + asked[:begin])

    loop = asyncio.get_running_loop()
    begun = time.perf_counter()
    made = [
        await loop.create_connection(lambda n=n: Caller(requests(n), latencies, until), "127.0.0.1", port)
        for n in range(CONNECTIONS)
    ]
    await asyncio.gather(*(caller.done for _, caller in made))
    took = time.perf_counter() - begun
    latencies.sort()
    count = len(latencies)
    return count / took, 1e3 * latencies[count // 2], 1e3 * latencies[count * 99 // 100], count


@contextmanager
def process(port, *command, **environ):
    with subprocess.Popen([sys.executable, *command], env={**os.environ, **environ}) as child:
        try:
            asyncio.run(answers(port, child))
            child.port = port
            yield child
        finally:
            child.terminate()


async def answers(port, child):
    async with aiohttp.ClientSession() as http:
        while child.poll() is None:
            try:
                await (await http.get(f"http://127.0.0.1:{port}/healthz")).read()
            except aiohttp.ClientConnectionError:
                await asyncio.sleep(0.05)
            else:
                return
    sys.exit("a server ended at once; its words stand above")


def url_of(number):
    return f"https://example.org/pictures/{number}.jpg"


async def remember(redis_url):
    async with redis.asyncio.Redis.from_url(redis_url) as client:
        cache = VerdictCache(client)
        await cache.announce(MODEL)
        for number in range(KEYS):
            media = msgspec.structs.replace(FORGED.media, sha256=f"{number:064x}")
            await cache.remember(msgspec.structs.replace(FORGED, media=media), url=url_of(number), tenant="local")


async def compare(name, api, no_op, paths, seconds, headers=""):
    ratios, fast, slow, used, idle = [], [], [], [], []
    for _ in range(TURNS):
        slow.append(await costed(api, used, paths, seconds, headers))
        fast.append(await costed(no_op, idle, ["/"], seconds))
        ratios.append(slow[-1][0] / fast[-1][0])
    used, idle = statistics.median(used), statistics.median(idle)
    rate, p50, p99 = (statistics.median(column) for column in zip(*slow, strict=True))
    base, base_p50, base_p99 = (statistics.median(column) for column in zip(*fast, strict=True))
    print(
        f"{name}: CPU of the server {used:.0f} us per request, of the no-op {idle:.0f} us = {idle / used:.2f}; "
        f"{rate:,.0f}/s of {base:,.0f}/s = {statistics.median(ratios):.2f} "
        f"({min(ratios):.2f} to {max(ratios):.2f}); p50 {p50:.2f} / {base_p50:.2f} ms; "
        f"p99 {p99:.2f} / {base_p99:.2f} ms = {p99 / base_p99:.2f}"
    )
    show(f"cached lookup, {name} / aiohttp no-op", ratios, 0.6)


async def costed(served, costs, paths, seconds, headers=""):
    """`load`, and the us of CPU that each request took of the server: what a busy machine does not blur."""
    before = cpu_s(served.pid)
    rate, *rest = await load(served.port, paths, seconds, headers)
    costs.append(1e6 * (cpu_s(served.pid) - before) / rest.pop())
    return rate, *rest


def cpu_s(pid):
    user, system = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


async def batch_rate(api, seconds):
    """Keys per second of POST /v1/verdicts/lookup with 1,000 keys, over LISTS connections at once."""
    body = msgspec.json.encode({"keys": [url_of(n) if n % 2 else f"{n:064x}" for n in range(1_000)]})
    url, headers = f"http://127.0.0.1:{api.port}/v1/verdicts/lookup", {"Content-Type": "application/json"}
    rates, before, asked = [], cpu_s(api.pid), 0

    async def ask(http, until):
        count = 0
        while time.perf_counter() < until:
            async with http.post(url, data=body, headers=headers) as answer:
                assert (await answer.read()).count(b'"known":{') == 1_000
            count += 1
        return count

    async with aiohttp.ClientSession() as http:
        for _ in range(TURNS):
            begun = time.perf_counter()
            counts = await asyncio.gather(*(ask(http, begun + seconds) for _ in range(LISTS)))
            rates.append(1_000 * sum(counts) / (time.perf_counter() - begun))
            asked += 1_000 * sum(counts)
    print(
        f"batch lookup, 1,000 keys over {LISTS} connections: {statistics.median(rates):,.0f} keys/s; "
        f"{asked / (cpu_s(api.pid) - before):,.0f} keys per second of the API's CPU"
    )
    show("batch lookup, keys per second", rates, 50_000)


def show(name, values, target):
    """A figure, in the form that figures.py reads."""
    middle = statistics.median(values)
    verdict = "reached" if middle >= target else "MISSED"
    print(f"{name:40}  {middle:,.2f}  ({min(values):,.2f} to {max(values):,.2f}; target {target}: {verdict})")


def resident_mb(pid):
    text = Path(f"/proc/{pid}/status").read_text()
    return int(text.partition("VmHWM:")[2].split()[0]) / 1e3


def main():
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 1.5
    versions = f"Python {platform.python_version()}, aiohttp {aiohttp.__version__}"
    print(f"{versions}, {os.cpu_count()} CPUs, {CONNECTIONS} connections")
    with tempfile.TemporaryDirectory() as folder, redis_in(Path(folder) / "redis") as redis_url:
        asyncio.run(remember(redis_url))
        api_port, no_op_port = 18_710, 18_711
        quiet = {"LAESCAN_LOG_LEVEL": "warning"}
        settings = {"LAESCAN_REDIS_URL": redis_url, "LAESCAN_API_PORT": str(api_port), **quiet}
        with (
            process(api_port, "-m", "api", **settings) as api,
            process(no_op_port, "-c", NO_OP, str(no_op_port)) as no_op,
        ):
            one, many = [f"/v1/verdicts?url={url_of(0)}"], [f"/v1/verdicts?url={url_of(n)}" for n in range(KEYS)]
            asyncio.run(compare("one URL", api, no_op, one, seconds))
            asyncio.run(compare(f"{KEYS:,} URLs in turn", api, no_op, many, seconds))
            asyncio.run(batch_rate(api, seconds))
            print(f"memory of the API at most: {resident_mb(api.pid):.0f} MB")


if __name__ == "__main__":
    main()
