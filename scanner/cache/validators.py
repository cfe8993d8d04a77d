"""What an HTTP server says of a version of a picture, and how to ask it whether that version still stands.

In: the headers of an answer. Out: `Validators`, and the headers of the next question.
One reason: only validators that promise equal bytes may stand for bytes (RFC 9110 §8.8): never a weak ETag, never a
Last-Modified of the last minute.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import msgspec

MAX_CHARS = 512
SETTLED_S = 60
"""A resource may change twice within the second that Last-Modified can tell; a minute later it counts as strong."""


class NotModified(Exception):
    """The server says that it is what it was: there are no bytes to fetch."""


class Validators(msgspec.Struct, frozen=True, array_like=True):
    """A strong ETag, or a date that is as good; null where there is none."""

    etag: str | None = None
    last_modified: str | None = None

    @classmethod
    def of(cls, headers: Mapping[str, str]) -> "Validators":
        """From the headers of a 200, names in any case that the mapping takes."""
        etag, changed = headers.get("ETag", ""), headers.get("Last-Modified", "")
        is_strong = len(etag) <= MAX_CHARS and etag[:1] == etag[-1:] == '"' and len(etag) > 2 and etag.isprintable()
        return cls(etag if is_strong else None, changed if _is_settled(changed, headers.get("Date")) else None)

    def headers(self) -> dict[str, str]:
        """What to send so that the answer is 304 when nothing changed; nothing when nothing is known."""
        if self.etag is not None:
            return {"If-None-Match": self.etag}
        return {} if self.last_modified is None else {"If-Modified-Since": self.last_modified}


NO_VALIDATORS = Validators()


def _is_settled(changed: str, now: str | None) -> bool:
    """Whether it had not changed for a minute when it was sent, by the server's own clock."""
    if len(changed) > MAX_CHARS or now is None:
        return False
    try:
        sent, last = (_aware(parsedate_to_datetime(text)) for text in (now, changed))
    except (ValueError, OverflowError):  # the latter for a year or a zone of twenty digits
        return False
    return (sent - last).total_seconds() >= SETTLED_S


def _aware(when: datetime) -> datetime:
    return when.replace(tzinfo=when.tzinfo or UTC)
