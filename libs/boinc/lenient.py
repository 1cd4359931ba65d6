"""BOINC's XML as it really comes: unescaped text, PHP's warnings in between, no end tags, a prolog that lies.

A strict parser fails on real servers and clients. This one never raises, expands nothing but XML's five entities and
character numbers, and takes time linear in the size of the text.
"""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

DEEPEST = 40
"""Below this depth elements are kept as children of the deepest one: nobody nests so, and nobody recurses so."""
_TAG = re.compile(
    r"<!--.*?(?:-->|\Z)|<!\[CDATA\[(?P<cdata>.*?)(?:\]\]>|\Z)|<[?!][^<>]*>"
    r"|<(?P<end>/?)(?P<name>[A-Za-z_][A-Za-z0-9_.:-]{0,63})(?:\s[^<>]*?)?(?P<empty>/?)>",
    re.S,
)
_ENTITY = re.compile(r"&(?:#(\d{1,7})|#[xX]([0-9a-fA-F]{1,6})|(amp|lt|gt|quot|apos));")
_CHARSETS = {
    "ascii": "ascii",
    "us-ascii": "ascii",
    "latin1": "latin-1",
    **{f"iso-8859-{number}": f"iso-8859-{number}" for number in range(1, 17) if number != 12},
    **{f"windows-125{number}": f"cp125{number}" for number in range(9)},
}
"""What pages are really written in; some of Python's other names (punycode) take time that grows with the square."""
_NAMED = {"amp": "&", "lt": "<", "gt": ">", "quot": '"', "apos": "'"}
# What PHP and people put between BOINC's elements; no element of BOINC has such a name.
_HTML = frozenset(
    {"a", "b", "big", "br", "center", "code", "div", "em", "font", "hr", "i", "img", "li", "ol"}
) | {*("p", "pre", "small", "span", "strong", "u", "ul")}
_RAW = frozenset({"terms_of_use", "opaque"})
"""Elements whose content is nobody's XML but text up to the end tag."""


@dataclass(slots=True)
class Node:
    """An element: its own text, unescaped, and the elements in it."""

    tag: str
    text: str = ""
    children: list["Node"] = field(default_factory=list)

    def find(self, tag: str) -> "Node | None":
        """The first child of this tag."""
        return next((child for child in self.children if child.tag == tag), None)

    def all(self, tag: str) -> list["Node"]:
        """The children of this tag."""
        return [child for child in self.children if child.tag == tag]

    def walk(self) -> Iterator["Node"]:
        """This element and everything below it, in the order of the text."""
        waiting = [self]
        while waiting:
            node = waiting.pop()
            yield node
            waiting.extend(reversed(node.children))

    def get(self, tag: str) -> str:
        """The text of a child without blanks around it; empty where there is none."""
        child = self.find(tag)
        return "" if child is None else child.text.strip()

    def flag(self, tag: str) -> bool:
        """BOINC's boolean: `<tag/>` and `<tag>1</tag>` are true, absent and 0 are false."""
        child = self.find(tag)
        return child is not None and child.text.strip() not in ("0", "false", "no")

    def number(self, tag: str, default: float = 0.0) -> float:
        """The finite number in a child, else `default`."""
        return number_of(self.get(tag), default)

    def integer(self, tag: str, default: int = 0) -> int:
        """The whole number in a child, else `default`; nothing beyond 64 bits."""
        text = self.get(tag)
        return int(text) if re.fullmatch(r"[+-]?[0-9]{1,18}", text) else default


def number_of(text: str, default: float = 0.0) -> float:
    """The finite number that the text is, else `default`."""
    try:
        value = float(text)
    except ValueError:
        return default
    return value if math.isfinite(value) else default


def decode(body: bytes, charset: str | None = None) -> str:
    """The text of a body by the charset of HTTP; the prolog's word is not taken. Never raises."""
    named = _CHARSETS.get((charset or "utf-8").lower(), "utf-8")
    try:
        return body.decode(named, "strict").lstrip("\ufeff")
    except UnicodeError:
        return body.decode("utf-8", "replace").lstrip("\ufeff")


def unescape(text: str) -> str:
    """Character references to characters; what is none stays as it is."""
    return _ENTITY.sub(_character, text) if "&" in text else text


def parse(text: str) -> Node:
    """The elements of a text below a nameless root. Never raises; what cannot be read is text."""
    reader = _Reader(text)
    at = 0
    while (found := _TAG.search(text, at)) is not None:
        reader.say(unescape(text[at : found.start()]))
        at = found.end()
        name = found["name"]
        if found["cdata"] is not None:
            reader.say(found["cdata"])
        elif name is None or name.lower() in _HTML:
            continue
        elif found["end"]:
            reader.close(name)
        else:
            at = reader.open(name, at, empty=bool(found["empty"]))
    reader.say(unescape(text[at:]))
    return reader.finish()


def find_root(text: str, *tags: str) -> Node | None:
    """The first element of one of these tags, wherever it is; None for a page of something else."""
    return next((node for node in parse(text).walk() if node.tag in tags), None)


class _Reader:
    """The path of open elements, with the pieces of their text."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._path: list[tuple[Node, list[str]]] = [(Node(""), [])]
        self._endless: set[str] = set()

    def say(self, piece: str) -> None:
        if piece:
            self._path[-1][1].append(piece)

    def open(self, name: str, at: int, *, empty: bool) -> int:
        """Begin an element whose tag ends at `at`; the answer is where to read on."""
        node = Node(name)
        self._path[-1][0].children.append(node)
        if empty:
            return at
        if name in _RAW and name not in self._endless:
            end = self._text.find(f"</{name}>", at)
            if end >= 0:
                node.text = self._text[at:end]
                return end + len(name) + 3
            self._endless.add(name)
        if len(self._path) < DEEPEST:
            self._path.append((node, []))
        return at

    def close(self, name: str) -> None:
        """End the nearest open element of this name and all in it; an end of nothing is nothing."""
        if any(node.tag == name for node, _ in self._path[1:]):
            while self._leave() != name:
                pass

    def finish(self) -> Node:
        root = self._path[0][0]
        while self._path:
            self._leave()
        return root

    def _leave(self) -> str:
        node, pieces = self._path.pop()
        node.text = "".join(pieces)
        return node.tag


def _character(found: re.Match[str]) -> str:
    if found[3]:
        return _NAMED[found[3]]
    code = int(found[1]) if found[1] else int(found[2], 16)
    lawful = code in (9, 10, 13) or (32 <= code < 0x110000 and not 0xD800 <= code < 0xE000)
    return chr(code) if lawful else found[0]
