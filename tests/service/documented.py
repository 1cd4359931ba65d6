"""What the OpenAPI documents say of every route: its parameters, and a body that it takes."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from itertools import count
from typing import Any
from uuid import uuid4

from libs.common.service import Service

Place = tuple[str | int, ...]
"""Where a value is in a body: names and numbers from the outside in."""
Words = Mapping[str, Any]
"""Values by property name where any would not do; a callable makes a new one each time, None leaves it out."""
_numbers = count(1)


@dataclass(frozen=True)
class Route:
    """One operation of one service."""

    service: str
    method: str
    path: str
    operation: dict[str, Any]
    schema: dict[str, Any] | None
    """Of its JSON body, every reference resolved; None: it takes none."""

    @property
    def name(self) -> str:
        """Method and template."""
        return f"{self.method} {self.path}"

    @property
    def parameters(self) -> list[str]:
        """Names in the path."""
        return re.findall(r"\{([^}]+)\}", self.path)

    @property
    def creates(self) -> bool:
        """Whether success means that something new is there."""
        return self.method == "POST" and "201" in self.operation["responses"] and self.schema is not None

    @property
    def streams(self) -> bool:
        """Whether an answer may be without end."""
        return any(one["name"] == "follow" for one in self.operation.get("parameters", ()))


def routes(services: Iterable[Service]) -> list[Route]:
    """Every operation that a document names."""
    return [
        Route(service.name, method.upper(), path, operation, _body_of(operation, document))
        for service in services
        for document in [service.app.openapi()]
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]


def example(schema: Mapping[str, Any], words: Words, name: str = "") -> Any:
    """A value that the schema takes, optional properties and all."""
    known = words.get(name)
    if known is not None:
        return known() if isinstance(known, Callable) else known  # type: ignore[arg-type]
    for choice in ("anyOf", "oneOf", "allOf"):
        if choice in schema:
            return example(next(one for one in schema[choice] if one.get("type") != "null"), words)
    if "enum" in schema or "const" in schema:
        return schema.get("const", schema.get("enum", [None])[0])
    return _MAKERS[schema.get("type", "object")](schema, words)


def texts(value: Any, place: Place = ()) -> Iterator[tuple[Place, str]]:
    """Every text in a body, and where it is."""
    items: Iterable[tuple[str | int, Any]] = ()
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list):
        items = enumerate(value)
    elif isinstance(value, str):
        yield place, value
    for name, inner in items:
        yield from texts(inner, (*place, name))


def replaced(body: Any, place: Place, value: Any) -> Any:
    """A copy of the body with this value there."""
    copy = deepcopy(body)
    holder = copy
    for name in place[:-1]:
        holder = holder[name]
    holder[place[-1]] = value
    return copy


def _object(schema: Mapping[str, Any], words: Words) -> dict[str, Any]:
    named = schema.get("properties", {}).items()
    return {
        name: example(inner, words, name)
        for name, inner in named
        if name not in words or words[name] is not None
    }


def _text(schema: Mapping[str, Any], _words: Words) -> str:
    if schema.get("format") == "uuid":
        return str(uuid4())
    return "2026-11-20T12:00:00Z" if schema.get("format") == "date-time" else f"n{next(_numbers)}"


def _number(schema: Mapping[str, Any], _words: Words) -> int:
    return int(max(schema.get("minimum", 1), schema.get("exclusiveMinimum", 0) + 1))


_MAKERS: dict[str, Callable[[Mapping[str, Any], Words], Any]] = {
    "object": _object,
    "string": _text,
    "integer": _number,
    "number": _number,
    "boolean": lambda _schema, _words: False,
    "array": lambda schema, words: [example(schema["items"], words)] * schema.get("minItems", 1),
}


def _body_of(operation: dict[str, Any], document: dict[str, Any]) -> dict[str, Any] | None:
    content = operation.get("requestBody", {}).get("content", {})
    schema = content.get("application/json", {}).get("schema")
    return None if schema is None else _resolved(schema, document)


def _resolved(schema: Any, document: dict[str, Any]) -> Any:
    if isinstance(schema, list):
        return [_resolved(one, document) for one in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        found: Any = document
        for name in schema["$ref"].removeprefix("#/").split("/"):
            found = found[name]
        return _resolved(found, document)
    return {name: _resolved(inner, document) for name, inner in schema.items()}
