"""The HTTP client of fetching: one for each scan, or one that a whole list shares.

In: settings. Out: sessions whose every connection is checked.
One reason: a list asks the same hosts again and again, so its scans share connections (each was checked when it was
made) and names (remembered for a minute); a single scan shares nothing with anybody.
"""

import asyncio
from types import TracebackType
from typing import Final, Self

import aiohttp

from scanner.fetching.egress import AddressPolicy, checked_connector
from scanner.settings import Settings

MOST_PAGES: Final = 4
"""Pages read at once for a list: each takes a process with yt-dlp in it, about 100 MB."""


def new_session(settings: Settings, *, keep: bool = False) -> aiohttp.ClientSession:
    """A client that tells nothing about us but our name; `keep` its connections for a next request.

    Behind an egress proxy it dials that alone, which resolves and checks; a refusal is its answer (`refused_by_proxy`).
    """
    behind = aiohttp.TCPConnector(force_close=not keep, limit=0) if settings.egress_proxy else None
    return aiohttp.ClientSession(
        connector=behind or checked_connector(AddressPolicy.from_settings(settings), keep=keep),
        proxy=settings.egress_proxy or None,
        cookie_jar=aiohttp.DummyCookieJar(),
        headers={
            "User-Agent": settings.user_agent,
            "Accept": "image/*,video/*;q=0.9,*/*;q=0.5",
            "Accept-Encoding": "identity",
        },
        timeout=aiohttp.ClientTimeout(total=None, connect=settings.connect_timeout_s),
        trust_env=False,
        auto_decompress=False,
    )


class Web:
    """What the scans of one list share; an async context manager."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.pages = asyncio.Semaphore(MOST_PAGES)

    async def __aenter__(self) -> Self:
        self.session = new_session(self._settings, keep=True)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.session.close()
