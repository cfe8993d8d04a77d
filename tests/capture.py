"""The film of the README, made anew: `python tests/capture.py`, with the real service and the extension as it ships.

Chromium runs in a window on a screen of its own and is used by a mouse, so its own menu is in the film, too. Nothing is
drawn by this script but the pointer, which a picture of the screen leaves out.
The person is of the London set, who consented to altered versions (tests/media/README.md).
"""

import sys
import tempfile
import time
from pathlib import Path

from browsing import EXTENSION, MEDIA, Browser, Inside, Site, launched
from desktop import Desktop, desktop
from PIL import Image, ImageDraw
from playwright.sync_api import Page, sync_playwright
from serving import Service

FILM = EXTENSION / "pictures" / "capture.webp"
SIZE = (860, 720)
MOST_BYTES = 1_500_000
PAGE = """<title>The Morning Paper</title><h1 style="margin:0 0 .2em">The Morning Paper</h1>
<p style="margin:0 0 1em;color:#555">A portrait that was passed around all day.</p>
<img src=/example_inpaint.jpg width=400>"""
PORTRAIT = (250, 330)
ARROW = [(0, 0), (0, 21), (5, 16.5), (8.5, 24), (12, 22.5), (8.5, 15), (15, 15)]


class Film:
    """Pictures of the screen with their lengths; equal ones are one."""

    def __init__(self, screen: Desktop, page: Page) -> None:
        self.screen, self.origin = screen, screen.origin(page)
        self.frames: list[Image.Image] = []
        self.lengths_ms: list[int] = []
        self.pointer = (620.0, 640.0)  # on the screen
        screen.move(*self.pointer)

    def shoot(self, length_ms: int) -> None:
        """One frame as the screen is now."""
        frame = self.screen.picture()
        x, y = self.pointer
        ImageDraw.Draw(frame).polygon([(x + dx, y + dy) for dx, dy in ARROW], fill="black", outline="white")
        if self.frames and self.frames[-1].tobytes() == frame.tobytes():
            self.lengths_ms[-1] += length_ms
        else:
            self.frames.append(frame)
            self.lengths_ms.append(length_ms)

    def run(self, seconds: float) -> None:
        """What moves, moves."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.shoot(80)

    def move(self, x: float, y: float) -> None:
        """Let the pointer go there, in pixels of the page."""
        x0, y0 = self.pointer
        x1, y1 = x + self.origin[0], y + self.origin[1]
        for step in range(1, 9):
            part = step / 8 * (2 - step / 8)
            self.pointer = (x0 + (x1 - x0) * part, y0 + (y1 - y0) * part)
            self.screen.move(*self.pointer)
            self.shoot(45)

    def choose_from_menu(self) -> None:
        """The browser's own, in which "Check deepfake" stands above "Inspect"."""
        before = self.screen.windows()
        self.screen.click(3)
        self.screen.until(lambda: self.screen.windows() > before)
        self.run(0.5)
        self.shoot(500)
        for _ in range(2):
            self.screen.press("Up")
            self.run(0.2)
        self.shoot(1200)
        self.screen.press("Return")

    def click(self, inside: Inside, selector: str, words: str = "") -> None:
        """Go to an element of the extension's, and click."""
        found = f"[...host.shadow.querySelectorAll({selector!r})].filter((e) => e.innerText.includes({words!r})).at(-1)"
        inside.run(f"{found}.scrollIntoView({{ block: 'nearest' }})")
        box = (
            f"(() => {{ const r = {found}.getBoundingClientRect(); return [r.x + r.width / 2, r.y + r.height / 2] }})()"
        )
        self.move(*inside.run(box))
        self.shoot(350)
        self.screen.click()

    def save(self) -> None:
        """An animated WebP that begins anew."""
        options = {"save_all": True, "append_images": self.frames[1:], "duration": self.lengths_ms, "loop": 0}
        self.frames[0].save(FILM, **options, quality=72, method=6, minimize_size=True)


def take(browser: Browser, site: Site, screen: Desktop) -> Film:
    """Right-click, choose, wait, open, look."""
    page = browser.open(site.page("/paper.html", PAGE))
    for other in browser.context.pages:
        if other is not page:
            other.close()
    film = Film(screen, page)
    inside = Inside(page, lambda: browser.checks()[:1])
    film.run(0.4)
    film.shoot(900)
    film.move(*PORTRAIT)
    film.shoot(600)
    with site.holding("/example_inpaint.jpg"):  # the site takes its time, so that the stages are seen
        film.choose_from_menu()
        inside.until("host.shadow.querySelector('.stage')?.innerText.startsWith('fetching')")
        film.run(1.2)
    begun = time.monotonic()
    while "checking" in str(inside.run("host.shadow.querySelector('.reach').className")):
        assert time.monotonic() < begun + 60
        film.shoot(80)
    film.run(0.4)
    film.shoot(1200)
    film.click(inside, ".badge")
    film.run(0.4)
    film.shoot(2400)
    film.click(inside, ".switch")
    film.run(0.4)
    film.shoot(2600)
    film.click(inside, "summary")
    film.run(0.2)
    inside.run("host.shadow.querySelector('dl').scrollIntoView({ block: 'end' })")
    film.shoot(2600)
    film.shoot(1500)
    return film


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        service = Service(work, "")
        try:
            service.wait()
            with (
                Site().serving() as pages,
                desktop(*SIZE) as display,
                sync_playwright() as playwright,
                launched(playwright, work / "browser", screen=display) as chromium,
            ):
                pages.put("/example_inpaint.jpg", MEDIA / "example_inpaint.jpg", "image/jpeg")
                chromium.settings(server=service.url)
                made = take(chromium, pages, display)
        finally:
            service.stop()
    made.save()
    length_s, size = sum(made.lengths_ms) / 1000, FILM.stat().st_size
    assert length_s <= 30, f"{length_s:.1f} s"
    assert size <= MOST_BYTES, f"{size} bytes"
    sys.stdout.write(f"{FILM}: {len(made.frames)} frames, {length_s:.1f} s, {size / 1000:.0f} kB\n")
