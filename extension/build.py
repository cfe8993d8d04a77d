"""The folder in, one package per browser out: `make extension`, or `python extension/build.py FOLDER`.

    laescan-VERSION-chromium.zip     the folder as it is, without the tools
    laescan-VERSION-firefox.zip      the same files, and the manifest that Firefox wants

One reason: the files are the same for both browsers, byte for byte, and so is each package whenever it is built.
"""

import json
import sys
import zipfile
from pathlib import Path
from typing import Any

SOURCE = Path(__file__).parent
FOLDERS = ("_locales", "background", "content", "icons", "options", "popup", "shared")
SUFFIXES = {".css", ".html", ".js", ".json", ".png", ".svg"}
EPOCH = (1980, 1, 1, 0, 0, 0)  # the first moment that a zip knows
GECKO = {
    "id": "laescan@laescan.github.io",
    "strict_min_version": "142.0",  # the first that asks for consent to what is listed next, on every platform
    "data_collection_permissions": {"required": ["websiteContent"]},  # a picture's address, to the user's own server
}


def manifest_for(browser: str) -> dict[str, Any]:
    """The manifest: the folder's own for Chromium; Firefox has event pages where Chromium has service workers."""
    manifest: dict[str, Any] = json.loads((SOURCE / "manifest.json").read_text(encoding="utf-8"))
    if browser == "firefox":
        worker = manifest["background"]["service_worker"]
        manifest["background"] = {"scripts": [worker], "type": "module"}
        manifest["browser_specific_settings"] = {"gecko": GECKO}
        for name in ("key", "minimum_chrome_version"):  # the first pins the id, which Firefox takes from `gecko`
            del manifest[name]
    return manifest


def files() -> list[str]:
    """Names of what is packed beside the manifest."""
    paths = (path for folder in FOLDERS for path in (SOURCE / folder).rglob("*"))
    return sorted(path.relative_to(SOURCE).as_posix() for path in paths if path.suffix in SUFFIXES)


def build(browser: str, folder: Path) -> Path:
    """Write one package; its path."""
    manifest = manifest_for(browser)
    path = folder / f"laescan-{manifest['version']}-{browser}.zip"
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as package:
        _add(package, "manifest.json", (json.dumps(manifest, indent=2) + "\n").encode())
        for name in files():
            _add(package, name, (SOURCE / name).read_bytes())
    return path


def _add(package: zipfile.ZipFile, name: str, data: bytes) -> None:
    entry = zipfile.ZipInfo(name, EPOCH)
    entry.compress_type = zipfile.ZIP_DEFLATED
    entry.external_attr = 0o644 << 16
    entry.create_system = 3  # the same on every system
    package.writestr(entry, data)


if __name__ == "__main__":
    for target in ("chromium", "firefox"):
        print(build(target, Path(sys.argv[1] if len(sys.argv) > 1 else "dist")))
