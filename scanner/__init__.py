"""Media in, verdict out.

    source -> fetch -> bytes -> jail(decode) -> frames (N, H, W, 3) -> faces -> crops (M, 256, 256, 3)
           -> detector -> scores (M,) + attention maps (M, 16, 16) -> verdict

`scanner.pipeline` is the one file that knows this order; every other module knows one noun.
From a program:

    from scanner import scan

    outcome = scan("portrait.jpg")  # or a URL, or that of a page with a video
    if outcome.verdict:
        print(outcome.verdict.label, outcome.verdict.score)
    elif outcome.failure:
        print(outcome.failure.code, outcome.failure.message)

Importing `scanner` imports nothing: each of these names is looked up when it is used.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from scanner.contract import Failure, Label, Outcome, Verdict
    from scanner.errors import ScanError
    from scanner.library import scan
    from scanner.pipeline import Scanner, ScanResult
    from scanner.settings import Settings, SettingsError

__all__ = [
    "Failure",
    "Label",
    "Outcome",
    "ScanError",
    "ScanResult",
    "Scanner",
    "Settings",
    "SettingsError",
    "Verdict",
    "scan",
]
_HOMES = {
    **dict.fromkeys(("Failure", "Label", "Outcome", "Verdict"), "scanner.contract"),
    "ScanError": "scanner.errors",
    **dict.fromkeys(("ScanResult", "Scanner"), "scanner.pipeline"),
    **dict.fromkeys(("Settings", "SettingsError"), "scanner.settings"),
    "scan": "scanner.library",
}


if not TYPE_CHECKING:  # a checker would take every name for one of ours

    def __getattr__(name: str) -> object:
        """PEP 562."""
        if name not in _HOMES:
            msg = f"module 'scanner' has no attribute {name!r}"
            raise AttributeError(msg)
        return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
