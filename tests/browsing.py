"""A browser with the extension in it, pages to right-click on, and a look inside what the extension shows.

What differs from a user's browser: Playwright cannot open a native menu, so a test dispatches the menu's event in the
extension's worker; and as no real click has granted `activeTab`, the loaded copy has the right to all sites instead.
Only on a screen (desktop.py) nothing differs: see test_right_click.
"""

import asyncio
import contextlib
import json
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from aiohttp import web
from chromium import FLAGS
from desktop import Desktop
from playwright.sync_api import BrowserContext, Page, Playwright, Worker, sync_playwright

EXTENSION = Path(__file__).parent.parent / "extension"
MEDIA = Path(__file__).parent / "media"
ID = "faamboekkmeaklkmgfifkmoenfajpmck"  # follows from the key in the manifest
PATIENCE_S = 90.0
HOST = "127.0.0.5"  # a site: neither the service's address nor the extension's default right
OTHER_HOST = "127.0.0.4"  # another site's


class Site:
    """Pages and files on a loopback address, in a thread of its own; `files` may change while it serves."""

    def __init__(self) -> None:
        self.files: dict[str, tuple[bytes | Path, str, int, dict[str, str]]] = {}
        self._held: dict[str, tuple[int, asyncio.Event]] = {}
        self.asked: dict[str, int] = {}
        self.url = self.other_url = ""
        self._loop = asyncio.new_event_loop()

    def put(
        self, path: str, body: bytes | str | Path, kind: str = "text/html", status: int = 200, **headers: str
    ) -> str:
        """The address of what is now there."""
        data = body.encode() if isinstance(body, str) else body
        self.files[path] = (data, kind, status, {name.replace("_", "-"): value for name, value in headers.items()})
        return self.url + path

    def page(self, path: str, body: str, **headers: str) -> str:
        """A page with this body."""
        head = "<!doctype html><meta charset=utf-8><style>body{margin:40px;font:16px system-ui;background:#fff}</style>"
        return self.put(path, head + body, **headers)

    @contextlib.contextmanager
    def holding(self, path: str, *, after: int = 0) -> Iterator[None]:
        """Let who asks for this path wait until the block ends, after so many who need not."""
        self._held[path] = (after, asyncio.Event())
        held = self._held[path][1]
        try:
            yield
        finally:
            del self._held[path]
            self._loop.call_soon_threadsafe(held.set)

    def wait_until_asked(self, path: str, times: int) -> None:
        """Until so many requests for this path have come."""
        deadline = time.monotonic() + PATIENCE_S
        while self.asked.get(path, 0) < times:
            assert time.monotonic() < deadline, f"{path} was asked for {self.asked.get(path, 0)} times"
            time.sleep(0.02)

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        found = self.files.get(request.path)
        if found is None:
            return web.Response(status=404, text="gone")
        body, kind, status, headers = found
        self.asked[request.path] = self.asked.get(request.path, 0) + 1
        after, held = self._held.get(request.path, (0, None))
        if held is not None and self.asked[request.path] > after:
            await held.wait()
        if isinstance(body, Path):
            return web.FileResponse(body, headers=headers)
        return web.Response(body=body, status=status, headers={"Content-Type": kind, **headers})

    async def _serve(self, ready: threading.Event) -> None:
        app = web.Application()
        app.router.add_get("/{path:.*}", self._answer)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.2)
        await runner.setup()
        site = web.TCPSite(runner, HOST, 0)
        await site.start()
        port = site._server.sockets[0].getsockname()[1]
        await web.TCPSite(runner, OTHER_HOST, port).start()
        self.url, self.other_url = f"http://{HOST}:{port}", f"http://{OTHER_HOST}:{port}"
        self._end = asyncio.Event()
        ready.set()
        await self._end.wait()
        await runner.cleanup()

    @contextlib.contextmanager
    def serving(self) -> Iterator["Site"]:
        """Serve until the block ends."""
        ready = threading.Event()
        thread = threading.Thread(target=lambda: self._loop.run_until_complete(self._serve(ready)), daemon=True)
        thread.start()
        assert ready.wait(10)
        try:
            yield self
        finally:
            self._loop.call_soon_threadsafe(self._end.set)
            thread.join(10)
            self._loop.close()


class Inside:
    """What the extension shows in one page, seen from its own world: the shadow root is closed to all others."""

    def __init__(self, page: Page, told: Callable[[], object]) -> None:
        self.page, self._told = page, told
        self._cdp = page.context.new_cdp_session(page)
        self._worlds: list[dict] = []
        self._cdp.on("Runtime.executionContextCreated", lambda event: self._worlds.append(event["context"]))
        self._cdp.on("Runtime.executionContextsCleared", lambda _: self._worlds.clear())
        self._cdp.send("Runtime.enable")

    def run(self, script: str) -> object:
        """The value of an expression in the extension's world of the main frame."""
        self.page.evaluate("0")  # lets events in
        worlds = [world["id"] for world in self._worlds if world["origin"] == f"chrome-extension://{ID}"]
        if not worlds:
            return None
        asked = {"expression": script, "contextId": worlds[0], "returnByValue": True, "awaitPromise": True}
        answer = self._cdp.send("Runtime.evaluate", asked)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def until(self, script: str, patience_s: float = PATIENCE_S) -> object:
        """The first true value of an expression."""
        deadline = time.monotonic() + patience_s
        while time.monotonic() < deadline:
            value = self.run(f"typeof host === 'undefined' ? null : ({script})")
            if value:
                return value
            self.page.wait_for_timeout(40)
        shown = self.run("typeof host === 'undefined' ? 'nothing' : host.layer.textContent")
        msg = f"not in {patience_s:.0f} s: {script}; shown: {shown}"
        raise AssertionError(msg)

    def answer(self, *among: str) -> str:
        """Wait until the newest badge has an answer, one of these if any are named; its state."""
        newest = "[...host.shadow.querySelectorAll('.reach:not(#old)')].at(-1)?.className.split('is-')[1]"
        fits = f"{json.dumps(among)}.includes({newest})" if among else f"{newest} !== 'checking'"
        try:
            return str(self.until(f"{fits} && {newest}"))
        except AssertionError as error:
            raise AssertionError(str(self._told())[:2000]) from error

    def expect(self, state: str) -> None:
        """Wait for this answer; another may stand there until a click has gone round."""
        self.answer(state)

    def text(self, selector: str) -> str:
        return str(self.run(f"host.shadow.querySelector({selector!r})?.innerText ?? ''"))

    def expect_words(self, words: str, *, within: str = ".notes") -> None:
        """Wait for these words: the badge has its answer before the panel tells it."""
        self.until(f"host.shadow.querySelector({within!r})?.innerText.includes({json.dumps(words)})")

    def click(self, selector: str, words: str = "") -> None:
        """A real click into the middle of the last such element (that says these words)."""
        found = f"[...host.shadow.querySelectorAll({selector!r})].filter((e) => e.innerText.includes({words!r})).at(-1)"
        self.until(f"{found} != null")
        self.run(f"{found}.scrollIntoView({{block: 'nearest'}})")
        box = self.run(
            f"(() => {{ const r = {found}.getBoundingClientRect(); return [r.x + r.width / 2, r.y + r.height / 2] }})()"
        )
        self.page.mouse.click(*box)


class Browser:
    """Chromium with the extension."""

    def __init__(self, context: BrowserContext, playwright: Playwright) -> None:
        self.context, self.playwright = context, playwright

    @property
    def worker(self) -> Worker:
        """The extension's service worker, woken up if it sleeps."""
        if not self.context.service_workers:
            with self.context.expect_event("serviceworker", timeout=20_000) as woken:
                page = self.context.new_page()
                page.goto(f"chrome-extension://{ID}/popup/popup.html")
                page.evaluate("chrome.runtime.sendMessage({type: 'wake'}).catch(() => {})")
            page.close()
            return woken.value
        return self.context.service_workers[0]

    def settings(self, **changes: object) -> None:
        """Change what the options page would."""
        self.worker.evaluate(
            "async (changes) => { const { settings } = await chrome.storage.local.get('settings');"
            "await chrome.storage.local.set({ settings: { ...settings, ...changes } }) }",
            changes,
        )

    def open(self, url: str, **options: object) -> Page:
        page = self.context.new_page()
        page.goto(url, **options)
        page.bring_to_front()
        return page

    def choose(self, page: Page, **info: object) -> Inside:
        """Choose "Check deepfake" from the menu, as the browser reports it."""
        inside = Inside(page, lambda: {**self.checks()[0], "thumb": None})
        inside.run(
            "typeof host !== 'undefined' && host.shadow.querySelectorAll('.reach').forEach((e) => { e.id = 'old' })"
        )
        self.worker.evaluate(
            """async ([url, info]) => {
              const tabs = await chrome.tabs.query({});
              const tab = tabs.find((one) => one.url === url) ?? tabs.find((one) => one.active);
              const click = { menuItemId: 'check', editable: false, frameId: 0, pageUrl: url, ...info };
              chrome.contextMenus.onClicked.dispatch(click, tab);
            }""",
            [page.url, info],
        )
        return inside

    def choose_image(self, page: Page, selector: str = "img") -> Inside:
        page.hover(selector)
        return self.choose(
            page, mediaType="image", srcUrl=page.eval_on_selector(selector, "e => e.currentSrc || e.src")
        )

    def checks(self) -> list[dict]:
        """What the extension keeps, newest first."""
        all_ = self.worker.evaluate("() => chrome.storage.local.get(null)")
        found = [value for key, value in all_.items() if key.startswith("check:")]
        return sorted(found, key=lambda check: -check["createdMs"])

    def settled(self) -> dict:
        """The newest check once all is written that comes after its end: a thumbnail, and whether the files differ."""
        deadline = time.monotonic() + PATIENCE_S
        while (check := self.checks()[0])["thumb"] is None or check["differs"] is None:
            assert time.monotonic() < deadline, check
            time.sleep(0.05)
        return check

    def toolbar(self, page: Page) -> str:
        """The sign on the toolbar's button while this page is in front."""
        return self.worker.evaluate(
            "async (url) => { const tabs = await chrome.tabs.query({});"
            " return chrome.action.getBadgeText({ tabId: tabs.find((one) => one.url === url).id }) }",
            page.url,
        )

    def stop_worker(self) -> None:
        """End the service worker, as the browser does with one that idles."""
        page = self.own_page("options/options.html")
        cdp = self.context.new_cdp_session(page)
        told: list[str] = []
        cdp.on("ServiceWorker.workerVersionUpdated", lambda e: told.extend(v["runningStatus"] for v in e["versions"]))
        cdp.send("ServiceWorker.enable")
        told.clear()
        cdp.send("ServiceWorker.stopAllWorkers")
        deadline = time.monotonic() + PATIENCE_S
        while "stopped" not in told:
            assert time.monotonic() < deadline, "the worker does not stop"
            page.wait_for_timeout(20)
        page.close()

    def own_page(self, path: str) -> Page:
        return self.open(f"chrome-extension://{ID}/{path}")


@contextlib.contextmanager
def browsing(folder: Path, *, dark: bool = False, language: str = "en") -> Iterator[Browser]:
    """A browser with a profile in that folder and a copy of the extension."""
    with sync_playwright() as playwright, launched(playwright, folder, dark=dark, language=language) as browser:
        yield browser


@contextlib.contextmanager
def launched(
    playwright: Playwright, folder: Path, *, dark: bool = False, language: str = "en", screen: Desktop | None = None
) -> Iterator[Browser]:
    """The same where Playwright runs already; a folder that was used before has its profile still.

    On a screen the window is shown, and the extension is the very one that is shipped.
    """
    path = shutil.which("chromium")
    assert path, "no chromium on PATH: `make setup` as root, or apt-get install chromium"
    extension = EXTENSION if screen else _with_all_sites(folder / "extension")
    flags = [
        *FLAGS,
        *(_window(screen) if screen else ["--headless=new"]),
        f"--lang={language}",
        f"--disable-extensions-except={extension}",
        f"--load-extension={extension}",
    ]
    context = playwright.chromium.launch_persistent_context(
        folder / "profile",
        executable_path=path,
        headless=False,  # Playwright's is the old mode, that knows no extensions; the flag is the new one
        args=flags,
        ignore_default_args=["--enable-automation"] if screen else None,  # nor one about that
        env={**os.environ, "DISPLAY": screen.display if screen else ""},
        no_viewport=screen is not None,
        viewport=None if screen else {"width": 1100, "height": 760},
        color_scheme=None if screen else "dark" if dark else "light",
    )
    try:
        yield Browser(context, playwright)
    finally:
        context.close()


def _window(screen: Desktop) -> list[str]:
    """Flags for one that fills a screen, without a bar about --no-sandbox."""
    width, height = screen.size
    return ["--window-position=0,0", f"--window-size={width},{height}", "--test-type"]


def _with_all_sites(copy: Path) -> Path:
    """A copy of the extension that needs no click's activeTab."""
    if not copy.exists():
        shutil.copytree(EXTENSION, copy, ignore=shutil.ignore_patterns("node_modules"))
        manifest = json.loads((copy / "manifest.json").read_text(encoding="utf-8"))
        manifest["host_permissions"] = ["<all_urls>"]
        (copy / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    return copy
