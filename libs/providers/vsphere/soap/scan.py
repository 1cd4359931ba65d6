"""The short way through an answer: items written exactly as vSphere writes them are taken by an anchored pattern.

An XML tree of Python objects costs ten times as much as its text. So runs of items in the one form that servers
really write are cut out of the stream where items belong, and the XML parser sees all the rest: the envelope, the
end, and every item that is written in any other way.
"""

import re
from collections.abc import Callable
from typing import NamedTuple

_XSI = rb'xmlns:%s="http://www\.w3\.org/2001/XMLSchema-instance"'
_TYPE = rb"(?: " + _XSI % rb"XMLSchema-instance" + rb" XMLSchema-instance| XMLSchema-instance| xsi):type"
# Text that means itself: no markup, no escape, nothing that XML forbids or changes.
_TEXT = rb"[^<&>\x00-\x08\x0b-\x1f]"
_HEAD = (
    rb"(?:<\?xml[^<>]*\?>)?\s*<(\w+):Envelope(?=[^<>]*\s" + _XSI % rb"xsi" + rb")[^<>]*>\s*<\1:Body>\s*"
    rb'<%sResponse xmlns="urn:vim25">%s'
)
_PROPERTY = (
    rb"<propSet><name>" + _TEXT + rb"*+</name><val" + _TYPE + rb'="[\w:]++"(?: type="\w++")?+>'
    rb"" + _TEXT + rb"*+</val></propSet>"
)
_OBJECT = rb'<objects><obj type="\w++">' + _TEXT + rb"++</obj>(?:" + _PROPERTY + rb")*+</objects>"
_TIMES = (
    rb"(?:(?:<sampleInfo><timestamp>[\w:.+-]++</timestamp><interval>\d++</interval></sampleInfo>)++"
    rb"|<sampleInfoCSV>[\w:.,+-]*+</sampleInfoCSV>)?+"
)
_SERIES = (
    rb"<value" + _TYPE + rb'="PerfMetric(?:IntSeries|SeriesCSV)"><id><counterId>\d++</counterId>'
    rb"<instance>" + _TEXT + rb"*+</instance></id>(?:<value>[\w:.,+-]*+</value>)*+</value>"
)
_METRIC = (
    rb"<returnval(?: " + _XSI % rb"XMLSchema-instance" + rb" XMLSchema-instance| xsi)"
    rb':type="PerfEntityMetric(?:CSV)?"><entity type="\w++">'
    rb"" + _TEXT + rb"++</entity>" + _TIMES + rb"(?:" + _SERIES + rb")*+</returnval>"
)
MOST_HEAD = 4096


class Shape(NamedTuple):
    """How the items of an answer are written, and what the first of them follows."""

    head: re.Pattern[bytes]
    run: re.Pattern[bytes]
    opening: bytes
    closing: bytes


def _shape(method: bytes, before: bytes, item: bytes, name: bytes) -> Shape:
    return Shape(
        re.compile(_HEAD % (method, before)),
        re.compile(rb"(?:" + item + rb")*+"),
        b"<" + name,
        b"</" + name + b">",
    )


_PAGE = rb"<returnval>(?:<token>" + _TEXT + rb"*+</token>)?"
SHAPES = {
    "RetrievePropertiesEx": _shape(b"RetrievePropertiesEx", _PAGE, _OBJECT, b"objects"),
    "ContinueRetrievePropertiesEx": _shape(b"ContinueRetrievePropertiesEx", _PAGE, _OBJECT, b"objects"),
    "QueryPerf": _shape(b"QueryPerf", b"", _METRIC, b"returnval"),
}

Tokens = Callable[[str], list[tuple[str, ...]]]

OBJECT_TOKEN = re.compile(
    r'<objects><obj type="(\w+)">([^<]+)<'
    r'|<name>([^<]*)</name><val(?: xmlns:XMLSchema-instance="[^"]*")? (?:xsi|XMLSchema-instance)'
    r':type="(?:\w+:)?(\w+)"(?: type="(\w+)")?>([^<]*)<'
)
OBJECT_TOKENS: Tokens = OBJECT_TOKEN.findall
"""Of a run of objects: type and id; or path, type of the value, type of what it refers to, and text."""

METRIC_TOKENS: Tokens = re.compile(
    r'<entity type="(\w+)">([^<]+)<'
    r"|<timestamp>([^<]*)</timestamp><interval>([^<]*)<"
    r"|<sampleInfoCSV>([^<]*)<"
    r"|<counterId>([^<]*)</counterId><instance>([^<]*)</instance></id>((?:<value>[^<]*</value>)*)"
).findall
"""Of a run of metrics: entity's type and id; time and interval; times as CSV; or counter, instance and values."""
