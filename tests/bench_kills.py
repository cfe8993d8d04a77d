"""Kill the service at random while it works, and count what became of what it had accepted.

    python tests/bench_kills.py [SCANS] [SECONDS BETWEEN KILLS] [KILLS]

The whole of `laescan serve` runs: Redis, engine, workers, API. Scans are submitted over HTTP.
Every few seconds one process, any of them, gets SIGKILL. Prints the history; exits with 1 unless each accepted scan
ended in exactly one terminal outcome.
"""

import asyncio
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import aiohttp
from crew import children
from origin import ALLOWED, Origin, jpeg

PORT = 8217
START_S, END_S = 240, 600


def kinds(supervisor):
    """Every process of the service by what it is."""
    found = {}
    for pid in children(supervisor):
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        name = next((word for word in (b"redis", b"engine", b"worker", b"api") if word in b" ".join(words)), None)
        if name and b"scanner.service.leash" not in words:
            found.setdefault(name.decode(), []).append(pid)
        if name == b"worker":
            found.setdefault("horse", []).extend(children(pid))
    return {name: pids for name, pids in found.items() if pids}


async def submit(session, url):
    """The id of an accepted scan; asks again while nobody answers."""
    while True:
        try:
            async with session.post("/v1/scans", json={"url": url}, headers={"Idempotency-Key": url}) as response:
                if response.status in {200, 202}:
                    return (await response.json())["id"]
        except (aiohttp.ClientError, TimeoutError):
            pass
        await asyncio.sleep(0.3)


async def row_of(session, id_):
    while True:
        try:
            async with session.get(f"/v1/scans/{id_}") as response:
                if response.status == 200:
                    return await response.json()
                if response.status == 404:
                    return None
        except (aiohttp.ClientError, TimeoutError):
            pass
        await asyncio.sleep(0.3)


async def kill_at_random(supervisor, every_s, kills, killed):
    while killed.total() < kills:
        await asyncio.sleep(random.uniform(0.5, 1.5) * every_s)
        there = kinds(supervisor)
        if there:
            name = random.choice(sorted(there))
            os.kill(random.choice(there[name]), signal.SIGKILL)
            killed[name] += 1


def main(scans, every_s, kills):
    """Start the service, torment it, stop it; out: the exit code."""
    origin = Origin()
    pictures = [jpeg(64 + n, 48) for n in range(8)]
    for n in range(scans):
        origin.answer(f"/{n}.jpg", pictures[n % 8])
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
            return asyncio.run(torment(service.pid, origin, scans, every_s, kills))
        finally:
            service.send_signal(signal.SIGINT)
            service.wait(90)
            origin.close()
            print(Path(f"{folder}/log").read_text()[-4000:] if "-v" in sys.argv else "")


async def torment(supervisor, origin, scans, every_s, kills):
    killed = Counter()
    timeout = aiohttp.ClientTimeout(total=10)
    async with aiohttp.ClientSession(f"http://127.0.0.1:{PORT}", timeout=timeout) as session:
        async with asyncio.timeout(START_S):
            await submit(session, origin.url("/0.jpg"))
        killing = asyncio.create_task(kill_at_random(supervisor, every_s, kills, killed))
        begun = time.monotonic()
        ids = [await submit(session, origin.url(f"/{n}.jpg")) for n in range(scans)]
        print(f"{scans} scans accepted in {time.monotonic() - begun:.0f} s", flush=True)
        states = await settle(session, ids)
        killing.cancel()
        print(f"all settled after {time.monotonic() - begun:.0f} s; killed: {dict(killed)}", flush=True)
        again = [await row_of(session, id_) for id_ in ids]
    stable = [row and row["state"] for row in again] == states
    attempts = Counter(row["attempt"] for row in again if row)
    codes = Counter((row["outcome"].get("failure") or {}).get("code", "verdict") for row in again if row)
    print(
        f"states {dict(Counter(states))}, outcomes {dict(codes)}, attempts {dict(attempts)}, unchanged later: {stable}"
    )
    lost = sum(state not in {"done", "failed", "cancelled"} for state in states)
    print(f"lost: {lost} of {len(set(ids))}")
    return int(bool(lost) or not stable)


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
    numbers = [float(word) for word in sys.argv[1:] if word != "-v"]
    scans, every_s, kills = (numbers + [200.0, 4.0, 30.0][len(numbers) :])[:3]
    sys.exit(main(int(scans), every_s, int(kills)))
