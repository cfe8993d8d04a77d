"""The annotator over real HTTP and by its command: what it keeps, and who gets nothing."""

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import annotating
import numpy as np
import pytest

from scanner.cli import Exit, main
from scanner.training import candidates
from scanner.training.annotate import Annotator
from scanner.training.candidates import CandidatesError, Source

LAESCAN = Path(sys.executable).with_name("laescan")


@pytest.fixture
def folder(tmp_path):
    return annotating.make(tmp_path / "candidates")


@pytest.fixture
def address(folder):
    with annotating.serving(folder) as address:
        yield address


def ask(address, path="", method="GET", body=None, **headers):
    """Status, headers and body, with any Host header one likes."""
    url = urlsplit(address)
    connection = http.client.HTTPConnection(url.hostname, url.port, timeout=20)
    connection.putrequest(method, url.path + path, skip_host="Host" in headers)
    body = body if body is not None or method == "GET" else b""
    for name, value in {**headers, **({} if body is None else {"Content-Length": str(len(body))})}.items():
        connection.putheader(name, value)
    connection.endheaders(body)
    answer = connection.getresponse()
    found = answer.status, dict(answer.headers), answer.read()
    connection.close()
    return found


def bits(mask):
    return np.packbits(mask).tobytes()


# ---------------------------------------------------------------- what it keeps


def test_the_page_learns_of_every_candidate(address, folder):
    candidates.write_mask(folder, "0002", annotating.forged_part())
    found = json.loads(ask(address, "candidates")[2])
    assert found["folder"] == str(folder)
    assert len(found["ramp"]) == 256
    first, second, third = found["candidates"]
    size = {"width": annotating.WIDTH, "height": annotating.HEIGHT}
    assert first == {"name": "0001", **size, "attention": True, "original": True, "source": None}
    assert (second["source"], third["original"]) == ("automatic", False)


def test_pictures_are_served_byte_by_byte(address, folder):
    for kind in ("pictures", "attention", "originals"):
        status, headers, body = ask(address, f"{kind}/0001")
        assert (status, headers["Content-Type"]) == (200, "image/png")
        assert body == (folder / kind / "0001.png").read_bytes()
    assert ask(address, "originals/0003")[0] == 404


def test_a_drawn_mask_is_kept_as_it_is_and_noted_as_human(address, folder):
    mask = np.random.default_rng(0).random((annotating.HEIGHT, annotating.WIDTH)) < 0.5
    assert ask(address, "masks/0001")[0] == 204
    assert ask(address, "masks/0001", "PUT", bits(mask))[0] == 204
    assert (annotating.mask_of(folder, "0001") == mask).all()
    assert candidates.read_sources(folder) == {"0001": Source.HUMAN}
    assert ask(address, "masks/0001")[2] == bits(mask)


def test_an_empty_drawing_takes_the_mask_away(address, folder):
    candidates.write_mask(folder, "0001", annotating.forged_part())
    assert ask(address, "masks/0001", "PUT", bits(~annotating.forged_part() & annotating.forged_part()))[0] == 204
    assert annotating.mask_of(folder, "0001") is None
    assert ask(address, "masks/0001")[0] == 204


def test_the_difference_to_the_original_is_offered(address):
    assert ask(address, "differences/0001")[2] == bits(annotating.forged_part())
    assert ask(address, "differences/0003")[0] == 404


def test_a_skipped_candidate_is_noted_until_it_is_drawn_on(address, folder):
    assert ask(address, "skips/0002", "PUT")[0] == 204
    assert candidates.read_sources(folder) == {"0002": Source.SKIPPED}
    assert [c["source"] for c in json.loads(ask(address, "candidates")[2])["candidates"]] == [None, "skipped", None]
    ask(address, "masks/0002", "PUT", bits(annotating.forged_part()))
    assert candidates.read_sources(folder) == {"0002": Source.HUMAN}


@pytest.mark.parametrize("wrong", [-1, 1])
def test_a_mask_of_another_size_is_refused(address, folder, wrong):
    status, _, words = ask(address, "masks/0001", "PUT", b"\xff" * (annotating.WIDTH * annotating.HEIGHT // 8 + wrong))
    assert (status, words) == (400, b"a mask of 96 x 64 px has another size")
    assert annotating.mask_of(folder, "0001") is None


def test_a_file_that_breaks_meanwhile_is_told_and_not_a_crash(address, folder):
    (folder / "masks").mkdir()
    (folder / "masks" / "0001.png").write_bytes(b"no picture")
    status, _, words = ask(address, "masks/0001")
    assert (status, words.endswith(b"0001.png is not a PNG picture")) == (409, True)


# ---------------------------------------------------------------- who gets nothing


@pytest.mark.parametrize(
    "host", ["evil.test", "evil.test:80", "127.0.0.1.evil.test", "10.0.0.1", "[::ffff:10.0.0.1]", ""]
)
def test_another_name_for_this_machine_is_refused(address, host):
    assert ask(address, "candidates", Host=host)[0] in {400, 403}


@pytest.mark.parametrize("host", ["localhost:8000", "127.0.0.1:8000"])
def test_a_forwarded_port_is_welcome(address, host):
    assert ask(address, "candidates", Host=host)[0] == 200


@pytest.mark.parametrize("origin", ["http://evil.test", "null", "https://127.0.0.1", "http://localhost:1"])
def test_a_page_of_a_stranger_cannot_write(address, folder, origin):
    assert ask(address, "masks/0001", "PUT", bits(annotating.forged_part()), Origin=origin)[0] == 403
    assert annotating.mask_of(folder, "0001") is None


@pytest.mark.parametrize("token", ["x", "", "index.html", "A" * 32])
def test_without_the_token_there_is_nothing(address, token):
    root = address.rsplit("/", 2)[0]
    assert ask(f"{root}/{token}/", "candidates")[0] == 404
    assert ask(f"{root}/", "")[0] == 404


@pytest.mark.parametrize(
    "path",
    [
        "candidates.json",
        "masks/source.json",
        "pictures/0004",
        "pictures/0001.png",
        "pictures/..%2fcandidates.json",
        "pictures/%2e%2e%2fcandidates",
        "pictures/..",
        "mask.py",
        "annotate.py",
        "..%2fannotate.py",
        "secret.js",
        "attention/",
    ],
)
def test_only_what_is_listed_is_served(address, path):
    assert ask(address, path)[0] == 404


def test_a_picture_that_becomes_a_link_outside_is_not_served(address, folder, tmp_path):
    (tmp_path / "secret.png").write_bytes(b"secret")
    (folder / "pictures" / "0001.png").unlink()
    (folder / "pictures" / "0001.png").symlink_to(tmp_path / "secret.png")
    status, _, words = ask(address, "pictures/0001")
    assert (status, b"secret\n" in words) == (409, False)


@pytest.mark.parametrize("path", ["", "annotate.js", "candidates", "pictures/0001", "masks/0001", "nowhere"])
def test_every_answer_forbids_what_the_page_does_not_need(address, path):
    _, headers, _ = ask(address, path)
    policy = dict(part.split(" ", 1) for part in headers["Content-Security-Policy"].split("; "))
    assert policy["default-src"] == policy["frame-ancestors"] == policy["base-uri"] == "'none'"
    assert "unsafe" not in headers["Content-Security-Policy"]
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["Cache-Control"] == "no-store"
    assert headers["X-Content-Type-Options"] == "nosniff"


def test_it_listens_on_this_machine_only(address):
    port = urlsplit(address).port
    with socket.socket() as probe, pytest.raises(ConnectionRefusedError):
        probe.connect(("127.0.0.2", port))  # what listens on all addresses answers here too


# ---------------------------------------------------------------- folders it does not take


def test_an_empty_list_is_refused(folder):
    (folder / "candidates.json").write_text("[]")
    with pytest.raises(CandidatesError, match="has no candidates"):
        Annotator.of(folder)


def test_an_original_of_another_size_is_refused(folder):
    (folder / "originals" / "0001.png").write_bytes((folder / "attention" / "0001.png").read_bytes())
    with pytest.raises(CandidatesError, match="not as large as its forgery"):
        Annotator.of(folder)


def test_a_picture_that_is_none_is_refused_before_the_page_opens(folder):
    (folder / "pictures" / "0002.png").write_text("no picture")
    with pytest.raises(CandidatesError, match=r"0002\.png is not a PNG picture"):
        Annotator.of(folder)


# ---------------------------------------------------------------- the command


def test_the_command_serves_until_interrupted_and_sums_up(folder):
    candidates.write_mask(folder, "0002", annotating.forged_part())
    command = [LAESCAN, "annotate", folder, "--no-browser"]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        address = re.fullmatch(
            r"annotate at (http://127\.0\.0\.1:\d+/[\w-]{32}/) \(Ctrl\+C ends\)\n", process.stdout.readline()
        )
        assert address, process.communicate()
        assert b"<title>" in ask(address[1])[2]
        ask(address[1], "masks/0001", "PUT", bits(annotating.forged_part()))
        process.send_signal(signal.SIGINT)
        said, complained = process.communicate(timeout=20)
    assert (process.returncode, said, complained) == (Exit.OK, "1 automatic, 1 human\n", "")


def test_the_page_need_not_wait_for_torch():
    code = "import sys, scanner.training.annotate; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


def test_the_command_opens_a_browser_unless_told_not_to(folder, monkeypatch):
    opened = []

    def opener(address):
        opened.append(address)
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr("webbrowser.open", opener)
    assert main(["annotate", str(folder)]) == Exit.OK
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/[\w-]+/", opened[0])


def test_the_command_says_what_is_wrong_in_one_line(folder, tmp_path, capsys):
    assert main(["annotate", str(tmp_path)]) == Exit.USAGE
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert main(["annotate", str(folder), "--no-browser", "--port", str(taken.getsockname()[1])]) == Exit.USAGE
    assert main(["annotate", str(folder), "--no-browser", "--port", "70000"]) == Exit.USAGE
    none, taken_words, beyond = capsys.readouterr().err.splitlines()
    assert "candidates.json cannot be read" in none
    assert "address already in use" in taken_words
    assert "65535" in beyond
