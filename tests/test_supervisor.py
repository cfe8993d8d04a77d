"""Programs that die are started again, and nothing outlives its supervisor."""

import asyncio
import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from crew import children, is_alive, until

from scanner.service.supervisor import Program, Supervisor

RUN = """
import asyncio, sys, os
from scanner.service import pulse
from scanner.service.supervisor import Program, Supervisor
pulse.STOPPED_S = 0.5
programs = [
    Program(f"p{{n}}", (sys.executable, "-u", "-c", code), os.environ, drain_s=1.0, is_needless=lambda: {needless})
    for n, code in enumerate({codes!r})
]
sys.exit(asyncio.run(Supervisor([[program] for program in programs]).run(lambda: print("started", flush=True))))
"""
SLEEP = "import time\nprint('up')\ntime.sleep(60)"
DEAF = "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nprint('up')\ntime.sleep(60)"


@pytest.fixture
def supervise():
    begun = []

    def start(*codes: str, needless: bool = False) -> subprocess.Popen[str]:
        environ = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
        command = [sys.executable, "-c", RUN.format(codes=codes, needless=needless)]
        process = subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        begun.append(process)
        return process

    yield start
    for process in begun:
        process.kill()
        process.communicate()


def saying(process, words: str) -> str:
    """Read its log up to a line with these words."""
    for line in process.stderr:
        if words in line:
            return line
    msg = f"it never said {words!r}"
    raise AssertionError(msg)


def test_what_dies_is_started_again_and_speaks_under_its_name(supervise) -> None:
    process = supervise(SLEEP)
    assert " p0 " in saying(process, "up")
    (first,) = children(process.pid)
    os.kill(first, signal.SIGKILL)
    saying(process, "up")
    (second,) = children(process.pid)
    assert second != first


def test_a_signal_ends_all_in_order(supervise) -> None:
    tell = f"import signal, sys\nsignal.signal(signal.SIGTERM, lambda *_: sys.exit(print('bye')))\n{SLEEP}"
    process = supervise(tell, tell)
    saying(process, "up")
    saying(process, "up")
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 0
    assert [line.split()[2] for line in said.splitlines() if line.endswith("bye")] == ["p1", "p0"]


def test_who_does_not_listen_is_killed_in_the_end(supervise) -> None:
    process = supervise(DEAF)
    saying(process, "up")
    process.terminate()
    time.sleep(0.2)
    process.terminate()  # twice: at once
    process.communicate(timeout=60)
    assert process.returncode == 0


def test_nothing_outlives_a_killed_supervisor(supervise) -> None:
    process = supervise(SLEEP, DEAF)
    saying(process, "up")
    saying(process, "up")
    brood = children(process.pid)
    assert len(brood) == 2
    process.kill()
    process.communicate()
    until(lambda: not any(is_alive(pid) for pid in brood))


def test_a_program_that_was_told_something_wrong_ends_the_service(supervise) -> None:
    process = supervise(SLEEP, "import sys; sys.exit(2)")
    process.communicate(timeout=60)
    assert process.returncode == 2


def test_a_line_without_end_does_not_stop_the_log(supervise) -> None:
    process = supervise("import time\nprint('x' * 3_000_000)\nprint('still here')\ntime.sleep(60)")
    assert " p0 " in saying(process, "still here")


def test_what_is_stopped_and_left_so_is_started_again(supervise) -> None:
    process = supervise(SLEEP)
    saying(process, "up")
    (first,) = children(process.pid)
    os.kill(first, signal.SIGSTOP)
    assert "p0 has been stopped" in saying(process, "has been stopped")
    saying(process, "up")
    (second,) = children(process.pid)
    assert second != first


def test_who_ends_because_another_does_its_work_is_not_started_again(supervise) -> None:
    process = supervise("import sys; print('taken'); sys.exit(4)", SLEEP, needless=True)
    saying(process, "another does its work")
    until(lambda: len(children(process.pid)) == 1)
    (left,) = children(process.pid)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "taken" not in said
    assert not is_alive(left)


def test_a_log_that_nobody_takes_any_more_stops_no_program(supervise, tmp_path) -> None:
    lives = tmp_path / "lives"
    process = supervise(f"print('line ' * 10_000 + '\\n' * 20_000)\nopen({str(lives)!r}, 'a').write('x')")
    process.stderr.close()
    until(lambda: lives.exists() and len(lives.read_text()) >= 2)
    process.stderr = None  # for `communicate`


def test_what_cannot_be_started_now_is_started_later(monkeypatch) -> None:
    start, failures = asyncio.create_subprocess_exec, [OSError(errno.EMFILE, "too many"), BlockingIOError(errno.EAGAIN)]

    async def short_of_something(*command, **options):
        if failures:
            raise failures.pop()
        return await start(*command, **options)

    monkeypatch.setattr(asyncio, "create_subprocess_exec", short_of_something)
    end_us = (sys.executable, "-c", "import os, signal; os.kill(os.getppid(), signal.SIGTERM)")
    run = Supervisor([[Program("p", end_us, os.environ)]]).run()
    assert asyncio.run(asyncio.wait_for(run, 60)) == 0
    assert failures == []
