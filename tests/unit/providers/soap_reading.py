"""A true inventory and true measurements, how they are answered, and how the answers are read."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from libs.providers.vsphere.soap.answer import Answer, Garbled, ScannedAnswer
from libs.providers.vsphere.soap.envelope import Ref
from libs.providers.vsphere.soap.metrics import Metrics, Readings
from libs.providers.vsphere.soap.updates import TaskNews, read_updates
from libs.providers.vsphere.soap.values import Found, Objects, prepare
from tests.unit.providers import soap_writing as soap

LEAVES: dict[str, type] = {
    "name": str,
    "runtime.host": Ref,
    "runtime.powerState": str,
    "config.template": bool,
    "summary.quickStats.overallCpuUsage": int,
}
COUNTERS = {6: "cpu", 98: "memory"}
TRUE_OBJECTS = {
    f"vm-{number}": {
        "name": f"machine {number}",
        "runtime.host": ("HostSystem", f"host-{number}"),
        "runtime.powerState": "poweredOn",
        "config.template": False,
        "summary.quickStats.overallCpuUsage": 1000 + number,
    }
    for number in range(4)
}
TRUE_NEWS = {
    Ref("Task", f"task-{number}"): TaskNews(state, progress, cancelable)
    for number, (state, progress, cancelable) in enumerate(
        [("queued", 0, True), ("running", 40, True), ("success", 100, False)]
    )
}
TRUE_METRICS = {f"vm-{number}": {6: 2000 + number, 98: 3000 + number} for number in range(4)}


def objects_answer(attribute: str = "xsi:type") -> str:
    return soap.page(
        [soap.an_object("VirtualMachine", ref, got, attribute) for ref, got in TRUE_OBJECTS.items()]
    )


def metrics_answer(csv: bool = False, attribute: str = "xsi:type") -> str:
    metrics = [soap.a_metric(ref, got, csv, attribute) for ref, got in TRUE_METRICS.items()]
    return soap.answer("QueryPerf", "".join(metrics))


def feed(answer: Answer, data: bytes, cuts: Sequence[int] = ()) -> None:
    places = sorted({0, *(cut % (len(data) + 1) for cut in cuts), len(data)})
    for start, end in pairwise(places):
        answer.feed(data[start:end])
    answer.close()


def read_objects(data: bytes, cuts: Sequence[int] = (), scanned: bool = True) -> Objects:
    page = Objects(prepare([LEAVES]))
    method = "RetrievePropertiesEx"
    feed(
        ScannedAnswer(method, "objects", page) if scanned else Answer(method, "objects", page.take),
        data,
        cuts,
    )
    return page


def read_metrics(data: bytes, cuts: Sequence[int] = (), scanned: bool = True) -> Readings:
    readings = Readings({})
    metrics = Metrics(readings, COUNTERS, 20)
    metrics.ask(Ref("VirtualMachine", ref) for ref in TRUE_METRICS)
    method = "QueryPerf"
    feed(
        ScannedAnswer(method, "returnval", metrics) if scanned else Answer(method, "returnval", metrics.take),
        data,
        cuts,
    )
    return readings


def plain(row: Found) -> dict[str, Any]:
    return {path: tuple(value) if isinstance(value, Ref) else value for path, value in row.values.items()}


def updates_answer() -> str:
    """An UpdateSet that tells of every task."""
    values = ("info.state", "info.progress", "info.cancelable")
    told = "".join(
        f'<objectSet><kind>enter</kind><obj type="Task">{ref.id}</obj>'
        + "".join(
            f"<changeSet><name>{path}</name><op>assign</op><val>{str(value).lower()}</val></changeSet>"
            for path, value in zip(values, (news.state, news.progress, news.cancelable), strict=True)
        )
        + "</objectSet>"
        for ref, news in TRUE_NEWS.items()
    )
    inside = f"<returnval><version>7</version><filterSet>{told}</filterSet></returnval>"
    return soap.answer("WaitForUpdatesEx", inside)


def read_news(data: bytes, cuts: Sequence[int] = ()) -> dict[Ref, TaskNews]:
    found: list[tuple[str, dict[Ref, TaskNews]]] = []
    feed(
        Answer("WaitForUpdatesEx", "returnval", lambda element: found.append(read_updates(element))),
        data,
        cuts,
    )
    if len(found) > 1:
        raise Garbled("two sets of updates in one answer")
    return found[0][1] if found else {}
