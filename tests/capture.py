"""The animated capture of the README, made anew: `python tests/capture.py`, against the real service in real Chromium.

A browser draws its context menu outside of the page, where no screenshot reaches: the film begins with what the choice
of *Check deepfake* does, and nothing in it is drawn by this script but the pointer, which a screenshot leaves out, too.
The person is of the London set, who consented to altered versions (tests/media/README.md).
"""

import io
import sys
import tempfile
import time
from pathlib import Path

from browsing import EXTENSION, MEDIA, Browser, Inside, Site, browsing
from PIL import Image, ImageDraw
from playwright.sync_api import Page
from serving import Service

FILM = EXTENSION / "pictures" / "capture.webp"
SIZE = (860, 640)
MOST_BYTES = 1_500_000
PAGE = """<h1 style="margin:0 0 .2em">The Morning Paper</h1>
<p style="margin:0 0 1em;color:#555">A portrait that was passed around all day.</p>
<img src=/example_inpaint.jpg width=400>"""
ARROW = [(0, 0), (0, 21), (5, 16.5), (8.5, 24), (12, 22.5), (8.5, 15), (15, 15)]


class Film:
    """Screenshots with their lengths; equal ones are one."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.frames: list[Image.Image] = []
        self.lengths_ms: list[int] = []
        self.pointer = (620.0, 560.0)

    def shoot(self, length_ms: int) -> None:
        """One frame as the page is now."""
        frame = Image.open(io.BytesIO(self.page.screenshot())).convert("RGB")
        draw = ImageDraw.Draw(frame)
        x, y = self.pointer
        draw.polygon([(x + dx, y + dy) for dx, dy in ARROW], fill="black", outline="white")
        if self.frames and self.frames[-1].tobytes() == frame.tobytes():
            self.lengths_ms[-1] += length_ms
        else:
            self.frames.append(frame)
            self.lengths_ms.append(length_ms)

    def move(self, x: float, y: float) -> None:
        """Let the pointer go there."""
        x0, y0 = self.pointer
        for step in range(1, 9):
            part = step / 8 * (2 - step / 8)
            self.pointer = (x0 + (x - x0) * part, y0 + (y - y0) * part)
            self.page.mouse.move(*self.pointer)
            self.shoot(45)

    def click(self, inside: Inside, selector: str, words: str = "") -> None:
        """Go to an element of the extension's, and click."""
        found = f"[...host.shadow.querySelectorAll({selector!r})].filter((e) => e.innerText.includes({words!r})).at(-1)"
        inside.run(f"{found}.scrollIntoView({{ block: 'nearest' }})")
        box = (
            f"(() => {{ const r = {found}.getBoundingClientRect(); return [r.x + r.width / 2, r.y + r.height / 2] }})()"
        )
        x, y = inside.run(box)
        self.move(x, y)
        self.shoot(350)
        self.page.mouse.click(x, y)

    def save(self) -> None:
        """An animated WebP that begins anew."""
        options = {"save_all": True, "append_images": self.frames[1:], "duration": self.lengths_ms, "loop": 0}
        self.frames[0].save(FILM, **options, quality=72, method=6, minimize_size=True)


def take(browser: Browser, site: Site) -> Film:
    """Choose, wait, open, look, close."""
    page = browser.open(site.page("/paper.html", PAGE))
    page.set_viewport_size({"width": SIZE[0], "height": SIZE[1]})
    film = Film(page)
    film.shoot(900)
    film.move(250, 330)
    film.shoot(600)
    with site.holding("/example_inpaint.jpg"):  # the site takes its time, so that the stages are seen
        inside = browser.choose_image(page)
        inside.until("host.shadow.querySelector('.stage')?.innerText.startsWith('fetching')")
        page.mouse.move(*film.pointer)
        _run(film, 1.2)
    begun = time.monotonic()
    while "checking" in str(inside.run("host.shadow.querySelector('.reach').className")):
        assert time.monotonic() < begun + 60
        film.shoot(80)
    _run(film, 0.4)
    film.shoot(1200)
    film.click(inside, ".badge")
    _run(film, 0.4)
    film.shoot(2400)
    film.click(inside, ".switch")
    page.mouse.move(*film.pointer)
    _run(film, 0.4)
    film.shoot(2600)
    film.click(inside, "summary")
    _run(film, 0.2)
    inside.run("host.shadow.querySelector('dl').scrollIntoView({ block: 'end' })")
    film.shoot(2600)
    film.shoot(1500)
    return film


def _run(film: Film, seconds: float) -> None:
    """What moves, moves."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        film.shoot(80)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        service = Service(work, "")
        try:
            service.wait()
            with Site().serving() as pages, browsing(work / "browser") as chromium:
                pages.put("/example_inpaint.jpg", MEDIA / "example_inpaint.jpg", "image/jpeg")
                chromium.settings(server=service.url)
                made = take(chromium, pages)
        finally:
            service.stop()
    made.save()
    length_s, size = sum(made.lengths_ms) / 1000, FILM.stat().st_size
    assert length_s <= 30, f"{length_s:.1f} s"
    assert size <= MOST_BYTES, f"{size} bytes"
    sys.stdout.write(f"{FILM}: {len(made.frames)} frames, {length_s:.1f} s, {size / 1000:.0f} kB\n")
