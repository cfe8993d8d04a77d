"""The extension exactly as it ships, in a window on a screen: Chromium's own menu, a real mouse, real keys.

All other tests of the extension dispatch the menu's event and lend it the right to all sites; this one has the browser
grant what it grants a person who chooses "Check deepfake", and no more.
"""

import pytest
from browsing import MEDIA, Inside, Site, launched
from desktop import desktop
from playwright.sync_api import sync_playwright
from serving import Service, split_checkpoint

MIDDLE = """(selector) => {
  const box = document.querySelector(selector).getBoundingClientRect();
  return [box.x + box.width / 2, box.y + box.height / 2];
}"""


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    folder = tmp_path_factory.mktemp("right_click")
    weights, (_, forged) = split_checkpoint(folder, MEDIA / "london_1.jpg", MEDIA / "example_inpaint.jpg")
    service = Service(folder, weights)
    try:
        service.wait()
        with (
            Site().serving() as site,
            desktop(1000, 800) as screen,
            sync_playwright() as playwright,
            launched(playwright, folder, screen=screen) as browser,
        ):
            site.put("/forged.jpg", forged, "image/jpeg")
            browser.settings(server=service.url)
            yield site, screen, browser
    finally:
        service.stop()


def point_at(screen, page, selector):
    left, top = screen.origin(page)
    x, y = page.evaluate(MIDDLE, selector)
    screen.move(left + x, top + y)


def choose_check_deepfake(screen, page, selector):
    """By Chromium's own menu, in which it stands above "Inspect"."""
    point_at(screen, page, selector)
    before = screen.windows()
    screen.click(3)
    screen.until(lambda: screen.windows() > before)
    screen.press("Up", "Up", "Return")
    screen.until(lambda: screen.windows() == before)


def test_the_browsers_own_menu_checks_a_picture_with_no_right_but_that_clicks(running):
    site, screen, browser = running
    page = browser.open(site.page("/a.html", "<img src=/forged.jpg width=400>"))
    rights = browser.worker.evaluate("() => chrome.permissions.getAll()")
    assert rights["origins"] == ["http://127.0.0.1/*"], "the service on this machine, no site"
    choose_check_deepfake(screen, page, "img")
    inside = Inside(page, lambda: browser.checks()[:1])
    inside.expect("manipulated")
    inside.click(".badge")
    inside.click(".switch")
    inside.until("host.shadow.querySelector('.overlay canvas') !== null")
    assert len(browser.checks()) == 1, "one choice, one check"


def test_the_browsers_own_menu_checks_a_link_to_a_picture(running):
    site, screen, browser = running
    page = browser.open(site.page("/b.html", "<a href=/forged.jpg>the picture</a>"))
    choose_check_deepfake(screen, page, "a")
    Inside(page, lambda: browser.checks()[:1]).expect("manipulated")


def test_the_keys_check_what_the_page_mainly_shows(running):
    site, screen, browser = running
    page = browser.open(site.page("/c.html", "<img src=/forged.jpg width=500>"))
    point_at(screen, page, "img")
    screen.click()  # the keys go to the window in which somebody clicked last
    screen.press("alt+shift+d")
    Inside(page, lambda: browser.checks()[:1]).expect("manipulated")


def test_a_page_in_which_nobody_chose_it_is_out_of_reach(running):
    site, _, browser = running
    page = browser.open(site.page("/d.html", "<img src=/forged.jpg width=500>"))
    refused = browser.worker.evaluate(
        """async (url) => {
          const [tab] = await chrome.tabs.query({ active: true, lastFocusedWindow: true });
          return chrome.scripting.executeScript({ target: { tabId: tab.id }, func: () => document.title })
            .then(() => 'let in', (error) => error.message);
        }""",
        page.url,
    )
    assert "Cannot access" in refused
