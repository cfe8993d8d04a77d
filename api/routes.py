"""Every path of the service, in one table: what it takes, what it answers, who may ask. Read this first.

The router, the guard (`api.access`), the description (`api.openapi`) and the tests are all made from these rows.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, Literal

import msgspec
from aiohttp import web

from api import assets, batches, feedback, messages, published, receipts, scans, status, verdicts
from api.tokens import Scope
from scanner.receipts import SignedReceipt

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Struct = type[msgspec.Struct]


@dataclass(frozen=True)
class Endpoint:
    """One method on one path.

    `answers` are the good statuses with a struct or a media type; `refusals` the codes it may refuse with, beside those
    of every guarded path. Without a `scope` nothing is guarded; `policy` is the rate that the request counts against.
    `about` is a line and, after an empty one, the rest.
    """

    method: Literal["GET", "POST", "DELETE"]
    path: str
    handler: Handler
    answers: dict[int, Struct | str]
    scope: Scope | None = None
    policy: Literal["lookup", "submit", "bulk"] = "lookup"
    body: Struct | None = None
    form: Struct | None = None
    query: Struct | None = None
    refusals: tuple[str, ...] = ()
    idempotent: bool = False
    about: str = ""


LOOKUP, SUBMIT, BULK, ADMIN = Scope.LOOKUP, Scope.SUBMIT, Scope.BULK, Scope.ADMIN
_TAKES = ("bad_request", "body_too_large", "body_too_slow", "unsupported_type", "invalid")

ENDPOINTS: Final = (
    Endpoint(
        "POST",
        "/v1/scans",
        scans.submit,
        {200: messages.Scan, 202: messages.Scan},
        SUBMIT,
        "submit",
        body=messages.SubmitScan,
        form=messages.Upload,
        query=messages.SubmitQuery,
        idempotent=True,
        refusals=(*_TAKES, "bad_source", "empty", "too_large", "unsupported_media", "queue_full"),
        about="Have a picture or video judged.\n\nBy URL (JSON) or as an upload (multipart). 200: remembered, with the "
        "verdict, or with why there was none a moment ago (`rescan` tries anew; Retry-After says when asking will). "
        "202: accepted; follow `links`. What is being scanned already is joined, not scanned twice.",
    ),
    Endpoint(
        "GET",
        "/v1/scans/{id}",
        scans.show,
        {200: messages.Scan},
        SUBMIT,
        query=messages.WaitQuery,
        refusals=("not_found", "invalid"),
        about="How far a scan is, and its outcome.\n\nWith `wait`, the answer comes at the end of the scan or then.",
    ),
    Endpoint(
        "DELETE",
        "/v1/scans/{id}",
        scans.remove,
        {200: messages.Scan},
        SUBMIT,
        refusals=("not_found",),
        about="Cancel a scan that has not ended; forget one that has.\n\nForgotten are its outcome, its report and "
        "pictures, and what its URL led to. The verdict on the file itself, which names nobody, is still remembered.",
    ),
    Endpoint(
        "GET",
        "/v1/scans/{id}/events",
        scans.events,
        {200: "text/event-stream"},
        SUBMIT,
        refusals=("not_found",),
        about="Watch a scan.\n\nServer-sent events: `scan` for every change, `end` for the last; the data is a Scan.",
    ),
    Endpoint(
        "GET",
        "/v1/scans/{id}/report",
        scans.report,
        {200: "text/html"},
        SUBMIT,
        refusals=("not_found",),
        about="The report: one self-contained page.",
    ),
    Endpoint(
        "GET",
        "/v1/scans/{id}/overlay",
        scans.overlay,
        {200: "image/jpeg"},
        SUBMIT,
        query=messages.OverlayQuery,
        refusals=("not_found", "invalid"),
        about="The picture, or a video's worst frame, with the evidence drawn on it.",
    ),
    Endpoint(
        "POST",
        "/v1/scans/{id}/feedback",
        feedback.submit,
        {201: messages.Feedback},
        SUBMIT,
        body=messages.SubmitFeedback,
        refusals=(*_TAKES, "not_found"),
        about="Report that a verdict is wrong.\n\nOne report for each scan; a later one takes its place. It is kept "
        "for LAESCAN_FEEDBACK_TTL_S, and `laescan feedback` lists it. The picture or video itself is not kept.",
    ),
    Endpoint(
        "DELETE",
        "/v1/scans/{id}/feedback",
        feedback.withdraw,
        {200: messages.Feedback},
        SUBMIT,
        refusals=("not_found",),
        about="Take back the report on a verdict.",
    ),
    Endpoint(
        "POST",
        "/v1/batches",
        batches.submit,
        {202: messages.Batch},
        BULK,
        "bulk",
        body=messages.SubmitBatch,
        idempotent=True,
        refusals=(*_TAKES, "queue_full"),
        about="Have a list of URLs judged when nothing more urgent waits.",
    ),
    Endpoint(
        "GET",
        "/v1/batches/{id}",
        batches.show,
        {200: messages.Batch},
        BULK,
        refusals=("not_found",),
        about="How far a batch is.",
    ),
    Endpoint(
        "DELETE",
        "/v1/batches/{id}",
        batches.remove,
        {200: messages.Batch},
        BULK,
        refusals=("not_found",),
        about="Cancel what waits or runs of a batch, and forget its list of URLs.\n\nThe answer counts its scans a "
        "last time. What another list shares is cancelled for it, too; what somebody submitted singly meanwhile goes "
        "on. Outcomes that are there stay under their scans' ids as long as any.",
    ),
    Endpoint(
        "GET",
        "/v1/batches/{id}/results",
        batches.results,
        {200: "application/x-ndjson"},
        BULK,
        query=messages.ResultsQuery,
        refusals=("not_found", "invalid"),
        about="One BatchRow per line, in the order of the list.\n\nThose that have not ended come with their state.",
    ),
    Endpoint(
        "GET",
        "/v1/verdicts",
        verdicts.one,
        {200: messages.Verdicts},
        LOOKUP,
        query=messages.VerdictQuery,
        refusals=("invalid", "bad_source"),
        about="What is remembered of a URL, a file or a picture.\n\nNever scans. An empty list: nothing. A perceptual "
        "hash finds what the caller's own tenant had scanned and only nominates: compare the pictures before you "
        "believe that they are the same.",
    ),
    Endpoint(
        "POST",
        "/v1/verdicts/lookup",
        verdicts.many,
        {200: messages.LookedUp},
        LOOKUP,
        body=messages.LookUp,
        refusals=_TAKES,
        about="What is remembered of up to 1,000 URLs and files, in one round trip.",
    ),
    Endpoint(
        "GET",
        "/v1/verdicts/prefix/{bits}",
        verdicts.prefix,
        {200: messages.PrefixMatches},
        LOOKUP,
        refusals=("not_found", "invalid"),
        about="What is remembered of the tenant's files whose SHA-256 begins with these bits.\n\nSo the server does "
        "not learn which file is meant. Files that only others had scanned are found by their whole digest.",
    ),
    Endpoint(
        "GET",
        "/v1/scans/{id}/receipt",
        receipts.receipt,
        {200: SignedReceipt},
        SUBMIT,
        refusals=("not_found",),
        about="The verdict as a signed receipt, to be passed on.\n\nA DSSE envelope, Ed25519. `laescan verify` checks "
        "it offline with the key of /v1/key. Credentials, query and fragment of the URL are not in it.",
    ),
    Endpoint(
        "GET",
        "/v1/key",
        receipts.key,
        {200: "application/x-pem-file"},
        about="The public key that receipts are signed with, in PEM: keep it, and compare it with what others have.",
    ),
    Endpoint(
        "GET",
        "/v1/schema",
        published.schema,
        {200: "application/schema+json"},
        about="What an Outcome looks like, as JSON Schema.\n\nWithin a version properties are only added.",
    ),
    Endpoint("GET", "/healthz", status.healthz, {200: messages.Health}, about="Does this process answer?"),
    Endpoint(
        "GET",
        "/readyz",
        status.readyz,
        {200: messages.Health, 503: messages.Health},
        about="Are Redis and an engine there?",
    ),
    Endpoint("GET", "/metrics", status.metrics, {200: "text/plain"}, ADMIN, about="Counters for Prometheus."),
    Endpoint(
        "GET", "/openapi.json", assets.openapi, {200: "application/json"}, about="This description, as OpenAPI 3.1."
    ),
    Endpoint("GET", "/docs", assets.docs, {200: "text/html"}, about="This description, for people."),
    Endpoint("GET", "/", assets.index, {200: "text/html"}, about="The page: paste a URL or drop a file."),
    Endpoint(
        "GET", "/assets/{name}", assets.asset, {200: "text/css"}, refusals=("not_found",), about="What the pages load."
    ),
)
