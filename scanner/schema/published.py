"""The contract's structs in, the JSON Schema of an outcome out, one file for each version that was ever published.

    outcome-1.json    draft 2020-12; `$defs` holds Verdict, Failure and all that they are made of

One reason: who stores our verdicts or builds on them must be able to check them, and be told before they change.
Within a version properties may only be added, and readers ignore what they do not know. A property that was there when
the version was first published is always there; one that was added since is not `required`, since older verdicts lack
it. Everything else (`broken`) needs a higher `VERDICT_VERSION`.
"""

import inspect
from collections.abc import Iterator
from importlib import resources
from typing import Any, Final

import msgspec

from scanner.contract import VERDICT_VERSION, Outcome

Json = dict[str, Any]
REF: Final = "#/$defs/{name}"
_FOLDER: Final = resources.files("scanner.schema")


def published(version: int = VERDICT_VERSION) -> Json | None:
    """The schema as it was published; None when there is no such version."""
    file = _FOLDER.joinpath(name_of(version))
    return msgspec.json.decode(file.read_bytes(), type=Json) if file.is_file() else None


def published_text(version: int = VERDICT_VERSION) -> bytes:
    """The same, as the file is; raises FileNotFoundError when there is no such version."""
    return _FOLDER.joinpath(name_of(version)).read_bytes()


def name_of(version: int) -> str:
    """The file's name."""
    return f"outcome-{version}.json"


def generated(before: Json | None) -> Json:
    """The schema of what the code says now; `before` is what was published of this version, None when nothing was."""
    (ref,), definitions = msgspec.json.schema_components([Outcome], ref_template=REF)
    old = (before or {}).get("$defs", {})
    for name, definition in definitions.items():
        if "description" in definition:
            definition["description"] = inspect.cleandoc(definition["description"])
        if "properties" in definition:
            known = old.get(name, {}).get("required", definition["properties"])
            definition["required"] = [field for field in definition["properties"] if field in known]
            for schema in definition["properties"].values():
                schema.pop("default", None)  # a default is for who writes; we write every property
    definitions["Verdict"]["properties"]["version"] = {"const": VERDICT_VERSION}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:laescan:outcome:{VERDICT_VERSION}",
        "title": f"laescan outcome, version {VERDICT_VERSION}",
        **ref,
        "$defs": definitions,
    }


def broken(before: Json, after: Json) -> list[str]:
    """What a reader of the schema `before` could trip over in documents that fit `after`; empty: it is compatible."""
    return [place for name, old in before["$defs"].items() for place in _broken(name, old, after["$defs"].get(name))]


def _broken(name: str, old: Json, new: Json | None) -> Iterator[str]:
    if new is None:
        yield f"{name} is gone"
        return
    if "properties" not in old or "properties" not in new:
        if _meaning(old) != _meaning(new):
            yield f"{name} is another type"
        return
    for field, schema in old["properties"].items():
        there = new["properties"].get(field)
        if there is None:
            yield f"{name}.{field} is gone"
        elif _meaning(schema) != _meaning(there):
            yield f"{name}.{field} is another type"
    yield from (f"{name}.{f} may be missing" for f in old["required"] if f not in new["required"])


def _meaning(schema: Json) -> Json:
    """A type without the words about it."""
    return {key: value for key, value in schema.items() if key not in {"title", "description", "examples"}}
