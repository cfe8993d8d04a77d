"""A laescan service somewhere, as a list speaks to it: batches of URLs in, their rows out.

In: its URL and a token. Out: what it answers, as values and as few errors as a list needs to tell apart.
One reason: a service says no in a dozen ways (a bad URL, a full queue, a rate, a wrong token, a restart), and whoever
holds the list must know of each only whether to mend the batch, to wait, or to give up.
"""

import hashlib
import logging
import math
import re
from collections.abc import AsyncGenerator, Sequence
from types import TracebackType
from typing import Final, Self

import aiohttp
import msgspec
from yarl import URL

from scanner.bulk.plan import ElsewhereError
from scanner.contract import Outcome

log = logging.getLogger(__name__)

FIRST_WAIT_S, LONGEST_WAIT_S = 1.0, 30.0
"""After an answer that does not say how long to wait; a Retry-After is obeyed up to `LONGEST_ASKED_S`."""
LONGEST_ASKED_S: Final = 3_600.0
_TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=10.0, sock_read=60.0)
_LINE_BYTES: Final = 4 * 2**20  # a verdict on 16 frames with 32 faces in each has about 0.2 MB
_TOO_MUCH: Final = 2**63  # for SQLite, Parquet and MessagePack
_SHA256: Final = re.compile("[0-9a-f]{64}")
_WRONG_DOOR: Final = {
    401: "it wants a token: write one that `laescan token create --scope bulk` made into a file, give --token-file",
    403: "the token may not submit batches: it needs the scope `bulk`",
    404: "there is no laescan service at that address",
    405: "there is no laescan service at that address",
    421: "it does not go by that name: its LAESCAN_API_HOSTS must list it",
}


class ServiceBusyError(Exception):
    """Not now: ask again after `wait_s`, or when that is None after a while."""

    def __init__(self, words: str, wait_s: float | None) -> None:
        super().__init__(words)
        self.wait_s = wait_s


class BatchRefusedError(Exception):
    """The batch is not as it must be; `at` is the first row that is to blame, where the service tells."""

    def __init__(self, words: str, at: int | None) -> None:
        super().__init__(words)
        self.at = at


class BatchGoneError(Exception):
    """The service does not know the batch any more."""


class Row(msgspec.Struct, frozen=True):
    """A batch's row as the service has it now: `outcome` is null until the scan has ended."""

    position: int
    source: str
    state: str
    outcome: Outcome | None = None


class _Accepted(msgspec.Struct, frozen=True):
    id: str


class _Refusal(msgspec.Struct, frozen=True):
    code: str = ""
    message: str = ""


class _Refused(msgspec.Struct, frozen=True):
    error: _Refusal = _Refusal()


class Service:
    """An async context manager; methods raise ServiceBusyError, and ElsewhereError when there is no going on."""

    def __init__(self, url: str, token: str | None, *, user_agent: str) -> None:
        self.url = _checked(url)
        headers = {"User-Agent": user_agent, **({} if token is None else {"Authorization": f"Bearer {token}"})}
        self._headers = headers
        if token is not None and self.url.scheme == "http" and self.url.host not in {"127.0.0.1", "::1", "localhost"}:
            log.warning("the token goes to %s unencrypted: use https where the network is not yours", self.url)

    async def __aenter__(self) -> Self:
        self._http = aiohttp.ClientSession(headers=self._headers, timeout=_TIMEOUT, read_bufsize=_LINE_BYTES)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._http.close()

    async def submit(self, urls: Sequence[str], *, marks: str, rescan: bool) -> str:
        """Have them scanned; out: the batch's id. The same URLs with the same `marks` are one batch, however often.

        Raises BatchRefusedError.
        """
        body = msgspec.json.encode({"urls": urls, "rescan": rescan})
        key = hashlib.blake2b(marks.encode() + body, digest_size=16).hexdigest()
        headers = {"Idempotency-Key": key, "Content-Type": "application/json"}
        try:
            async with self._http.post(
                self._path("v1/batches"), data=body, headers=headers, allow_redirects=False
            ) as answer:
                if answer.status in {400, 413, 422}:
                    said = await self._said(answer)
                    raise BatchRefusedError(said, _blamed(said))
                await self._check(answer)
                return msgspec.json.decode(await answer.read(), type=_Accepted).id
        except (aiohttp.ClientError, TimeoutError) as error:
            raise _away(error) from error
        except msgspec.MsgspecError as error:
            raise self._nonsense(error) from error

    async def rows(self, batch: str, *, after: int) -> AsyncGenerator[Row, None]:
        """Its rows from position `after` on, as they are now; raises BatchGoneError."""
        decoder = msgspec.json.Decoder(Row)
        path = self._path("v1/batches", batch, "results").with_query(after=after)
        try:
            async with self._http.get(path, allow_redirects=False) as answer:
                if answer.status == 404:
                    raise BatchGoneError(batch)
                await self._check(answer)
                while line := await answer.content.readline():
                    yield _whole(decoder.decode(line))
        except (aiohttp.ClientError, TimeoutError) as error:
            raise _away(error) from error
        except (msgspec.MsgspecError, ValueError) as error:
            raise self._nonsense(error) from error

    def _path(self, *parts: str) -> URL:
        return self.url.joinpath(*(piece for part in parts for piece in part.split("/")))

    async def _check(self, answer: aiohttp.ClientResponse) -> None:
        if answer.status < 300:
            return
        said = await self._said(answer)
        if answer.status == 429 or answer.status >= 500:
            msg = f"it answers {answer.status} ({said})"
            raise ServiceBusyError(msg, _retry_after_s(answer))
        advice = _WRONG_DOOR.get(answer.status, "that is no answer of a laescan service")
        msg = f"{self.url} answers {answer.status} ({said}): {advice}"
        raise ElsewhereError(msg)

    @staticmethod
    async def _said(answer: aiohttp.ClientResponse) -> str:
        """Its words, or the status line of what is no laescan service."""
        try:
            return msgspec.json.decode(await answer.read(), type=_Refused).error.message or str(answer.reason)
        except msgspec.MsgspecError:
            return str(answer.reason)

    def _nonsense(self, error: Exception) -> ElsewhereError:
        return ElsewhereError(f"{self.url} answers what this version of laescan does not understand: {error}")


def _whole(row: Row) -> Row:
    """The row, if it is one that can be kept; raises ValueError. Types were checked, here is what they may hold."""
    outcome = row.outcome
    if outcome is None:
        return row
    if outcome.verdict is not None:
        score, media = outcome.verdict.score, outcome.verdict.media
        if score is not None and not 0 <= score <= 1:
            msg = f"row {row.position} has a score of {score}"
            raise ValueError(msg)
        if not all(0 <= number < _TOO_MUCH for number in (media.size_bytes, media.width, media.height)):
            msg = f"row {row.position} has a medium larger than any"
            raise ValueError(msg)
        if not _SHA256.fullmatch(media.sha256):
            msg = f"row {row.position} has a SHA-256 that is none"
            raise ValueError(msg)
    return row


def _checked(text: str) -> URL:
    try:
        url = URL(text)
    except ValueError:
        url = URL()
    if url.scheme not in {"http", "https"} or not url.host:
        msg = f"--api {text}: give the address of a service, e.g. http://127.0.0.1:8117"
        raise ElsewhereError(msg)
    return url


def _away(error: Exception) -> ServiceBusyError:
    return ServiceBusyError(f"it does not answer ({error or type(error).__name__})", None)


def _retry_after_s(answer: aiohttp.ClientResponse) -> float | None:
    """Seconds; a laescan service gives no date."""
    try:
        seconds = float(answer.headers.get("Retry-After", ""))
    except ValueError:
        return None
    return min(max(seconds, 0.5), LONGEST_ASKED_S) if math.isfinite(seconds) else None


def _blamed(said: str) -> int | None:
    """The row that a refusal names, as in "... - at `$.urls[7]`"."""
    number = said.partition("$.urls[")[2].partition("]")[0]
    return int(number) if number.isascii() and number.isdigit() else None
