"""Leaf values out of an answer: each of the type that was asked for, or left out and told."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from libs.providers.vsphere.soap.alike import Alike, learn
from libs.providers.vsphere.soap.answer import VIM, XSI_TYPE, Element, Garbled
from libs.providers.vsphere.soap.envelope import Ref
from libs.providers.vsphere.soap.scan import OBJECT_TOKENS

Value = int | bool | str | Ref | tuple[Ref, ...]
Leaves = Mapping[str, type]
"""Leaf property paths and what they hold: int, bool, str, Ref, or tuple for an array of Ref."""

_OBJ, _PROP_SET, _MISSING_SET = f"{VIM}obj", f"{VIM}propSet", f"{VIM}missingSet"
_REFERENCE = f"{VIM}ManagedObjectReference"
_TOKEN, _NAME, _VAL = f"{VIM}token", f"{VIM}name", f"{VIM}val"
_NUMBERS = {"int": 1 << 31, "long": 1 << 63, "short": 1 << 15, "byte": 1 << 7}
_BOOLEANS = {"true": True, "1": True, "false": False, "0": False}
_NOT_TEXT = {*_NUMBERS, "boolean", "ManagedObjectReference", "ArrayOfManagedObjectReference"}
_UNASKED = ("", str)
_MOST = 1 << 63


@dataclass(slots=True)
class Found:
    """A managed object: the leaf values that could be read, and the paths whose value made no sense."""

    ref: Ref
    values: dict[str, Value]
    broken: tuple[str, ...] = ()
    faults: tuple[str, ...] = ()
    """Types of the faults that stand in place of values."""


class Objects:
    """Takes the objects and the token of one page. `wanted` gives each path again (kept once), and its type."""

    def __init__(self, wanted: Mapping[str, tuple[str, type]]) -> None:
        self._wanted = wanted
        self.rows: list[Found] = []
        self.token: str | None = None
        self._alike: Alike | None = None

    def take(self, element: Element) -> None:
        """One object, or the token that stands for the next page."""
        if element.tag == _TOKEN:
            self.token = element.text or None
            return
        found: Found | None = None
        for child in element:
            tag = child.tag
            if tag == _OBJ and found is None:
                found = self._begin(read_ref(child))
            elif tag == _PROP_SET and found is not None:
                self._read_property(child, found)
            elif tag == _MISSING_SET and found is not None:
                found.faults = (*found.faults, _read_missing(child))
            else:
                raise Garbled("an object with something strange in it")
        if found is None:
            raise Garbled("an object without its reference")

    def take_run(self, text: str) -> None:
        """Objects whose values are all leaves."""
        if not self._take_alike(self._alike, text):
            self._alike = learn(text, self._wanted, _READERS)
            if not self._take_alike(self._alike, text):
                self._take_each(text)

    def _take_alike(self, alike: Alike | None, text: str) -> bool:
        read = alike.read(text) if alike is not None else None
        self.rows.extend(Found(ref, values) for ref, values in read or ())
        return read is not None

    def _take_each(self, text: str) -> None:
        wanted = self._wanted
        found: Found | None = None
        for kind, number, name, value_kind, ref_kind, value in OBJECT_TOKENS(text):
            if kind:
                found = self._begin(Ref(kind, number))
            elif found is not None:
                path, holds = wanted.get(name, _UNASKED)
                self._note(found, path, _READERS[holds](value_kind, ref_kind, value))

    def _begin(self, ref: Ref | None) -> Found:
        if ref is None:
            raise Garbled("an object without its reference")
        found = Found(ref, {})
        self.rows.append(found)
        return found

    def _read_property(self, element: Element, found: Found) -> None:
        if len(element) != 2 or element[0].tag != _NAME or element[1].tag != _VAL:
            raise Garbled("a property without name and value")
        name, value = element
        path, holds = self._wanted.get(name.text, _UNASKED)
        kind = _local(value.get(XSI_TYPE))
        if holds is tuple:
            self._note(found, path, _read_refs(kind, value))
        else:
            leaf = None if len(value) else _READERS[holds](kind, value.get("type", ""), value.text or "")
            self._note(found, path, leaf)

    def _note(self, found: Found, path: str, value: Value | None) -> None:
        values = found.values
        if path and value is not None and path not in values and path not in found.broken:
            values[path] = value
        elif value is None or values.get(path) != value:
            # Not what was asked for, or twice and not the same.
            values.pop(path, None)
            found.broken = (*found.broken, path or "unasked")


def _read_missing(element: Element) -> str:
    fault = element.find(f"{VIM}fault/{VIM}fault")
    return "" if fault is None else _local(fault.get(XSI_TYPE))


def read_ref(element: Element) -> Ref | None:
    """A reference; None when type or id is missing."""
    kind, text = element.get("type"), element.text
    return Ref(kind, text) if kind and text and not len(element) else None


def _read_refs(kind: str, element: Element) -> tuple[Ref, ...] | None:
    if kind != "ArrayOfManagedObjectReference":
        return None
    refs = [read_ref(child) if child.tag == _REFERENCE else None for child in element]
    return None if None in refs else tuple(ref for ref in refs if ref is not None)


def _read_ref(kind: str, ref_kind: str, text: str) -> Ref | None:
    return Ref(ref_kind, text) if kind == "ManagedObjectReference" and ref_kind and text else None


def _read_int(kind: str, ref_kind: str, text: str) -> int | None:
    bound, number = _NUMBERS.get(kind), parse_int(text)
    return number if bound is not None and number is not None and -bound <= number < bound else None


def _read_bool(kind: str, ref_kind: str, text: str) -> bool | None:
    return _BOOLEANS.get(text) if kind == "boolean" else None


def _read_text(kind: str, ref_kind: str, text: str) -> str | None:
    """A string or a word of an enumeration."""
    return None if not kind or ref_kind or kind in _NOT_TEXT else text


def _read_nothing(kind: str, ref_kind: str, text: str) -> None:
    """An array is no leaf."""


_READERS: dict[type, Callable[[str, str, str], Value | None]] = {
    int: _read_int,
    bool: _read_bool,
    str: _read_text,
    Ref: _read_ref,
    tuple: _read_nothing,
}


def parse_int(text: str) -> int | None:
    """A whole number of at most 64 bits; None for anything else."""
    digits = text[1:] if text[:1] == "-" else text
    if len(digits) > 19 or not digits.isdecimal() or not digits.isascii():
        return None
    number = int(text)
    return number if -_MOST <= number < _MOST else None


def parse_time(text: str | None) -> int | None:
    """Seconds since the epoch of a time with its zone; None for anything else."""
    if text is None or len(text) > 40:
        return None
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        return None
    return None if at.tzinfo is None else math.floor(at.timestamp())


def _local(name: str | None) -> str:
    """A qualified name without its prefix: which prefix a server takes is its own affair."""
    return "" if name is None else name[name.find(":") + 1 :]


def prepare(leaves: Sequence[Leaves]) -> dict[str, tuple[str, type]]:
    """What `read_found` wants, from the leaf paths of all types that are asked for."""
    return {path: (path, kind) for each in leaves for path, kind in each.items()}
