"""The pictures of extension/README.md, taken anew: `python tests/picture_extension.py`, some minutes after a new model.

The faces are of the London set, whose people consented to altered versions (tests/media/README.md).
"""

import io
import tempfile
from pathlib import Path

import numpy as np
from browsing import EXTENSION, MEDIA, Browser, Site, browsing
from media import clip
from PIL import Image
from playwright.sync_api import Page
from serving import Service

FOLDER = EXTENSION / "pictures"
NEWS = "<h1 style='margin:0 0 .3em'>The Morning Paper</h1><p>A portrait that was passed around all day.</p>"


def save(page: Page, name: str, **clip_px: int) -> None:
    """A screenshot, packed well."""
    image = Image.open(io.BytesIO(page.screenshot(clip=clip_px or None))).convert("RGB")
    image.save(FOLDER / f"{name}.png", optimize=True)


def cut(folder: Path) -> Path:
    """A clip of one person with another, forged one in the middle."""
    portraits = [
        np.asarray(Image.open(MEDIA / name).convert("RGB").resize((352, 352)))
        for name in ("london_1.jpg", "example_inpaint.jpg")
    ]
    frames = (np.roll(portraits[96 <= number < 170], number % 12 // 3, axis=1) for number in range(240))
    return clip(folder / "clip.mp4", frames, size=(352, 352))


def take(browser: Browser, site: Site, folder: Path) -> None:
    """All of them."""
    for name in ("example_inpaint", "example_original", "london_1"):
        site.put(f"/{name}.jpg", MEDIA / f"{name}.jpg", "image/jpeg")
    page = browser.open(site.page("/paper.html", f"{NEWS}<img src=/example_inpaint.jpg width=460>"))
    inside = browser.choose_image(page)
    inside.answer()
    inside.click(".badge")
    inside.click(".switch")
    page.mouse.move(5, 5)
    page.wait_for_timeout(800)
    save(page, "panel", x=20, y=20, width=900, height=735)
    site.put("/clip.mp4", cut(folder), "video/mp4")
    page = browser.open(site.page("/video.html", f"{NEWS}<video src=/clip.mp4 width=460 muted></video>"))
    page.wait_for_function("document.querySelector('video').readyState >= 2")
    page.hover("video")
    inside = browser.choose(page, mediaType="video", srcUrl=f"{site.url}/clip.mp4")
    inside.answer()
    inside.click(".badge")
    inside.click(".switch")
    page.mouse.move(5, 5)
    page.wait_for_timeout(1200)
    save(page, "video", x=20, y=20, width=900, height=735)
    page = browser.open(
        site.page("/more.html", "<img src=/london_1.jpg width=300><img src=/example_original.jpg width=300>")
    )
    for name in ("london_1", "example_original"):
        browser.choose_image(page, f"img[src='/{name}.jpg']").answer()
    page.wait_for_timeout(1500)
    popup = browser.own_page("popup/popup.html")
    popup.set_viewport_size({"width": 380, "height": 540})
    popup.wait_for_timeout(500)
    save(popup, "popup")
    options = browser.own_page("options/options.html")
    options.set_viewport_size({"width": 700, "height": 640})
    options.click("button.primary")
    options.wait_for_selector("#test .words")
    save(options, "options")


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        service = Service(work, "")
        try:
            service.wait()
            with Site().serving() as pages, browsing(work / "browser") as chromium:
                chromium.settings(server=service.url)
                take(chromium, pages, work)
        finally:
            service.stop()
