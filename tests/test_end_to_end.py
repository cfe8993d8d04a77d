"""The main job, end to end, as a person does it: a picture on a web server, one command, a verdict with its overlay.

Read it as documentation: nothing here is replaced or pretended, the weights are the shipped ones.
The server listens on loopback, which a scan may not reach; LAESCAN_ALLOW_NETWORKS opens it, as an operator would do.
"""

import os
import subprocess
import sys
import threading
from pathlib import Path

import msgspec
import pytest
from aiohttp import web
from PIL import Image

from scanner.contract import Label, Outcome
from scanner.wording import HEADLINES

MEDIA = Path(__file__).parent / "media"
LAESCAN = Path(sys.executable).with_name("laescan")
ENVIRONMENT = {
    **{name: value for name, value in os.environ.items() if not name.startswith("LAESCAN_")},
    "LAESCAN_ALLOW_NETWORKS": "127.0.0.1/32",
    "LAESCAN_THREADS": "1",
}


def serve() -> web.Application:
    """A small site: pictures, and a door that leads to a private address."""

    async def private(_request: web.Request) -> web.StreamResponse:
        metadata = "http://169.254.169.254/latest/meta-data/"
        raise web.HTTPFound(metadata)

    app = web.Application()
    app.router.add_get("/private.jpg", private)
    app.router.add_static("/pictures", MEDIA)
    return app


@pytest.fixture(scope="module")
def site():
    """The site's address, served by a thread of its own."""
    import asyncio  # noqa: PLC0415 - only the server needs a loop

    loop, runner = asyncio.new_event_loop(), web.AppRunner(serve())
    loop.run_until_complete(runner.setup())
    loop.run_until_complete(web.TCPSite(runner, "127.0.0.1", 0).start())
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    host, port = runner.addresses[0]
    yield f"http://{host}:{port}"
    asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(10)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(10)
    loop.close()


def laescan(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([LAESCAN, *arguments], capture_output=True, text=True, check=False, env=ENVIRONMENT)


def test_a_url_becomes_a_verdict_with_an_overlay(site, tmp_path):
    done = laescan("scan", f"{site}/pictures/fellow_1.jpg", "--json", "--report", str(tmp_path / "report"))

    # The answer is one line of JSON on stdout, and 0 says that everything was judged.
    assert done.returncode == 0, done.stderr
    outcome = msgspec.json.decode(done.stdout, type=Outcome)
    verdict = outcome.verdict

    # The verdict is about this picture, by the model that is installed, in words.
    assert outcome.source == f"{site}/pictures/fellow_1.jpg"
    assert (verdict.media.format, verdict.media.width, verdict.media.height) == ("jpeg", 384, 384)
    assert verdict.label in set(Label) - {Label.NO_FACE}
    assert 0 <= verdict.score <= 1
    assert verdict.reason.endswith(".")

    # The evidence: one face, its box, and a map of where the evidence lies.
    (face,) = verdict.faces
    x0, y0, x1, y1 = face.box
    assert 0 < x0 < 192 < x1 < 384
    assert 0 < y0 < 192 < y1 < 384
    assert len(face.attention.grid) == face.attention.size**2

    # The report is one page that needs nothing else, and beside it the picture with the evidence drawn on it.
    page = (tmp_path / "report" / "report.html").read_text(encoding="utf-8")
    assert HEADLINES[verdict.label] in page
    assert "http://" not in page.replace(f"{site}/pictures/", "")
    (overlay,) = (tmp_path / "report").glob("*-overlay.jpg")
    with Image.open(overlay) as drawn:
        assert drawn.width >= 384


def test_the_evidence_lies_where_the_forgery_is(site):
    # One eye and half of the forehead of this person, whom training never saw, are painted over.
    done = laescan("scan", "--json", f"{site}/pictures/example_inpaint.jpg")
    verdict = msgspec.json.decode(done.stdout, type=Outcome).verdict
    assert verdict.label == Label.MANIPULATED

    # The strongest place of the map, taken from crop coordinates to the picture, is on the paint.
    attention = verdict.faces[0].attention
    row, column = divmod(attention.grid.index(max(attention.grid)), attention.size)
    a, b, c, d, e, f = attention.crop_to_frame
    u, v = (column + 0.5) / attention.size, (row + 0.5) / attention.size
    x, y = a * u + b * v + c, d * u + e * v + f
    assert 120 < x < 200
    assert 90 < y < 190


def test_what_cannot_be_judged_gets_a_code_and_never_a_score(site):
    sources = {
        f"{site}/pictures/fellow_1.jpg": None,
        f"{site}/pictures/nothing.jpg": "gone",
        f"{site}/private.jpg": "blocked_address",  # it redirects to where clouds keep credentials
        f"{site}/pictures/README.md": "unsupported_media",
    }
    done = laescan("scan", "--json", *sources)

    assert done.returncode == 3, done.stderr  # some source failed
    outcomes = [msgspec.json.decode(line, type=Outcome) for line in done.stdout.splitlines()]
    assert [outcome.source for outcome in outcomes] == list(sources)
    assert [outcome.failure and outcome.failure.code for outcome in outcomes] == list(sources.values())
    assert [outcome.verdict is None for outcome in outcomes] == [False, True, True, True]


def test_a_private_network_is_closed_unless_it_was_opened(site):
    closed = {name: value for name, value in ENVIRONMENT.items() if name != "LAESCAN_ALLOW_NETWORKS"}
    command = [LAESCAN, "scan", f"{site}/pictures/fellow_1.jpg"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=closed)
    assert done.returncode == 3
    assert "blocked_address" in done.stdout
    assert "LAESCAN_ALLOW_NETWORKS" in done.stdout


def test_the_doctor_finds_nothing_wrong_with_what_is_shipped():
    done = laescan("doctor")
    assert done.returncode == 0, done.stdout
