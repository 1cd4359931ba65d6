"""Objects that are written alike, with the same leaves in the same order, read column by column."""

import re
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from libs.providers.vsphere.soap.envelope import Ref
from libs.providers.vsphere.soap.scan import OBJECT_TOKEN

_SAFE_DIGITS = {"int": 9, "long": 18, "short": 4, "byte": 2}
"""So many digits fit into the type whatever they are."""
_END = "</objects>"

Reader = Callable[[str, str, str], Any]


class Leaf(NamedTuple):
    """A leaf of such objects: its path, the type it is written in, and how that is read."""

    path: str
    kind: str
    ref_kind: str
    read: Reader


class Alike(NamedTuple):
    """How such objects are written: everything between their id and their values is the same."""

    kind: str
    pattern: re.Pattern[str]
    leaves: tuple[Leaf, ...]

    def read(self, text: str) -> list[tuple[Ref, dict[str, Any]]] | None:
        """Reference and values of each object of a run; None unless all are alike and every value makes sense."""
        found = self.pattern.findall(text)
        if not found or len(found) != text.count(_END):
            return None
        ids, *columns = zip(*found, strict=True) if self.leaves else (tuple(found),)
        values = [_read_column(leaf, column) for leaf, column in zip(self.leaves, columns, strict=True)]
        if any(None in column for column in values):
            return None
        paths = [leaf.path for leaf in self.leaves]
        return [
            (Ref(self.kind, number), dict(zip(paths, row, strict=True)))
            for number, *row in zip(ids, *values, strict=True)
        ]


def learn(text: str, wanted: Mapping[str, tuple[str, type]], readers: Mapping[type, Reader]) -> Alike | None:
    """How the first object of a run is written; None where another way of reading is better."""
    first = text[: text.find(_END) + len(_END)]
    parts, end, kind = [], 0, ""
    leaves: list[Leaf] = []
    for token in OBJECT_TOKEN.finditer(first):
        kind = token[1] or kind
        group = 2 if token[1] else 6
        parts.append(first[end : token.start(group)])
        end = token.end(group)
        if not token[1]:
            path, holds = wanted.get(token[3], ("", str))
            leaves.append(Leaf(path, token[4], token[5] or "", readers[holds]))
    paths = [leaf.path for leaf in leaves]
    if "" in paths or len(set(paths)) < len(paths):
        return None
    return Alike(kind, _compile((*parts, first[end:])), tuple(leaves))


@lru_cache(maxsize=64)
def _compile(parts: Sequence[str]) -> re.Pattern[str]:
    return re.compile("([^<]*)".join(map(re.escape, parts)))


def _read_column(leaf: Leaf, column: Sequence[str]) -> Sequence[Any]:
    digits = _SAFE_DIGITS.get(leaf.kind, 0)
    fits = digits and max(map(len, column)) <= digits
    # Asked of the type's own reader once: whether this type is what was wanted at all.
    if (
        fits
        and all(map(str.isdecimal, column))
        and "".join(column).isascii()
        and leaf.read(leaf.kind, "", "1") == 1
    ):
        return list(map(int, column))
    read, kind, ref_kind = leaf.read, leaf.kind, leaf.ref_kind
    return [read(kind, ref_kind, text) for text in column]
