"""Answers as vSphere writes them, and the ways in which a bad one differs."""

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from lxml import etree

XSI = 'xmlns:XMLSchema-instance="http://www.w3.org/2001/XMLSchema-instance" XMLSchema-instance:type'
XSI_TYPE = "{http://www.w3.org/2001/XMLSchema-instance}type"
HEAD = (
    '<?xml version="1.0" encoding="UTF-8"?>\n<soapenv:Envelope'
    ' xmlns:soapenc="http://schemas.xmlsoap.org/soap/encoding/"'
    ' xmlns:soapenv="http://schemas.xmlsoap.org/soap/envelope/" xmlns:xsd="http://www.w3.org/2001/XMLSchema"'
    ' xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"><soapenv:Body>'
)
TAIL = "</soapenv:Body></soapenv:Envelope>"
AT = "2027-01-15T08:00:20Z"
TICK = 1_800_000_020
_KINDS: Mapping[type, str] = {int: "xsd:int", bool: "xsd:boolean", str: "xsd:string"}


def answer(method: str, inside: str) -> str:
    """A whole answer."""
    return f'{HEAD}<{method}Response xmlns="urn:vim25">{inside}</{method}Response>{TAIL}'


def fault(kind: str, text: str = "", detail: str = "") -> str:
    """A SOAP fault of this type."""
    return (
        f"{HEAD}<soapenv:Fault><faultcode>ServerFaultCode</faultcode><faultstring>{text}</faultstring><detail>"
        f'<{kind}Fault xmlns="urn:vim25" xsi:type="{kind}">{detail}</{kind}Fault></detail></soapenv:Fault>{TAIL}'
    )


def an_object(kind: str, number: str, values: Mapping[str, Any], attribute: str = "xsi:type") -> str:
    """An ObjectContent."""
    inside = "".join(_property(path, value, attribute) for path, value in values.items())
    return f'<objects><obj type="{kind}">{number}</obj>{inside}</objects>'


def _property(path: str, value: Any, attribute: str) -> str:
    if isinstance(value, tuple):
        kind, number = value
        return (
            f'<propSet><name>{path}</name><val {attribute}="ManagedObjectReference" type="{kind}">'
            f"{number}</val></propSet>"
        )
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return f'<propSet><name>{path}</name><val {attribute}="{_KINDS[type(value)]}">{text}</val></propSet>'


def a_metric(
    entity: str, values: Mapping[int, object], csv: bool = False, attribute: str = "xsi:type"
) -> str:
    """A PerfEntityMetric with one sample."""
    kind, series = (
        ("PerfEntityMetricCSV", "PerfMetricSeriesCSV") if csv else ("PerfEntityMetric", "PerfMetricIntSeries")
    )
    info = (
        f"<sampleInfoCSV>20,{AT}</sampleInfoCSV>"
        if csv
        else f"<sampleInfo><timestamp>{AT}</timestamp><interval>20</interval></sampleInfo>"
    )
    found = "".join(
        f'<value xsi:type="{series}"><id><counterId>{number}</counterId><instance></instance></id>'
        f"<value>{value}</value></value>"
        for number, value in values.items()
    )
    return f'<returnval {attribute}="{kind}"><entity type="VirtualMachine">{entity}</entity>{info}{found}</returnval>'


def page(objects: Sequence[str], token: str | None = None, method: str = "RetrievePropertiesEx") -> str:
    """A page of objects; with a token when there is another."""
    more = f"<token>{token}</token>" if token else ""
    return answer(method, f"<returnval>{more}{''.join(objects)}</returnval>")


# -- what goes wrong with an answer; no change turns a right value into another plausible one

NO_NUMBERS = (
    "",
    "NaN",
    "-7",
    "1e9",
    "INF",
    "0x10",
    "9" * 400,
    "9" * 19 + "9",
    "١٢",
    " 5",
    "1_0",
    "12.5",
    "--1",
)


def mutate(text: str, change: str, choice: int, word: str) -> bytes:
    """The answer with one change at one of its elements; some are no XML any more."""
    if change == "cut":
        return text.encode()[: choice % len(text.encode())]
    if change == "bomb":
        entities = "".join(f'<!ENTITY a{n} "{f"&a{n - 1};" * 10}">' for n in range(1, 12))
        bomb = f'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a0 "ha">{entities}]>'
        return (bomb + text.partition("?>")[2].replace("poweredOn", "&a11;")).encode()
    if change == "charset":
        return text.replace("poweredOn", "pöweredOn").encode(("latin-1", "utf-16", "utf-8")[choice % 3])
    if change == "byte":
        data = bytearray(text.encode())
        data[choice % len(data)] = choice % 7
        return bytes(data)
    root = etree.fromstring(text.encode())
    elements = list(root.iter())[1:]
    _CHANGES[change](elements[choice % len(elements)], word)
    return bytes(etree.tostring(root))


def _double(element: Any, word: str) -> None:
    element.addnext(copy.deepcopy(element))


def _drop(element: Any, word: str) -> None:
    element.getparent().remove(element)


def _swap(element: Any, word: str) -> None:
    if element.getprevious() is not None:
        element.getprevious().addprevious(element)


def _nest(element: Any, word: str) -> None:
    element.append(copy.deepcopy(element))


def _say(element: Any, word: str) -> None:
    if not len(element):
        element.text = word


def _forget_type(element: Any, word: str) -> None:
    element.attrib.pop(XSI_TYPE, None)
    element.attrib.pop("type", None)


def _rename(element: Any, word: str) -> None:
    element.tag = "{urn:vim25}strange"


def _deepen(element: Any, word: str) -> None:
    for _ in range(400):
        element = etree.SubElement(element, "{urn:vim25}deeper")


_CHANGES: dict[str, Callable[[Any, str], None]] = {
    "double": _double,
    "drop": _drop,
    "swap": _swap,
    "nest": _nest,
    "say": _say,
    "forget type": _forget_type,
    "rename": _rename,
    "deepen": _deepen,
}
CHANGES = (*_CHANGES, "cut", "bomb", "charset", "byte")
