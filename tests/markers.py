"""Where a secret in a URL goes: `python tests/markers.py [--count 1000]`.

URLs with a marker in the user's name and password, path, query and fragment, tokens, cookies and keys with one, servers
that send one back (Location, reason, headers, body): all through a real API, queue, worker and cache. Then everything
that was written is read: logs of each process, metrics, every key and value of Redis, names and bytes of every file.
Out: where markers lie, and `markers, cases, failures`; a failure is a place that `MAY` does not name.
"""

import argparse
import asyncio
import itertools
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import redis
from crew import Crew
from origin import Origin, jpeg

from api.tokens import Scope, Tokens

MARK = b"qzsecret"
MAY = {
    "redis laescan:scan:* source": "what was asked, for its owner; a day after the end (LAESCAN_OUTCOME_TTL_S)",
    "redis laescan:scan:* request": "what a worker fetches; the same life",
    "redis laescan:scan:* outcome": "names its source; the same life",
    "redis laescan:batch:*:members *": "the list, for its rows; a week",
    "redis laescan:artifact:*": "the report names its source; LAESCAN_ARTIFACT_TTL_S",
    "file redis/appendonly*": "Redis's own record of the above, written anew once a day",
}
"""Places where the URL has to be, and until when."""
_ID = re.compile(r"[0-9a-f]{16,}(-[0-9a-f]+)?")


def urls(origin: Origin, count: int) -> Iterator[str]:
    """`count` URLs of ten kinds, each with a marker of its own; one in a hundred is a page for yt-dlp."""
    host = origin.url("")
    with socket.create_server(("127.0.0.5", 0)) as taken:
        closed = taken.getsockname()[1]
    origin.answer("/picture", jpeg())
    origin.answer("/text", b"words with " + MARK)
    origin.raw("/gone", f"404 {MARK.decode()}-reason", f"X-Why: {MARK.decode()}", "Content-Length: 0")
    origin.raw("/busy", f"429 {MARK.decode()}-reason", "Retry-After: 1", "Content-Length: 0")
    origin.raw(
        "/later",
        f"302 {MARK.decode()}",
        f"Location: /picture?{MARK.decode()}-there",
        f"Set-Cookie: a={MARK.decode()}",
        "Content-Length: 0",
    )
    origin.redirect("/inside", f"http://{MARK.decode()}:x@127.0.0.1/{MARK.decode()}")
    origin.redirect("/nonsense", f"gopher://{MARK.decode()}/")
    origin.answer("/page", f"<!doctype html><html><video src='/gone?{MARK.decode()}'></video></html>".encode())
    kinds = ("/picture", "/text", "/gone", "/later", "/inside", "/nonsense", "/busy", "/missing")
    for number, kind in zip(range(count), itertools.cycle((*kinds, "closed", "name")), strict=False):
        mark = f"{MARK.decode()}{number:06}"
        match kind:
            case "closed":
                yield f"http://127.0.0.5:{closed}/{mark}?{mark}"
            case "name":
                yield f"{host}/page?{mark}" if number % 100 > 90 else f"{host}/{mark}/{mark}.jpg"
            case _:
                yield f"http://{mark}:{mark}@{host.removeprefix('http://')}{kind}?token={mark}#{mark}"


class House:
    """A crew and an API in a process of its own, everything they write in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        plenty = {f"{what}_per_min": 100_000 for what in ("submits", "lookups", "batches")}
        self.crew = Crew(folder, log_level="debug", **plenty)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = (folder / "api.log").open("wb")
        self.environ = {**self.crew.environ, "LAESCAN_API_PORT": str(self.port), "LAESCAN_SPOOL": str(folder / "spool")}
        self.api = subprocess.Popen([sys.executable, "-m", "api"], env=self.environ, stdout=self.log, stderr=self.log)
        self.crew.environ = self.environ
        self._wait()

    def _wait(self) -> None:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            try:
                urllib.request.urlopen(f"{self.url}/healthz", timeout=5).close()
            except (OSError, urllib.error.URLError):
                assert self.api.poll() is None, (self.folder / "api.log").read_text()
                time.sleep(0.1)
            else:
                return
        msg = "the service does not come up"
        raise AssertionError(msg)

    def close(self) -> None:
        self.api.terminate()
        self.api.wait()
        self.log.close()
        self.crew.close()


async def submit_all(house: House, origin: Origin, count: int) -> tuple[list[str], list[str]]:
    """Every second URL by itself, the others in batches; one upload with a marked name; out: ids of both kinds."""
    asked = list(urls(origin, count))
    token, _ = await _admin(house.crew.url)
    headers = {
        "Authorization": f"Bearer {token}",
        "Cookie": f"session={MARK.decode()}",
        "Referer": f"http://x/{MARK.decode()}",
    }
    limits = aiohttp.ClientTimeout(total=600)
    async with aiohttp.ClientSession(house.url, headers=headers, timeout=limits) as http:
        ids, batches = [], []
        for number, url in enumerate(asked[::2]):
            key = {"Idempotency-Key": f"{MARK.decode()}-{number}"}
            async with http.post("/v1/scans", json={"url": url}, headers=key) as answer:
                if answer.status in {200, 202}:
                    ids.append((await answer.json())["id"])
        for start in range(0, len(asked) // 2, 250):
            async with http.post("/v1/batches", json={"urls": asked[1::2][start : start + 250]}) as answer:
                assert answer.status == 202, await answer.text()
                batches.append((await answer.json())["id"])
        form = aiohttp.FormData()
        form.add_field("file", jpeg(80, 60), filename=f"{MARK.decode()}.jpg")
        async with http.post("/v1/scans", data=form) as answer:
            ids.append((await answer.json())["id"])
        for bad in (f"http://127.0.0.5:{MARK.decode()}/", f"ftp://{MARK.decode()}/", f"http://[{MARK.decode()}/"):
            async with http.post("/v1/scans", json={"url": bad}) as answer:
                assert answer.status == 422
                assert MARK not in await answer.read(), "an error text quotes the URL"
            async with http.get("/v1/verdicts", params={"url": bad}) as answer:
                assert MARK not in await answer.read(), "an error text quotes the URL"
        return ids, batches


async def wait_for_all(house: House, ids: list[str], batches: list[str]) -> Counter[str]:
    """Out: outcomes by code."""
    token, _ = await _admin(house.crew.url)
    async with aiohttp.ClientSession(house.url, headers={"Authorization": f"Bearer {token}"}) as http:
        codes = Counter([await _ended(http, id_) for id_ in ids])
        for id_ in batches:
            await _finished(http, id_)
        return codes


async def _ended(http: aiohttp.ClientSession, id_: str) -> str:
    while True:
        async with http.get(f"/v1/scans/{id_}", params={"wait": "20"}) as answer:
            scan = await answer.json()
        if answer.status == 200 and scan["outcome"]:
            failure, verdict = scan["outcome"]["failure"], scan["outcome"]["verdict"]
            words = failure["message"] if failure else verdict["reason"] + str(verdict["warnings"])
            code = failure["code"] if failure else verdict["label"]
            return f"LEAK in the words of {code}" if MARK.decode() in words else code
        await asyncio.sleep(0.2 if answer.status == 200 else 1.0)


async def _finished(http: aiohttp.ClientSession, batch: str) -> None:
    while True:
        async with http.get(f"/v1/batches/{batch}") as answer:
            found = await answer.json()
        if answer.status == 200 and not {"queued", "running"} & set(found["states"]):
            return
        await asyncio.sleep(0.3)


# ---------------------------------------------------------------- what is left


def places(house: House, tokens: list[bytes]) -> Iterator[tuple[str, bytes]]:
    """Every text that anything has written, with a name that says where: metrics, Redis, files, command lines."""
    token, _ = asyncio.run(_admin(house.crew.url))
    tokens.append(token.encode())
    asked = urllib.request.Request(f"{house.url}/metrics", headers={"Authorization": f"Bearer {token}"})
    with urllib.request.urlopen(asked, timeout=60) as answer:
        yield "metrics", answer.read()
    with redis.Redis.from_url(house.crew.url) as client:
        for key in client.scan_iter(count=1_000):
            name = _ID.sub("*", key.decode("utf-8", "replace"))
            yield f"redis key {name}", key
            yield from ((f"redis {name}{inner}"[:80], text) for inner, text in _values(client, key))
    for path in house.folder.rglob("*"):
        where = path.relative_to(house.folder).as_posix()
        yield "file name", os.fsencode(where)
        if path.is_file():
            yield f"file {_ID.sub('*', where)}", path.read_bytes()
    for line in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = line.read_bytes()
        except OSError:
            continue
        if b"scanner" in words or b"api" in words:
            yield "command line", words


def _values(client: redis.Redis, key: bytes) -> Iterator[tuple[str, bytes]]:
    """Everything that lies under one key of Redis; of a hash, field by field."""
    kind = client.type(key)
    if kind == b"hash":
        for field, value in client.hgetall(key).items():
            yield f" {field.decode('utf-8', 'replace')}", field + b" " + value
        return
    read = {
        b"string": lambda: client.get(key),
        b"list": lambda: b"\n".join(client.lrange(key, 0, -1)),
        b"zset": lambda: b"\n".join(client.zrange(key, 0, -1)),
        b"set": lambda: b"\n".join(client.smembers(key)),
        b"stream": lambda: repr(client.xrange(key)).encode(),
        b"none": lambda: b"",  # it has just expired
    }
    yield "", read[kind]() or b""


async def _admin(url: str) -> tuple[str, object]:
    async with redis.asyncio.Redis.from_url(url) as client:
        return await Tokens(client).create(Scope.ADMIN, tenant="t")


def allowed(place: str) -> bool:
    """Whether `MAY` names it."""
    return any(re.fullmatch(re.escape(name).replace(r"\*", ".*"), place) for name in MAY)


def search(house: House) -> tuple[Counter[str], Counter[str]]:
    """How often markers lie where they may, and where they may not; a token's secret may lie nowhere."""
    fine, leaks, tokens = Counter[str](), Counter[str](), list[bytes]()
    for place, text in places(house, tokens):
        found = text.count(MARK)
        if found:
            (fine if allowed(place) else leaks)[place] += found
        for token in tokens:
            leaks[f"token in {place}"] += text.count(token.split(b"_", 2)[2])  # the secret may hold further ones
    return fine, +leaks


def listing(house: House) -> set[str]:
    """Media on disk: every file that is none of Redis's, no log and no lock."""
    own = {"api.log", "workers.log", "engine.sock"}
    files = {path.relative_to(house.folder).as_posix() for path in house.folder.rglob("*") if path.is_file()}
    return {name for name in files if not name.startswith("redis/") and name not in own and not name.endswith(".lock")}


def run(house: House, count: int, workers: int = 1) -> tuple[Counter[str], Counter[str], Counter[str]]:
    """Look while all wait and when all have ended; out: outcomes by code, markers where they may be, and leaks."""
    origin = Origin()
    try:
        submitted = asyncio.run(submit_all(house, origin, count))
        _, early = search(house)
        house.crew.hire(workers)
        codes = asyncio.run(wait_for_all(house, *submitted))
    finally:
        origin.close()
    fine, leaks = search(house)
    leaks += early
    leaks.update({code: number for code, number in codes.items() if code.startswith("LEAK")})
    return codes, fine, leaks


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--count", type=int, default=1_000)
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        house = House(Path(folder))
        try:
            codes, fine, leaks = run(house, given.count, workers=2)
            left = listing(house)
        finally:
            house.close()
    print("# outcomes: " + ", ".join(f"{count} {code}" for code, count in codes.most_common()))
    for place, count in fine.most_common():
        print(f"# {count:6} in {place}, as it must be")
    for place, count in leaks.most_common():
        print(f"# LEAK {count} in {place}")
    for name in sorted(left):
        print(f"# left: {name}")
    print(f"markers, {given.count}, {leaks.total()}")
    return 1 if leaks else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
