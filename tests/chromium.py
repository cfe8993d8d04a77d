"""Debian's Chromium, driven by Playwright, for the tests of our pages."""

import shutil
from contextlib import contextmanager

from playwright.sync_api import expect, sync_playwright

expect.set_options(timeout=20_000)  # ms; a busy machine is no failure

# As root Chromium has no sandbox to give; the rest keeps it from looking for hosts that are not ours.
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@contextmanager
def chromium():
    """A browser, closed at the end; `make setup` installs it."""
    path = shutil.which("chromium")
    assert path, "no chromium on PATH: `make setup` as root, or apt-get install chromium"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(FLAGS))
        yield browser
        browser.close()
