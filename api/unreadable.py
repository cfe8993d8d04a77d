"""What aiohttp is told of requests before there is any: how long their lines may be, and what of bad ones is logged.

One reason: aiohttp refuses a line of 8 kB by itself, in plain text, and logs it with the URL in it. A URL of 8 kB is
ours to look up or to refuse as everything else, and no log of ours has query strings.
"""

import logging
from typing import Any, Final

from aiohttp.http_exceptions import HttpProcessingError

LINE_BYTES: Final = 65_536
"""8 kB of URL, each byte of it escaped, are 24 kB."""


def is_news(record: logging.LogRecord) -> bool:
    """Whether it is about us, and not about bytes that somebody sent instead of HTTP, which it would quote."""
    return not (record.exc_info and isinstance(record.exc_info[1], HttpProcessingError))


def handler_args() -> dict[str, Any]:
    """For `web.Application`."""
    logger = logging.getLogger("api.http")
    logger.addFilter(is_news)  # once, however often it is added
    return {"max_line_size": LINE_BYTES, "max_field_size": LINE_BYTES, "logger": logger}
