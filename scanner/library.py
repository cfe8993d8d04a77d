"""`from scanner import scan`: one medium in, its outcome out, from a script, a notebook or a thread.

One reason: a program should need neither the command line nor a server. For many media, hold a `Scanner`: it makes the
jail and the model ready once, where each call of `scan` takes a second for that.
"""

import asyncio
import os
from concurrent.futures import ThreadPoolExecutor

from scanner.contract import Outcome
from scanner.pipeline import Scanner
from scanner.settings import Settings


def scan(source: str | os.PathLike[str], *, settings: Settings | None = None) -> Outcome:
    """Judge a path or a URL; `settings` are those of the environment (LAESCAN_*) unless given.

    What is wrong with the source is in the outcome's `failure`. Raises SettingsError, and BadWeights or NoJail where
    nothing can be judged. Blocks, also within a running event loop; there, `await Scanner.scan` instead.
    """
    name = os.fspath(source)
    chosen = Settings.from_env(os.environ) if settings is None else settings
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return _scan(name, chosen)
    with ThreadPoolExecutor(1) as thread:  # a notebook has a loop in this one
        return thread.submit(_scan, name, chosen).result()


def _scan(source: str, settings: Settings) -> Outcome:
    with Scanner(settings) as scanner:
        return scanner.scan_blocking(source).outcome
