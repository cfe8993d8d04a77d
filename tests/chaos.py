"""The whole of `laescan serve` in a folder, to be tormented: how it is started, asked, found, and what is checked.

A `Rig` is the running service with an origin of sources. What it accepted is its history; `flaws` reads that history
and what is left on the machine, and tells in words whatever breaks a promise. `torture.py` has what is done to it.

`python tests/chaos.py serve ...` is `laescan serve` with an engine that needs no weights, for the short form.
"""

import asyncio
import contextlib
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import aiohttp
import redis
from crew import children
from origin import ALLOWED, Origin, jpeg
from ports import free_port

from scanner.service.embedded import socket_url

START_S = 180.0
SETTINGS = {  # small enough that nothing takes long, and no limit of how much one may ask
    "workers": 2,
    "first_byte_timeout_s": 3,
    "image_timeout_s": 6,
    "decode_timeout_s": 10,
    "engine_timeout_s": 30,
    "scan_timeout_s": 45,
    "drain_s": 10,
    "engine_drain_s": 10,
    "submits_per_min": 1_000_000,
    "lookups_per_min": 1_000_000,
    "batches_per_min": 1_000_000,
    "near_labels": "",
    "near_audit_share": 0,
}
TERMINAL = {"done", "failed", "cancelled"}
VERDICT = "verdict"
"""What a good picture ends as; everything else ends as the code of its failure."""
LATE_S = 2.0


class Source:
    """A URL, the codes with which its scan may end, and the digest of its bytes if they are those of a picture."""

    def __init__(self, url, ends, sha256=None):
        self.url, self.ends, self.sha256 = url, set(ends), sha256


class Sources(Origin):
    """An origin of good, bad and slow sources, each with what its scan must come to."""

    def __init__(self):
        super().__init__()
        self._number = 0

    def _path(self, suffix):
        self._number += 1
        return f"/{self._number}{suffix}"

    def good(self, count, width=48):
        return [self._good(width) for _ in range(count)]

    def _good(self, width):
        data = jpeg(width, 32)
        return Source(self.answer(self._path(".jpg"), data), {VERDICT}, hashlib.sha256(data).hexdigest())

    def bad(self):
        """One of each kind that is wrong in itself."""
        bomb = b"RIFF\x1a\0\0\0WEBPVP8L\x0d\0\0\0\x2f\xff\xff\xff\x0f\x07\x10\xfd\x8f\xfe\x07\x22\xa2\xff\x01\0"
        whole = jpeg(48, 32)
        made = {
            (".jpg", whole[: len(whole) // 2]): {"broken_media"},
            (".webp", bomb): {"too_many_pixels", "broken_media"},
            (".mp4", b"#EXTM3U\n#EXTINF:2,\nfile:///etc/passwd\n"): {"no_media", "unsupported_media"},
            (".png", b"\x89PNG\r\n\x1a\n" + b"\0" * 500): {"broken_media"},
            (".txt", b"words"): {"unsupported_media"},
            (".bin", b""): {"empty"},
        }
        found = [Source(self.answer(self._path(suffix), data), ends) for (suffix, data), ends in made.items()]
        for status, ends in (
            ("404 Not Found", {"gone"}),
            ("403 Forbidden", {"forbidden"}),
            ("500 Oh", {"source_failed"}),
        ):
            found.append(Source(self.answer(self._path(".jpg"), whole, status=status), ends))
        return [*found, Source(f"http://127.0.0.1:1{self._path('.jpg')}", {"blocked_address"})]

    def slow(self):
        """A byte a second, without end."""

        async def trickle(writer, _headers):
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: image/jpeg\r\nContent-Length: 100000\r\n\r\n\xff\xd8\xff")
            while True:
                await writer.drain()
                await asyncio.sleep(1)
                writer.write(b"\0")

        path = self._path(".jpg")
        self.routes[path] = trickle
        return Source(self.url(path), {"timed_out"})


class Rig:
    """One service; `async with` it."""

    def __init__(self, folder, *, launcher=(), program=("-m", "scanner.cli"), **settings):
        self.folder, self.state, self.scratch = folder, folder / "s", folder / "t"
        for made in (folder, self.state, self.scratch):
            made.mkdir(exist_ok=True)
        self.port = free_port()
        count = settings.get("workers", SETTINGS["workers"])
        self.whole = {"redis": 1, "engine": 1, "worker": count, "horse": count, "api": 1}
        chosen = {
            **SETTINGS,
            "api_port": self.port,
            "state": self.state,
            "allow_networks": ",".join(ALLOWED),
            **settings,
        }
        self.environ = {
            **{name: value for name, value in os.environ.items() if not name.startswith("LAESCAN_")},
            **{f"LAESCAN_{name.upper()}": str(value) for name, value in chosen.items()},
            "PYTHONPATH": str(Path(__file__).parent.parent),
            "TMPDIR": str(self.scratch),
            "OMP_WAIT_POLICY": "PASSIVE",
        }
        self.command = [*launcher, sys.executable, *program, "serve"]
        self.accepted = {}  # id -> Source
        self.joined = 0
        self._has_disks = bool(launcher)
        self.sources = Sources()

    async def __aenter__(self):
        self.log = (self.folder / "log").open("ab")
        self.process = subprocess.Popen(  # noqa: ASYNC220 - it lives as long as the rig
            self.command, env=self.environ, stdout=self.log, stderr=self.log
        )
        self.redis = redis.Redis.from_url(socket_url(self.inside(self.state / "redis")))
        timeout = aiohttp.ClientTimeout(total=10)
        self.http = aiohttp.ClientSession(f"http://127.0.0.1:{self.port}", timeout=timeout)
        await self.until(self._is_ready, START_S)
        return self

    async def __aexit__(self, *_):
        await self.http.close()
        self.process.send_signal(signal.SIGTERM)
        try:
            await asyncio.to_thread(self.process.wait, 60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.redis.close()
        self.sources.close()
        self.log.close()

    def inside(self, path):
        """A path as the service sees it, which may have file systems of its own."""
        return Path(f"/proc/{self.process.pid}/root{path}") if self._has_disks else path

    async def _is_ready(self):
        assert self.process.poll() is None, self.said()
        with contextlib.suppress(aiohttp.ClientError, TimeoutError):
            async with self.http.get("/readyz") as answer:
                return answer.status == 200 and self.census() == self.whole
        return False

    def said(self):
        return (self.folder / "log").read_text(errors="replace")[-3000:]

    async def until(self, condition, patience_s=90.0):
        """Whether the condition came true in time."""
        end = time.monotonic() + patience_s
        while time.monotonic() < end:
            found = condition()
            if await found if asyncio.iscoroutine(found) else found:
                return True
            await asyncio.sleep(0.1)
        return False

    # ------------------------------------------------------------ processes

    def processes(self):
        """Every process of the service by what it is."""
        found = {}
        for pid in children(self._supervisor()):
            words = _words(pid)
            name = next((word for word in (b"redis", b"engine", b"worker", b"api") if word in b" ".join(words)), None)
            if name and b"scanner.service.leash" not in words:
                found.setdefault(name.decode(), []).append(pid)
            if name == b"worker":
                found.setdefault("horse", []).extend(p for p in children(pid) if b"scanner.service.horse" in _words(p))
        return {name: pids for name, pids in found.items() if pids}

    def _supervisor(self):
        return self.process.pid

    def census(self):
        return {name: len(pids) for name, pids in self.processes().items()}

    def signal(self, kind, number):
        """Send a signal to one process of a kind, any of them; out: its pid, None when it hit nothing."""
        pids = self.processes().get(kind)
        if not pids:
            return None
        pid = random.choice(pids)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
            return pid
        return None

    def memory(self):
        """Resident bytes of the API and of each worker, by pid."""
        there = self.processes()
        return {pid: _resident(pid) for kind in ("api", "worker") for pid in there.get(kind, [])}

    def zombies(self):
        """Processes below the service that ended and were not buried."""
        todo, dead = [self.process.pid], []
        while todo:
            pid = todo.pop()
            below = children(pid)
            dead += [child for child in below if _state(child) == "Z"]
            todo += below
        return dead

    # ------------------------------------------------------------ asking

    async def submit(self, source, headers=None):
        """Have a source accepted, whatever it takes; out: the id of its scan."""
        headers = {"Idempotency-Key": hashlib.sha256(source.url.encode()).hexdigest(), **(headers or {})}
        end = time.monotonic() + 180
        while time.monotonic() < end:
            with contextlib.suppress(aiohttp.ClientError, TimeoutError, json.JSONDecodeError):
                async with self.http.post("/v1/scans", json={"url": source.url}, headers=headers) as answer:
                    if answer.status == 202:
                        id_ = (await answer.json())["id"]
                        self.accepted[id_] = source
                        return id_
                    assert answer.status in {429, 500, 502, 503}, await answer.text()
            await asyncio.sleep(0.2)
        msg = f"{source.url} was not accepted in 180 s"
        raise AssertionError(msg)

    async def ask_again(self, source):
        """Ask for what was judged before; out: the verdict that was remembered, None when it is scanned anew."""
        async with self.http.post("/v1/scans", json={"url": source.url}) as answer:
            told = await answer.json()
            if answer.status == 200:
                return told["outcome"]["verdict"]
            assert answer.status == 202, told
            self.accepted[told["id"]] = source
            return None

    async def load(self, sources, at_once=6):
        """Have all of them accepted, some at a time; out: their ids."""
        room = asyncio.Semaphore(at_once)

        async def one(source):
            async with room:
                return await self.submit(source)

        return await asyncio.gather(*map(one, sources))

    def rows(self, ids):
        """State, outcome, attempt and times of each row, as they stand in Redis; None while Redis does not answer."""
        try:
            with self.redis.pipeline(transaction=False) as pipe:
                for id_ in ids:
                    pipe.hmget(f"laescan:scan:{id_}", "state", "outcome", "attempt", "started_ms", "finished_ms")
                return dict(zip(ids, pipe.execute(), strict=True))
        except (redis.RedisError, OSError):
            return None

    async def settle(self, ids, patience_s=240.0):
        """Wait until all of them have ended; out: whether they have."""
        open_ = set(ids)

        def is_done():
            rows = self.rows(list(open_))
            open_.difference_update(id_ for id_, row in (rows or {}).items() if row[0] and row[0].decode() in TERMINAL)
            return not open_

        return await self.until(is_done, patience_s)

    # ------------------------------------------------------------ the checker

    async def flaws(self, ids, *, also=(), patience_s=240.0):
        """Whatever of the promises does not hold, in words: the history of these scans, and the state of the house.

        `also`: codes with which any of them may have ended in this row, e.g. because its workers were killed thrice.
        """
        found = []
        if not await self.settle(ids, patience_s):
            found.append("some scans never ended")
        if not await self.until(lambda: self.rows(ids[:1]) is not None):
            return [*found, "Redis does not come back"]
        rows = self.rows(ids)
        found += [flaw for id_, row in rows.items() if (flaw := self.flaw(id_, row, also))]
        if len(set(ids)) != len(ids):
            found.append("one id was given to two scans")
        if not await self.until(self._is_tidy, 40):
            found.append(f"leases, queues or jobs are left: {self.left()}")
        if not await self.until(lambda: self.census() == self.whole, START_S):
            found.append(f"not all processes are back: {self.census()}")
        if not await self.until(lambda: not self.zombies(), 10):
            found.append("zombies")
        if flaw := self.tally_flaw():
            found.append(flaw)
        if self.rows(ids) != rows:
            found.append("an outcome changed after the end")
        return found

    def tally_flaw(self):
        """Who was accepted has ended, once, and is known to us."""
        tally = {name.decode(): int(count) for name, count in self.redis.hgetall("laescan:tally").items()}
        ended = sum(tally.get(state, 0) for state in TERMINAL)
        if tally.get("accepted") == ended == len(self.accepted):
            return None
        return f"accepted, ended and known are not equal: {tally}, {len(self.accepted)}"

    def flaw(self, id_, row, also):
        """What is wrong with how one scan ended."""
        source, (state, outcome, attempt, started_ms, finished_ms) = self.accepted[id_], row
        if state is None or state.decode() not in TERMINAL or outcome is None:
            return f"{id_} ended as nothing"
        told = json.loads(outcome)
        verdict = told.get("verdict")
        code = VERDICT if verdict else told["failure"]["code"]
        if code not in source.ends and code not in also:
            return f"{source.url} ended as {code}: {(told.get('failure') or {}).get('message', '')[:200]}"
        if verdict and verdict["media"]["sha256"] != source.sha256:
            return f"{source.url} got another picture's verdict"
        limit_s = float(self.environ["LAESCAN_SCAN_TIMEOUT_S"]) + LATE_S
        if int(attempt) == 1 and started_ms and (int(finished_ms) - int(started_ms)) / 1000 > limit_s:
            return f"{source.url} took longer than its deadline"
        return None

    def left(self):
        """What still waits or runs, by where it is listed."""
        try:
            names = ("leases", "due", "queued:interactive", "queued:bulk")
            left = {name: self.redis.zcard(f"laescan:{name}") for name in names}
            return {name: count for name, count in left.items() if count}
        except (redis.RedisError, OSError) as error:
            return {"redis": str(error)}

    def _is_tidy(self):
        return not self.left()

    async def leftovers(self):
        """What is left on disk of scans that have ended, a minute and a half after the last of them."""

        def there():
            return [
                path.name for path in self.inside(self.scratch).iterdir() if path.name.startswith("laescan-scratch-")
            ]

        await self.until(lambda: not there())
        return there()

    def codes(self):
        """How everything has ended so far."""
        outcomes = [json.loads(row[1]) for row in self.rows(list(self.accepted)).values() if row[1]]
        return Counter(VERDICT if told.get("verdict") else told["failure"]["code"] for told in outcomes)


def _words(pid):
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    return []


def _state(pid):
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    return ""


def _resident(pid):
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
    return 0


def main():
    """`laescan` with the engine of the tests instead of the real one."""
    from dataclasses import replace  # noqa: PLC0415 - only this command needs the parts of the service

    from scanner import cli  # noqa: PLC0415
    from scanner.engine.wire import socket_path  # noqa: PLC0415
    from scanner.service import serve  # noqa: PLC0415

    parts = serve._middle

    def with_ours(settings, environ, **how):
        (engine,), workers = parts(settings, environ, **how)
        ours = (sys.executable, str(Path(__file__).with_name("engines.py")), str(socket_path(settings)), "0.002")
        return [[replace(engine, command=ours)], workers]

    serve._middle = with_ours
    return cli.main(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
