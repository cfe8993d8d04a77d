"""The picture at the head of README.md, taken anew: `python tests/picture_report.py`, after a new model or look.

A person of the London set, who consented to altered versions (tests/media/README.md).
"""

import io
import sys
import tempfile
from pathlib import Path

from chromium import chromium
from PIL import Image
from playwright.sync_api import Browser

from scanner.cli import main

SOURCE = "tests/media/example_inpaint.jpg"
PICTURE = Path("tests/media/report.png")
WIDTH_PX = 1000


def take(browser: Browser, report: Path) -> None:
    """The report from its head to the end of its card."""
    page = browser.new_page(viewport={"width": WIDTH_PX, "height": 1200}, color_scheme="light")
    page.goto(report.as_uri())
    card = page.locator("article").bounding_box()
    assert card is not None
    seen = {"x": 0, "y": 0, "width": WIDTH_PX, "height": card["y"] + card["height"] + 24}
    shot = Image.open(io.BytesIO(page.screenshot(clip=seen, full_page=True)))
    shot.convert("RGB").save(PICTURE, optimize=True)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        if status := main(["scan", SOURCE, "--report", folder]):
            sys.exit(status)
        with chromium() as opened:
            take(opened, Path(folder) / "report.html")
