"""Web hosts of many kinds for tests and benches of lists: each address 127.0.0.x is another host, on one port.

A host behaves as its name in `Site.hosts` says; every request is noted with its time. Keep-alive, real sockets.
"""

import asyncio
import collections
import io
import threading
import time

import numpy as np
from PIL import Image

NETWORK = "127.0.0.0/8"


def picture(number, side_px=96):
    """A small JPEG, another one for each number."""
    rng = np.random.default_rng(number)
    pixels = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).resize((side_px, side_px), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=80)
    return buffer.getvalue()


class Site:
    """Serves from a thread of its own until `close`."""

    def __init__(self, pictures=None, **hosts):
        self.hosts = {f"127.0.0.{number}": kind for number, kind in hosts.pop("hosts", {}).items()}
        self.pictures = pictures or {}
        self.asked = collections.defaultdict(list)  # host -> times
        self.paths = collections.Counter()
        self.allowed = {}  # host -> (tokens, last time) of hosts that limit
        self.rate = 5.0
        self.spoken = asyncio.Event()  # set in `loop`: from now on the silent answer
        self.loop = asyncio.new_event_loop()
        self.port = 0
        self.tasks = set()
        ready = threading.Event()
        self.thread = threading.Thread(target=self._run, args=(ready,), daemon=True)
        self.thread.start()
        assert ready.wait(10)

    def url(self, path, host=9):
        return f"http://127.0.0.{host}:{self.port}/{path}"

    def _run(self, ready):
        async def start():
            self.server = await asyncio.start_server(self._accept, "0.0.0.0", 0, backlog=1024)
            self.port = self.server.sockets[0].getsockname()[1]
            ready.set()

        self.loop.run_until_complete(start())
        self.loop.run_forever()

    async def _accept(self, reader, writer):
        task = asyncio.current_task()
        self.tasks.add(task)
        try:
            await self._serve(reader, writer)
        except (OSError, EOFError, asyncio.CancelledError):
            pass
        finally:
            self.tasks.discard(task)
            writer.transport.abort()

    async def _serve(self, reader, writer):
        host = writer.get_extra_info("sockname")[0]
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            path = head.split(b" ", 2)[1].decode().lstrip("/").partition("?")[0]
            self.asked[host].append(time.monotonic())
            self.paths[path] += 1
            kind = self.hosts.get(host, "good")
            await getattr(self, f"_{kind}")(path, writer, host)
            await writer.drain()

    async def _good(self, path, writer, _host):
        data = self.pictures.get(path)
        if data is None:
            writer.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
        else:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(data) + data)

    async def _tarpit(self, _path, writer, _host):
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n\xff\xd8\xff")
        while True:
            await asyncio.sleep(0.5)
            writer.write(b"x")
            await writer.drain()

    async def _silent(self, path, writer, host):
        await self.spoken.wait()
        await self._broken(path, writer, host)

    async def _limiting(self, path, writer, host):
        now = time.monotonic()
        tokens, last = self.allowed.get(host, (1.0, now))
        tokens = min(1.0, tokens + (now - last) * self.rate)
        if tokens < 1:
            self.allowed[host] = tokens, now
            writer.write(b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n")
        else:
            self.allowed[host] = tokens - 1, now
            await self._good(path, writer, host)

    async def _broken(self, _path, writer, _host):
        writer.write(b"HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n")

    async def _flaky(self, path, writer, host):
        """Fails each path once."""
        if self.paths[path] == 1:
            await self._broken(path, writer, host)
        else:
            await self._good(path, writer, host)

    async def _endless(self, _path, writer, _host):
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n" + picture(0)[:64])
        while True:
            writer.write(bytes(65536))
            await writer.drain()

    async def _inward(self, _path, writer, _host):
        writer.write(b"HTTP/1.1 302 Found\r\nLocation: http://169.254.169.254/latest\r\nContent-Length: 0\r\n\r\n")

    async def _noai(self, path, writer, _host):
        data = self.pictures[path]
        writer.write(b"HTTP/1.1 200 OK\r\nX-Robots-Tag: noai\r\nContent-Length: %d\r\n\r\n" % len(data) + data)

    def close(self):
        async def stop():
            self.server.close()
            for task in list(self.tasks):
                task.cancel()
            await asyncio.sleep(0.05)

        asyncio.run_coroutine_threadsafe(stop(), self.loop).result(10)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(10)
        self.loop.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
