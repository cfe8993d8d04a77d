"""A screen of our own (Xvfb) with a mouse and a keyboard (xdotool), for what a browser draws outside of its pages."""

import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from PIL import Image, ImageGrab
from playwright.sync_api import Page

PATIENCE_S = 60.0
TELL_MOVES = """
globalThis.pointer = null;
addEventListener('mousemove', (event) => { globalThis.pointer = [event.clientX, event.clientY] });
"""
TURN_S = 0.05


class Desktop:
    """One screen; positions are pixels from its upper left corner."""

    def __init__(self, display: str, size: tuple[int, int]) -> None:
        self.display, self.size = display, size

    def picture(self) -> Image.Image:
        """What is on the screen now, without the pointer."""
        return ImageGrab.grab(xdisplay=self.display).convert("RGB")

    def move(self, x: float, y: float) -> None:
        self._do("mousemove", round(x), round(y))

    def click(self, button: int = 1) -> None:
        """1 is the left button, 3 the right one."""
        self._do("click", button)

    def press(self, *keys: str) -> None:
        self._do("key", *keys)

    def windows(self) -> set[str]:
        """The ids of all windows that are shown; an open menu is one."""
        found = self._do("search", "--onlyvisible", "--name", ".*", check=False)
        return set(found.split())

    def origin(self, page: Page) -> tuple[float, float]:
        """Where on the screen a page begins, as its own mouse events tell."""
        page.bring_to_front()
        page.evaluate(TELL_MOVES)
        x, y = (side / 2 for side in self.size)
        self.move(x - 1, y)
        self.move(x, y)
        inside = page.wait_for_function("globalThis.pointer").json_value()
        return round(x) - inside[0], round(y) - inside[1]

    def until(self, holds: Callable[[], bool]) -> None:
        """Wait for a condition."""
        deadline = time.monotonic() + PATIENCE_S
        while not holds():
            assert time.monotonic() < deadline, "nothing of that kind on the screen"
            time.sleep(TURN_S)

    def _do(self, *words: object, check: bool = True) -> str:
        done = subprocess.run(
            ["xdotool", *map(str, words)], check=check, env={"DISPLAY": self.display}, capture_output=True, text=True
        )
        return done.stdout


@contextmanager
def desktop(width: int, height: int) -> Iterator[Desktop]:
    """A screen of this size, gone at the end; `make setup` installs what it needs."""
    for program in ("Xvfb", "xdotool"):
        assert shutil.which(program), f"no {program} on PATH: `make setup` as root, or apt-get install xvfb xdotool"
    command = ["Xvfb", "-displayfd", "1", "-screen", "0", f"{width}x{height}x24", "-nolisten", "tcp"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    try:
        yield Desktop(f":{int(server.stdout.readline())}", (width, height))
    finally:
        server.terminate()
        server.wait()
        server.stdout.close()
