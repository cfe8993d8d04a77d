"""What a feed (RSS, Atom) or a sitemap names: its bytes in; media, else pages, and further sitemaps out.

One reason: a feed is a stranger's. It is read by expat without a DTD, each step of it costs as much as its bytes, and
the steps are taken in a thread, so that a deadline and Ctrl-C end it between two of them.
"""

import asyncio
from collections.abc import Mapping
from typing import Final
from xml.parsers import expat

from scanner.bulk.columns import ListError

_STEP_BYTES: Final = 1_000_000
"""Expat 2.5 reads a token again from its begin with each step that does not end it, so 50 MB in 50 steps at most."""
_DEEPEST: Final = 1_000
"""Elements inside each other; expat keeps some hundred bytes for each that is open."""
_LONGEST_NAMESPACE: Final = 1_000
"""Characters; expat writes it before the name of each element that is in it."""
_MEDIA: Final = {"enclosure": "url", "content": "url", "thumbnail": "url"}  # RSS, and media RSS
_LOCATIONS: Final = frozenset({"loc", "content_loc", "thumbnail_loc"})


async def links_in(data: bytes, longest: int) -> tuple[list[tuple[str, str]], list[str]]:
    """What a feed or sitemap names: (URL, page it belongs to) of media, else of pages; and further sitemaps.

    What is longer than `longest` characters is cut one behind it: too long a URL still. Raises ListError when it is
    neither.
    """
    reading = _Reading(longest + 1)
    parser = expat.ParserCreate(namespace_separator=" ")
    parser.buffer_text = True  # else it calls for each line
    parser.StartElementHandler, parser.EndElementHandler = reading.start, reading.end
    parser.CharacterDataHandler = reading.text
    parser.StartNamespaceDeclHandler = _refuse_long
    parser.StartDoctypeDeclHandler = _refuse_dtd
    try:
        for start in range(0, len(data), _STEP_BYTES):
            await asyncio.to_thread(parser.Parse, data[start : start + _STEP_BYTES])
        await asyncio.to_thread(parser.Parse, b"", True)  # noqa: FBT003 - expat's own signature
    except expat.ExpatError as error:
        msg = f"it is no feed and no sitemap: {error}"
        raise ListError(msg) from error
    return reading.found, reading.sitemaps


def _refuse_dtd(_name: str, _system: str | None, _public: str | None, has_own: int) -> None:
    """Entities, and attributes given to each element unwritten, are few bytes that become many."""
    if has_own:
        msg = "it defines entities or the like, which no feed needs"
        raise ListError(msg)


def _refuse_long(_prefix: str | None, uri: str | None) -> None:
    if uri and len(uri) > _LONGEST_NAMESPACE:
        msg = "it has a namespace longer than any feed's"
        raise ListError(msg)


class _Reading:
    """Items of a feed while it is parsed."""

    def __init__(self, longest: int) -> None:
        self.found: list[tuple[str, str]] = []
        self.sitemaps: list[str] = []
        self._longest, self._depth = longest, 0
        self._text, self._page = "", ""
        self._media: list[str] = []

    def start(self, name: str, attributes: Mapping[str, str]) -> None:
        self._depth += 1
        if self._depth > _DEEPEST:
            msg = f"it has more than {_DEEPEST:,} elements inside each other"
            raise ListError(msg)
        self._text, local = "", name.rpartition(" ")[2]
        if local in {"item", "entry", "url", "sitemap"}:
            self._page, self._media = "", []
        elif local in _MEDIA and attributes.get(_MEDIA[local]):
            self._media.append(attributes[_MEDIA[local]][: self._longest])
        elif local == "link" and attributes.get("href"):
            if attributes.get("rel") == "enclosure":
                self._media.append(attributes["href"][: self._longest])
            elif attributes.get("rel", "alternate") == "alternate":
                self._page = attributes["href"][: self._longest]

    def text(self, data: str) -> None:
        room = self._longest - len(self._text)
        if room > 0:
            self._text += data.lstrip()[:room] if not self._text else data[:room]

    def end(self, name: str) -> None:
        self._depth -= 1
        namespace, _, local = name.rpartition(" ")
        if local in _LOCATIONS and ("image" in namespace or "video" in namespace):
            self._media += [self._text.strip()]
        elif local in {"loc", "link"} and self._text.strip():
            self._page = self._text.strip()
        elif local == "sitemap":
            self.sitemaps.append(self._page)
        elif local in {"item", "entry", "url"}:
            urls = dict.fromkeys(self._media) or [self._page]
            self.found += [(url, self._page) for url in urls if url]
        self._text = ""
