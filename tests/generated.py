"""The contract in, the files that are generated from it out: the published schema, the extension's types.

`make docs` writes them; test_schema.py fails while they differ. A schema that would break its readers is not written:
raise `scanner.contract.VERDICT_VERSION` first, and a new file stands beside the old one.
"""

import inspect
import json
import sys
from pathlib import Path

import msgspec

from api.openapi import describe
from api.routes import ENDPOINTS
from scanner.contract import VERDICT_VERSION
from scanner.schema.published import broken, generated, name_of, published
from scanner.schema.typescript import declare

ROOT = Path(__file__).parent.parent
SCHEMA = ROOT / "scanner" / "schema" / name_of(VERDICT_VERSION)
TYPES = ROOT / "extension" / "shared" / "server.d.ts"
HEAD = """\
// What the server says, made from its own description (scanner/contract.py, api/messages.py) by `make docs`.
// Do not edit: tests/test_schema.py fails while it differs.
"""


def schema() -> str:
    """The file of the current version."""
    return json.dumps(generated(published()), indent=2, ensure_ascii=False) + "\n"


def types() -> str:
    """Every struct that the API takes or answers; those of an outcome as they were published."""
    described = msgspec.json.decode(describe(ENDPOINTS))["components"]["schemas"]
    asked = {row.body.__name__ for row in ENDPOINTS if row.body} | {"Upload"}
    definitions = {}
    for name, definition in sorted(described.items()):
        words = {"description": inspect.cleandoc(definition["description"])} if "description" in definition else {}
        # an answer has every property, whether it has a default or not
        always = {"required": list(definition.get("properties", ()))} if name not in asked else {}
        definitions[name] = {**definition, **words, **always}
    return f"{HEAD}\n{declare({**definitions, **generated(published())['$defs']})}"


def main() -> int:
    """Write both; out: 1 when the schema would break its readers."""
    before = published()
    found = broken(before, generated(before)) if before else []
    if found:
        print(f"{SCHEMA.name} would break its readers; raise VERDICT_VERSION: {', '.join(found)}")
        return 1
    for path, text in ((SCHEMA, schema()), (TYPES, types())):
        was = path.read_text(encoding="utf-8") if path.exists() else ""
        path.write_text(text, encoding="utf-8")
        print(f"{path.name} {'was current' if was == text else 'rewritten'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
