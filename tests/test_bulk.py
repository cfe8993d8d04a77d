"""A list from end to end: real HTTP, real jail, a model that needs no weights; killed, filled up, interrupted."""

import asyncio
import collections
import contextlib
import csv
import json
import os
import resource
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from bulk_site import NETWORK, Site, picture
from verdicts import still, surveyed

from scanner.bulk import polite
from scanner.bulk.book import OtherListError, OtherModelError
from scanner.bulk.plan import Plan
from scanner.bulk.polite import Patience
from scanner.bulk.rows import COLUMNS, OutputError, result_of
from scanner.bulk.run import run
from scanner.contract import ModelInfo, Outcome
from scanner.detection.faces import Face, Quality
from scanner.detection.model import SeenFace
from scanner.settings import Settings
from scanner.verdict import Calibration

PICTURES = {f"{number}.jpg": picture(number) for number in range(160)}
QUICK = {
    "allow_networks": (NETWORK,),
    "connect_timeout_s": 1.0,
    "first_byte_timeout_s": 1.0,
    "image_timeout_s": 2.0,
    "max_image_bytes": 2_000_000,
    "max_video_bytes": 2_000_000,
}


class Glimpse:
    """A Model that sees one face in each frame, as likely forged as the frame is bright; its looks are counted."""

    def __init__(self, model_id="fake", seconds=0.0):
        self.info = ModelInfo(model_id=model_id, backend="cpu", precision="fp32")
        self.calibration = Calibration(slope=2.0, intercept=0.0, authentic=0.2, manipulated=0.8)
        self.looks, self.seconds = 0, seconds

    async def look(self, frames, *, urgent=True):
        assert not urgent
        self.looks += 1
        await asyncio.sleep(self.seconds)
        return [[face(frame)] for frame in frames]

    async def survey(self, picture, *, urgent=True):
        """Nothing: it sees faces only."""


def face(frame):
    landmarks = np.arange(10, dtype=np.float32).reshape(5, 2)
    seen = Face((1.0, 2.0, 30.0, 40.0), landmarks, 0.9)
    to_frame = np.array([[1.0, 0.0, 2.0], [0.0, 1.0, 3.0]])
    return SeenFace(seen, Quality(0.5, ()), to_frame, float(frame.mean() / 255), np.zeros((16, 16), np.float32))


def scan_list(folder, lines, *, model=None, out="out.jsonl", name="list.txt", settings=None, **options):
    """Write a list (or take it as it lies there), run over it; out: summary and rows by their numbers."""
    path = folder / name
    if lines is not None:
        path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    options = {"patience": Patience(retries=0), **options}
    plan = Plan(source=str(path), out=folder / out, **options)
    summary = asyncio.run(run(plan, Settings(**{**QUICK, **(settings or {})}), model=model or Glimpse()))
    return summary, rows_of(folder / out) if out.endswith("jsonl") else {}


def rows_of(path):
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []
    assert len({row["row"] for row in rows}) == len(rows), "a row is there twice"
    return {row["row"]: row for row in rows}


@pytest.fixture(scope="module")
def site():
    hosts = {20: "tarpit", 21: "silent", 22: "limiting", 23: "broken", 24: "flaky", 25: "endless", 26: "inward"}
    with Site(PICTURES, hosts={**hosts, 27: "noai"}) as opened:
        yield opened


def test_each_row_gets_one_row_and_repeats_are_scanned_once(site, tmp_path):
    same = [site.url("1.jpg"), site.url("1.jpg#again"), site.url("1.jpg", 10), site.url("2.jpg")]
    lines = ["# a remark", *same, "", site.url("nowhere.jpg"), "no/such/file.jpg", *same]
    (tmp_path / "here.jpg").write_bytes(PICTURES["2.jpg"])
    before, model = site.paths["1.jpg"], Glimpse()
    summary, rows = scan_list(tmp_path, [*lines, str(tmp_path / "here.jpg")], model=model)
    assert sorted(rows) == list(range(1, 12))
    assert summary.rows == summary.rows_this_run == 11
    assert [rows[n]["code"] for n in (5, 6)] == ["gone", "gone"]
    assert model.looks == 2
    assert site.paths["1.jpg"] == before + 2  # once for each of two hosts
    assert len({rows[n]["sha256"] for n in (1, 2, 3, 7, 8, 9)}) == 1
    assert len({rows[n]["perceptual_hash"] for n in (1, 3, 4)}) == 2
    assert {rows[n]["cache"] for n in (1, 3)} == {"miss", "exact"}


def test_columns_pass_through_into_every_form(site, tmp_path):
    lines = ["id;Label;media", f"7;x;{site.url('3.jpg')}", "8;y;", f"9;;{site.url('4.jpg')}"]
    _, rows = scan_list(tmp_path, lines, name="list.csv")
    assert rows[1]["id"] == "7"
    assert rows[1]["input_Label"] == "x"  # ours has that name
    assert rows[2]["code"] == "bad_source"
    scan_list(tmp_path, None, name="list.csv", out="out.csv")
    table = list(csv.DictReader((tmp_path / "out.csv").read_text(encoding="utf-8").splitlines()))
    assert sorted((row["row"], row["id"]) for row in table) == [("1", "7"), ("2", "8"), ("3", "9")]
    scan_list(tmp_path, None, name="list.csv", out="out.sqlite")
    with sqlite3.connect(tmp_path / "out.sqlite") as db:
        assert db.execute("SELECT row, id, score IS NULL FROM rows ORDER BY row").fetchall() == [
            (1, "7", 0),
            (2, "8", 1),
            (3, "9", 0),
        ]
    db.close()


def test_regions_are_counted_where_somebody_looked_for_them():
    found = [still(), still(survey=surveyed()), still(survey=surveyed((100, 100, 260, 260)))]
    rows = [result_of(Outcome(source="x", verdict=verdict)) for verdict in found]
    assert [row.regions for row in rows] == [None, 0, 1]
    assert ("regions", int) in COLUMNS


def test_parquet_comes_and_goes(site, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    pa = pytest.importorskip("pyarrow")

    numbers = list(range(12))
    table = pa.table({"n": numbers, "url": [site.url(f"{n}.jpg") for n in numbers]})
    parquet.write_table(table, tmp_path / "list.parquet")
    summary, _ = scan_list(tmp_path, None, name="list.parquet", out="out.parquet")
    found = parquet.read_table(tmp_path / "out.parquet").to_pylist()
    assert summary.rows == 12
    assert sorted(row["n"] for row in found) == numbers
    assert all(isinstance(row["score"], float) for row in found)
    assert not (tmp_path / "out.parquet.part").exists()
    parquet.write_table(pa.concat_tables([table, table]), tmp_path / "list.parquet")  # it grew
    model = Glimpse()
    summary, _ = scan_list(tmp_path, None, name="list.parquet", out="out.parquet", model=model)
    assert (summary.rows, model.looks) == (24, 0)
    assert parquet.read_table(tmp_path / "out.parquet").num_rows == 24


def test_finished_list_is_not_read_again_and_a_grown_one_goes_on(site, tmp_path):
    urls = [site.url(f"{n}.jpg") for n in range(6)]
    scan_list(tmp_path, urls)
    before = (tmp_path / "out.jsonl").read_bytes()
    again, _ = scan_list(tmp_path, None)
    assert (again.rows, again.rows_this_run, again.seconds) == (6, 0, 0.0)
    model = Glimpse()
    grown, rows = scan_list(tmp_path, [*urls, site.url("30.jpg"), urls[0]], model=model)
    assert (grown.rows, grown.rows_this_run, model.looks) == (8, 2, 1)
    assert (tmp_path / "out.jsonl").read_bytes().startswith(before)
    assert rows[8]["sha256"] == rows[1]["sha256"]


def test_output_of_another_list_is_left_alone_until_told(site, tmp_path):
    urls = [site.url(f"{n}.jpg") for n in range(4)]
    scan_list(tmp_path, urls)
    before = (tmp_path / "out.jsonl").read_bytes()
    with pytest.raises(OtherListError, match="row 1 was another source"):
        scan_list(tmp_path, urls[::-1])
    with pytest.raises(OtherListError, match="4 rows and the list only 2"):
        scan_list(tmp_path, urls[:2])
    assert (tmp_path / "out.jsonl").read_bytes() == before
    model = Glimpse()
    summary, rows = scan_list(tmp_path, urls[::-1], rewrite=True, model=model)
    assert (summary.rows, model.looks) == (4, 0)  # all known by URL
    assert rows[1]["source"] == urls[3]
    (tmp_path / "theirs.jsonl").write_text("precious\n")
    with pytest.raises(OutputError, match="no journal"):
        scan_list(tmp_path, urls, out="theirs.jsonl")
    assert (tmp_path / "theirs.jsonl").read_text() == "precious\n"


def test_other_model_is_told_and_obeyed(site, tmp_path):
    urls = [site.url(f"{n}.jpg") for n in range(3)]
    scan_list(tmp_path, urls)
    more = [*urls, site.url("31.jpg")]
    with pytest.raises(OtherModelError, match="--keep"):
        scan_list(tmp_path, more, model=Glimpse("new"))
    _, rows = scan_list(tmp_path, more, model=Glimpse("new"), keep=True)
    assert [rows[n]["model_id"] for n in range(1, 5)] == ["fake", "fake", "fake", "new"]
    _, rows = scan_list(tmp_path, more, model=Glimpse("new"), rescan=True)
    assert {row["model_id"] for row in rows.values()} == {"new"}


def test_only_what_failed_is_scanned_again(site, tmp_path):
    site.pictures.pop("late.jpg", None)
    urls = [site.url("late.jpg"), site.url("5.jpg"), "nothing.jpg"]
    summary, _ = scan_list(tmp_path, urls)
    assert summary.counts["gone"] == 2
    site.pictures["late.jpg"] = picture(77)
    before = site.paths["5.jpg"]
    summary, rows = scan_list(tmp_path, None, retry_failed=("timed_out",))
    assert summary.counts["gone"] == 2
    summary, rows = scan_list(tmp_path, None, retry_failed=())
    assert summary.counts["gone"] == 1
    assert rows[1]["score"] is not None
    assert site.paths["5.jpg"] == before


def test_bad_hosts_get_their_codes(site, tmp_path, monkeypatch):
    monkeypatch.setattr(polite, "BREAKS_S", (0.2,))
    bad = [site.url(f"{n}.jpg", host) for n in range(8) for host in (20, 21, 23, 25, 26)]
    dead = [f"http://127.0.0.30:1/{n}.jpg" for n in range(8)]
    good = [site.url(f"{n}.jpg") for n in range(20)]
    summary, rows = scan_list(tmp_path, [*bad, *dead, *good])
    assert summary.rows == 68
    by_host = collections.defaultdict(set)
    for row in rows.values():
        by_host[row["source"].split("/")[2].split(":")[0]].add(row["code"])
    assert by_host["127.0.0.9"] == {None}
    assert by_host["127.0.0.20"] | by_host["127.0.0.21"] <= {"timed_out", "host_given_up"}
    assert by_host["127.0.0.23"] <= {"source_failed", "host_given_up"}
    assert "too_large" in by_host["127.0.0.25"]
    assert by_host["127.0.0.26"] == {"blocked_address"}
    assert by_host["127.0.0.30"] == {"unreachable", "host_given_up"}
    assert len(site.asked["127.0.0.20"]) < 8  # the breaker opened


def test_a_host_that_says_nothing_holds_nobody_up(tmp_path, monkeypatch):
    monkeypatch.setattr(polite, "BREAKS_S", (0.2,))
    with Site(PICTURES, hosts={21: "silent"}) as site:

        class Watching(Glimpse):
            async def look(self, frames, *, urgent=True):
                if self.looks == 19:  # the last good one was fetched; until now the others had no answer
                    site.loop.call_soon_threadsafe(site.spoken.set)
                return await super().look(frames, urgent=urgent)

        urls = [site.url(f"{n}.jpg", host) for n in range(20) for host in (21, 9)]
        patient = {"first_byte_timeout_s": 60.0, "image_timeout_s": 60.0}
        _, rows = scan_list(tmp_path, urls, model=Watching(), settings=patient)
    assert {row["code"] for number, row in rows.items() if number % 2 == 0} == {None}
    assert {row["code"] for number, row in rows.items() if number % 2} <= {"source_failed", "host_given_up"}


def test_what_failed_once_is_tried_again_later(site, tmp_path, monkeypatch):
    monkeypatch.setattr("scanner.bulk.dispatch._FIRST_DELAY_S", 0.1)
    _, rows = scan_list(tmp_path, [site.url(f"{n}.jpg", 24) for n in range(33, 36)], patience=Patience(retries=2))
    assert {(row["code"], row["attempts"]) for row in rows.values()} == {(None, 2)}


def test_host_that_limits_is_asked_as_often_as_it_allows(site, tmp_path):
    urls = [site.url(f"{n}.jpg?{again}", 22) for n in range(9) for again in range(2)]
    begun = time.monotonic()
    summary, rows = scan_list(tmp_path, urls, patience=Patience(retries=3))
    took = time.monotonic() - begun
    assert {row["code"] for row in rows.values()} == {None}
    assert summary.rows == 18
    assert len(site.asked["127.0.0.22"]) <= 1.2 * site.rate * took + 8  # 8: before it has said anything


def test_noai_is_respected_when_asked(site, tmp_path):
    urls = [site.url("6.jpg", 27)]
    _, rows = scan_list(tmp_path, urls, settings={"respect_noai": True})
    assert rows[1]["code"] == "opted_out"
    _, rows = scan_list(tmp_path, urls, retry_failed=())
    assert rows[1]["code"] is None


def test_full_disk_stops_cleanly_and_the_same_command_goes_on(site, tmp_path):
    urls = [site.url(f"{n}.jpg?{again}") for n in range(20) for again in range(10)]
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, hard))
    try:
        with pytest.raises(OutputError, match="cannot be written"):
            scan_list(tmp_path, urls)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    rows_of(tmp_path / "out.jsonl")  # whole lines only
    summary, rows = scan_list(tmp_path, None)
    assert (summary.rows, len(rows)) == (200, 200)


# ---------------------------------------------------------------- in a process of its own

CHILD = """
import asyncio, sys
from test_bulk import Glimpse, QUICK
from scanner.bulk.plan import Plan
from scanner.bulk.run import run
from scanner.settings import Settings
from pathlib import Path

class Held(Glimpse):
    async def look(self, frames, *, urgent=True):
        while self.looks >= int(sys.argv[3]) and not plan.out.with_name("go on").exists():
            await asyncio.sleep(0.01)
        return await super().look(frames, urgent=urgent)

plan = Plan(source=sys.argv[1], out=Path(sys.argv[2]))
summary = asyncio.run(run(plan, Settings(**QUICK), model=Held()))
sys.exit(0 if summary.finished else 130)
"""


def started(folder, source, most):
    """A run that judges so many pictures and then none, until there is a file `go on`: it cannot be done too early."""
    here = Path(__file__).parent
    environ = {**os.environ, "PYTHONPATH": f"{here.parent}:{here}", "TMPDIR": str(folder)}
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, str(source), str(folder / "out.jsonl"), str(most)], env=environ
    )


def wait_for_rows(folder, count):
    """Until so many rows are in the output and in the journal: what is in the output alone is scanned again."""
    end, journal = time.monotonic() + 60, folder / "out.jsonl.journal"
    while time.monotonic() < end:
        if journal.exists():
            with contextlib.closing(sqlite3.connect(journal)) as book, contextlib.suppress(sqlite3.OperationalError):
                if book.execute("SELECT count(*) FROM rows").fetchone()[0] >= count:
                    return
        time.sleep(0.02)
    msg = "no rows came"
    raise AssertionError(msg)


def test_killed_at_any_moment_it_goes_on(tmp_path):
    source = tmp_path / "list.txt"
    with Site(PICTURES) as site:
        source.write_text("\n".join(site.url(f"{n}.jpg") for n in range(160)))
        for count, most in ((1, 40), (60, 60)):
            child = started(tmp_path, source, most)
            wait_for_rows(tmp_path, count)
            child.send_signal(signal.SIGKILL)
            assert child.wait() == -signal.SIGKILL
        with (tmp_path / "out.jsonl").open("ab") as half:
            half.write(b'{"row": 160, "sou')  # what a kill between two writes leaves
        while site.tasks:  # what the killed one asked last is counted, too
            time.sleep(0.01)
        asked = sum(site.paths.values())
        summary, rows = scan_list(tmp_path, None)
        assert sorted(rows) == list(range(1, 161))
        assert summary.rows == 160
        assert sum(site.paths.values()) - asked == summary.rows_this_run < 160


def test_interrupted_it_drains_and_goes_on(site, tmp_path):
    source = tmp_path / "list.txt"
    source.write_text("\n".join(site.url(f"{n}.jpg?i{again}") for again in range(60) for n in range(40)))
    child = started(tmp_path, source, most=10)
    wait_for_rows(tmp_path, 1)
    child.send_signal(signal.SIGINT)
    (tmp_path / "go on").touch()
    assert child.wait(30) == 130
    done = len(rows_of(tmp_path / "out.jsonl"))
    assert 0 < done < 2400
    summary, rows = scan_list(tmp_path, None)
    assert (len(rows), summary.rows_this_run) == (2400, 2400 - done)


def test_second_run_on_the_same_output_is_refused(site, tmp_path):
    source = tmp_path / "list.txt"
    source.write_text("\n".join(site.url(f"{n}.jpg?t{again}") for again in range(20) for n in range(40)))
    child = started(tmp_path, source, most=10)
    try:
        wait_for_rows(tmp_path, 1)
        with pytest.raises(OutputError, match="another `laescan bulk`"):
            scan_list(tmp_path, None)
    finally:
        child.kill()
        child.wait()


def test_nothing_is_left_running():
    names = {thread.name for thread in threading.enumerate()}
    assert not [name for name in names if name.startswith("laescan-bulk")]
