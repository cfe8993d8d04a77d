"""The way out for programs that are not ours (yt-dlp): an HTTP proxy that dials only what the policy lets pass.

In: CONNECT and absolute-form requests of one job. Out: the same bytes, to the address checked, within a budget.
One reason: a page names other hosts (redirects, segments, keys, iframes) and only the socket knows where they lead.
Names are resolved here, once; TLS stays closed, so every redirect and every segment is a new request to us.
"""

import asyncio
import base64
import contextlib
import hmac
import logging
import math
import secrets
import socket
import sys
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from ipaddress import ip_address
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

from scanner.errors import BlockedAddress
from scanner.fetching.egress import AddressPolicy, dial, dial_through
from scanner.settings import Settings

logger = logging.getLogger(__name__)

HEAD_BYTES = 65_536
PIECE_BYTES = 65_536
_END = b"\r\n\r\n"
_BAD_REQUEST = "400 Bad Request"
_BLOCKED = "403 Forbidden"
_UNAUTHORIZED = "407 Proxy Authentication Required"
_SPENT = "429 Too Many Requests"
_UNREACHABLE = "502 Bad Gateway"
OWN_ANSWER = "Proxy-Status"
"""The header (RFC 9209) that only our own answers have, so that a 403 of ours is told from a server's."""
_HOP_BY_HOP = frozenset(
    {"connection", "keep-alive", "proxy-authorization", "proxy-connection", OWN_ANSWER.lower(), "te", "upgrade"}
)
_MOST_BLOCKED = 1_000  # remembered; a service lives long


@dataclass(frozen=True)
class Budget:
    """What one job may spend: connections asked for, bytes both ways, seconds since the proxy opened.

    `connection_s` ends a single connection only: all that bounds the clients of a service, who are many jobs.
    """

    connections: int
    bytes: int
    seconds: float
    connect_timeout_s: float = 5.0
    connection_s: float = math.inf

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        """Take one video page's budget; a tenth more bytes than the video, for pages, manifests and TLS."""
        return cls(
            connections=settings.max_connections,
            bytes=settings.max_video_bytes + settings.max_video_bytes // 10 + 10_000_000,
            seconds=settings.video_timeout_s,
            connect_timeout_s=settings.connect_timeout_s,
        )

    @classmethod
    def of_service(cls, settings: Settings) -> Self:
        """Bound connections, not their sum: each job's own proxy or fetch counts that."""
        return cls(
            connections=sys.maxsize,
            bytes=sys.maxsize,
            seconds=math.inf,
            connect_timeout_s=settings.connect_timeout_s,
            connection_s=settings.video_timeout_s + settings.image_timeout_s,
        )


class _Refused(Exception):
    """The proxy's own HTTP answer, e.g. "403 Forbidden"."""


class FilteringProxy:
    """An asynchronous context manager; `url` (with a secret: other local processes get 407) works while it is open.

    Counters tell what happened: `connections` asked for, `bytes` carried, `blocked` hosts,
    `exhausted` parts of the budget ("connections", "bytes", "seconds").
    """

    def __init__(
        self,
        policy: AddressPolicy,
        budget: Budget,
        *,
        listener: socket.socket | None = None,
        password: str = "",
        outer: str = "",
    ) -> None:
        """`outer` is the proxy through which it dials, where there is no other way out; it checks by its own policy."""
        self._policy = policy
        self._budget = budget
        self._listener = listener
        self._outer = outer
        self._password = password or secrets.token_urlsafe(24)
        self._tasks: set[asyncio.Task[None]] = set()
        self._port = 0
        self._deadline = 0.0
        self.connections = 0
        self.bytes = 0
        self.blocked: list[str] = []
        self.exhausted: set[str] = set()

    @property
    def url(self) -> str:
        """What the client sets as its proxy for every scheme."""
        return f"http://laescan:{self._password}@127.0.0.1:{self._port}"

    async def __aenter__(self) -> Self:
        """Listen on an ephemeral loopback port, or on the listener given (it may be of another network namespace)."""
        listener = self._listener or socket.create_server(("127.0.0.1", 0))
        self._port = listener.getsockname()[1]
        self._deadline = asyncio.get_running_loop().time() + self._budget.seconds
        self._server = await asyncio.start_server(self._accept, sock=listener, limit=HEAD_BYTES)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the port and every connection."""
        self._server.close()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve the client in a task of ours, so that leaving the context ends it; no more at once than in all."""
        if len(self._tasks) >= self._budget.connections:  # each is a descriptor, and the scan needs some, too
            self.exhausted.add("connections")
            writer.transport.abort()
            return
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout_at(min(self._deadline, loop.time() + self._budget.connection_s)):
                await self._answer(reader, writer)
        except _Refused as refusal:
            head = f"HTTP/1.1 {refusal}\r\n{OWN_ANSWER}: laescan\r\nContent-Length: 0\r\nConnection: close"
            writer.write(head.encode() + _END)
        except TimeoutError:
            if loop.time() >= self._deadline:
                self.exhausted.add("seconds")
        except (OSError, EOFError, asyncio.LimitOverrunError) as error:
            logger.debug("a proxied connection ended: %s", error)
        except asyncio.CancelledError:
            writer.transport.abort()
            raise
        finally:
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request, headers = _parse_head(await reader.readuntil(_END))
        if not self._is_authorized(headers):
            raise _Refused(_UNAUTHORIZED)
        self._count_connection()
        match request.split(" "):
            case ["CONNECT", target, _]:
                host, port, _ = _split(f"//{target}", default_port=0)
                async with self._upstream(host, port) as (up_reader, up_writer):
                    writer.write(b"HTTP/1.1 200 Connection established" + _END)
                    async with self._pumping(reader, up_writer):
                        await self._pump(up_reader, writer)
            case [method, target, _] if target.lower().startswith("http://"):
                host, port, path = _split(target, default_port=80)
                async with self._upstream(host, port) as (up_reader, up_writer):
                    host_header = ("Host", urlsplit(target).netloc.rpartition("@")[2])
                    end_to_end = [host_header, *(h for h in headers if h[0].lower() != "host")]
                    up_writer.write(_join_head(f"{method} {path} HTTP/1.1", end_to_end))
                    async with self._pumping(reader, up_writer):
                        await self._pump_answer(up_reader, writer)
            case _:
                raise _Refused(_BAD_REQUEST)

    @contextlib.asynccontextmanager
    async def _upstream(self, host: str, port: int) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        """Dial a checked address; a refusal is remembered, so that the job can say why it failed."""
        try:
            async with asyncio.timeout(self._budget.connect_timeout_s):
                reader, writer = await self._dial(host, port)
        except BlockedAddress:
            if len(self.blocked) < _MOST_BLOCKED:
                self.blocked.append(host)
            raise _Refused(_BLOCKED) from None
        except (OSError, EOFError, TimeoutError) as error:
            raise _Refused(_UNREACHABLE) from error
        try:
            yield reader, writer
        finally:
            writer.transport.abort()

    async def _dial(self, host: str, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._outer:
            return await dial_through(self._outer, host, port)
        return await asyncio.open_connection(sock=await dial(self._check, host, port), limit=HEAD_BYTES)

    @contextlib.asynccontextmanager
    async def _pumping(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> AsyncIterator[None]:
        """Carry the client's bytes to the server for as long as the answer lasts."""
        task = asyncio.get_running_loop().create_task(self._pump(reader, writer))
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while piece := await reader.read(PIECE_BYTES):
            await self._carry(piece, writer)

    async def _pump_answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One plain-HTTP answer per connection: the client's next request may be for a host that needs a check."""
        status, headers = _parse_head(await reader.readuntil(_END))
        await self._carry(_join_head(status, headers), writer)
        await self._pump(reader, writer)

    async def _carry(self, piece: bytes, writer: asyncio.StreamWriter) -> None:
        self.bytes += len(piece)
        if self.bytes > self._budget.bytes:
            self.exhausted.add("bytes")
            msg = "budget of bytes is spent"
            raise ConnectionAbortedError(msg)
        writer.write(piece)
        await writer.drain()

    def _check(self, ip: str, port: int) -> None:
        """Refuse the proxy's own port even where loopback is opened: a request to itself would spend itself."""
        if port == self._port and ip_address(ip).is_loopback:
            msg = "the proxy does not reach itself"
            raise BlockedAddress(msg)
        self._policy.check(ip, port)

    def _count_connection(self) -> None:
        self.connections += 1
        if self.connections > self._budget.connections:
            self.exhausted.add("connections")
        if self.exhausted:
            raise _Refused(_SPENT)

    def _is_authorized(self, headers: Iterable[tuple[str, str]]) -> bool:
        expected = "Basic " + base64.b64encode(f"laescan:{self._password}".encode()).decode()
        given = next((value for name, value in headers if name.lower() == "proxy-authorization"), "")
        return hmac.compare_digest(expected.encode(), given.encode())


def _parse_head(head: bytes) -> tuple[str, list[tuple[str, str]]]:
    """Split a request or an answer into its first line and its headers (RFC 9112 §2.1)."""
    first, *lines = head.removesuffix(_END).decode("latin-1").split("\r\n")
    pairs = (line.partition(":") for line in lines)
    return first, [(name, value.strip()) for name, _, value in pairs]


def _join_head(first: str, headers: Iterable[tuple[str, str]]) -> bytes:
    """Put a head together without what is for one hop only, and ask the next hop to close (RFC 9110 §7.6.1)."""
    kept = [f"{name}: {value}" for name, value in headers if name.lower() not in _HOP_BY_HOP]
    return "\r\n".join([first, *kept, "Connection: close"]).encode("latin-1") + _END


def _split(target: str, *, default_port: int) -> tuple[str, int, str]:
    """Host, port and path of what the client asked for."""
    try:
        parts = urlsplit(target)
        port = parts.port or default_port
    except ValueError:
        raise _Refused(_BAD_REQUEST) from None
    if not parts.hostname or not port:
        raise _Refused(_BAD_REQUEST)
    query = f"?{parts.query}" if parts.query else ""
    return parts.hostname, port, (parts.path or "/") + query
