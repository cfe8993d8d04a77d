"""The `laescan` command as people and scripts meet it: words, JSON, exit codes, interruption."""

import asyncio
import os
import pty
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import models
import msgspec
import pytest
import torch
from origin import Origin

from scanner.cli import Exit, main
from scanner.contract import Label, Outcome

MEDIA = Path(__file__).parent / "media"
PORTRAIT, OTHER = MEDIA / "fellow_1.jpg", MEDIA / "london_1.jpg"
LAESCAN = Path(sys.executable).with_name("laescan")


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return models.random_checkpoint(tmp_path_factory.mktemp("weights"))


@pytest.fixture(autouse=True)
def environment(monkeypatch, weights, tmp_path):
    """Random weights, one thread, a folder for temporary files that is this test's own."""
    threads = torch.get_num_threads()
    (tmp_path / "temporary").mkdir()
    values = {"LAESCAN_WEIGHTS": str(weights), "LAESCAN_THREADS": "1", "TMPDIR": str(tmp_path / "temporary")}
    for name, value in {**values, "LAESCAN_ALLOW_NETWORKS": "127.0.0.5/32", "COLUMNS": "100"}.items():
        monkeypatch.setenv(name, value)
    yield
    torch.set_num_threads(threads)


def run(*arguments, **options):
    return subprocess.run([LAESCAN, *arguments], capture_output=True, text=True, check=False, **options)


# ---------------------------------------------------------------- what it says


def test_verdicts_and_failures_stand_in_the_order_of_the_sources(capsys, tmp_path):
    assert main(["scan", str(PORTRAIT), str(tmp_path / "none.jpg"), str(OTHER)]) == Exit.SOME_FAILED
    lines = capsys.readouterr().out.splitlines()
    heads = [line for line in lines if not line.startswith("  ")]
    assert [head.split(":")[0] for head in heads] == [str(PORTRAIT), str(tmp_path / "none.jpg"), str(OTHER)]
    assert "Inconclusive  0." in heads[0]
    assert "gone: no such file" in heads[1]
    assert "too few to decide" in lines[1], "the reason stands below"
    assert "jpeg 384x384, 1 face" in lines[2]


def test_json_is_one_outcome_per_line_and_nothing_else(capsys):
    assert main(["scan", "--json", str(PORTRAIT), "nowhere.jpg"]) == Exit.SOME_FAILED
    said = capsys.readouterr()
    judged, failed = (msgspec.json.decode(line, type=Outcome) for line in said.out.splitlines())
    assert judged.verdict.label is Label.INCONCLUSIVE
    assert failed.failure.code == "gone"
    assert said.err == ""


def test_quiet_is_one_row_of_tabs_per_source(capsys):
    main(["scan", "-q", str(PORTRAIT), "nowhere.jpg"])
    rows = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert rows[0][::2] == ["inconclusive", str(PORTRAIT)]
    assert 0 < float(rows[0][1]) < 1
    assert rows[1][:3] == ["error", "-", "nowhere.jpg"]


def test_a_folder_stands_for_the_media_in_it_by_content(capsys, tmp_path):
    (tmp_path / "in" / "deep").mkdir(parents=True)
    (tmp_path / "in" / "notes.jpg").write_text("not a picture")
    (tmp_path / "in" / "deep" / "no_ending").write_bytes(PORTRAIT.read_bytes())
    assert main(["scan", "-q", str(tmp_path / "in")]) == Exit.OK
    assert capsys.readouterr().out.split("\t")[2].strip() == str(tmp_path / "in" / "deep" / "no_ending")


def test_a_folder_without_media_is_told_about(capsys, tmp_path):
    (tmp_path / "empty").mkdir()
    assert main(["scan", str(tmp_path / "empty")]) == Exit.SOME_FAILED
    assert "bad_source" in capsys.readouterr().out


def test_report_draws_what_was_judged_and_tells_where_it_is(capsys, tmp_path):
    folder = tmp_path / "new" / "report"
    assert main(["scan", str(PORTRAIT), "nowhere.jpg", "--report", str(folder)]) == Exit.SOME_FAILED
    assert f"report: {folder / 'report.html'}" in capsys.readouterr().err
    assert "no such file" in (folder / "report.html").read_text(encoding="utf-8")
    assert len(list(folder.glob("*.jpg"))) == 1


def test_a_report_that_cannot_be_written_is_told_before_anything_is_scanned(capsys, tmp_path):
    (tmp_path / "file").touch()
    assert main(["scan", str(PORTRAIT), "--report", str(tmp_path / "file")]) == Exit.UNWRITABLE
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err == f"laescan: the report in {tmp_path / 'file'} cannot be written: File exists\n"


def test_without_room_for_the_report_it_has_what_came_before_and_the_words_say_so(capsys, tmp_path):
    (tmp_path / ".02.part").mkdir()  # a disk that takes the first source and not the second
    code = main(["scan", "nowhere.jpg", "nowhere_else.jpg", "never.jpg", "--report", str(tmp_path)])
    said = capsys.readouterr()
    assert code == Exit.UNWRITABLE
    assert "cannot be written: Is a directory" in said.err
    assert "report: " in said.err
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert ("nowhere.jpg" in page, "nowhere_else.jpg" in page, "never.jpg" in said.out) == (True, False, False)


def test_names_and_answers_of_strangers_cannot_drive_the_terminal(capsys, tmp_path):
    path = tmp_path / "\x1b[2J\x1b]0;owned\x07.jpg"
    path.write_bytes(PORTRAIT.read_bytes())
    main(["scan", str(path), str(path) + "\x1b[1m"])
    main(["scan", "-q", str(path)])
    assert "\x1b" not in (said := capsys.readouterr().out)
    assert "\x07" not in said
    assert said.count(r"\x1b[2J") >= 3


# ---------------------------------------------------------------- what a script sees


@pytest.mark.parametrize(
    ("fail_on", "code"),
    [
        ([], Exit.SOME_FAILED),
        (["manipulated"], Exit.SOME_FAILED),
        (["manipulated", "inconclusive"], Exit.FAIL_ON),
        (["error"], Exit.FAIL_ON),
    ],
)
def test_fail_on_turns_what_it_names_into_exit_code_1(fail_on, code):
    options = [word for label in fail_on for word in ("--fail-on", label)]
    assert main(["scan", "-q", str(PORTRAIT), "nowhere.jpg", *options]) == code


@pytest.mark.parametrize("wrong", [[], ["scan"], ["frobnicate"], ["scan", "a.jpg", "--fail-on", "authentic"]])
def test_a_wrong_command_exits_with_2(wrong, capsys):
    with pytest.raises(SystemExit) as exited:
        main(wrong)
    assert exited.value.code == Exit.USAGE
    assert "usage: laescan" in capsys.readouterr().err


def test_a_wrong_setting_exits_with_2_in_one_line(capsys, monkeypatch):
    assert main(["scan", "a.jpg", "--frames", "0"]) == Exit.USAGE
    monkeypatch.setenv("LAESCAN_FRAME", "8")
    assert main(["scan", "a.jpg"]) == Exit.USAGE
    first, second = capsys.readouterr().err.splitlines()
    assert "max_frames" in first
    assert "LAESCAN_FRAME" in second


def test_without_weights_it_exits_with_4_and_says_what_to_do(capsys, monkeypatch):
    monkeypatch.setenv("LAESCAN_WEIGHTS", "none.safetensors")
    assert main(["scan", str(PORTRAIT)]) == Exit.NO_ENGINE
    assert "bad_weights: no checkpoint at none.safetensors" in capsys.readouterr().err


def test_frames_overrides_the_setting(capsys, tmp_path):
    clip = models.talking_head(tmp_path / "head.mp4", 12)
    main(["scan", "--json", "--frames", "3", str(clip)])
    assert len(msgspec.json.decode(capsys.readouterr().out, type=Outcome).verdict.frames) == 3


def test_help_names_every_exit_code(capsys):
    with pytest.raises(SystemExit):
        main(["scan", "--help"])
    shown = capsys.readouterr().out
    assert {int(code) for code in re.findall(r"^  (\d+) ", shown, re.MULTILINE)} == {int(code) for code in Exit}


def test_help_loads_nothing_heavy():
    code = "import sys, scanner.cli; print({'torch', 'cv2', 'av', 'rich', 'aiohttp', 'numpy'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"


def test_threads_wait_passively_unless_told_otherwise(monkeypatch):
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    monkeypatch.setenv("GOMP_SPINCOUNT", "5")
    main(["scan", "-q", "nowhere.jpg"])
    assert (os.environ["OMP_WAIT_POLICY"], os.environ["GOMP_SPINCOUNT"]) == ("PASSIVE", "5")


# ---------------------------------------------------------------- pipes, terminals, signals


def test_a_picture_comes_through_a_pipe(tmp_path):
    done = subprocess.run([LAESCAN, "scan", "-"], input=PORTRAIT.read_bytes(), capture_output=True, check=False)
    assert done.returncode == Exit.OK
    assert done.stdout.startswith(b"-: Inconclusive")
    assert done.stderr == b""
    assert b"\x1b" not in done.stdout
    assert list((tmp_path / "temporary").iterdir()) == []


def on_a_terminal(**environment):
    """What stdout and stderr, both one terminal, get to see."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm-256color", **environment}
    with subprocess.Popen([LAESCAN, "scan", PORTRAIT], stdout=theirs, stderr=theirs, env=environment) as process:
        os.close(theirs)
        seen = b""
        while True:
            try:
                piece = os.read(ours, 65536)
            except OSError:  # EIO: the other side is closed
                break
            seen += piece
    os.close(ours)
    assert process.returncode == Exit.OK
    return seen.decode()


def test_a_person_sees_progress_first_and_then_a_coloured_verdict():
    seen = on_a_terminal(NO_COLOR="")
    stages = [seen.find(words) for words in ("fellow_1.jpg", "Inconclusive")]
    assert 0 <= stages[0] < stages[1]
    assert "\x1b[1;33mInconclusive" in seen


def test_no_color_is_honoured():
    assert not re.search(r"\x1b\[[0-9;]*3[0-9]m", on_a_terminal(NO_COLOR="1"))


def test_a_reader_that_leaves_is_no_error():
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run([LAESCAN, "scan", "--json", PORTRAIT], stdout=writing, stderr=subprocess.PIPE, check=False)
    os.close(writing)
    assert (done.returncode, done.stderr) == (128 + signal.SIGPIPE, b"")


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, Exit.INTERRUPTED), (signal.SIGTERM, Exit.TERMINATED)])
def test_a_signal_ends_a_scan_cleanly(tmp_path, sent, code):
    server = Origin()

    async def hang(writer, _headers):
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n\xff\xd8")
        await writer.drain()
        await asyncio.Event().wait()

    server.routes["/hang"] = hang
    # A shell starts what runs in the background with SIGINT ignored, and a test run may be started so.
    command = ["env", "--default-signal=INT", LAESCAN, "scan", PORTRAIT, server.url("/hang")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        while not server.requests:
            assert process.poll() is None
            time.sleep(0.02)
        process.send_signal(sent)
        said, complained = process.communicate(timeout=20)
    server.close()
    assert process.returncode == code
    assert "Inconclusive" in said, "what was judged before stays said"
    assert "Traceback" not in complained
    assert list((tmp_path / "temporary").iterdir()) == []
