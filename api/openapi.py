"""The table of endpoints in, an OpenAPI 3.1 description out, made from the very structs that decode and encode.

One reason: a description that is written by hand is wrong by the second change; this one cannot be.
"""

import re
from collections.abc import Iterable
from http import HTTPStatus
from importlib import metadata
from typing import Any, Final

import msgspec

from api.messages import ErrorBody
from api.middleware import STATUSES
from api.routes import Endpoint

REF: Final = "#/components/schemas/{name}"
PATH_PARAMETERS: Final = {
    "id": {"type": "string", "pattern": "^[0-9a-f]{32}$", "description": "As given by the 202."},
    "bits": {"type": "string", "pattern": "^[01]{4,64}$", "description": "The first bits of a SHA-256."},
    "name": {"type": "string", "pattern": r"^[a-z]+\.[a-z]+$"},
}
GUARDED: Final = ("unauthenticated", "scope_missing", "origin_refused", "proxy_refused", "too_many_requests")
ANYWHERE: Final = ("bad_request", "host_refused", "internal", "unavailable")
KEY_HEADER: Final = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "schema": {"type": "string", "pattern": "^[!-~]{1,200}$"},
    "description": "Send the same key with a repeated request: it is done once. Kept for 24 hours.",
}

Json = dict[str, Any]


def describe(endpoints: Iterable[Endpoint]) -> bytes:
    """The whole description as JSON."""
    rows = list(endpoints)
    structs = {kind for row in rows for kind in _structs(row)} | {ErrorBody}
    _, components = msgspec.json.schema_components(sorted(structs, key=lambda kind: kind.__name__), ref_template=REF)
    paths: dict[str, Json] = {}
    for row in rows:
        paths.setdefault(row.path, {})[row.method.lower()] = _operation(row)
    document = {
        "openapi": "3.1.0",
        "info": {
            "title": "laescan",
            "version": metadata.version("laescan"),
            "description": "Is a face in this picture or video forged? A score is P(manipulated), 0 to 1: evidence, "
            "not proof. What could not be judged has none. Errors are always `{error: {code, message, ...}}`.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer", "description": "`laescan token create`"}},
        },
    }
    return msgspec.json.encode(document)


def _structs(row: Endpoint) -> list[type[msgspec.Struct]]:
    answers = [kind for kind in row.answers.values() if not isinstance(kind, str)]
    return [*answers, *(kind for kind in (row.body,) if kind is not None)]


def _operation(row: Endpoint) -> Json:
    summary, _, rest = row.about.partition("\n\n")
    operation: Json = {
        "operationId": f"{row.method.lower()}{re.sub(r'[^a-z0-9]+', '_', row.path)}".rstrip("_"),
        "summary": summary,
        "parameters": [*_path_parameters(row), *_query_parameters(row), *([KEY_HEADER] if row.idempotent else [])],
        "responses": _responses(row),
    }
    if rest:
        operation["description"] = rest
    if row.scope is not None:
        operation["security"] = [{"token": []}, {}]
        operation["x-scope"] = row.scope.name.lower()
    content = {}
    if row.body is not None:
        content["application/json"] = {"schema": {"$ref": REF.format(name=row.body.__name__)}}
    if row.form is not None:
        content["multipart/form-data"] = {"schema": _inline(row.form)}
    if content:
        operation["requestBody"] = {"required": True, "content": content}
    return operation


def _responses(row: Endpoint) -> Json:
    responses: Json = {}
    for status, kind in row.answers.items():
        is_media = isinstance(kind, str)
        media = kind if is_media else "application/json"
        schema = {"type": "object"} if kind == "application/json" else {} if is_media else _ref(kind)
        responses[str(status)] = {"description": HTTPStatus(status).phrase, "content": {media: {"schema": schema}}}
    codes = [*row.refusals, *(GUARDED if row.scope is not None else ()), *ANYWHERE]
    if row.idempotent:
        codes.append("idempotency_conflict")
    for status in sorted({STATUSES[code] for code in codes} - set(row.answers)):
        which = ", ".join(f"`{code}`" for code in dict.fromkeys(codes) if STATUSES[code] == status)
        answer: Json = {"description": which, "content": {"application/json": {"schema": _ref(ErrorBody)}}}
        if status in {429, 503}:
            answer["headers"] = {"Retry-After": {"description": "Seconds.", "schema": {"type": "integer"}}}
        responses[str(status)] = answer
    return responses


def _path_parameters(row: Endpoint) -> list[Json]:
    return [
        {"name": name, "in": "path", "required": True, "schema": PATH_PARAMETERS[name]}
        for name in re.findall(r"{(\w+)}", row.path)
    ]


def _query_parameters(row: Endpoint) -> list[Json]:
    if row.query is None:
        return []
    schema = _inline(row.query)
    required = schema.get("required", [])
    return [
        {"name": name, "in": "query", "required": name in required, "schema": _without_null(of)}
        for name, of in schema["properties"].items()
    ]


def _without_null(schema: Json) -> Json:
    """A query parameter is left out, never null."""
    choices = [choice for choice in schema.get("anyOf", []) if choice != {"type": "null"}]
    return choices[0] if len(choices) == 1 else {k: v for k, v in schema.items() if k != "default" or v is not None}


def _inline(kind: type[msgspec.Struct]) -> Json:
    _, components = msgspec.json.schema_components([kind], ref_template=REF)
    schema: Json = components[kind.__name__]
    return schema


def _ref(kind: Any) -> Json:  # noqa: ANN401 - a struct type, or what mypy cannot tell from one
    return {"$ref": REF.format(name=kind.__name__)}
