"""Who is stopped and left so is found out, and nobody else is taken for it."""

import os
import signal
import socket
import subprocess
import sys

import pytest
from crew import until

from scanner.service import pulse
from scanner.service.pulse import Pulse
from scanner.service.stable import DONE, LAST, HorseDiedError, Stable
from scanner.settings import Settings


@pytest.fixture
def sleeper():
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as process:
        yield process
        process.kill()


def test_who_runs_or_is_gone_is_not_lost(sleeper, monkeypatch):
    monkeypatch.setattr(pulse, "STOPPED_S", 0.0)
    watched = Pulse(sleeper.pid)
    assert not watched.is_lost()
    sleeper.kill()
    sleeper.wait()
    assert not watched.is_lost()


def test_only_who_stays_stopped_is_lost(sleeper, monkeypatch):
    watched, moment_s = Pulse(sleeper.pid), [100.0]
    monkeypatch.setattr(pulse.time, "monotonic", lambda: moment_s[0])
    os.kill(sleeper.pid, signal.SIGSTOP)
    os.waitpid(sleeper.pid, os.WUNTRACED)
    assert not watched.is_lost()
    moment_s[0] += pulse.STOPPED_S - 1
    assert not watched.is_lost()
    os.kill(sleeper.pid, signal.SIGCONT)
    os.waitpid(sleeper.pid, os.WCONTINUED)
    assert not watched.is_lost()
    os.kill(sleeper.pid, signal.SIGSTOP)
    os.waitpid(sleeper.pid, os.WUNTRACED)
    assert not watched.is_lost()
    moment_s[0] += pulse.STOPPED_S
    assert watched.is_lost()


def test_a_stopped_horse_is_a_dead_one(sleeper, monkeypatch):
    monkeypatch.setattr(pulse, "STOPPED_S", 0.0)
    stable = Stable(Settings())
    stable._process, stable._pulse = sleeper, Pulse(sleeper.pid)
    stable._connection, other = socket.socketpair()
    with other:
        assert stable.heard(0.0) is None
        os.kill(sleeper.pid, signal.SIGSTOP)

        def is_found_out():
            try:
                return stable.heard(0.01)
            except HorseDiedError as error:
                return "was stopped" in str(error)

        assert until(is_found_out)
    assert sleeper.returncode == -signal.SIGKILL


def test_a_horse_that_goes_after_its_last_scan_gets_no_other_task(sleeper):
    stable = Stable(Settings())
    stable._process, stable._pulse = sleeper, Pulse(sleeper.pid)
    stable._connection, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with other:
        other.send(LAST)
        assert stable.heard(5.0) == DONE
    assert sleeper.returncode == -signal.SIGKILL
    assert stable._process is None


def test_a_horse_that_ends_is_buried_at_once_and_costs_no_other_task_an_attempt():
    """It hangs up first and ends later: whoever asked in between was told that it is ready."""
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as process:
        stable = Stable(Settings())
        stable._process, stable._pulse = process, Pulse(process.pid)
        stable._connection, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        other.close()
        with pytest.raises(HorseDiedError, match="went away"):
            stable.heard(5.0)
        assert stable._process is None
    assert process.returncode == -signal.SIGKILL
