"""Everything that can go wrong on purpose, as one tree; each leaf has a stable `code`.

    ScanError
    ├── FetchError                the bytes could not be had
    │   ├── BadSource             bad_source            not a URL, a file or a stream that we read
    │   ├── BlockedAddress        blocked_address       the host is, or redirects to, an address we may not reach
    │   ├── Unreachable           unreachable           no such host, connection refused or cut, TLS failed
    │   ├── Gone                  gone                  404 or 410, or no such file
    │   ├── Forbidden             forbidden             401, 403, 407, 451: a login or a permission is asked for
    │   ├── RateLimited           rate_limited          429 (carries retry_after_s)
    │   ├── SourceFailed          source_failed         any other answer that is not 2xx
    │   ├── HostGivenUp           host_given_up         so many requests to its host failed that this one was not made
    │   ├── OptedOut              opted_out             its server wants no AI to use it, which we were told to respect
    │   ├── TooManyRedirects      too_many_redirects
    │   ├── TooLarge              too_large             more bytes than the limit
    │   ├── TimedOut              timed_out             too slow: no first byte, under the least rate, or past the total
    │   ├── LiveStream            live_stream           has no end
    │   └── NoMedia               no_media              a page with no picture or video that we can take
    ├── MediaError                the bytes are not media that we can judge
    │   ├── Empty                 empty                 zero bytes
    │   ├── UnsupportedMedia      unsupported_media     a format that is not on the list
    │   ├── BrokenMedia           broken_media          truncated or corrupt
    │   ├── TooManyPixels         too_many_pixels
    │   ├── TooLong               too_long              a longer video than the limit, or too many streams
    │   ├── NoVideo               no_video              no video track, or a track without frames
    │   └── DecoderFailed         decoder_failed        the jailed decoder crashed or hit its memory, CPU or time limit
    ├── EngineError               we cannot judge now; the medium may be fine
    │   ├── BadWeights            bad_weights           checkpoint missing, altered or of another version
    │   ├── NoJail                no_jail               this machine cannot isolate what reads a stranger's bytes
    │   ├── NoEngine              no_engine             no engine answers, or not in time
    │   ├── ModelChanged          model_changed         the engine came back with another model in the middle of a scan
    │   ├── OutOfMemory           out_of_memory         the device has no room for even one frame
    │   ├── NoRoom                no_room               no disk space for what was fetched
    │   ├── LostUpload            lost_upload           the file that was sent is not where the workers look for it
    │   └── Internal              internal              a bug; the log has the trace
    └── JobError                  the service ended the scan, or did not take it
        ├── Poisoned              poisoned              three workers in a row died while they scanned it
        ├── Cancelled             cancelled             whoever asked for it took it back
        └── KeyReused             idempotency_conflict  the idempotency key stands for another request

A ScanError raised in the pipeline becomes the `failure` of an Outcome.
It never becomes a score.
"""

from typing import ClassVar


class ScanError(Exception):
    """A failure that we expect; `code` is stable and part of the API, the message says what to do.

    `retryable` tells whether the same ask may succeed later without a change.
    """

    code: ClassVar[str] = "scan_error"
    retryable: ClassVar[bool] = False


class FetchError(ScanError):
    code = "fetch_failed"


class BadSource(FetchError):
    code = "bad_source"


class BlockedAddress(FetchError):
    code = "blocked_address"


class Unreachable(FetchError):
    code = "unreachable"
    retryable = True


class Gone(FetchError):
    code = "gone"


class Forbidden(FetchError):
    code = "forbidden"


class RateLimited(FetchError):
    code = "rate_limited"
    retryable = True

    def __init__(self, message: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class SourceFailed(FetchError):
    code = "source_failed"
    retryable = True


class HostGivenUp(FetchError):
    code = "host_given_up"
    retryable = True


class OptedOut(FetchError):
    code = "opted_out"


class TooManyRedirects(FetchError):
    code = "too_many_redirects"


class TooLarge(FetchError):
    code = "too_large"


class TimedOut(FetchError):
    code = "timed_out"
    retryable = True


class LiveStream(FetchError):
    code = "live_stream"


class NoMedia(FetchError):
    code = "no_media"


class MediaError(ScanError):
    code = "media_failed"


class Empty(MediaError):
    code = "empty"


class UnsupportedMedia(MediaError):
    code = "unsupported_media"


class BrokenMedia(MediaError):
    code = "broken_media"


class TooManyPixels(MediaError):
    code = "too_many_pixels"


class TooLong(MediaError):
    code = "too_long"


class NoVideo(MediaError):
    code = "no_video"


class DecoderFailed(MediaError):
    code = "decoder_failed"


class EngineError(ScanError):
    code = "engine_failed"
    retryable = True


class BadWeights(EngineError):
    code = "bad_weights"
    retryable = False


class NoJail(EngineError):
    code = "no_jail"
    retryable = False


class NoEngine(EngineError):
    code = "no_engine"


class ModelChanged(EngineError):
    code = "model_changed"


class OutOfMemory(EngineError):
    code = "out_of_memory"


class NoRoom(EngineError):
    code = "no_room"


class LostUpload(EngineError):
    code = "lost_upload"


class Internal(EngineError):
    code = "internal"


class JobError(ScanError):
    code = "job_failed"


class Poisoned(JobError):
    code = "poisoned"


class Cancelled(JobError):
    code = "cancelled"


class KeyReused(JobError):
    code = "idempotency_conflict"


def by_code() -> dict[str, type[ScanError]]:
    """Every leaf error by its code: what crosses a process boundary is the code, not a pickle."""
    found: dict[str, type[ScanError]] = {}
    todo: list[type[ScanError]] = [ScanError]
    while todo:
        error = todo.pop()
        found[error.code] = error
        todo.extend(error.__subclasses__())
    return found
