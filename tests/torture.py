"""Torment the whole service and count what breaks: `python tests/torture.py [--only ROW,...] [--write FILE]`.

In: nothing but this machine. Out: a table, row by row: what was done, how often, what broke, how long it took; exit
code 1 when anything broke. `--write SECURITY.md` puts the table between its markers, with date, commit and command.
`make torture` runs it. The rows of media, addresses and parsers are tests and fuzzers of their own, called from here.
"""

import argparse
import asyncio
import contextlib
import datetime as dt
import hashlib
import os
import platform
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from chaos import VERDICT, Rig, Source
from models import random_checkpoint
from origin import video

from api.tokens import Scope, Tokens
from scanner.cache.verdicts import PREFIX
from scanner.contract import ScanRequest
from scanner.service.embedded import socket_url
from scanner.service.lease import accept

HERE = Path(__file__).parent
KINDS = ("horse", "worker", "engine", "api", "redis")
BEGIN, END = "<!-- torture -->", "<!-- /torture -->"
MOST_GROWTH = 1.05
LONGEST_PROGRAM_S = 600


class Torment:
    """What the rows share: the service under torment, and how much of everything."""

    def __init__(self, rig, scale):
        self.rig, self.scale = rig, scale

    def some(self, count):
        return max(4, round(count * self.scale))

    async def under(self, work, *, count=60, also=(), sources=None):
        """Do some harm while scans are accepted and made; out: cases, flaws."""
        chosen = self.rig.sources.good(self.some(count)) if sources is None else sources
        loading = asyncio.create_task(self.rig.load(chosen))
        await work
        ids = await loading
        return len(ids), await self.rig.flaws(ids, also=also)


# ---------------------------------------------------------------- rows: each answers cases, flaws, a remark


async def steady(torment):
    """Nothing is done to it: the memory of API and workers must stay flat."""
    rig = torment.rig
    first = await rig.load(rig.sources.good(torment.some(250)))
    flaws = await rig.flaws(first)
    before = rig.memory()
    second = await rig.load(rig.sources.good(torment.some(450)))
    flaws += await rig.flaws(second)
    after = rig.memory()
    growth = {pid: after.get(pid, 0) / size for pid, size in before.items()}
    flaws += [f"process {pid} grew to {share:.2f}" for pid, share in growth.items() if not 0 < share <= MOST_GROWTH]
    return len(first) + len(second), flaws, f"memory at most x {max(growth.values()):.3f}"


def signalled(kind, number, *, times=6, pause_s=(0.1, 1.2), count=80):
    """Send a signal to a process of a kind, again and again."""

    async def row(torment):
        async def work():
            for _ in range(torment.some(times)):
                await asyncio.sleep(random.uniform(*pause_s))
                torment.rig.signal(kind, number)

        cases, flaws = await torment.under(work(), count=count, also={"poisoned"} if kind == "horse" else ())
        return cases, flaws, ""

    return row


async def killed_while_idle(torment):
    """Nobody asks anything: whatever dies is back before somebody does."""
    rig = torment.rig
    for kind in KINDS:
        rig.signal(kind, signal.SIGKILL)
    ids = await rig.load(rig.sources.good(1))
    flaws = await rig.flaws(ids)
    for kind in ("horse", "horse"):
        rig.signal(kind, signal.SIGKILL)
    if not await rig.until(lambda: rig.census() == rig.whole and not rig.zombies(), 60):
        flaws.append(f"not all are back although nobody asks: {rig.census()}, {len(rig.zombies())} zombies")
    return 1 + len(KINDS), flaws, ""


def stopped_for_a_while(kind):
    async def row(torment):
        async def work():
            for _ in range(3):
                await asyncio.sleep(random.uniform(0.1, 1))
                pid = torment.rig.signal(kind, signal.SIGSTOP)
                await asyncio.sleep(random.uniform(0.5, 4))
                if pid:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGCONT)

        return *await torment.under(work(), count=40), ""

    return row


def stopped_for_good(kind):
    """Nobody wakes it up: it must be replaced, and nothing may wait for it beyond its deadline."""

    async def row(torment):
        rig, begun_s = torment.rig, time.monotonic()

        async def work():
            await asyncio.sleep(0.3)
            pid = rig.signal(kind, signal.SIGSTOP)
            await rig.until(lambda: pid not in rig.processes().get(kind, [pid]))

        cases, flaws = await torment.under(work(), count=20)
        return cases, flaws, f"all well again after {time.monotonic() - begun_s:.0f} s"

    return row


async def redis_slow(torment):
    """CLIENT PAUSE: it answers nobody for 2.5 s."""

    async def work():
        for _ in range(4):
            await asyncio.sleep(random.uniform(0.5, 1.5))
            await asyncio.to_thread(torment.rig.redis.execute_command, "CLIENT", "PAUSE", 2500, "ALL")
            await asyncio.sleep(2.5)

    return *await torment.under(work()), ""


async def redis_full(torment):
    """Maxmemory below what it has: it refuses whatever would take more."""
    client = torment.rig.redis

    async def work():
        await asyncio.sleep(0.5)
        client.config_set("maxmemory", client.info("memory")["used_memory"] + 20_000)
        await asyncio.sleep(5)
        client.config_set("maxmemory", 0)

    return *await torment.under(work()), ""


async def redis_read_only(torment):
    """As after a failover: it answers reads and refuses writes."""
    client = torment.rig.redis

    async def work():
        await asyncio.sleep(0.5)
        client.execute_command("REPLICAOF", "127.0.0.1", "1")
        await asyncio.sleep(4)
        client.execute_command("REPLICAOF", "NO", "ONE")

    return *await torment.under(work()), ""


async def clock(torment):
    """Leases as they look after Redis's clock was set an hour ahead, and an hour back."""
    client = torment.rig.redis

    async def work():
        for hours in (-1, 1, -1, 1):
            await asyncio.sleep(1)
            for id_, score in client.zrange("laescan:leases", 0, -1, withscores=True):
                client.zadd("laescan:leases", {id_: score + hours * 3_600_000}, xx=True)

    return *await torment.under(work(), also={"poisoned"}), ""


async def bad_sources(torment):
    """Slow, broken, hostile, gone and unnamed sources, and video pages, beside good ones."""
    rig = torment.rig
    clip = video()
    rig.sources.answer("/clip.mp4", clip, Content_Type="video/mp4")
    inside = b"<!doctype html><html><body><video src='http://127.0.0.1:9/x.mp4'></video></body></html>"
    through = rig.sources.answer("/inside", inside, Content_Type="text/html")
    no_name = Source("http://nowhere.invalid/a.jpg", {"unreachable", "timed_out"})
    sources = [rig.sources.slow() for _ in range(torment.some(10))]
    page = rig.sources.answer("/watch", b"<!doctype html><video src='/clip.mp4'></video>", Content_Type="text/html")
    watched = Source(page, {VERDICT}, hashlib.sha256(clip).hexdigest())
    sources += [no_name, watched, Source(through, {"blocked_address", "no_media"})]
    for _ in range(torment.some(4)):
        sources += rig.sources.bad() + rig.sources.good(3)
    random.shuffle(sources)
    return *await torment.under(asyncio.sleep(0), sources=sources), ""


def address_space(pid):
    return int(Path(f"/proc/{pid}/statm").read_text().split()[0]) * resource.getpagesize()


async def engine_without_memory(torment):
    """Its address space ends where it is: nothing more can be allocated, for some seconds."""
    rig = torment.rig

    async def work():
        for _ in range(3):
            await asyncio.sleep(1)
            for pid in rig.processes().get("engine", []):
                with contextlib.suppress(OSError):
                    _, hard = resource.prlimit(pid, resource.RLIMIT_AS)
                    resource.prlimit(pid, resource.RLIMIT_AS, (address_space(pid) + 1_000_000, hard))
                    await asyncio.sleep(2)
                    resource.prlimit(pid, resource.RLIMIT_AS, (hard, hard))

    return *await torment.under(work(), also={"out_of_memory"}), ""


async def torn_checkpoint(torment):
    """An engine that is started again finds half a checkpoint; then the whole one is back."""
    rig = torment.rig
    whole = rig.weights.read_bytes()

    async def work():
        await asyncio.sleep(0.5)
        rig.weights.write_bytes(whole[: len(whole) // 2])
        rig.signal("engine", signal.SIGKILL)
        await asyncio.sleep(6)
        rig.weights.write_bytes(whole)

    return *await torment.under(work(), count=40), ""


async def other_model(torment):
    """The engine comes back with another model, under workers and an API that know the old one; a row of tomorrow."""
    rig = torment.rig
    asked = rig.sources.good(4)
    flaws = await rig.flaws(await rig.load(asked))
    old = (await rig.ask_again(asked[0]))["model"]["model_id"]
    made = await asyncio.to_thread(random_checkpoint, rig.folder)

    async def work():
        await asyncio.sleep(0.5)
        made.rename(rig.weights)
        rig.signal("engine", signal.SIGKILL)

    cases, more = await torment.under(work(), count=40)
    known = [await rig.ask_again(source) for source in asked]
    if any(verdict is not None and verdict["model"]["model_id"] == old for verdict in known):
        flaws.append("the old model's verdict was served")
    id_, _ = accept(rig.redis, ScanRequest(source_url=f"http://127.0.0.5/{time.time()}", tenant="local"))
    rig.accepted[id_] = Source("a request of a newer API", {"poisoned"})
    rig.redis.hset(f"laescan:scan:{id_}", "request", b'{"hologram": 1}')
    return (
        cases + 5,
        flaws + more + await rig.flaws(list(rig.accepted)[-5:]),
        "a request that nobody can read ends as poisoned",
    )


async def damaged_memory(torment):
    """Remembered verdicts are overwritten with noise, cut, or with one another; all are asked for again."""
    rig, client = torment.rig, torment.rig.redis
    sources = rig.sources.good(torment.some(60))
    flaws = await rig.flaws(await rig.load(sources))
    keys = [
        key
        for key in client.scan_iter(f"{PREFIX}*", count=1000)
        if client.type(key) == b"string" and key != f"{PREFIX}model".encode()
    ]
    values = {key: value for key in keys if (value := client.get(key)) is not None}  # some last for a minute only
    for key in random.sample(list(values), len(values) // 3):
        value = values[key]
        damaged = random.choice([os.urandom(40), value[: len(value) // 2], random.choice(list(values.values())), b""])
        client.set(key, damaged, keepttl=True)
    before, served = set(rig.accepted), 0
    for source in sources:
        verdict = await rig.ask_again(source)
        served += verdict is not None
        if verdict is not None and verdict["media"]["sha256"] != source.sha256:
            flaws.append("another picture's verdict was served")
    anew = [id_ for id_ in rig.accepted if id_ not in before]
    return 2 * len(sources), flaws + await rig.flaws(anew), f"{served} still remembered, {len(anew)} scanned anew"


async def everything(torment):
    """Good, bad and slow sources while any process may be killed, stopped or told to end at any moment."""
    rig = torment.rig
    sources = rig.sources.good(torment.some(250)) + rig.sources.bad() * 1 + [rig.sources.slow() for _ in range(5)]
    random.shuffle(sources)

    async def work():
        for _ in range(torment.some(24)):
            await asyncio.sleep(random.uniform(0.3, 2))
            rig.signal(random.choice(KINDS), random.choice((signal.SIGKILL, signal.SIGKILL, signal.SIGTERM)))

    return *await torment.under(work(), sources=sources, also={"poisoned"}), ""


async def leftovers(torment):
    """Nothing of all this is left on disk, and all that was accepted has ended once."""
    left = await torment.rig.leftovers()
    return len(torment.rig.accepted), [f"left on disk: {left}"] if left else [], f"{dict(torment.rig.codes())}"


ROWS = {
    "steady load": steady,
    **{f"SIGKILL {kind}": signalled(kind, signal.SIGKILL) for kind in KINDS},
    **{f"SIGTERM {kind}": signalled(kind, signal.SIGTERM, times=3, count=40) for kind in ("worker", "engine", "api")},
    **{f"SIGSTOP, SIGCONT {kind}": stopped_for_a_while(kind) for kind in KINDS},
    **{f"SIGSTOP for good {kind}": stopped_for_good(kind) for kind in KINDS},
    "SIGKILL while idle": killed_while_idle,
    "Redis slow": redis_slow,
    "Redis full": redis_full,
    "Redis read-only": redis_read_only,
    "clock set by an hour": clock,
    "slow, hostile, unnamed sources": bad_sources,
    "engine out of memory": engine_without_memory,
    "torn checkpoint": torn_checkpoint,
    "damaged cache entries": damaged_memory,
    "another model, another API": other_model,
    "everything at once": everything,
    "leftovers": leftovers,
}


# ---------------------------------------------------------------- rows with a service of their own


async def disk_full(torment):
    """The folder of temporary files, then that of Redis, has no room left: two small file systems of their own."""
    rig = torment.rig
    done, flaws = 0, []
    for place in (rig.scratch, rig.state / "redis"):

        async def work(place=place):
            await asyncio.sleep(0.3)
            filler = rig.inside(place) / "filler"
            with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
                while True:
                    file.write(b"\0" * 65_536)
            await asyncio.sleep(4)
            filler.unlink()

        cases, more = await torment.under(work(), count=30, also={"no_room"})
        done, flaws = done + cases, flaws + more
    return done, flaws, f"{rig.codes()['no_room']} ended as no_room"


async def overload(torment):
    """One client of five asks ten times as much as it may; the others must not be refused."""
    rig = torment.rig
    tokens = Tokens(_async_client(rig))
    headers = []
    for number in range(5):
        text, _ = await tokens.create(Scope.named("submit"), tenant=f"tenant{number}")
        headers.append({"Authorization": f"Bearer {text}"})
    refused, waits = [0] * 5, [[] for _ in range(5)]

    async def client(number, count, pause_s):
        for source in rig.sources.good(count):
            begun_s = time.monotonic()
            async with rig.http.post("/v1/scans", json={"url": source.url}, headers=headers[number]) as answer:
                if answer.status == 202:
                    rig.accepted[(await answer.json())["id"]] = source
                    waits[number].append(time.monotonic() - begun_s)
                else:
                    refused[number] += 1
            await asyncio.sleep(pause_s)

    before = set(rig.accepted)
    await asyncio.gather(client(0, torment.some(300), 0.03), *(client(n, torment.some(30), 0.3) for n in range(1, 5)))
    ids = [id_ for id_ in rig.accepted if id_ not in before]
    flaws = await rig.flaws(ids)
    if any(refused[1:]):
        flaws.append(f"a client that asked little was refused: {refused}")
    others = sorted(wait for one in waits[1:] for wait in one)
    remark = f"{refused[0]} of the one's refused (429); the others' p95 {1000 * others[len(others) * 95 // 100]:.0f} ms"
    return len(ids), flaws, remark


def _async_client(rig):
    from redis.asyncio import Redis  # noqa: PLC0415 - of this row only

    return Redis.from_url(socket_url(rig.state / "redis"))


APART = {  # name: (row, settings, launcher)
    "disk full": (disk_full, {}, True),
    "one of five clients asks tenfold": (overload, {"submits_per_min": 60}, False),
}


# ---------------------------------------------------------------- rows that are tests and fuzzers

TESTS = {
    "T15 a hostile decoder": ["test_escapes.py"],
    "T6, T7, T9, T15 a hostile page": ["test_page_walls.py", "test_page_hostile.py", "test_page.py", "test_gateway.py"],
    "T1-T5, T10, T17 fetching": ["test_egress.py", "test_proxy.py", "test_fetch.py"],
    "T8, T11-T16, F18 hostile media": ["test_hostile.py", "test_jail.py", "test_limits.py"],
    "T19-T22, T29 the API's door": ["test_api_access.py", "test_api_schema.py"],
    "T23 the memory of verdicts": ["test_cache.py", "test_near.py", "test_recall.py"],
    "T25, F1-F3, F22, F23 the queue": ["test_worker.py", "test_ledger.py", "test_pulse.py", "test_supervisor.py"],
    "F15-F17, F25 the engine": ["test_engine.py", "test_engine_client.py", "test_seer.py"],
}


def tested(files):
    """Run test files that are there; out: cases, flaws, a remark."""
    there = [str(HERE / name) for name in files if (HERE / name).exists()]
    if not there:
        return 0, [], "not there"
    done = run_in_time(["-m", "pytest", "-q", "-p", "no:cacheprovider", *there])
    counts = {what: int(number) for number, what in re.findall(r"(\d+) (passed|failed|error)", done.stdout)}
    flaws = re.findall(r"^(?:FAILED|ERROR) .*$", done.stdout, re.MULTILINE)
    if done.returncode and not flaws:
        flaws = [(done.stdout + done.stderr)[-500:]]
    return sum(counts.values()), flaws, " ".join(Path(path).name for path in there)


PROGRAMS = {
    "T1-T7 addresses by every door": ["canaries.py"],
    "T24 markers in 1,000 URLs": ["markers.py", "--count", "1000"],
    "T13 flipped bits, whole pipeline": ["bitflips.py", "--count", "500"],
    "parsers, fuzzed": ["fuzzing.py", "--seconds", "4"],
}


def reported(command):
    """Run a program that ends each line of its report with `, cases, failures`; out: cases, flaws, a remark."""
    done = run_in_time([str(HERE / command[0]), *command[1:]])
    found = re.findall(r"^([\w ]+), (\d+), (\d+)$", done.stdout, re.MULTILINE)
    lines = [line for line in found if line[0] == Path(command[0]).stem] or found  # a sum, where there is one
    flaws = [f"{name}: {failures}" for name, _, failures in lines if int(failures)]
    if (done.returncode or not lines) and not flaws:
        flaws = [(done.stdout + done.stderr)[-500:]]
    return sum(int(cases) for _, cases, _ in lines), flaws, f"`python tests/{' '.join(command)}`"


def run_in_time(command):
    """A program of Python's, or what it said until its time was up."""
    command = [sys.executable, *command]
    try:
        return subprocess.run(
            command, cwd=HERE.parent, capture_output=True, text=True, check=False, timeout=LONGEST_PROGRAM_S
        )
    except subprocess.TimeoutExpired as error:
        said = (error.stdout or b"").decode(errors="replace")
        return subprocess.CompletedProcess(command, 124, said, f"not done after {LONGEST_PROGRAM_S} s")


# ---------------------------------------------------------------- the table


def say(line):
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


class Table:
    """Rows as they come, printed at once."""

    def __init__(self):
        self.rows = []

    def add(self, name, cases, flaws, seconds, remark):
        self.rows.append((name, cases, len(flaws), seconds, remark))
        say(f"{name:<36} {cases:>7} cases {len(flaws):>3} failures {seconds:>6.0f} s  {remark}")
        for flaw in flaws[:5]:
            say(f"    {flaw}")

    def markdown(self, command):
        commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
        day = dt.datetime.now(dt.UTC).date()
        where = (
            f"{day}, commit {commit.stdout.strip() or 'unknown'}, `{command}`, {os.cpu_count()} processors, "
            f"Python {platform.python_version()}, Linux {platform.release()}."
        )
        cases, took = (sum(row[at] for row in self.rows) for at in (1, 3))
        sums = f"| **all** | {cases:,} | {self.failures} | {took:.0f} | |"
        rows = (
            f"| {name} | {cases:,} | {bad} | {took:.0f} | {remark} |" for name, cases, bad, took, remark in self.rows
        )
        return "\n".join([where, "", "| row | cases | failures | seconds | |", "|---|--:|--:|--:|---|", *rows, sums])

    def write(self, place, command):
        """Put it between the marks in a file."""
        text = place.read_text(encoding="utf-8")
        head, tail = text.partition(BEGIN)[0], text.partition(END)[2]
        place.write_text(f"{head}{BEGIN}\n{self.markdown(command)}\n{END}{tail}", encoding="utf-8")

    @property
    def failures(self):
        return sum(row[2] for row in self.rows)


async def row_of(table, name, row, torment):
    begun_s = time.monotonic()
    try:
        cases, flaws, remark = await row(torment)
    except (AssertionError, OSError, LookupError, TypeError, ValueError) as error:
        cases, flaws, remark = 0, [f"the row itself failed: {error!r}"], ""
    table.add(name, cases, flaws, time.monotonic() - begun_s, remark)


async def tormented(table, wanted, scale, folder, program=("-m", "scanner.cli")):
    """Run the rows of the service; out: nothing, `table` has it."""
    chosen = {name: row for name, row in ROWS.items() if wanted(name)}
    if chosen:
        weights = folder / "weights.safetensors"
        shutil.copy(HERE.parent / "scanner" / "weights" / "face.safetensors", weights)
        async with Rig(folder / "a", weights=weights, program=program) as rig:
            rig.weights = weights
            for name, row in chosen.items():
                await row_of(table, name, row, Torment(rig, scale))
    for number, (name, (row, settings, is_small)) in enumerate(APART.items()):
        if wanted(name):
            small = (sys.executable, str(HERE / "small_disks.py"), str(folder / f"b{number}")) if is_small else ()
            async with Rig(folder / f"b{number}", launcher=small, program=program, **settings) as rig:
                await row_of(table, name, row, Torment(rig, scale))


def main():
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--only", default="", help="parts of the names of rows, with commas")
    asked.add_argument("--scale", type=float, default=1.0, help="of how much of everything")
    asked.add_argument("--write", type=Path, help="the file whose table is to be replaced")
    given = asked.parse_args()
    parts = [part.strip().lower() for part in given.only.split(",") if part.strip()]

    def wanted(name):
        return not parts or any(part in name.lower() for part in parts)

    table = Table()
    with tempfile.TemporaryDirectory(prefix="laescan-torture-") as folder:
        asyncio.run(tormented(table, wanted, given.scale, Path(folder)))
    others = {
        **{name: lambda files=files: tested(files) for name, files in TESTS.items()},
        **{name: lambda command=command: reported(command) for name, command in PROGRAMS.items()},
    }
    for name, run in others.items():
        if wanted(name):
            begun_s = time.monotonic()
            cases, flaws, remark = run()
            table.add(name, cases, flaws, time.monotonic() - begun_s, remark)
    say(f"{sum(row[1] for row in table.rows):,} cases, {table.failures} failures")
    if given.write:
        table.write(given.write, "make torture")
    return int(table.failures > 0)


if __name__ == "__main__":
    sys.exit(main())
