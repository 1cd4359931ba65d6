"""Whether events stayed readable: a message of yesterday today, and a message of today by a replica of yesterday."""

from collections.abc import Iterator, Mapping
from typing import Any

REMEDY = "put a .v2 beside the .v1 and publish both until nobody hears the old one"
_SILENT = {"title", "description", "default", "examples"}
"""What a schema says for readers alone."""

Schema = Mapping[str, Any]


def breaks(old: Mapping[str, Schema], new: Mapping[str, Schema]) -> list[str]:
    """Every way in which the events in `new` (key to JSON schema) are less than an addition to `old`, in words.

    A key or field removed, a type changed, a new field without a default, a value of an enumeration taken away.
    """
    found: list[str] = []
    for key, schema in sorted(old.items()):
        if key not in new:
            found.append(f"{key}: the event is gone; {REMEDY}")
            continue
        found += [f"{key}: {what}; {REMEDY}" for what in _compare("", schema, new[key], (schema, new[key]))]
    return found


def _compare(path: str, old: Schema, new: Schema, roots: tuple[Schema, Schema]) -> Iterator[str]:
    old, new = _resolve(old, roots[0]), _resolve(new, roots[1])
    if _signature(old) != _signature(new):
        yield f"{path or 'the body'} changed its type from {_signature(old)} to {_signature(new)}"
        return
    yield from (
        f"{path or 'the body'} lost the value {value!r}"
        for value in old.get("enum", [])
        if value not in new.get("enum", [])
    )
    yield from _compare_fields(path, old, new, roots)
    for part in ("items", "additionalProperties"):
        if isinstance(old.get(part), Mapping):
            yield from _compare(f"{path}[]", old[part], new[part], roots)
    for part in ("prefixItems", "anyOf", "oneOf", "allOf"):
        for number, (before, after) in enumerate(zip(old.get(part, []), new.get(part, []), strict=True)):
            yield from _compare(f"{path}({number})", before, after, roots)


def _compare_fields(path: str, old: Schema, new: Schema, roots: tuple[Schema, Schema]) -> Iterator[str]:
    before, after = old.get("properties", {}), new.get("properties", {})
    for name in before:
        field = f"{path}.{name}".lstrip(".")
        if name in after:
            yield from _compare(field, before[name], after[name], roots)
        else:
            yield f"{field} is gone"
    for name in new.get("required", []):
        field = f"{path}.{name}".lstrip(".")
        if name not in before:
            yield f"{field} is new and has no default"
        elif name not in old.get("required", []):
            yield f"{field} lost its default"


def _resolve(schema: Schema, root: Schema) -> Schema:
    while "$ref" in schema:
        schema = root["$defs"][schema["$ref"].removeprefix("#/$defs/")]
    return schema


def _signature(schema: Schema) -> dict[str, Any]:
    """The schema without its parts: kind, format and bounds; how many alternatives, whether there are items."""
    parts = {"properties", "required", "enum", "items", "additionalProperties", "$defs"}
    kept = {name: value for name, value in schema.items() if name not in _SILENT | parts}
    for name in ("items", "additionalProperties"):
        if name in schema:
            kept[name] = "..." if isinstance(schema[name], Mapping) else schema[name]
    for name in ("prefixItems", "anyOf", "oneOf", "allOf"):
        if name in schema:
            kept[name] = len(schema[name])
    return kept
