"""What crosses the wire, as structs: decoding them is validation, and `api.openapi` describes exactly these.

Verdicts and outcomes are `scanner.contract`'s; here is only what HTTP adds: what is asked, and how answers are wrapped.
Unknown fields are refused: a typo that is silently ignored is worse than a 422.
"""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from scanner.contract import Known, Label, Outcome, QueueName, ScanRow, ScanState, Verdict

MOST_KEYS = 1_000
"""Keys in one lookup."""
LONGEST_WAIT_S = 30.0
"""Proxies give up on a silent connection after a minute; a client asks again."""

Url = Annotated[
    str,
    Meta(
        pattern=r"^[Hh][Tt][Tt][Pp][Ss]?://\S+$",
        max_length=8_192,
        description="An http or https URL of a picture, a video or a page that shows one.",
        examples=["https://example.org/news/clip.mp4"],
    ),
]
Sha256 = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$", description="SHA-256 of the file, in hex.")]
PerceptualHash = Annotated[
    str, Meta(pattern=r"^[0-9a-f]{64}$", description="256-bit perceptual hash of the upright picture, in hex.")
]
Key = Annotated[
    str,
    Meta(
        pattern=r"^([Hh][Tt][Tt][Pp][Ss]?://\S+|[0-9a-f]{64})$",
        max_length=8_192,
        description="A URL, or the SHA-256 of a file in hex.",
    ),
]


class Asked(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of everything that a caller sends."""


class SubmitQuery(Asked, frozen=True):
    """What an upload, whose form holds the file only, says beside it."""

    rescan: Annotated[bool, Meta(description="Have it scanned even when a verdict is remembered.")] = False


class SubmitScan(Asked, frozen=True):
    """Have one URL judged. `rescan` asks for a new scan even when a verdict is remembered."""

    url: Url
    rescan: bool = False


class SubmitBatch(Asked, frozen=True):
    """Have a list of URLs judged when nothing more urgent waits."""

    urls: Annotated[list[Url], Meta(min_length=1, max_length=10_000)]
    rescan: bool = False


class Upload(Asked, frozen=True):
    """The multipart form of POST /v1/scans: one `file`, the media itself."""

    file: Annotated[str, Meta(extra_json_schema={"format": "binary"}, description="A picture or a video.")]


class SubmitFeedback(Asked, frozen=True):
    """Tell that a verdict is wrong: what the medium is, as far as the sender knows, and anything else in words."""

    expected: Annotated[
        Literal["authentic", "manipulated", "other"],
        Meta(description="What the label should have been; `other`: something else is wrong, as the note says."),
    ]
    note: Annotated[str, Meta(max_length=1_000)] = ""


class LookUp(Asked, frozen=True):
    """Up to 1,000 keys; one row comes back for each, in the same order. Never scans."""

    keys: Annotated[list[Key], Meta(min_length=1, max_length=MOST_KEYS)]


class WaitQuery(Asked, frozen=True):
    """How long to wait for a scan to end before its state is told."""

    wait: Annotated[float, Meta(ge=0, le=LONGEST_WAIT_S, description="Seconds to wait for the end of the scan.")] = 0.0


class VerdictQuery(Asked, frozen=True):
    """Exactly one of the three."""

    url: Url | None = None
    sha256: Sha256 | None = None
    phash: PerceptualHash | None = None


class ResultsQuery(Asked, frozen=True):
    """Where to go on."""

    after: Annotated[int, Meta(ge=0, le=10_000, description="Skip so many rows: how many you have already.")] = 0


class OverlayQuery(Asked, frozen=True):
    """Which of the two pictures."""

    plain: Annotated[bool, Meta(description="The picture as it was looked at, without the evidence.")] = False


class ErrorDetail(msgspec.Struct, frozen=True, kw_only=True):
    """`code` is stable and for programs, `message` says what to change, `request_id` finds the trace in the log."""

    code: str
    message: str
    request_id: str
    retryable: bool


class ErrorBody(msgspec.Struct, frozen=True):
    """The shape of every refusal."""

    error: ErrorDetail


class Links(msgspec.Struct, frozen=True, kw_only=True):
    """Paths on this server; `page` is for people."""

    self: str
    events: str
    report: str
    overlay: str
    receipt: str
    page: str


class Scan(msgspec.Struct, frozen=True, kw_only=True):
    """One ask, from the queue to its outcome. Times are seconds since 1970.

    `id` and `links` are null when the verdict is remembered and the scan that found it is forgotten.
    `position` counts the scans ahead, `stage` and `percent` tell what is done. `outcome` comes with the last state.
    """

    id: str | None
    state: ScanState
    source: str
    queue: QueueName = "interactive"
    stage: str | None = None
    percent: float | None = None
    position: int | None = None
    attempt: int = 0
    created_s: float | None = None
    started_s: float | None = None
    finished_s: float | None = None
    outcome: Outcome | None = None
    links: Links | None = None

    @classmethod
    def of(cls, row: ScanRow) -> "Scan":
        """What a caller sees of a row: all but whose it is."""
        shown = {name: getattr(row, name) for name in cls.__struct_fields__ if name != "links"}
        path = f"/v1/scans/{row.id}"
        links = Links(
            self=path,
            events=f"{path}/events",
            report=f"{path}/report",
            overlay=f"{path}/overlay",
            receipt=f"{path}/receipt",
            page=f"/#/scans/{row.id}",
        )
        return cls(**shown, links=links)


class Feedback(msgspec.Struct, frozen=True, kw_only=True):
    """A report that a verdict is wrong, beside what the verdict said. The medium itself is not kept."""

    scan: str
    created_s: float
    expected: str
    note: str
    source: str
    sha256: str
    label: Label
    score: float | None
    model_id: str


class Batch(msgspec.Struct, frozen=True, kw_only=True):
    """A list of URLs and how far it is; `states` counts its scans by state."""

    id: str
    count: int
    created_s: float
    states: dict[str, int]  # ScanState, or `forgotten` a day after the scan has ended
    results: str


class BatchRow(msgspec.Struct, frozen=True, kw_only=True):
    """One line of a batch's results: `position` counts from 0; `outcome` is null until the scan has ended."""

    position: int
    source: str
    scan: str
    state: ScanState | Literal["forgotten"]
    outcome: Outcome | None = None


class Verdicts(msgspec.Struct, frozen=True):
    """What is remembered; empty when nothing is."""

    verdicts: list[Verdict]


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """One row of a lookup: the key as asked, and what is known; null: nothing."""

    key: str
    known: Known | None = None


class LookedUp(msgspec.Struct, frozen=True):
    """One row for each key, in the same order."""

    rows: list[Found]


class PrefixRow(msgspec.Struct, frozen=True, kw_only=True):
    """One file whose SHA-256 starts with the prefix."""

    sha256: str
    known: Known


class PrefixMatches(msgspec.Struct, frozen=True, kw_only=True):
    """Compare the full digests yourself: the server does not learn which one you meant."""

    matches: list[PrefixRow]
    keep_s: int  # how long the answer may be kept


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """`ok`, or what is missing."""

    status: Literal["ok", "unavailable"]
    checks: dict[str, str]
