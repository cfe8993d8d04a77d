"""What a yt-dlp that was broken into does to us through the one folder and the few descriptors that it has."""

import asyncio
import gc
import os
import signal
from pathlib import Path

import pytest

from scanner import errors
from scanner.fetching import page
from scanner.settings import Settings

SETTINGS = Settings(video_timeout_s=20, max_video_bytes=4_000_000)
PATIENCE_S = 60
NO_FILTER = "extractor.page_filter = lambda: None"
TAKE_OVER = """
import sys; sys.path.append(sys.argv[1])
import ctypes, os, socket, time
from urllib.parse import urlsplit
from scanner.fetching import extractor
{before}
def take(job, tell):
    folder = job["folder"]
    {does}
    return {{"done": True}}
extractor.take = take
extractor.main()
"""


@pytest.fixture
def broken_into(monkeypatch, tmp_path):
    """Take a page's video with a child that does something else; out: the file, or the error."""

    def run(does, before="", settings=SETTINGS):
        monkeypatch.setattr(page, "_LAUNCH", TAKE_OVER.format(does=does, before=before))
        folder = tmp_path / "scratch"
        folder.mkdir()

        async def taken():
            try:
                async with asyncio.timeout(PATIENCE_S):
                    return await page.fetch_page("http://x.test/?word=secret", folder=folder, settings=settings)
            except errors.ScanError as error:
                assert list(folder.iterdir()) == []
                return error

        return asyncio.run(taken())

    return run


def processes(mark):
    """Those whose command line has the mark: a fork has it, too."""
    found = []
    for words in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if mark in words.read_bytes():
                found.append(int(words.parent.name))
        except OSError:
            continue
    return found


# ---------------------------------------------------------------- with the filter of system calls taken away, too


@pytest.mark.parametrize(
    "does",
    [
        "os.symlink({home!r}, folder + '/x'); os.rename(folder + '/x', folder)",
        "os.symlink({home!r} + '/private.mp4', folder + '/video.mp4')",
        "os.mkfifo(folder + '/video.mp4')",
        "os.mkdir(folder + '/video.mp4')",
    ],
    ids=["a link in its folder's place", "a link", "a pipe", "a folder"],
)
def test_what_is_no_file_of_its_own_is_not_taken(broken_into, tmp_path, does):
    home = tmp_path / "home"
    home.mkdir()
    (home / "private.mp4").write_bytes(b"whoever runs this")
    found = broken_into(does.format(home=str(home)), NO_FILTER)
    assert isinstance(found, errors.NoMedia)
    assert (home / "private.mp4").read_bytes() == b"whoever runs this"


@pytest.mark.parametrize("before", ["", NO_FILTER], ids=["filtered", "unfiltered"])
def test_nothing_of_it_lives_on_however_it_hides(broken_into, before):
    """It leaves its group, asks not to die with its parent, and has a child that does the same."""
    mark = f"laescan-outlives-{os.getpid()}-{len(before)}"
    hide = "ctypes.CDLL(None).prctl(1, 0, 0, 0, 0); os.setsid()"
    broken_into(f"os.fork(); {hide}; time.sleep(0 if os.getpid() == 1 else 600)  # {mark}", before)
    left = processes(mark.encode())
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    assert left == []


# ---------------------------------------------------------------- more of everything


def test_what_it_says_without_end_is_heard_to_its_end_and_forgotten(broken_into, caplog):
    found = broken_into("[os.write(2, b'\\x1b]0;x' * 100_000) for _ in range(200)]; os._exit(1)")
    assert isinstance(found, errors.NoMedia)
    (record,) = (record for record in caplog.records if "died" in record.message)
    assert len(record.message) < 20_000
    assert "\x1b" not in record.message, "a log is read at a terminal"


def test_an_answer_without_end_ends_it_and_leaves_no_pipe_open(broken_into):
    gc.collect()
    before = len(list(Path("/proc/self/fd").iterdir()))
    found = broken_into("tell({'message': 'x' * 1_000_000}); time.sleep(600)")
    assert isinstance(found, errors.NoMedia)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


@pytest.mark.parametrize(
    "does",
    [
        "[open(f'{folder}/{n}', 'wb').write(b'x' * 3_000_000) for n in range(4)]; time.sleep(600)",
        "[open(f'{folder}/{n}', 'wb').close() for n in range(20_000)]; time.sleep(600)",
    ],
    ids=["large", "many"],
)
def test_it_does_not_fill_the_disk(broken_into, does):
    assert isinstance(broken_into(does), errors.TooLarge)


def test_it_does_not_use_up_our_descriptors(broken_into):
    before = len(list(Path("/proc/self/fd").iterdir()))
    most = Settings().max_connections
    does = f"""
    kept, at = [], urlsplit(job["proxy"])
    for _ in range({3 * most}):
        kept.append(socket.create_connection((at.hostname, at.port)))
    told = [one.recv(1) for one in kept[{most}:]]
    assert set(told) <= {{b""}}
    open(folder + "/video.mp4", "wb").write(b"closed")"""
    found = broken_into(does)
    assert isinstance(found, errors.TooLarge | Path), "some were refused, and it saw that"
    assert len(list(Path("/proc/self/fd").iterdir())) <= before + 1


# ---------------------------------------------------------------- what it leaves


def test_a_file_of_a_child_that_died_is_not_taken(broken_into):
    found = broken_into("open(folder + '/video.mp4', 'wb').write(b'a half'); os._exit(1)")
    assert isinstance(found, errors.NoMedia)


def test_what_nobody_foresaw_is_logged_without_the_url(broken_into, caplog):
    found = broken_into("raise ValueError(job['url'])")
    assert isinstance(found, errors.NoMedia)
    assert "ValueError" in caplog.text
    assert "extractor.py" in caplog.text
    assert "secret" not in caplog.text
