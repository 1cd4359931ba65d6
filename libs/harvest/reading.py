"""Reading a policy document, as sent or from a file, strictly and in bounds: the same text is the same policy."""

import json
import math
import re
from typing import Any

import yaml

LARGEST_DOCUMENT_BYTES = 64 * 1024
DEEPEST = 12
MOST_BRACKETS = 500
MOST_EVENTS = 5000
YAML_TYPES = frozenset({"application/yaml", "application/x-yaml", "text/yaml", "text/x-yaml"})


class Unreadable(Exception):
    """The body is no policy document; the message is a sentence that quotes nothing of it."""


class _Loader(yaml.SafeLoader):
    """YAML without surprises: `22:00` and `2026-01-01` stay text, `no` is no boolean."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, Any]]] = {  # noqa: RUF012 - PyYAML's own protocol
        first: [
            (tag, pattern)
            for tag, pattern in resolvers
            if tag in ("tag:yaml.org,2002:null", "tag:yaml.org,2002:merge")
        ]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


def _teach(tag: str, pattern: str, first: str) -> None:
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{tag}", re.compile(pattern), list(first))


_teach("bool", r"^(?:true|false|True|False)$", "tfTF")
_teach("int", r"^[-+]?(?:0|[1-9][0-9]*)$", "-+0123456789")
_teach("float", r"^[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?$", "-+.0123456789")


def read_document(body: bytes, content_type: str) -> dict[str, Any]:
    """The document as plain JSON data. Raises Unreadable for what is too large, too deep, or no mapping."""
    if len(body) > LARGEST_DOCUMENT_BYTES:
        raise Unreadable(f"A policy document holds at most {LARGEST_DOCUMENT_BYTES // 1024} KiB.")
    is_yaml = content_type.partition(";")[0].strip().lower() in YAML_TYPES
    try:
        text = body.decode("utf-8")
        found = _read_yaml(text) if is_yaml else json.loads(text)
    except (ValueError, RecursionError, yaml.YAMLError, OverflowError):
        raise Unreadable(f"The body is not valid {'YAML' if is_yaml else 'JSON'}.") from None
    if not isinstance(found, dict):
        raise Unreadable("A policy document is a mapping of names to values.")
    check_plain(found)
    return found


def check_plain(value: Any, depth: int = 0) -> None:
    """Insist on data that JSON and PostgreSQL can hold. Raises Unreadable."""
    if depth > DEEPEST:
        raise Unreadable(f"The document is nested deeper than {DEEPEST} levels.")
    if isinstance(value, dict):
        for name, item in value.items():
            if not isinstance(name, str):
                raise Unreadable("Every name in the document must be text.")
            check_plain(name)
            check_plain(item, depth + 1)
    elif isinstance(value, list):
        for item in value:
            check_plain(item, depth + 1)
    else:
        _check_scalar(value)


def _check_scalar(value: Any) -> None:
    if isinstance(value, str):
        if "\x00" in value or any("\ud800" <= character <= "\udfff" for character in value):
            raise Unreadable("The document holds a character that cannot be stored.")
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise Unreadable("Every number in the document must be finite.")
    elif isinstance(value, int):
        if abs(value) > 2**53:
            raise Unreadable("A number in the document is too large.")
    elif value is not None:
        raise Unreadable("The document may hold text, numbers, true, false, null, lists and mappings only.")


def _read_yaml(text: str) -> Any:
    # The parser is slow on deep and wide flows and an alias can make a document endless: bounds before building.
    if text.count("[") + text.count("{") > MOST_BRACKETS:
        raise Unreadable(f"The YAML holds more than {MOST_BRACKETS} brackets.")
    depth = 0
    for number, event in enumerate(yaml.parse(text, Loader=_Loader)):
        if isinstance(event, yaml.AliasEvent):
            raise Unreadable("YAML anchors and aliases are not taken here: write the values out.")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > DEEPEST or number > MOST_EVENTS:
            raise Unreadable("The YAML is nested too deep or holds too many values.")
    return yaml.load(text, Loader=_Loader)
