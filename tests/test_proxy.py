"""The filtering proxy: what it dials, what it carries, what it may spend."""

import asyncio
import base64
import contextlib
import socket
from urllib.parse import urlsplit

import pytest
from origin import ORIGIN_HOST, SPELLINGS, Canary, Origin, fake_getaddrinfo

from scanner.fetching.egress import METADATA_SERVICES, SPECIAL_RANGES, AddressPolicy
from scanner.fetching.proxy import Budget, FilteringProxy
from scanner.settings import Settings

PLENTY = Budget(connections=1000, bytes=10_000_000, seconds=60)


@pytest.fixture
def canary():
    listening = Canary()
    yield listening
    listening.close()


@pytest.fixture
def origin():
    serving = Origin()
    yield serving
    serving.close()


@pytest.fixture
def fake_dns(monkeypatch):
    monkeypatch.setattr(socket, "getaddrinfo", fake_getaddrinfo(socket.getaddrinfo))


def policy(*ports):
    return AddressPolicy(allow_networks=(f"{ORIGIN_HOST}/32",), allow_ports=(80, 443, *ports))


async def ask(proxy, request, *, then=b"", secret=None):
    """One connection to the proxy: a request line, after its 200 (if any) `then`; everything that comes back."""
    parts = urlsplit(proxy.url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    token = base64.b64encode((secret or f"{parts.username}:{parts.password}").encode()).decode()
    writer.write(f"{request}\r\nProxy-Authorization: Basic {token}\r\nX-Kept: yes\r\n\r\n".encode())
    answer = b""
    if then:
        answer = await reader.readuntil(b"\r\n\r\n")
        writer.write(then)
    answer += await reader.read()
    writer.close()
    return answer


def with_proxy(work, *, budget=PLENTY, allowed=None):
    """Run `work(proxy)` and give back its answer and the proxy with its counters."""

    async def run():
        async with FilteringProxy(allowed or policy(), budget) as proxy:
            return await work(proxy), proxy

    return asyncio.run(run())


def test_absolute_form_reaches_an_allowed_host_and_keeps_secrets_to_itself(origin):
    url = origin.answer("/a", b"hello")
    answer, proxy = with_proxy(lambda p: ask(p, f"GET {url}?q=1 HTTP/1.1\r\nHost: other.test"))
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert answer.endswith(b"\r\n\r\nhello")
    path, headers = origin.requests[0]
    assert path == "/a?q=1"
    assert headers["host"] == f"{ORIGIN_HOST}:{origin.port}"  # of the target, whatever the client says
    assert headers["x-kept"] == "yes"
    assert not any(name.startswith("proxy") for name in headers)
    assert proxy.bytes > 0


def test_connect_tunnels_to_an_allowed_host(origin):
    origin.answer("/b", b"tunnelled")
    request = f"CONNECT {ORIGIN_HOST}:{origin.port} HTTP/1.1"
    answer, _ = with_proxy(lambda p: ask(p, request, then=b"GET /b HTTP/1.1\r\n\r\n"))
    assert answer.startswith(b"HTTP/1.1 200 Connection established\r\n\r\nHTTP/1.1 200 OK")
    assert answer.endswith(b"tunnelled")


def test_an_answer_ends_the_connection_so_that_the_next_host_is_checked(origin):
    origin.raw("/keep", "200 OK", "Connection: keep-alive", "Keep-Alive: timeout=60", "Content-Length: 2", body=b"ok")
    answer, _ = with_proxy(lambda p: ask(p, f"GET {origin.url('/keep')} HTTP/1.1"))
    assert answer.lower().count(b"connection: close") == 1
    assert b"eep-" not in answer


def test_no_spelling_reaches_a_canary_by_connect_or_absolute_form(origin, canary, fake_dns):
    async def sweep(proxy):
        for spelling in SPELLINGS:
            await ask(proxy, f"CONNECT {spelling}:{canary.port} HTTP/1.1", then=b"GET / HTTP/1.1\r\n\r\n")
            await ask(proxy, f"GET http://{spelling}:{canary.port}/ HTTP/1.1")

    _, proxy = with_proxy(sweep, allowed=policy(canary.port))
    assert canary.count() == 0
    assert proxy.connections == 2 * len(SPELLINGS)
    assert len(proxy.blocked) > 60  # the rest are no names at all


@pytest.mark.parametrize("text", [*(r.partition("/")[0] for r in SPECIAL_RANGES), *METADATA_SERVICES])
def test_special_addresses_are_refused_and_remembered(text):
    host = f"[{text}]" if ":" in text else text
    answer, proxy = with_proxy(lambda p: ask(p, f"CONNECT {host}:443 HTTP/1.1"), allowed=AddressPolicy())
    assert answer.startswith(b"HTTP/1.1 403 ")
    assert proxy.blocked == [text]


def test_other_processes_without_the_secret_get_nothing(origin):
    url = origin.answer("/a", b"hello")
    for secret in ("laescan:wrong", "laescan:", ":"):
        answer, proxy = with_proxy(lambda p, s=secret: ask(p, f"GET {url} HTTP/1.1", secret=s))
        assert answer.startswith(b"HTTP/1.1 407 ")
        assert proxy.connections == 0
    assert origin.requests == []


def test_it_does_not_reach_itself():
    async def itself(proxy):
        return await ask(proxy, f"CONNECT 127.0.0.1:{urlsplit(proxy.url).port} HTTP/1.1")

    answer, proxy = with_proxy(itself, allowed=AddressPolicy(allow_networks=("127.0.0.0/8",)))
    assert answer.startswith(b"HTTP/1.1 403 ")
    assert proxy.connections == 1


@pytest.mark.parametrize(
    "request_line",
    ["GET / HTTP/1.1", "GET ftp://127.0.0.5/ HTTP/1.1", "GET file:///etc/passwd HTTP/1.1", "CONNECT 127.0.0.5 HTTP/1.1",
     "CONNECT :443 HTTP/1.1", "CONNECT 127.0.0.5:99999 HTTP/1.1", "GET http:// HTTP/1.1", "GET", "a b c d",
     "GET http://[::1 HTTP/1.1"],
)  # fmt: skip
def test_other_requests_are_bad(request_line):
    answer, _ = with_proxy(lambda p: ask(p, request_line))
    assert answer.startswith(b"HTTP/1.1 400 ")


def test_a_refused_connection_is_a_bad_gateway():
    with socket.create_server((ORIGIN_HOST, 0)) as taken:
        free = taken.getsockname()[1]
    answer, proxy = with_proxy(lambda p: ask(p, f"CONNECT {ORIGIN_HOST}:{free} HTTP/1.1"))
    assert answer.startswith(b"HTTP/1.1 502 ")
    assert proxy.blocked == []


def test_the_budget_of_connections_holds(origin):
    url = origin.answer("/a", b"hello")

    async def many(proxy):
        return [await ask(proxy, f"GET {url} HTTP/1.1") for _ in range(6)]

    answers, proxy = with_proxy(many, budget=Budget(connections=4, bytes=10_000, seconds=60))
    assert [a.split(b" ")[1] for a in answers] == [b"200"] * 4 + [b"429"] * 2
    assert len(origin.requests) == 4
    assert proxy.exhausted == {"connections"}


async def endless(writer, _headers):
    writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
    while True:
        writer.write(b"x" * 65_536)
        await writer.drain()


async def silent(writer, _headers):
    await asyncio.sleep(60)


def test_the_budget_of_bytes_cuts_an_endless_body(origin):
    origin.routes["/endless"] = endless
    answer, proxy = with_proxy(
        lambda p: ask(p, f"GET {origin.url('/endless')} HTTP/1.1"),
        budget=Budget(connections=9, bytes=500_000, seconds=60),
    )
    assert len(answer) <= 500_000
    assert proxy.exhausted == {"bytes"}


def test_the_budget_of_seconds_cuts_a_silent_server(origin):
    origin.routes["/silent"] = silent
    answer, proxy = with_proxy(
        lambda p: ask(p, f"GET {origin.url('/silent')} HTTP/1.1"), budget=Budget(connections=9, bytes=9, seconds=0.2)
    )
    assert answer == b""
    assert proxy.exhausted == {"seconds"}


def test_an_endless_head_is_cut(origin):
    async def flood(proxy):
        parts = urlsplit(proxy.url)
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
        writer.write(b"GET http://127.0.0.5/ HTTP/1.1\r\n" + b"a: b\r\n" * 50_000)
        with contextlib.suppress(ConnectionResetError):
            assert await reader.read() == b""
        writer.close()

    _, proxy = with_proxy(flood)
    assert proxy.connections == 0


def test_leaving_the_context_closes_the_port_and_every_tunnel(origin):
    origin.routes["/silent"] = silent

    async def run():
        async with FilteringProxy(policy(), PLENTY) as proxy:
            asking = asyncio.create_task(ask(proxy, f"GET {origin.url('/silent')} HTTP/1.1"))
            while not origin.requests:  # noqa: ASYNC110 the server is in another thread
                await asyncio.sleep(0.01)
        assert await asking == b""
        with pytest.raises(ConnectionRefusedError):
            await ask(proxy, "GET / HTTP/1.1")

    asyncio.run(run())


def test_the_budget_of_a_page_comes_from_the_settings():
    budget = Budget.from_settings(
        Settings(max_connections=7, max_video_bytes=100, video_timeout_s=3, connect_timeout_s=2)
    )
    assert (budget.connections, budget.seconds, budget.connect_timeout_s) == (7, 3, 2)
    assert budget.bytes >= 100
