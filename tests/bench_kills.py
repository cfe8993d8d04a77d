"""Kill each process of the service in each stage of a scan, and count what became of what it had accepted.

    python tests/bench_kills.py [SCANS] [KILLS] [-v]

The whole of `laescan serve` runs: Redis, engine, workers, API. Scans are submitted over HTTP, of pictures large enough
and a server slow enough for each stage to be met. For every pair of a stage (fetching, decoding, scoring, and judging,
which drawing and writing down belong to) and a process (that scan's worker, its horse, the engine, Redis, the API), in
turn: wait until a scan is in that stage, SIGKILL that process, and measure how long until the scan is taken up again or
has ended. Prints the table and the history; exits with 1 unless each accepted scan ended in exactly one terminal
outcome.
"""

import asyncio
import contextlib
import io
import itertools
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from pathlib import Path

import aiohttp
import numpy as np
import redis.asyncio
from crew import children
from origin import ALLOWED, Origin
from PIL import Image
from redis.exceptions import RedisError

from scanner.service.embedded import socket_url
from scanner.service.ledger import LEASES, ROW

PORT = 8217
START_S, END_S, MEET_S = 240, 600, 60
STAGES = ("fetch", "decode", "score", "judge")
KINDS = ("horse", "worker", "engine", "redis", "api")
PIECES, PAUSE_S = 5, 0.1  # how the origin sends a picture
SIDES_PX = (3_000, 2_250)
PICTURES = 8


def kinds(supervisor):
    """Every process of the service by what it is."""
    found = defaultdict(list)
    for pid in children(supervisor):
        words = b" ".join(Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0"))
        name = next((word for word in (b"redis", b"engine", b"worker", b"api") if word in words), None)
        if name and b"scanner.service.leash" not in words:
            found[name.decode()].append(pid)
    return found


def pictures():
    """Photographs of noise that take a while to decode, each another."""
    rng = np.random.default_rng(0)
    for _ in range(PICTURES):
        small = rng.integers(0, 256, (SIDES_PX[1] // 5, SIDES_PX[0] // 5, 3), np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(small).resize(SIDES_PX, Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=80)
        yield buffer.getvalue()


def slowly(body):
    async def answer(writer, _headers):
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body))
        step = len(body) // PIECES + 1
        for at in range(0, len(body), step):
            writer.write(body[at : at + step])
            await writer.drain()
            await asyncio.sleep(PAUSE_S)

    return answer


async def asked(session, method, path, **options):
    """Status and body; asks again while nobody answers."""
    while True:
        with contextlib.suppress(aiohttp.ClientError, TimeoutError):
            async with session.request(method, path, **options) as response:
                if response.status in {200, 202, 404}:
                    return response.status, await response.json()
        await asyncio.sleep(0.3)


async def submit(session, url):
    """The id of an accepted scan; `rescan` keeps the memory from answering for a picture that was seen."""
    body = {"url": url, "rescan": True}
    _, scan = await asked(session, "POST", "/v1/scans", json=body, headers={"Idempotency-Key": url})
    return scan["id"]


async def row_of(session, id_):
    status, row = await asked(session, "GET", f"/v1/scans/{id_}")
    return row if status == 200 else None


async def met(client, stage):
    """A running scan in this stage: its id, attempt and worker's pid; null when none comes by in time."""
    end = time.monotonic() + MEET_S
    while time.monotonic() < end:
        with contextlib.suppress(RedisError, OSError):
            for id_ in await client.zrange(LEASES, 0, -1):
                now, attempt, owner = await client.hmget(ROW + id_.decode(), "stage", "attempt", "owner")
                if now == stage.encode() and owner:
                    return id_.decode(), int(attempt), int(owner.decode().rsplit("-", 2)[1])
        await asyncio.sleep(0.005)
    return None


async def recovered(client, id_, attempt):
    """Return when the scan runs in a later attempt, or has ended."""
    while True:
        with contextlib.suppress(RedisError, OSError):
            state, now = await client.hmget(ROW + id_, "state", "attempt")
            if state not in {b"queued", b"running"} or (state == b"running" and int(now) > attempt):
                return
        await asyncio.sleep(0.02)


async def torment(supervisor, client, kills, table):
    """`kills` kills, stage by stage and process by process; `table` gets the seconds of each."""
    for stage, kind in itertools.islice(itertools.cycle(itertools.product(STAGES, KINDS)), kills):
        found = await met(client, stage)
        if found is None:
            continue
        id_, attempt, worker = found
        victims = {"worker": [worker], "horse": children(worker)}.get(kind) or kinds(supervisor)[kind]
        if victims:
            with contextlib.suppress(ProcessLookupError):
                os.kill(victims[0], signal.SIGKILL)
            begun = time.monotonic()
            await recovered(client, id_, attempt)
            table[stage, kind].append(time.monotonic() - begun)


def main(scans, kills):
    """Start the service, torment it, stop it; out: the exit code."""
    origin = Origin()
    bodies = list(pictures())
    for n in range(scans):
        origin.routes[f"/{n}.jpg"] = slowly(bodies[n % PICTURES])
    with tempfile.TemporaryDirectory(prefix="laescan-kills-") as folder:
        environ = {
            **os.environ,
            "LAESCAN_STATE": f"{folder}/s",
            "LAESCAN_ALLOW_NETWORKS": ",".join(ALLOWED),
            "LAESCAN_SUBMITS_PER_MIN": "100000",
            "LAESCAN_LOOKUPS_PER_MIN": "100000",
        }
        command = [sys.executable, "-m", "scanner.cli", "serve", "--port", str(PORT), "--workers", "2"]
        with Path(f"{folder}/log").open("wb") as log:
            service = subprocess.Popen(command, env=environ, stdout=log, stderr=log)
        try:
            return asyncio.run(run(service.pid, socket_url(Path(folder) / "s" / "redis"), origin, scans, kills))
        finally:
            service.send_signal(signal.SIGINT)
            service.wait(90)
            origin.close()
            print(Path(f"{folder}/log").read_text()[-4000:] if "-v" in sys.argv else "")


async def run(supervisor, redis_url, origin, scans, kills):
    table = defaultdict(list)
    timeout = aiohttp.ClientTimeout(total=10)
    async with (
        aiohttp.ClientSession(f"http://127.0.0.1:{PORT}", timeout=timeout) as session,
        redis.asyncio.Redis.from_url(redis_url) as client,
    ):
        async with asyncio.timeout(START_S):
            await submit(session, origin.url("/0.jpg"))
        tormenting = asyncio.create_task(torment(supervisor, client, kills, table))
        begun = time.monotonic()
        ids = [await submit(session, origin.url(f"/{n}.jpg")) for n in range(scans)]
        print(f"{scans} scans accepted in {time.monotonic() - begun:.0f} s", flush=True)
        states = await settle(session, ids)
        tormenting.cancel()
        print(f"all settled after {time.monotonic() - begun:.0f} s", flush=True)
        again = [await row_of(session, id_) for id_ in ids]
    show(table)
    stable = [row and row["state"] for row in again] == states
    attempts = Counter(row["attempt"] for row in again if row)
    codes = Counter(code_of(row) for row in again if row)
    print(
        f"states {dict(Counter(states))}, outcomes {dict(codes)}, attempts {dict(attempts)}, unchanged later: {stable}"
    )
    lost = sum(state not in {"done", "failed", "cancelled"} for state in states)
    print(f"lost: {lost} of {len(set(ids))}")
    return int(bool(lost) or not stable)


def code_of(row):
    outcome = row["outcome"]
    return (outcome.get("failure") or {}).get("code", "verdict") if outcome else "none yet"


def show(table):
    """Seconds until the scan that was hit was taken up again, or had ended."""
    print("hit in     " + "".join(f"{kind:>16}" for kind in KINDS) + "    (kills: median, longest seconds)")
    for stage in STAGES:
        cells = [table[stage, kind] for kind in KINDS]
        shown = [f"{len(s)}: {statistics.median(s):.1f}, {max(s):.1f}" if s else "-" for s in cells]
        print(f"{stage:11}" + "".join(f"{text:>16}" for text in shown))
    every = [seconds for cell in table.values() for seconds in cell]
    if every:
        print(f"{len(every)} kills of a running scan's processes; longest until taken up again {max(every):.1f} s")


async def settle(session, ids):
    """The state of each scan once all are terminal, or after END_S."""
    states = {}
    end = time.monotonic() + END_S
    while len(states) < len(set(ids)) and time.monotonic() < end:
        for id_ in set(ids) - set(states):
            row = await row_of(session, id_)
            if row is None or row["outcome"]:
                states[id_] = row["state"] if row else "forgotten"
        await asyncio.sleep(1)
    return [states.get(id_, "open") for id_ in ids]


if __name__ == "__main__":
    numbers = [int(word) for word in sys.argv[1:] if word != "-v"]
    sys.exit(main(*(numbers + [200, 40][len(numbers) :])[:2]))
