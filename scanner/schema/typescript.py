"""JSON Schema definitions in, TypeScript declarations out: the same names, the same words, no class and no code.

One reason: whoever reads our answers in a browser is told by the compiler when a name is wrong. Known is what the
structs of the contract and of the API are made of; anything else raises ValueError.
"""

from collections.abc import Mapping
from typing import Any, Final

Json = Mapping[str, Any]
_PLAIN: Final = {"string": "string", "number": "number", "integer": "number", "boolean": "boolean", "null": "null"}


def declare(definitions: Json) -> str:
    """One exported type for each definition, in their order."""
    return "\n".join(_declaration(name, schema) for name, schema in definitions.items())


def _declaration(name: str, schema: Json) -> str:
    words = _comment(schema.get("description", ""), "")
    if schema.get("type") != "object" or "properties" not in schema:
        return f"{words}export type {name} = {_type(schema)};\n"
    lines = []
    for field, of in schema["properties"].items():
        optional = "" if field in schema.get("required", ()) else "?"
        lines.append(f"{_comment(of.get('description', ''), '  ')}  readonly {field}{optional}: {_type(of)};\n")
    return f"{words}export interface {name} {{\n{''.join(lines)}}}\n"


def _comment(words: str, indent: str) -> str:
    if not words:
        return ""
    lines = words.replace("*/", "* /").splitlines()
    if len(lines) == 1:
        return f"{indent}/** {lines[0]} */\n"
    return f"{indent}/**\n" + "".join(f"{indent} * {line}".rstrip() + "\n" for line in lines) + f"{indent} */\n"


def _type(schema: Json) -> str:
    """The type of one value."""
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    if "const" in schema:
        return _literal(schema["const"])
    if "enum" in schema:
        return " | ".join(map(_literal, schema["enum"]))
    if "anyOf" in schema:
        return " | ".join(map(_type, schema["anyOf"]))
    kind = schema.get("type")
    if kind == "array":
        return _array(schema)
    if kind == "object" and "additionalProperties" in schema:
        return f"Readonly<Record<string, {_type(schema['additionalProperties'])}>>"
    if kind not in _PLAIN:
        msg = f"no TypeScript is known for {dict(schema)}"
        raise ValueError(msg)
    return _PLAIN[kind]


def _array(schema: Json) -> str:
    if "prefixItems" in schema:
        return f"readonly [{', '.join(map(_type, schema['prefixItems']))}]"
    item = _type(schema["items"])
    return f"readonly ({item})[]" if "|" in item else f"readonly {item}[]"


def _literal(value: object) -> str:
    return f"'{value}'" if isinstance(value, str) else str(value)
