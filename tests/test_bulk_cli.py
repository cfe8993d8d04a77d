"""`laescan bulk` as it is typed: what is wrong is told in words and a code, what is done loads nothing."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from bulk_site import Site, picture
from test_bulk import scan_list

from scanner.bulk.cli import _tell
from scanner.bulk.plan import Plan, Summary
from scanner.cli import main

ROOT = Path(__file__).parent.parent


def told(capsys, *arguments):
    code = main(["bulk", *map(str, arguments)])
    return code, capsys.readouterr().err


def test_what_is_wrong_is_told_before_anything_is_loaded(tmp_path, capsys):
    out = tmp_path / "out.jsonl"
    (tmp_path / "list.csv").write_text("a,b\n1,2\n")
    code, words = told(capsys, tmp_path / "list.csv", "-o", out)
    assert (code, "no column" in words, "--column" in words) == (2, True, True)
    code, words = told(capsys, tmp_path / "nowhere.txt", "-o", out)
    assert (code, "No such file" in words) == (2, True)
    (tmp_path / "list.txt").write_text("x.jpg\n")
    code, words = told(capsys, tmp_path / "list.txt", "-o", tmp_path / "out.doc")
    assert (code, "name it .jsonl" in words) == (2, True)
    code, words = told(capsys, tmp_path / "list.txt", "-o", out, "--retry-failed=bogus")
    assert (code, "no code bogus" in words) == (2, True)
    code, words = told(capsys, tmp_path / "list.txt", "-o", "/proc/none/out.jsonl")
    assert (code, "cannot be written" in words) == (5, True)


@pytest.mark.parametrize("arguments", [["--rate", "-1"], ["--per-host", "0"], ["--keep", "--rescan"], []])
def test_usage_errors_exit_with_2(arguments, tmp_path):
    out = ["-o", str(tmp_path / "out.jsonl")] if arguments else []
    with pytest.raises(SystemExit, match="2"):
        main(["bulk", "list.txt", *out, *arguments])


UNHEARD = ["--per-host=8", "--rate=0", "--retries=0", "--max-wait=600", "--contact=me@x.test", "--frames=4"]


@pytest.mark.parametrize("option", [*UNHEARD, "--respect-noai", "--no-hash"])
def test_what_a_service_is_not_told_is_refused_and_not_swallowed(option, tmp_path, capsys):
    (tmp_path / "list.txt").write_text("https://a.example/1.jpg\n")
    code, words = told(capsys, tmp_path / "list.txt", "-o", tmp_path / "o.csv", "--api", "http://127.0.0.1:1", option)
    assert (code, words.startswith(f"laescan: {option.partition('=')[0]}: the service of --api")) == (2, True)
    assert not (tmp_path / "o.csv").exists()


def test_finished_list_loads_nothing_that_scans(tmp_path):
    with Site({"1.jpg": picture(1)}) as site:
        scan_list(tmp_path, [site.url("1.jpg"), "nothing.jpg"])
    check = (
        "import sys; from scanner.cli import main; code = main(sys.argv[1:]);"
        "print(code, sorted({'torch', 'cv2', 'numpy', 'aiohttp', 'redis'} & set(sys.modules)))"
    )
    arguments = ["bulk", str(tmp_path / "list.txt"), "-o", str(tmp_path / "out.jsonl")]
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", check, *arguments]
    done = subprocess.run(command, check=False, env=environ, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    code, _, loaded = done.stdout.strip().partition(" ")
    assert code == "3"  # one could not be judged
    assert "torch" not in loaded
    assert "2 rows, none new" in done.stderr
    assert "1 gone" in done.stderr
    assert "1 could not be judged\n" in done.stderr  # and no other try will mend it


def test_the_summary_names_what_another_try_may_mend(tmp_path, capsys):
    counts = {"authentic": 7, "gone": 2, "timed_out": 3, "source_failed": 1}
    summary = Summary(
        rows=13, rows_before=0, rows_this_run=13, counts=counts, seconds=1.0, finished=True, out="out.csv"
    )
    _tell(summary, "bar", Plan(source="list.csv", out=tmp_path / "out.csv"))
    words = capsys.readouterr().err
    assert (
        "6 could not be judged, 4 of them for a reason that may pass: --retry-failed=source_failed,timed_out" in words
    )
