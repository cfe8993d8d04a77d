"""Every page as people see it, for somebody to look at: `python tests/review_pages.py`, then open reports/pages.

Light and dark, phone and desktop; what axe-core finds serious is printed, and what scrolls sideways on a phone.
"""

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import annotating
from axe import findings, findings_inside
from browsing import MEDIA, Browser, Inside, Site, browsing
from node import install
from picture_extension import NEWS, cut
from playwright.sync_api import Page
from serving import Service

FOLDER = Path("reports/pages")
WIDTHS = {"phone": (390, 844), "desktop": (1280, 860)}
NARROW_PX = (390, 320)


def looks(page: Page) -> Iterator[str]:
    """The page in each scheme and width; the name of the look."""
    for scheme in ("light", "dark"):
        for device, (width, height) in WIDTHS.items():
            page.emulate_media(color_scheme=scheme)
            page.set_viewport_size({"width": width, "height": height})
            page.wait_for_timeout(500)
            yield f"{scheme}-{device}"


def keep(page: Page, name: str, inside: Inside | None = None) -> int:
    """Screenshots in every look; how many serious findings there are."""
    count = 0
    for look in looks(page):
        page.screenshot(path=FOLDER / f"{name}-{look}.png", full_page=inside is None)
        found = findings(page) if inside is None else findings_inside(inside)
        sys.stdout.write("\n  ".join([f"{name}, {look}: {len(found)} serious", *found]) + "\n")
        count += len(found)
    wide = sideways(page) if inside is None else []
    sys.stdout.writelines(f"{name} scrolls sideways: {found}\n" for found in wide)
    return count + len(wide)


def sideways(page: Page) -> list[str]:
    """Where the page is wider than a phone shows."""
    found = []
    for width in NARROW_PX:
        page.set_viewport_size({"width": width, "height": 844})
        shown, whole = page.evaluate(
            "(({ clientWidth, scrollWidth }) => [clientWidth, scrollWidth])(document.scrollingElement)"
        )
        if whole > shown:
            found.append(f"{whole} px in {shown}")
    return found


def ask(page: Page, address: str) -> None:
    """Have a picture or video judged on the service's own page."""
    page.fill("#url", address)
    page.keyboard.press("Enter")
    page.wait_for_selector("article.card .verdict", timeout=60_000)
    page.wait_for_timeout(800)


def own_pages(browser: Browser, service: Service, site: Site) -> int:
    """The service's: start, verdicts, a report, the description."""
    page = browser.open(service.url)
    count = keep(page, "start")
    for name, path in (("picture", "/example_inpaint.jpg"), ("video", "/clip.mp4"), ("nothing", "/lost.jpg")):
        ask(page, site.url + path)
        count += keep(page, f"verdict-{name}")
        scan = page.url.rpartition("/")[2]
        if name == "nothing":
            continue
        html = page.evaluate(f"fetch('/v1/scans/{scan}/report').then((answer) => answer.text())")
        report = browser.open("about:blank")
        report.set_content(html)
        count += keep(report, f"report-{name}")
        report.close()
    page.goto(f"{service.url}/docs")
    page.wait_for_selector(".endpoint")
    return count + keep(page, "docs")


def panels(browser: Browser, site: Site) -> int:
    """The extension's, on pages of the web."""
    page = browser.open(site.page("/paper.html", f"{NEWS}<img src=/example_inpaint.jpg width=330>"))
    inside = browser.choose_image(page)
    inside.answer()
    inside.click(".badge")
    inside.click(".switch")
    count = keep(page, "panel-picture", inside)
    page.set_viewport_size({"width": 1280, "height": 860})
    inside.click("footer button", "This is wrong")
    count += keep(page, "panel-wrong", inside)
    page = browser.open(site.page("/video.html", f"{NEWS}<video src=/clip.mp4 width=330 muted></video>"))
    page.wait_for_function("document.querySelector('video').readyState >= 2")
    page.hover("video")
    inside = browser.choose(page, mediaType="video", srcUrl=f"{site.url}/clip.mp4")
    inside.answer()
    inside.click(".badge")
    inside.click(".switch")
    count += keep(page, "panel-video", inside)
    page = browser.open(site.page("/away.html", f"{NEWS}<img src=/london_1.jpg width=330>"))
    server = browser.worker.evaluate("async () => (await chrome.storage.local.get('settings')).settings.server")
    browser.settings(server="http://127.0.0.1:9")
    inside = browser.choose_image(page)
    inside.expect("offline")
    inside.click(".badge")
    browser.settings(server=server)
    return count + keep(page, "panel-away", inside)


def extension_pages(browser: Browser) -> int:
    """Popup, with one entry open, and options, after a test."""
    popup = browser.own_page("popup/popup.html")
    popup.locator("summary").nth(1).click()
    count = keep(popup, "popup")
    options = browser.own_page("options/options.html")
    options.click("button.primary")
    options.wait_for_selector("#test .words")
    return count + keep(options, "options")


def annotator(browser: Browser, folder: Path) -> int:
    """The page for masks."""
    with annotating.serving(annotating.make(folder)) as address:
        page = browser.open(address)
        page.wait_for_selector("html[data-open]")
        return keep(page, "annotate")


if __name__ == "__main__":
    install()
    FOLDER.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        service = Service(work, "")
        try:
            service.wait()
            with Site().serving() as pages, browsing(work / "browser") as chromium:
                for file in ("example_inpaint", "example_original", "london_1"):
                    pages.put(f"/{file}.jpg", MEDIA / f"{file}.jpg", "image/jpeg")
                pages.put("/clip.mp4", cut(work), "video/mp4")
                chromium.settings(server=service.url)
                total = own_pages(chromium, service, pages) + panels(chromium, pages)
                total += extension_pages(chromium) + annotator(chromium, work / "candidates")
        finally:
            service.stop()
    sys.exit(f"{total} serious findings" if total else 0)
