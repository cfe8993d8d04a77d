"""The jail holds: a decoder that is broken into reaches nothing, harms nobody, and the next job works."""

import asyncio
import gc
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import jail_tasks
import msgspec
import numpy as np
import pytest

from scanner.decoding import fork_server, isolation, jail, jailer
from scanner.decoding.jail import Jail
from scanner.decoding.jail_report import JailReport
from scanner.errors import DecoderFailed, Internal, NoJail, TooManyPixels
from scanner.settings import Settings
from scanner.walls import seccomp

TASKS = {
    name: f"jail_tasks:{name}"
    for name, value in vars(jail_tasks).items()
    if callable(value) and getattr(value, "__annotations__", {}).get("payload")
}
ROOMY = {"timeout_s": 20.0, "memory_bytes": 1_000_000_000}


@pytest.fixture(scope="module")
def prison():
    with Jail(Settings(max_decoded_bytes=50_000_000), tasks=TASKS) as held:
        yield held


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "input"
    path.write_bytes(b"bytes of a stranger" * 1000)
    with path.open("rb") as file:
        yield file


def works(prison, source):
    answer, payload = prison.run("echo", source.fileno(), {"mark": 7}, **ROOMY)
    return answer == {"size": 19_000, "mark": 7} and bytes(payload[:19]) == b"bytes of a stranger"


def open_descriptors():
    gc.collect()
    return len(list(Path("/proc/self/fd").iterdir()))


def children():
    return {int(pid) for task in Path("/proc/self/task").iterdir() for pid in (task / "children").read_text().split()}


def processes_below(pid):
    """Every process below `pid`, zombies too."""
    found = set()
    todo = [pid]
    while todo:
        try:
            tasks = list(Path(f"/proc/{todo.pop()}/task").iterdir())
            below = {int(child) for task in tasks for child in (task / "children").read_text().split()}
        except (FileNotFoundError, ProcessLookupError):
            continue
        found |= below
        todo.extend(below)
    return found


def is_alive(process):
    try:
        return "State:\tZ" not in (process / "status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_bytes_go_in_and_an_answer_and_a_payload_come_out(prison, source):
    source.seek(0)
    answer, payload = prison.run("echo", source.fileno(), {"mark": [1, "two", None]}, **ROOMY)
    assert answer == {"size": 19_000, "mark": [1, "two", None]}
    assert bytes(payload) == b"bytes of a stranger" * 1000


def test_the_payload_is_memory_that_arrays_may_write_to(prison, source):
    source.seek(0)
    _, payload = prison.run("echo", source.fileno(), {}, **ROOMY)
    pixels = np.frombuffer(payload, np.uint8)
    del payload
    pixels[:5] = 0  # torch warns about arrays that are not writable
    assert bytes(pixels[:8]) == b"\0\0\0\0\0 of"


@pytest.mark.parametrize("brought", [True, False])
def test_payloads_are_the_same_with_and_without_a_folder_of_huge_pages(source, brought):
    with Jail(Settings(), tasks=TASKS) as prison:
        if not brought:
            prison._servers[prison._home] = replace(prison._server, folder=None)
        assert works(prison, source)
        if folder := prison._server.folder:
            assert not list(
                Path(f"/proc/self/fd/{folder}").iterdir()
            )  # files there have no names, and are gone with their descriptors


def test_a_folder_of_huge_pages_is_made_or_done_without(monkeypatch):
    before = open_descriptors()
    monkeypatch.setattr(isolation, "_FSCONFIG", -1)  # a kernel that knows no such option
    assert isolation.huge_folder() is None
    monkeypatch.setattr(isolation, "_FSOPEN", -1)  # one that knows no such call, or does not let us
    assert isolation.huge_folder() is None
    assert open_descriptors() == before


def test_no_payload_is_an_empty_view(prison, source):
    source.seek(0, os.SEEK_END)
    assert len(prison.run("echo", source.fileno(), {}, **ROOMY)[1]) == 0


def test_a_scan_error_crosses_as_its_class_and_words(prison, source):
    with pytest.raises(TooManyPixels, match="a wall of pixels"):
        prison.run("refuse", source.fileno(), {"words": "a wall of pixels"}, **ROOMY)


def test_a_bug_in_a_task_is_a_failure_of_the_decoder_with_its_name(prison, source, caplog):
    with pytest.raises(DecoderFailed, match="KeyError"):
        prison.run("stumble", source.fileno(), {}, **ROOMY)
    assert "in stumble" in caplog.text  # the trace is in the log


def test_only_listed_tasks_run(prison, source):
    with pytest.raises(Internal, match="not a task"):
        prison.run("system", source.fileno(), {}, **ROOMY)
    with Jail(Settings(), tasks={}) as bare, pytest.raises(Internal):
        bare.run("echo", source.fileno(), {}, **ROOMY)


def test_a_broken_into_decoder_reaches_nothing(prison, source, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as canary, socket.socket(socket.AF_UNIX) as abstract:
        abstract.bind("\0laescan-test")
        abstract.listen()
        options = {
            "pid": os.getpid(),
            "port": canary.getsockname()[1],
            "path": "/etc/passwd",
            "folder": str(tmp_path),
        }
        found, _ = prison.run("snoop", source.fileno(), options, **ROOMY)
        for listener in (canary, abstract):
            listener.settimeout(0)
            with pytest.raises(BlockingIOError):
                listener.accept()
    assert {name: outcome for name, outcome in found["tries"].items() if outcome == "through"} == {}
    assert found["environment"] == {}
    assert found["descriptors"] == [0, 1, 2, 3, 4, 5]
    assert found["user"] != 0
    assert [path.name for path in tmp_path.iterdir()] == ["input"]
    assert source.seek(0) == 0
    assert works(prison, source)


@pytest.mark.parametrize(
    ("task", "limits", "words"),
    [
        ("allocate", {}, "more memory"),
        ("nibble", {"memory_bytes": 600_000_000}, "more memory"),
        ("sleep", {"timeout_s": 0.3}, "longer than 0.3 s"),
        ("spin", {"timeout_s": 0.3}, "longer than 0.3 s"),
        ("crash", {}, "SIGSEGV"),
        ("flood", {}, "File too large"),
        ("vanish", {}, "no answer"),
        ("scribble", {}, "no answer"),
    ],
)
def test_what_a_decoder_does_to_itself_ends_its_job_only(prison, source, task, limits, words):
    with pytest.raises(DecoderFailed, match=words):
        prison.run(task, source.fileno(), {}, **(ROOMY | limits))
    source.seek(0)
    assert works(prison, source)


def test_a_thread_bomb_meets_the_limits(prison, source):
    found, _ = prison.run("threads", source.fileno(), {}, **ROOMY)
    assert found["outcome"] == "RuntimeError"
    assert 4 <= found["started"] <= 256  # a decoder's own few must work
    source.seek(0)
    assert works(prison, source)


def test_cpu_time_is_limited_where_the_wall_clock_is_not_reached():
    message = "used more than 5 s of CPU"
    with pytest.raises(DecoderFailed, match=message):
        jail._judge(jailer.Ended(signal=signal.SIGKILL, cpu_s=5.5), 5.0)


def test_a_child_that_cannot_be_started_is_our_fault_not_the_file_s():
    with pytest.raises(Internal, match="no child"):
        jail._judge(jailer.Ended(fault="no child could be started: [Errno 11]"), 5.0)


def test_jobs_run_side_by_side_from_threads(prison, tmp_path):
    paths = [tmp_path / str(number) for number in range(24)]
    for number, path in enumerate(paths):
        path.write_bytes(bytes([number]) * (number + 1))

    def job(path):
        with path.open("rb") as file:
            answer, payload = prison.run("echo", file.fileno(), {}, **ROOMY)
        return answer["size"], bytes(payload)

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(job, paths))
    assert found == [(number + 1, bytes([number]) * (number + 1)) for number in range(24)]


def test_a_slow_job_does_not_hold_up_the_others(prison, tmp_path):
    async def both():
        with (tmp_path / "a").open("wb+") as one, (tmp_path / "b").open("wb+") as other:
            slow = asyncio.create_task(asyncio.to_thread(prison.run, "sleep", one.fileno(), {}, **ROOMY))
            while not (asleep := processes_below(prison._server.process.pid) - before):  # noqa: ASYNC110
                await asyncio.sleep(0.001)
            await asyncio.to_thread(prison.run, "echo", other.fileno(), {}, **ROOMY)
            assert not slow.done()
            for pid in asleep:
                os.kill(pid, signal.SIGKILL)
            with pytest.raises(DecoderFailed):
                await slow

    before = processes_below(prison._server.process.pid)
    asyncio.run(both())


def test_nothing_is_left_open_or_undead(prison, source):
    source.seek(0)
    assert works(prison, source)
    before = open_descriptors(), children()
    for task, limits in (("crash", {}), ("sleep", {"timeout_s": 0.1}), ("refuse", {}), ("vanish", {}), ("echo", {})):
        try:
            prison.run(task, source.fileno(), {"words": "no"}, **(ROOMY | limits))
        except (DecoderFailed, TooManyPixels):
            continue
    assert (open_descriptors(), children()) == before
    while len(processes_below(prison._server.process.pid)) > 1:  # the last one killed may still be on its way out
        time.sleep(0.001)


def test_a_killed_server_is_replaced_on_the_next_run(source):
    with Jail(Settings(), tasks=TASKS) as held:
        first = held._server.process
        os.kill(first.pid, signal.SIGKILL)
        os.waitid(os.P_PID, first.pid, os.WEXITED | os.WNOWAIT)
        assert works(held, source)
        assert held._server.process.pid != first.pid
    assert not Path(f"/proc/{first.pid}").exists()


def test_a_server_killed_under_a_job_fails_that_job_and_takes_the_child_along(source):
    with Jail(Settings(), tasks=TASKS) as held:
        server = held._server.process.pid
        outcome = []

        def job():
            try:
                held.run("sleep", source.fileno(), {}, **ROOMY)
            except DecoderFailed as error:
                outcome.append(str(error))

        thread = threading.Thread(target=job)
        thread.start()
        while len(below := processes_below(server)) < 2:
            time.sleep(0.001)
        os.kill(server, signal.SIGKILL)
        thread.join()
        assert "server was killed" in outcome[0]
        for pid in below:  # the kernel's death signal
            handle = Path(f"/proc/{pid}")
            while is_alive(handle):
                time.sleep(0.001)
        assert works(held, source)


def test_a_stopped_server_is_given_up_after_the_deadline(source):
    with Jail(Settings(), tasks=TASKS) as held:
        for pid in processes_below(held._server.process.pid):
            os.kill(pid, signal.SIGSTOP)
        with pytest.raises(DecoderFailed, match="longer than"):
            held.run("echo", source.fileno(), {}, timeout_s=0.2, memory_bytes=10**9)
        source.seek(0)
        assert works(held, source)


def test_leaving_the_jail_kills_everything(source):
    before = open_descriptors(), children()
    with Jail(Settings(), tasks=TASKS) as held:
        assert works(held, source)
    assert (open_descriptors(), children()) == before


def test_a_parent_that_dies_takes_its_server_along():
    code = (
        "import os, sys; from scanner.decoding.jail import Jail; from scanner.settings import Settings\n"
        "held = Jail(Settings(), tasks={}).__enter__()\n"
        "print(held._server.process.pid, flush=True); os._exit(0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    server = Path(f"/proc/{int(done.stdout)}")
    while is_alive(server):
        time.sleep(0.001)


def test_a_forked_copy_starts_a_server_of_its_own(prison, source):
    source.seek(0)
    assert works(prison, source)
    server = prison._server.process.pid
    pid = os.fork()
    if pid == 0:
        source.seek(0)
        ok = works(prison, source) and prison._server.process.pid != server
        prison.close()
        os._exit(0 if ok else 1)
    assert os.waitpid(pid, 0)[1] == 0
    source.seek(0)
    assert works(prison, source)
    assert prison._server.process.pid == server


def test_the_server_has_no_torch_one_thread_and_no_environment(prison, source):
    source.seek(0)
    assert works(prison, source)
    server = Path(f"/proc/{prison._server.process.pid}")
    assert "torch" not in (server / "maps").read_text()
    assert len(list((server / "task").iterdir())) == 1
    kept = {line.partition(b"=")[0] for line in (server / "environ").read_bytes().split(b"\0") if line}
    assert kept == {name.encode() for name in fork_server.KEPT_ENVIRONMENT} | {b"PYTHONPATH"}


def test_the_report_says_what_holds_here(prison):
    report = prison.report()
    assert report.ok
    assert report.walls.seccomp
    assert "decoder tried to connect to loopback: stopped" in report.words
    assert len(report.words) == 9


def test_the_report_says_what_does_not_hold():
    report = JailReport(
        isolation.Walls(), network_blocked=False, files_blocked=False, memory_blocked=True, processes_blocked=True
    )
    assert not report.ok
    assert "decoder tried to connect to loopback: GOT THROUGH" in report.words
    assert "limits of memory, CPU and time only" in report.words[-1]


@pytest.fixture
def no_walls(monkeypatch):
    """A machine that forbids namespaces and filters: the fork server is told so before it starts."""
    monkeypatch.setattr(fork_server, "SERVER_MODULE", "open_prison")


def test_without_walls_a_required_jail_refuses(no_walls):
    before = children()
    with pytest.raises(NoJail, match="LAESCAN_REQUIRE_JAIL=false"), Jail(Settings(), tasks=TASKS):
        pass
    assert children() == before


def test_without_walls_limits_still_hold_when_no_jail_is_required(no_walls, source):
    with Jail(Settings(require_jail=False), tasks=TASKS) as held:
        assert not held.report().ok
        assert held.report().memory_blocked
        assert not held.report().network_blocked
        assert works(held, source)
        for task, limits in (("allocate", {}), ("sleep", {"timeout_s": 0.2}), ("crash", {})):
            with pytest.raises(DecoderFailed):
                held.run(task, source.fileno(), {}, **(ROOMY | limits))
        source.seek(0)
        assert works(held, source)


def test_a_server_that_cannot_start_says_why():
    with pytest.raises(NoJail, match="No module named 'nowhere'"), Jail(Settings(), tasks={"x": "nowhere:x"}):
        pass


def test_the_filter_ends_in_a_refusal_on_both_machines():
    for machine in ("x86_64", "aarch64"):
        program = seccomp.filter_program(machine)
        assert program is not None
        assert len(program) % 8 == 0
        assert int.from_bytes(program[-4:], "little") == seccomp._FAIL | 1
    assert seccomp.filter_program("riscv64") is None


def test_call_numbers_are_those_of_the_kernel_headers():
    numbers = Path("/usr/include/asm-generic/unistd.h")
    if numbers.exists():  # where the headers are installed
        words = [line.split() for line in numbers.read_text().splitlines() if line.startswith("#define __NR")]
        known = {
            word[1].removeprefix("__NR3264_").removeprefix("__NR_"): word[2] for word in words if word[-1].isdigit()
        }
        for name, (_, number) in seccomp._ALLOWED.items():
            assert number is None or known.get(name, str(number)) == str(number)


def test_requests_cross_unchanged():
    limits = isolation.Limits(memory_bytes=1, payload_bytes=2, cpu_s=3)
    request = jailer.Request("echo", {"a": [1, 2.5, None, "x"]}, limits)
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(request), type=jailer.Request) == request
