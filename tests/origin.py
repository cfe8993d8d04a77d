"""Loopback servers for tests of fetching: an origin that may be reached, and a canary that may not.

The canary's count is the verdict of every test about addresses, never the words of an error.
Both listen in a thread of their own, so a test calls plain `asyncio.run(fetch(...))`.
"""

import asyncio
import contextlib
import io
import socket
import threading
from collections.abc import Awaitable, Callable

import av
import numpy as np
import pytest
from PIL import Image

from scanner import errors
from scanner.fetching.fetch import fetch
from scanner.settings import Settings

ORIGIN_HOST = "127.0.0.5"
ALLOWED = (f"{ORIGIN_HOST}/32",)
FAKE_NAMES = {
    "rebind.test": [[ORIGIN_HOST], ["127.0.0.1"]],  # one answer per call, the last one repeats
    "mixed.test": [[ORIGIN_HOST, "127.0.0.1"]],
    "mixed6.test": [[ORIGIN_HOST, "::1"]],
    "inner.test": [["127.0.0.1"]],
    "metadata.test": [["169.254.169.254"]],
}

SPELLINGS = (
    *("127.0.0.1", "127.0.0.2", "127.1", "127.0.1", "2130706433", "0x7f000001", "0x7f.0.0.1", "0x7f.1", "017700000001"),
    *(
        "0177.0.0.1",
        "0177.1",
        "0177.0x0.0.1",
        "127.000.000.001",
        "127.0.0.1.",
        "0.0.0.0",
        "0",
        "0x0",
        "127.255.255.254",
    ),
    *("[::]", "[::1]", "[0:0:0:0:0:0:0:1]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[0:0:0:0:0:ffff:127.0.0.1]"),
    *(
        "[::127.0.0.1]",
        "[::ffff:0:127.0.0.1]",
        "[64:ff9b::7f00:1]",
        "[64:ff9b:1::7f00:1]",
        "[2002:7f00:1::]",
        "[::1%25lo]",
    ),
    *("１２７.０.０.１", "127。0。0。1", "①②⑦.⓪.⓪.①", "localhost", "localhost.", "LOCALHOST", "ⓛocalhost"),  # noqa: RUF001
    *("user:pass@127.0.0.1", "public.test@127.0.0.1", "%31%32%37.0.0.1", "rebind.test", "mixed.test", "inner.test"),
)
"""Ways to write an address of this machine, and names that lead there (see FAKE_NAMES)."""
ROUTED = ("[::127.0.0.1]", "[::ffff:0:127.0.0.1]", "[64:ff9b::7f00:1]", "[64:ff9b:1::7f00:1]", "[2002:7f00:1::]")
"""Those that need a translator: without a policy their packets would leave the machine."""

Handler = Callable[[asyncio.StreamWriter, dict[str, str]], Awaitable[None]]


class _Thread:
    """An event loop in a thread."""

    def __init__(self):
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._tasks = set()
        self._thread.start()

    def run(self, work):
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(10)

    def listen(self, *listeners):
        return [self.run(asyncio.start_server(self._accept, sock=listener)) for listener in listeners]

    def _accept(self, reader, writer):
        task = self.loop.create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader, writer):
        try:
            with contextlib.suppress(OSError, EOFError):
                await self.serve(reader, writer)
        finally:
            writer.transport.abort()

    async def serve(self, reader, writer):
        raise NotImplementedError

    def close(self):
        async def stop():
            for server in self.servers:
                server.close()
            for task in tuple(self._tasks):
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            await asyncio.sleep(0.01)  # the aborted transports close in the next turn of the loop

        self.run(stop())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(10)
        self.loop.close()


class Origin(_Thread):
    """A web server on 127.0.0.5; `routes` maps a path to bytes of a whole answer, or to a coroutine that writes one."""

    def __init__(self):
        super().__init__()
        self.routes: dict[str, bytes | Handler] = {}
        self.requests: list[tuple[str, dict[str, str]]] = []
        listener = socket.create_server((ORIGIN_HOST, 0))
        self.port = listener.getsockname()[1]
        self.servers = self.listen(listener)

    def url(self, path):
        return f"http://{ORIGIN_HOST}:{self.port}{path}"

    def answer(self, path, body=b"", *, status="200 OK", **headers):
        """Serve `body` with a right Content-Length; header names are written with underscores."""
        lines = [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        self.raw(path, status, f"Content-Length: {len(body)}", *lines, body=body)
        return self.url(path)

    def raw(self, path, status, *lines, body=b""):
        """Serve a head as it stands."""
        self.routes[path] = "\r\n".join([f"HTTP/1.1 {status}", "Connection: close", *lines, "", ""]).encode() + body
        return self.url(path)

    def redirect(self, path, to):
        self.raw(path, "302 Found", f"Location: {to}", "Content-Length: 0")
        return self.url(path)

    async def serve(self, reader, writer):
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        request, *lines = head.strip().split("\r\n")
        path, headers = request.split(" ")[1], dict(line.lower().split(": ", 1) for line in lines)
        self.requests.append((path, headers))
        answer = self.routes.get(path.partition("?")[0], b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
        if isinstance(answer, bytes):
            writer.write(answer)
        else:
            await answer(writer, headers)
        await writer.drain()
        writer.write_eof()
        await reader.read()  # until the client closes: an abort at once would drop what is on the way


class Canary(_Thread):
    """Listens on every address of the machine, IPv4 and IPv6, on one port; counts who comes."""

    def __init__(self):
        super().__init__()
        self.reached = 0
        four = socket.create_server(("0.0.0.0", 0))
        self.port = four.getsockname()[1]
        six = socket.create_server(("::", self.port), family=socket.AF_INET6)
        self.servers = self.listen(four, six)
        self._seen = threading.Condition()

    async def serve(self, reader, writer):
        with self._seen:
            self.reached += writer.get_extra_info("sockname")[0] != ORIGIN_HOST  # that one may be reached
            self._seen.notify_all()
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        await writer.drain()

    def count(self):
        """Connections so far, sure: two of our own come after them in the kernel's queues and are not counted."""
        with self._seen:
            before = self.reached
        for family, host in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
            with socket.socket(family) as probe:
                probe.connect((host, self.port))
        with self._seen:
            assert self._seen.wait_for(lambda: self.reached >= before + 2, timeout=10)
            self.reached -= 2
            return self.reached


def fake_getaddrinfo(real):
    """Stand in for DNS: the names of FAKE_NAMES, nothing else in .test, and the machine's own resolver for the rest."""
    calls = {}

    def getaddrinfo(host, port, family=0, *rest, **options):
        name = host.decode() if isinstance(host, bytes) else str(host)
        if not name.rstrip(".").endswith(".test"):
            return real(host, port, family, *rest, **options)
        if name not in FAKE_NAMES:
            raise socket.gaierror(socket.EAI_NONAME, "no such host")
        answers = FAKE_NAMES[name]
        calls[name] = calls.get(name, -1) + 1
        found = []
        for address in answers[min(calls[name], len(answers) - 1)]:
            found += real(address, port, 0, socket.SOCK_STREAM)
        return found

    return getaddrinfo


def jpeg(width=64, height=48):
    buffer = io.BytesIO()
    Image.effect_noise((width, height), 60).convert("RGB").save(buffer, "JPEG")
    return buffer.getvalue()


def video(container="mp4", frames=5):
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=container) as file:
        stream = file.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        for index in range(frames):
            file.mux(stream.encode(av.VideoFrame.from_ndarray(np.full((64, 64, 3), index * 40 % 256, np.uint8))))
        file.mux(stream.encode())
    return buffer.getvalue()


def take(source, folder, **settings):
    return asyncio.run(fetch(source, folder=folder, settings=Settings(**{"allow_networks": ALLOWED, **settings})))


def fails(error, source, folder, **settings):
    """The error, after checking that it has that very class, has words, and left nothing behind."""
    with pytest.raises(errors.ScanError) as caught:
        take(source, folder, **settings)
    assert type(caught.value) is error, caught.value
    assert len(str(caught.value)) > 20
    assert list(folder.iterdir()) == []
    return caught.value
