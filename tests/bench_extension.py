"""How long a person waits for an answer that is remembered: from the choice in the menu to the words on the badge.

`python tests/bench_extension.py`: the whole service, real Chromium, one picture chosen again and again.
"""

import statistics
import sys
import tempfile
import time
from pathlib import Path

from browsing import MEDIA, Browser, Inside, Site, browsing
from playwright.sync_api import Page
from serving import Service

CLICKS = 40
# The page's own clock, so that Playwright's round trips do not count; a new badge begins with "checking".
WATCH = """new Promise((done) => {
  const look = () => {
    const badge = host.shadow.querySelector('.reach:not(.is-checking, [data-seen])');
    if (!badge) return requestAnimationFrame(look);
    badge.dataset.seen = '';
    return done(Date.now());
  };
  look();
})"""


def click(browser: Browser, page: Page, inside: Inside) -> float:
    """Milliseconds from the menu's event in the worker to the answer on the page."""
    begun = browser.worker.evaluate(
        """async (url) => {
          const tab = (await chrome.tabs.query({})).find((one) => one.url === url);
          const click = { menuItemId: 'check', editable: false, frameId: 0, pageUrl: url, mediaType: 'image' };
          const now = Date.now();
          chrome.contextMenus.onClicked.dispatch({ ...click, srcUrl: new URL('/a.jpg', url).href }, tab);
          return now;
        }""",
        page.url,
    )
    return inside.run(WATCH) - begun


def measure(browser: Browser, site: Site) -> list[float]:
    """The clicks after the first, which scans."""
    page = browser.open(site.page("/page.html", "<img src=/a.jpg width=300>"))
    inside = browser.choose_image(page)
    inside.answer()
    inside.run("host.shadow.querySelector('.reach').dataset.seen = ''")
    waits = []
    for _ in range(CLICKS):
        waits.append(click(browser, page, inside))
        page.wait_for_timeout(50)
    return sorted(waits)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        service = Service(work, "")
        try:
            service.wait()
            with Site().serving() as pages, browsing(work / "browser") as chromium:
                pages.put("/a.jpg", MEDIA / "example_inpaint.jpg", "image/jpeg")
                chromium.settings(server=service.url)
                begun = time.monotonic()
                waits = measure(chromium, pages)
        finally:
            service.stop()
    p95 = waits[int(0.95 * len(waits))]
    sys.stdout.write(f"remembered answer on the badge: p50 {statistics.median(waits):.0f} ms, p95 {p95:.0f} ms, ")
    sys.stdout.write(f"worst {waits[-1]:.0f} ms of {len(waits)} clicks ({time.monotonic() - begun:.0f} s)\n")
