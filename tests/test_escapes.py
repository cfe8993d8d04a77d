"""Nothing that a decoder can be made to do gets it out of the jail: every escape of the table, in the real one."""

import os
import signal
import socket
import threading

import escapes
import pytest

from scanner.decoding.jail import Jail
from scanner.settings import Settings

MARKER = "marker-of-a-secret"
LIMITS = {"timeout_s": 60.0, "memory_bytes": 1_000_000_000}


class Outside:
    """What a decoder must not reach, and what tells whether it was."""

    def __init__(self, folder):
        self.folder, self.other = folder, folder / "other"
        self.other.write_bytes(b"of another job")
        self.canaries = [socket.create_server(("127.0.0.1", 0)), socket.socket(socket.AF_UNIX)]
        self.canaries.append(socket.socket(socket.AF_UNIX))
        self.abstract = f"laescan-escape-{os.getpid()}"
        self.canaries[1].bind(f"\0{self.abstract}")
        self.canaries[2].bind(str(folder / "queue.sock"))
        for canary in self.canaries[1:]:
            canary.listen()

    def options(self):
        return {
            "pid": os.getpid(),
            "port": self.canaries[0].getsockname()[1],
            "abstract": self.abstract,
            "socket": str(self.folder / "queue.sock"),
            "other": str(self.other),
            "folder": str(self.folder),
            "marker": MARKER,
        }

    def reached(self):
        """How many connections came to any canary."""
        count = 0
        for canary in self.canaries:
            canary.settimeout(0)
            try:
                canary.accept()[0].close()
            except BlockingIOError:
                continue
            count += 1
        return count

    def close(self):
        for canary in self.canaries:
            canary.close()


@pytest.fixture(scope="module")
def outside(tmp_path_factory):
    there = Outside(tmp_path_factory.mktemp("e"))
    yield there
    there.close()


@pytest.fixture(scope="module")
def endings(outside):
    """What became of each escape, tried by one decoder while another job is running beside it."""
    os.environ["LAESCAN_TEST_SECRET"] = MARKER
    tasks = {"escape": "escapes:try_all", "sleep": "jail_tasks:sleep"}
    with Jail(Settings(), tasks=tasks) as prison, outside.other.open("rb") as source:
        beside = threading.Thread(
            target=prison.run, args=("sleep", source.fileno(), {"seconds": 1}), kwargs=LIMITS, daemon=True
        )
        beside.start()
        found, _ = prison.run("escape", source.fileno(), outside.options(), **LIMITS)
        beside.join()  # it was neither killed nor stopped
    del os.environ["LAESCAN_TEST_SECRET"]
    return found


@pytest.mark.parametrize("name", escapes.ESCAPES)
def test_no_escape_succeeds(endings, name):
    assert endings[name] != "through"


def test_the_table_holds_what_it_promises(endings):
    assert len(endings) == len(escapes.ESCAPES) >= 12


def test_nobody_outside_noticed_anything(endings, outside):
    assert outside.reached() == 0
    assert sorted(path.name for path in outside.folder.iterdir()) == ["other", "queue.sock"]
    assert outside.other.read_bytes() == b"of another job"
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_the_escapes_are_escapes(outside):
    """Outside the jail the plain ones do go through: a table of calls that fail everywhere would prove nothing."""
    plain = ("connect to loopback", "an abstract socket", "the socket of the queue", "list the processes",
             "descriptors of other jobs")  # fmt: skip
    with outside.other.open("rb") as source:
        options = {**outside.options(), "source": source}
        assert {name: escapes.ending(escapes.ESCAPES[name], options) for name in plain} == dict.fromkeys(
            plain, "through"
        )
    for canary in outside.canaries:
        canary.accept()[0].close()
