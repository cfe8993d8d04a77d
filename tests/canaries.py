"""How often a stranger's address reaches the inside: `python tests/canaries.py [--every N]`.

Every spelling of this machine, through every door (a scan's fetch, the filtering proxy, video pages, lists, feeds, the
API with its workers), direct and behind redirects, playlists and names that change their mind. A canary listens on all
addresses of the machine; its count is the verdict. Out: a line for each door, `canaries DOOR, cases, contacts`; exit
code 1 when the canary was reached or a door let nothing through at all, which would prove nothing.
"""

import argparse
import asyncio
import contextlib
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import aiohttp
from crew import Crew
from origin import ALLOWED, ORIGIN_HOST, ROUTED, SPELLINGS, Canary, Origin, fake_getaddrinfo, jpeg, video
from service import serving
from test_limits import Blind
from test_page import hostile_pages
from test_proxy import ask

from scanner import errors
from scanner.bulk.follow import Feed
from scanner.bulk.polite import Patience, Policy
from scanner.bulk.shards import scan_shard
from scanner.fetching.egress import AddressPolicy, dial
from scanner.fetching.fetch import fetch
from scanner.fetching.proxy import Budget, FilteringProxy
from scanner.fetching.web import new_session
from scanner.settings import Settings

JPEG, MP4 = jpeg(), video()
REDIRECTS = ("301 Moved", "302 Found", "303 See Other", "307 Temporary", "308 Permanent")
INSIDE = ("127.0.0.1", "localhost", "[::1]", "0x7f.1")
REBINDINGS = 200


class Field:
    """One origin that may be reached, one canary that may not, and what each door tried."""

    def __init__(self, every: int) -> None:
        self.origin, self.canary, self.every = Origin(), Canary(), every
        self.settings = Settings(allow_networks=ALLOWED, allow_ports=(80, 443, self.canary.port), max_redirects=5)
        self.good = self.origin.answer("/good", JPEG)
        self._paths = 0

    def spellings(self, *, named: bool = True) -> list[str]:
        """Those of the round; without names where another process would ask a real DNS for them."""
        chosen = [s for s in SPELLINGS if named or not s.endswith(".test")]
        return chosen[:: self.every]

    def target(self, spelling: str) -> str:
        return f"http://{spelling}:{self.canary.port}/picture.jpg"

    def path(self) -> str:
        self._paths += 1
        return f"/{self._paths}"

    def ways(self, spelling: str) -> Iterator[str]:
        """URLs that lead there: direct, by each kind of redirect, by a chain, without a scheme, with credentials."""
        target = self.target(spelling)
        yield target
        for status in REDIRECTS:
            yield self.origin.raw(self.path(), status, f"Location: {target}", "Content-Length: 0")
        last = self.origin.redirect(self.path(), target)
        yield self.origin.redirect(self.path(), self.origin.redirect(self.path(), last))
        yield self.origin.redirect(self.path(), target.removeprefix("http:"))
        yield self.origin.redirect(self.path(), target.replace("://", "://user:pass@"))
        yield self.origin.raw(self.path(), "200 OK", f"Refresh: 0; url={target}", "Content-Length: 4", body=b"none")

    def close(self) -> None:
        self.origin.close()
        self.canary.close()


Door = Callable[[Field], tuple[int, bool]]
"""Tries its cases; out: how many, and whether a good address came through it."""


@contextlib.contextmanager
def _fake_names() -> Iterator[None]:
    real, socket.getaddrinfo = socket.getaddrinfo, fake_getaddrinfo(socket.getaddrinfo)
    try:
        yield
    finally:
        socket.getaddrinfo = real


def by_fetch(field: Field) -> tuple[int, bool]:
    urls = [url for spelling in field.spellings() for url in field.ways(spelling)]

    async def all_of_them(folder: Path) -> bool:
        for url in urls:
            with contextlib.suppress(errors.ScanError):
                await fetch(url, folder=folder, settings=field.settings)
        return (await fetch(field.good, folder=folder, settings=field.settings)).size_bytes == len(JPEG)

    with tempfile.TemporaryDirectory() as folder, _fake_names():
        return len(urls), asyncio.run(all_of_them(Path(folder)))


def by_proxy(field: Field) -> tuple[int, bool]:
    policy = AddressPolicy.from_settings(field.settings)

    async def all_of_them() -> bool:
        async with FilteringProxy(policy, Budget(10_000, 10**8, 600)) as proxy:
            for spelling in field.spellings():
                await ask(proxy, f"CONNECT {spelling}:{field.canary.port} HTTP/1.1", then=b"GET / HTTP/1.1\r\n\r\n")
                await ask(proxy, f"GET {field.target(spelling)} HTTP/1.1")
            return (await ask(proxy, f"GET {field.good} HTTP/1.1")).endswith(JPEG)

    with _fake_names():
        return 2 * len(field.spellings()), asyncio.run(all_of_them())


def by_rebinding(field: Field) -> tuple[int, bool]:
    """A name that is the origin's at one time and ours at the other, or both at once."""
    policy, rounds = AddressPolicy.from_settings(field.settings), REBINDINGS // field.every
    mixes = ([ORIGIN_HOST], ["127.0.0.1"], ["::1"], [ORIGIN_HOST, "127.0.0.1"], ["::1", ORIGIN_HOST])
    real, answered = socket.getaddrinfo, [0]

    def fickle(_host: object, port: int, *_: object, **__: object) -> list[object]:
        answered[0] += 1
        return [found for address in mixes[answered[0] % len(mixes)] for found in real(address, port, 0, 1)]

    async def all_of_them() -> bool:
        passed = 0
        for _ in range(rounds):
            with contextlib.suppress(errors.BlockedAddress, OSError):
                connection = await dial(policy.check, "fickle.test", field.canary.port)
                connection.close()
                passed += 1
        return passed > 0

    socket.getaddrinfo = fickle
    try:
        return rounds, asyncio.run(all_of_them())
    finally:
        socket.getaddrinfo = real


def by_page(field: Field) -> tuple[int, bool]:
    """Video pages, playlists and manifests by yt-dlp in its own process, which costs a second each."""
    inside = INSIDE[: max(1, len(INSIDE) // field.every)]
    sources = []
    for host in inside:
        place = Origin()  # of its own: the pages have fixed names
        sources.append((place, hostile_pages(place, f"http://{host}:{field.canary.port}/")))
    field.origin.answer("/v.mp4", MP4, Content_Type="video/mp4")
    good = field.origin.answer("/page", b'<!doctype html><html><video src="/v.mp4"></video></html>')
    urls = [url for _, some in sources for url in some][:: field.every]

    async def all_of_them(folder: Path) -> bool:
        room = asyncio.Semaphore(2)

        async def one(number: int, url: str) -> object:
            place = folder / str(number)
            place.mkdir()
            async with room:
                return await fetch(url, folder=place, settings=field.settings)

        found = await asyncio.gather(*(one(*pair) for pair in enumerate([*urls, good])), return_exceptions=True)
        return getattr(found[-1], "size_bytes", 0) == len(MP4)

    try:
        with tempfile.TemporaryDirectory() as folder:
            return len(urls), asyncio.run(all_of_them(Path(folder)))
    finally:
        for place, _ in sources:
            place.close()


def by_list(field: Field) -> tuple[int, bool]:
    """Rows of a list, as `laescan bulk` scans them."""
    urls = [url for spelling in field.spellings() for url in list(field.ways(spelling))[1::2]]
    with _fake_names():
        rows = scan_shard(
            [*urls, field.good],
            settings=field.settings,
            model=Blind(),
            policy=Policy(per_host_rate=1e6),
            patience=Patience(retries=0),
        )
    return len(urls), rows[-1]["label"] == "no_face" and not any(row["label"] for row in rows[:-1])


def by_feed(field: Field) -> tuple[int, bool]:
    """Feeds that a list follows, and sitemaps that name further ones."""
    urls = [url for spelling in field.spellings() for url in (field.target(spelling), *list(field.ways(spelling))[5:7])]
    maps = "".join(f"<sitemap><loc>{url}</loc></sitemap>" for url in urls if "%" not in url and "&" not in url)
    head = 'xmlns="http://www.sitemaps.org/schemas/sitemap/0.9"'
    index = field.origin.answer("/index.xml", f"<sitemapindex {head}>{maps}</sitemapindex>".encode())
    good = field.origin.answer("/map.xml", f"<urlset {head}><url><loc>{field.good}</loc></url></urlset>".encode())

    async def ask_each() -> bool:
        for url in (*urls, index):
            with contextlib.suppress(errors.ScanError, aiohttp.ClientError, ValueError):
                await _asked(url, field.settings)
        return [url for url, _ in await _asked(good, field.settings)] == [field.good]

    with _fake_names():
        return 2 * len(urls), asyncio.run(ask_each())


class Eager(asyncio.Event):
    """Nobody takes what a feed named, and nobody waits for that."""

    async def wait(self) -> bool:
        return True


async def _asked(url: str, settings: Settings) -> list[tuple[str, str]]:
    feed = Feed(url, settings)
    feed._taken = Eager()
    async with new_session(settings) as session:
        await feed._ask(session, url)
        for sitemap in feed._sitemaps:
            await feed._ask(session, sitemap)
    return list(feed._named)


def by_api(field: Field) -> tuple[int, bool]:
    """Accepted over HTTP, scanned by a real worker; names that DNS would be asked for are left to the other doors."""
    spellings = [s for s in field.spellings(named=False) if s not in ROUTED]
    urls = [url for spelling in spellings for url in list(field.ways(spelling))[:2]]

    async def all_of_them(crew: Crew) -> tuple[int, bool]:
        settings = Settings(redis_url=crew.url, spool=str(crew.folder / "spool"), state=str(crew.folder))
        async with serving(settings) as api:
            ids = []
            for url in [*urls, field.good]:
                _, scan, _ = await api.ask("POST", "/v1/scans", json={"url": url})
                ids.append(scan.get("id"))
            ledger = api.service.ledger
            ended = [(await ledger.wait(id_, tenant="local", timeout_s=300)).outcome for id_ in ids if id_]
            assert not any(outcome.verdict for outcome in ended[:-1])
            return len(urls), ended[-1].verdict is not None

    with tempfile.TemporaryDirectory() as folder:
        ports = f"80,443,{field.canary.port}"
        with Crew(Path(folder), allow_ports=ports) as crew:
            crew.hire(1)
            return asyncio.run(all_of_them(crew))


DOORS: dict[str, Door] = {
    "fetch": by_fetch,
    "proxy": by_proxy,
    "rebinding": by_rebinding,
    "list": by_list,
    "feed": by_feed,
    "page": by_page,
    "api": by_api,
}


def count(doors: list[str], every: int) -> Iterator[tuple[str, int, int, bool]]:
    """Each door with its cases, its contacts, and whether it let a good address through."""
    for name in doors:
        field = Field(every)
        try:
            cases, is_open = DOORS[name](field)
            yield name, cases, field.canary.count(), is_open
        finally:
            field.close()


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("doors", nargs="*", choices=[*DOORS, []], help=", ".join(DOORS))
    parser.add_argument("--every", type=int, default=1, help="try every n-th spelling only")
    given = parser.parse_args(arguments)
    total = bad = 0
    for name, cases, contacts, is_open in count(given.doors or list(DOORS), given.every):
        total, bad = total + cases, bad + contacts + (not is_open)
        print(
            f"canaries {name}, {cases}, {contacts}" + ("" if is_open else "  # SHUT: nothing came through"), flush=True
        )
    print(f"canaries, {total}, {bad}")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
