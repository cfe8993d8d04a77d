"""The icon's SVG in, PNGs of the sizes that browsers ask for out: `python extension/icons/draw.py`."""

import sys
from pathlib import Path

FOLDER = Path(__file__).parent
sys.path.append(str(FOLDER.parent.parent / "tests"))

from chromium import chromium  # noqa: E402 - the tests' browser is the only one that we have

SIZES_PX = (16, 32, 48, 128)


def draw() -> None:
    """Write `SIZE.png` beside the source, on a transparent ground."""
    svg = (FOLDER / "icon.svg").read_text(encoding="utf-8")
    with chromium() as browser:
        page = browser.new_page(viewport={"width": 128, "height": 128})
        for size in SIZES_PX:
            page.set_content(f"<style>body{{margin:0}}svg{{display:block;width:{size}px;height:{size}px}}</style>{svg}")
            clip = {"x": 0, "y": 0, "width": size, "height": size}
            page.screenshot(path=FOLDER / f"{size}.png", clip=clip, omit_background=True)


if __name__ == "__main__":
    draw()
