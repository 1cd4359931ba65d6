"""What every OpenAPI document says beside its own routes: who may ask, and how problems are told."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from libs.common.errors import MEDIA_TYPE, title_of

_SCHEME = "access_token"
_WRITES = ("post", "put", "patch", "delete")
_TEXT = {"type": "string"}
_PROBLEM = {
    "type": "object",
    "title": "Problem",
    "description": "RFC 9457: what is wrong, where, and what to do about it.",
    "required": ["type", "title", "status", "detail"],
    "properties": {
        "type": {"type": "string", "format": "uri", "description": "`urn:tides:problem:...`"},
        "title": _TEXT,
        "status": {"type": "integer"},
        "detail": _TEXT,
        "field": {"type": "string", "description": "Where in the request, as `outer.inner`."},
        "remedy": {"type": "string", "description": "What to do, in words."},
        "request_id": _TEXT,
        "incident": {"type": "string", "description": "What to look for in the log."},
        "errors": {
            "type": "array",
            "items": {"type": "object", "properties": {"field": _TEXT, "detail": _TEXT}},
        },
    },
}


def describe(document: dict[str, Any], marked: Iterable[tuple[str, str, frozenset[str]]]) -> None:
    """Complete the document in place: the bearer scheme, and a problem for every way in which a route refuses.

    `marked` are the app's (method, path, who may).
    """
    protected = {(method.lower(), path) for method, path, marks in marked if "public" not in marks}
    parts = document.setdefault("components", {})
    parts.setdefault("schemas", {})["Problem"] = _PROBLEM
    parts["securitySchemes"] = {
        _SCHEME: {
            "type": "http",
            "scheme": "bearer",
            "bearerFormat": "JWT",
            "description": "An access token from `/v1/tokens/exchange` or `/v1/sessions`, good for ten minutes.",
        }
    }
    for path, operations in document.get("paths", {}).items():
        for method, operation in operations.items():
            if (method, path) in protected:
                operation["security"] = [{_SCHEME: []}]
            for status in _refusals(method, operation, protected=(method, path) in protected):
                operation["responses"][str(status)] = _told(status)
            operation["responses"] = dict(sorted(operation["responses"].items()))
    _forget_unused(parts["schemas"], document)


def _refusals(method: str, operation: Mapping[str, Any], *, protected: bool) -> Iterator[int]:
    parameters = operation.get("parameters", ())
    if protected:
        yield from (401, 403)
    elif method == "post":
        yield 401
    if any(one["in"] == "path" for one in parameters):
        yield 404
    if method in _WRITES:
        yield 409
    if any(one["name"].lower() == "if-match" for one in parameters):
        yield from (412, 428)
    if "requestBody" in operation:
        yield from (400, 413)
    if "requestBody" in operation or parameters:
        yield 422


def _told(status: int) -> dict[str, Any]:
    schema = {"$ref": "#/components/schemas/Problem"}
    return {"description": title_of(status), "content": {MEDIA_TYPE: {"schema": schema}}}


def _forget_unused(schemas: dict[str, Any], document: Mapping[str, Any]) -> None:
    """FastAPI's own words for a 422, which nobody here is answered with."""
    for name in ("HTTPValidationError", "ValidationError"):
        if name in schemas and not _mentions(document, f"#/components/schemas/{name}"):
            del schemas[name]


def _mentions(value: Any, reference: str) -> bool:
    if isinstance(value, Mapping):
        return value.get("$ref") == reference or any(_mentions(inner, reference) for inner in value.values())
    return isinstance(value, list) and any(_mentions(inner, reference) for inner in value)
