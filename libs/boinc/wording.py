"""Text that goes into BOINC's files and replies: within its buffers, in its characters, or refused by name."""

import re
import unicodedata
from collections.abc import Mapping
from xml.sax.saxutils import escape

LONGEST_TEXT = 255
LONGEST_OPAQUE = 246
"""A client's buffer of 256 holds the end tag as well."""
_LINE = re.compile(r"[\x20-\x7e]*")
_OPAQUE = re.compile(r"(?:[A-Za-z0-9 ._~:/+=@-]|<([a-z][a-z0-9_]*)>[A-Za-z0-9 ._~:/+=@-]*</\1>|\n)*")
_TAG = re.compile(r"[a-z][a-z0-9_]{0,62}")
NUMBER_LIMIT = 1e15


def line(name: str, value: str, longest: int = LONGEST_TEXT) -> str:
    """The value escaped, where it is one line of printable ASCII. Raises ValueError naming it, never quoting it."""
    if not _LINE.fullmatch(value):
        raise ValueError(f"{name}: must be one line of printable ASCII")
    escaped = escape(value)
    if len(escaped) > longest:
        raise ValueError(f"{name}: is longer than {longest} characters")
    return escaped


def shown(value: str) -> str:
    """A name or message as every client shows it: accents and line breaks gone, cut to what fits."""
    plain = unicodedata.normalize("NFKD", value)
    kept = (character for character in plain if not unicodedata.combining(character))
    text = " ".join("".join(kept).encode("ascii", "replace").decode().split())
    text = "".join(character if character.isprintable() else " " for character in text)
    while len(escape(text)) > LONGEST_TEXT:
        text = text[: -max(1, (len(escape(text)) - LONGEST_TEXT) // 6)]
    return escape(text)


def check_opaque(value: str) -> str:
    """Insist on what a client keeps and returns unchanged. Raises ValueError."""
    if len(value) > LONGEST_OPAQUE or not _OPAQUE.fullmatch(value) or value != value.strip():
        raise ValueError(
            f"opaque: must be plain text or flat elements of at most {LONGEST_OPAQUE} characters"
        )
    return value


def tag(name: str) -> str:
    """The name of an option or preference. Raises ValueError."""
    if not _TAG.fullmatch(name):
        raise ValueError("preferences: a name must be of lower-case letters, digits and underscores")
    return name


def number(name: str, value: float, least: float = 0.0, most: float = NUMBER_LIMIT) -> str:
    """The number as the client's parser takes it. Raises ValueError naming it."""
    if not least <= value <= most:
        raise ValueError(f"{name}: must be from {least:g} to {most:g}")
    return f"{int(value)}" if value == int(value) else f"{value:.6f}"


def preferences(values: Mapping[str, float]) -> str:
    """A `<global_preferences>` element of numbers, in the order given. Raises ValueError."""
    rows = []
    for name, value in values.items():
        rows.append(f"  <{tag(name)}>{number(name, value)}</{name}>\n")
    return "<global_preferences>\n" + "".join(rows) + "</global_preferences>\n"
