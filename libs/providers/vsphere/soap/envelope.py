"""Requests as vSphere's SOAP wants them: the few reads that are made in every round."""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple
from xml.sax.saxutils import escape, quoteattr

_HEAD = (
    '<?xml version="1.0" encoding="UTF-8"?><soapenv:Envelope'
    ' xmlns:soapenv="http://schemas.xmlsoap.org/soap/envelope/"'
    ' xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"><soapenv:Body>'
)
_TAIL = "</soapenv:Body></soapenv:Envelope>"


class Ref(NamedTuple):
    """A managed object: its type and its id."""

    kind: str
    id: str


class Request(NamedTuple):
    """A call and its body, ready to send."""

    method: str
    body: bytes


class Step(NamedTuple):
    """A step from an object to those that one of its properties names, and further from these."""

    kind: str
    path: str
    then: tuple["Step", ...] = ()
    keep: bool = True
    """Whether the objects of this step are answered themselves."""


def write_call(method: str, this: Ref, arguments: str = "") -> Request:
    """A call of a method of a managed object."""
    text = f'{_HEAD}<{method} xmlns="urn:vim25">{write_ref("_this", this)}{arguments}</{method}>{_TAIL}'
    return Request(method, text.encode())


def write_ref(tag: str, ref: Ref) -> str:
    """A reference as an element. Types are words, and ids too but for their hyphens: nearly none needs escapes."""
    kind, number = ref
    if kind.isalnum() and number.replace("-", "").isalnum():
        return f'<{tag} type="{kind}">{number}</{tag}>'
    return f"<{tag} type={quoteattr(kind)}>{escape(number)}</{tag}>"


def write_start(ref: Ref, steps: Iterable[Step] = ()) -> str:
    """Where a retrieval begins: the object itself, or what lies some steps from it."""
    ways = "".join(_write_step("selectSet", step) for step in steps)
    return f"<objectSet>{write_ref('obj', ref)}<skip>{'true' if ways else 'false'}</skip>{ways}</objectSet>"


def _write_step(tag: str, step: Step) -> str:
    further = "".join(_write_step("selectSet", each) for each in step.then)
    return (
        f'<{tag} xsi:type="TraversalSpec"><type>{step.kind}</type><path>{step.path}</path>'
        f"<skip>{'false' if step.keep else 'true'}</skip>{further}</{tag}>"
    )


def write_retrieval(
    collector: Ref, paths: Mapping[str, Iterable[str]], starts: Iterable[str], page: int, tolerant: bool
) -> Request:
    """RetrievePropertiesEx of these leaf paths by type; a `tolerant` one leaves out starts that are gone."""
    wanted = "".join(
        f"<propSet><type>{kind}</type>{''.join(f'<pathSet>{path}</pathSet>' for path in names)}</propSet>"
        for kind, names in paths.items()
    )
    missing = f"<reportMissingObjectsInResults>{str(tolerant).lower()}</reportMissingObjectsInResults>"
    return write_call(
        "RetrievePropertiesEx",
        collector,
        f"<specSet>{wanted}{''.join(starts)}{missing}</specSet>"
        f"<options><maxObjects>{page}</maxObjects></options>",
    )


def write_token(method: str, collector: Ref, token: str) -> Request:
    """ContinueRetrievePropertiesEx or CancelRetrievePropertiesEx."""
    return write_call(method, collector, f"<token>{escape(token)}</token>")


def write_view(manager: Ref, container: Ref, kinds: Sequence[str]) -> Request:
    """CreateContainerView of everything of these types, however deep below the container."""
    types = "".join(f"<type>{kind}</type>" for kind in kinds)
    return write_call(
        "CreateContainerView",
        manager,
        f"{write_ref('container', container)}{types}<recursive>true</recursive>",
    )


def write_query(
    manager: Ref, entities: Iterable[Ref], counters: Iterable[int], interval_s: int, samples: int
) -> Request:
    """QueryPerf of the newest values, as CSV: a server that knows only the normal format answers in that."""
    metrics = "".join(
        f"<metricId><counterId>{number}</counterId><instance></instance></metricId>" for number in counters
    )
    rest = (
        f"<maxSample>{samples}</maxSample>{metrics}<intervalId>{interval_s}</intervalId><format>csv</format>"
    )
    specs = "".join(f"<querySpec>{write_ref('entity', each)}{rest}</querySpec>" for each in entities)
    return write_call("QueryPerf", manager, specs)
