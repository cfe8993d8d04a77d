"""The extension in a real Firefox, by hand: `python tests/firefox.py`, with firefox-esr (142 or later) on PATH.

A real right click opens Firefox's own menu, whose item is chosen: `activeTab` is granted as to a user. Not part of
`make test`, since Firefox would be 80 MB more to download. It says what it saw, and leaves `reports/firefox.png`.
"""

import base64
import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from browsing import EXTENSION, MEDIA, Site
from serving import Service, free_port

sys.path.append(str(EXTENSION))
sys.dont_write_bytecode = True  # Chromium loads no folder that has a __pycache__
from build import GECKO, build  # noqa: E402 - after the line above

MENU = """
const menu = Services.wm.getMostRecentWindow('navigator:browser').document.getElementById('contentAreaContextMenu');
const item = [...menu.querySelectorAll('menuitem')].find((one) => one.label === 'Check deepfake');
if (menu.state === 'open' && item) menu.activateItem(item);
return menu.state === 'open' && Boolean(item);
"""
ALLOW = """
const { ExtensionPermissions } = ChromeUtils.importESModule('resource://gre/modules/ExtensionPermissions.sys.mjs');
const [id, done] = [arguments[0], arguments[arguments.length - 1]];
const { extension } = WebExtensionPolicy.getByID(id);
ExtensionPermissions.add(id, { permissions: [], origins: ['http://127.0.0.1/*'] }, extension)
  .then(() => done(WebExtensionPolicy.getByID(id).mozExtensionHostname));
"""
PICTURE = Path("reports/firefox.png")
SCAN_S = 15.0


class Firefox:
    """Spoken to by Marionette: `LENGTH:[0, id, command, parameters]`, answered by `LENGTH:[1, id, error, result]`."""

    def __init__(self, port: int) -> None:
        deadline = time.monotonic() + 60
        while True:
            try:
                self._socket = socket.create_connection(("127.0.0.1", port))
                break
            except OSError:
                assert time.monotonic() < deadline, "no Firefox"
                time.sleep(0.2)
        self._stream = self._socket.makefile("rb")
        self._read()
        self.version = self.do("NewSession")["capabilities"]["browserVersion"]

    def _read(self) -> list:
        size = b""
        while not size.endswith(b":"):
            size += self._stream.read(1)
        return json.loads(self._stream.read(int(size[:-1])))

    def do(self, name: str, **parameters: object) -> dict:
        """One command."""
        full = name if ":" in name else f"WebDriver:{name}"
        message = json.dumps([0, 1, full, parameters]).encode()
        self._socket.sendall(b"%d:%b" % (len(message), message))
        _, _, error, result = self._read()
        assert error is None, error
        return result

    def run(self, script: str, *arguments: object, inside: str = "content", later: bool = False) -> object:
        """The value of a script, in the page or in the browser itself."""
        self.do("Marionette:SetContext", value=inside)
        name = "ExecuteAsyncScript" if later else "ExecuteScript"
        value = self.do(
            name, script=script, args=list(arguments), sandbox="system" if inside == "chrome" else "default"
        )
        self.do("Marionette:SetContext", value="content")
        return value["value"]

    def click(self, x: float, y: float, button: int = 0) -> None:
        """A real click."""
        actions = [
            {"type": "pointerMove", "x": round(x), "y": round(y)},
            {"type": "pointerDown", "button": button},
            {"type": "pointerUp", "button": button},
        ]
        pointer = {"type": "pointer", "id": "mouse", "parameters": {"pointerType": "mouse"}, "actions": actions}
        self.do("PerformActions", actions=[pointer])

    def picture(self, path: Path) -> None:
        """A screenshot of the page."""
        path.write_bytes(base64.b64decode(self.do("TakeScreenshot", full=False)["value"]))


@contextlib.contextmanager
def firefox(folder: Path) -> Iterator[Firefox]:
    """A new profile's Firefox without a window."""
    path = shutil.which("firefox-esr") or shutil.which("firefox")
    assert path, "no Firefox on PATH: apt-get install firefox-esr"
    port = free_port()
    quiet = ("datareporting.policy.dataSubmissionEnabled", "app.update.enabled", "network.connectivity-service.enabled")
    lines = [f'user_pref("{name}", false);' for name in quiet] + [f'user_pref("marionette.port", {port});']
    (folder / "user.js").write_text("\n".join(lines), encoding="utf-8")
    command = [
        path,
        "--headless",
        "--marionette",
        "-remote-allow-system-access",
        "--no-remote",
        "--profile",
        str(folder),
    ]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield Firefox(port)
    finally:
        process.terminate()
        process.wait(30)


def element(browser: Firefox, selector: str) -> tuple[float, float]:
    """The middle of an element."""
    script = (
        "const r = document.querySelector(arguments[0]).getBoundingClientRect();"
        "return [r.x + r.width / 2, r.y + r.height / 2]"
    )
    return tuple(browser.run(script, selector))


def check(browser: Firefox, site: Site, service: Service, token: str, folder: Path) -> str:
    """Install, set up, right-click, choose, wait; what the popup then says of it."""
    browser.do("Addon:Install", path=str(build("firefox", folder)), temporary=True)
    own = f"moz-extension://{browser.run(ALLOW, GECKO['id'], inside='chrome', later=True)}"
    browser.do("Navigate", url=f"{own}/options/options.html")
    time.sleep(2)
    fill = "[document.querySelector('#server').value, document.querySelector('#token').value] = arguments"
    browser.run(fill, service.url, token)
    browser.click(*element(browser, "button.primary"))
    time.sleep(5)
    print(browser.run("return document.querySelector('#test').innerText"))
    site.put("/forged.jpg", MEDIA / "example_inpaint.jpg", "image/jpeg")
    browser.do("Navigate", url=site.page("/news.html", "<h1>News</h1><img src=/forged.jpg width=420>"))
    x, y = element(browser, "img")
    browser.click(x, y, button=2)
    time.sleep(2)
    assert browser.run(MENU, inside="chrome"), "the menu has no such item"
    time.sleep(SCAN_S)
    browser.click(x - 150, y - 183)  # the badge, in the corner of the picture of 420 px
    time.sleep(2)
    PICTURE.parent.mkdir(exist_ok=True)
    browser.picture(PICTURE)
    browser.do("Navigate", url=f"{own}/popup/popup.html")
    time.sleep(2)
    return browser.run("return document.querySelector('#list .line').innerText")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name, Site().serving() as pages:
        work = Path(name)
        (work / "profile").mkdir()
        running = Service(work, "")
        try:
            running.wait()
            environ = {**os.environ, "LAESCAN_STATE": name}
            command = [sys.executable, "-m", "scanner.cli", "token", "create", "--scope", "submit"]
            said = subprocess.run(command, env=environ, check=True, capture_output=True, text=True)
            key = re.search(r"lae_\S+", said.stdout + said.stderr)[0]
            with firefox(work / "profile") as fox:
                print(f"Firefox {fox.version}: {check(fox, pages, running, key, work)}; see {PICTURE}")
        finally:
            running.stop()
