"""What is believed of a SOAP answer: all of a right one, nothing of a wrong one, and both ways of reading agree."""

from collections.abc import Sequence

import pytest
from pyVmomi import vim, vmodl

from libs.providers.base import Cause, Unavailable
from libs.providers.vsphere.faults import Refused, translate
from libs.providers.vsphere.soap import answer as answers
from libs.providers.vsphere.soap.answer import FaultSeen, Garbled, ScannedAnswer
from libs.providers.vsphere.soap.envelope import Ref
from libs.providers.vsphere.soap.faults import make_fault, read_fault
from libs.providers.vsphere.soap.metrics import Metrics
from libs.providers.vsphere.soap.values import Objects, prepare
from tests.unit.providers import soap_writing as soap
from tests.unit.providers.soap_reading import (
    COUNTERS,
    TRUE_METRICS,
    TRUE_OBJECTS,
    feed,
    metrics_answer,
    objects_answer,
    plain,
    read_metrics,
    read_objects,
)

# -- right answers ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("attribute", ["xsi:type", soap.XSI])
@pytest.mark.parametrize("size", [1, 7, 100_000])
def test_a_right_answer_is_read_whole_whatever_its_portions(attribute: str, size: int) -> None:
    data = objects_answer(attribute).encode()
    for scanned in (True, False):
        page = read_objects(data, range(0, len(data), size), scanned)
        assert {row.ref.id: plain(row) for row in page.rows} == TRUE_OBJECTS
        assert page.token is None
        assert not any(row.broken or row.faults for row in page.rows)


@pytest.mark.parametrize("csv", [False, True])
@pytest.mark.parametrize("size", [1, 7, 100_000])
def test_both_formats_of_metrics_are_read_whole_whatever_their_portions(csv: bool, size: int) -> None:
    data = metrics_answer(csv).encode()
    for scanned in (True, False):
        readings = read_metrics(data, range(0, len(data), size), scanned)
        assert readings.series == {
            (ref, COUNTERS[number]): {soap.TICK: float(value)}
            for ref, got in TRUE_METRICS.items()
            for number, value in got.items()
        }
        assert not +readings.left_out


def test_the_short_way_is_really_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object) -> None:
        raise AssertionError("a tree was made of an item that is written as usual")

    monkeypatch.setattr(Objects, "take", refuse)
    monkeypatch.setattr(Metrics, "take", refuse)
    for attribute in ("xsi:type", soap.XSI):
        assert len(read_objects(objects_answer(attribute).encode()).rows) == 4
        for csv in (False, True):
            assert len(read_metrics(metrics_answer(csv, attribute).encode()).series) == 8


@pytest.mark.parametrize(
    "loads",
    [
        (1, 2, 3),
        (1, -1, 3),
        (1, None, 3),
        (None, 2, 3),
        (1, 999_999_999, 2_147_483_647),
        (1, 0, 4_000_000_000),
    ],
    ids=["alike", "negative", "one lacks it", "the first lacks it", "at the bound", "beyond it"],
)
def test_objects_that_differ_are_read_as_well_as_those_alike(loads: Sequence[int | None]) -> None:
    load = "summary.quickStats.overallCpuUsage"
    objects = [
        soap.an_object(
            "VirtualMachine", f"vm-{number}", {"name": "x"} | ({} if value is None else {load: value})
        )
        for number, value in enumerate(loads)
    ]
    for scanned in (True, False):
        rows = read_objects(soap.page(objects).encode(), scanned=scanned).rows
        believed = [None if value is not None and value >= 1 << 31 else value for value in loads]
        assert [row.values.get(load) for row in rows] == believed
        assert [row.broken for row in rows] == [
            (load,) if value is not None and value >= 1 << 31 else () for value in loads
        ]
        assert all(row.values["name"] == "x" for row in rows)


def test_one_odd_item_is_read_by_the_parser_and_the_others_as_usual(monkeypatch: pytest.MonkeyPatch) -> None:
    odd = soap.an_object("VirtualMachine", "vm-9", {"name": "a &amp; b<![CDATA[</objects>]]><!-- no -->!"})
    usual = [soap.an_object("VirtualMachine", ref, got) for ref, got in TRUE_OBJECTS.items()]
    data = soap.page([*usual[:2], odd, *usual[2:]], token="more").encode()
    for size in (1, 50, 100_000):
        page = read_objects(data, range(0, len(data), size))
        assert [row.ref.id for row in page.rows] == ["vm-0", "vm-1", "vm-9", "vm-2", "vm-3"]
        assert page.rows[2].values == {"name": "a & b</objects>!"}
        assert page.token == "more"


def test_what_looks_like_an_item_but_is_text_is_none() -> None:
    fake = soap.an_object("VirtualMachine", "vm-6", {"name": "x"})
    for hidden in (f"<!--{fake}-->", f"<x><![CDATA[{fake}]]></x>", f"<?x {fake}?>"):
        assert read_objects(soap.page([hidden]).encode()).rows == []


def test_an_item_in_the_text_of_an_odd_one_is_none() -> None:
    fake = soap.an_object("VirtualMachine", "vm-6", {"name": "x"})
    odd = soap.an_object("VirtualMachine", "vm-9", {"name": f"<![CDATA[</objects>{fake}]]>"})
    for scanned in (True, False):
        [row] = read_objects(soap.page([odd]).encode(), scanned=scanned).rows
        assert row.ref.id == "vm-9"
        assert row.values == {"name": f"</objects>{fake}"}


def test_escaped_text_is_unescaped_and_forbidden_text_garbled() -> None:
    for scanned in (True, False):
        row = soap.an_object("VirtualMachine", "vm-9", {"name": "a &amp; b &#60;"})
        assert read_objects(soap.page([row]).encode(), scanned=scanned).rows[0].values == {"name": "a & b <"}
        for wrong in ("a & b", "a\x07b", "a<b"):
            with pytest.raises(Garbled):
                read_objects(soap.page([row.replace("a &amp; b", wrong)]).encode(), scanned=scanned)


def test_arrays_of_references_and_missing_properties_are_understood() -> None:
    inside = (
        '<objects><obj type="ComputeResource">c1</obj><propSet><name>datastore</name>'
        '<val xsi:type="ArrayOfManagedObjectReference"><ManagedObjectReference type="Datastore">d1'
        '</ManagedObjectReference><ManagedObjectReference type="Datastore">d2</ManagedObjectReference></val></propSet>'
        '<missingSet><path>name</path><fault><fault xsi:type="NoPermission"/></fault></missingSet></objects>'
    )
    page = Objects(prepare([{"name": str, "datastore": tuple}]))
    feed(ScannedAnswer("RetrievePropertiesEx", "objects", page), soap.page([inside]).encode())
    [row] = page.rows
    assert row.values == {"datastore": (Ref("Datastore", "d1"), Ref("Datastore", "d2"))}
    assert row.faults == ("NoPermission",)


def test_newest_first_gaps_and_short_series_are_put_in_their_places() -> None:
    info = "".join(
        f"<sampleInfo><timestamp>2027-01-15T08:00:{second}Z</timestamp><interval>20</interval></sampleInfo>"
        for second in ("40", "19.5", "00")
    )
    series = "".join(
        f'<value xsi:type="PerfMetricIntSeries"><id><counterId>{number}</counterId><instance>{instance}</instance>'
        f"</id>{''.join(f'<value>{value}</value>' for value in values)}</value>"
        for number, instance, values in (
            (6, "", (3, -1, 1)),
            (98, "", (9,)),
            (6, "0", (5, 5, 5)),
            (7, "", (1, 1, 1)),
        )
    )
    entity = '<entity type="VirtualMachine">vm-1</entity>'
    item = f'<returnval xsi:type="PerfEntityMetric">{entity}{info}{series}</returnval>'
    for scanned in (True, False):
        readings = read_metrics(soap.answer("QueryPerf", item).encode(), scanned=scanned)
        assert readings.of("vm-1", "cpu") == {soap.TICK - 20: 1.0, soap.TICK + 20: 3.0}
        assert list(readings.of("vm-1", "cpu")) == [soap.TICK - 20, soap.TICK + 20]
        assert readings.of("vm-1", "memory") == {soap.TICK + 20: 9.0}
        assert readings.left_out["not asked for"] == 1
        assert readings.left_out["not as many values as times"] == 1


def test_what_contradicts_itself_or_overflows_its_type_is_broken() -> None:
    load = "summary.quickStats.overallCpuUsage"
    once = soap.an_object("VirtualMachine", "vm-1", {load: 7, "name": "x"})
    same, other = (
        once.replace("</objects>", soap.an_object("", "", {load: value}).partition("</obj>")[2])
        for value in (7, 8)
    )
    large = soap.an_object("VirtualMachine", "vm-1", {load: 1 << 31})
    for scanned in (True, False):
        rows = read_objects(soap.page([same, other, large]).encode(), scanned=scanned).rows
        assert [row.values.get(load) for row in rows] == [7, None, None]
        assert [row.broken for row in rows] == [(), (load,), (load,)]


def test_a_second_answer_about_the_same_machine_is_left_out() -> None:
    items = soap.a_metric("vm-1", {6: 5}) + soap.a_metric("vm-1", {6: 6}) + soap.a_metric("vm-99", {6: 7})
    for scanned in (True, False):
        readings = read_metrics(soap.answer("QueryPerf", items).encode(), scanned=scanned)
        assert readings.series == {("vm-1", "cpu"): {soap.TICK: 5.0}}
        assert readings.left_out["not asked for"] == 2


# -- faults ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "detail", "expected", "told"),
    [
        (
            "NotAuthenticated",
            "<privilegeId>System.View</privilegeId>",
            vim.fault.NotAuthenticated,
            "System.View",
        ),
        ("NoPermission", "<privilegeId>Host.X</privilegeId>", vim.fault.NoPermission, "Host.X"),
        (
            "ManagedObjectNotFound",
            '<obj type="VirtualMachine">vm-1</obj>',
            vmodl.fault.ManagedObjectNotFound,
            "gone",
        ),
        (
            "InvalidArgument",
            "<invalidProperty>querySpec</invalidProperty>",
            vmodl.fault.InvalidArgument,
            "querySpec",
        ),
        ("NeverHeardOf", "", vmodl.RuntimeFault, "NeverHeardOf"),
        ("VirtualMachine", "", vmodl.RuntimeFault, "VirtualMachine"),
    ],
)
def test_a_fault_is_pyvmomis_own_typed_one(kind: str, detail: str, expected: type, told: str) -> None:
    for scanned in (True, False):
        with pytest.raises(FaultSeen) as seen:
            read_objects(soap.fault(kind, "it is gone", detail).encode(), scanned=scanned)
        found = read_fault(seen.value.element)
        assert type(found) is expected
        error = translate(Refused(found), "reading")
        assert told in error.detail
        assert error.cause is translate(make_fault(kind, ""), "reading").cause


# -- wrong answers ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"<html>not a vCenter</html>",
        b"{}",
        b"<a>" * 100_000,
        soap.answer("QueryPerf", "").encode(),
        soap.answer("RetrievePropertiesEx", "<returnval/>")
        .replace("soapenv:Body", "soapenv:Header")
        .encode(),
        soap.page([]).replace("urn:vim25", "urn:vim26").encode(),
        (soap.page([]) + soap.page([])).encode(),
        objects_answer().replace("<soapenv:Envelope", "<!DOCTYPE x><soapenv:Envelope", 1).encode(),
        objects_answer()
        .replace(
            "</returnval>", "</returnval><returnval><objects><obj type='a'>b</obj></objects></returnval>"
        )
        .encode(),
        soap.page(["<objects><propSet><name>name</name><val/></propSet></objects>"]).encode(),
        soap.answer("RetrievePropertiesEx", "<returnval/><objects><obj type='a'>b</obj></objects>").encode(),
    ],
    ids=[
        "nothing",
        "page",
        "json",
        "deep",
        "other",
        "no body",
        "namespace",
        "twice",
        "doctype",
        "two lists",
        "no object",
        "place",
    ],
)
def test_what_is_no_answer_is_garbled_and_never_empty(data: bytes) -> None:
    for scanned in (True, False):
        with pytest.raises(Garbled) as refusal:
            read_objects(data, scanned=scanned)
        error = translate(refusal.value, "sampling")
        assert isinstance(error, Unavailable)
        assert error.cause is Cause.UNREACHABLE


def test_an_answer_without_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "MOST_BYTES", 3_000_000)
    endless = soap.page([]).partition("</returnval>")[0].encode()
    for opening in (b"<objects><obj type='a'>", b"<junk>", b"<objects/>"):
        answer = ScannedAnswer("RetrievePropertiesEx", "objects", Objects({}))
        with pytest.raises(Garbled):  # noqa: PT012 - the loop is what an endless answer is
            answer.feed(endless + opening)
            for _ in range(10_000):
                answer.feed(b"x" * 1000)


@pytest.mark.parametrize("text", soap.NO_NUMBERS)
def test_what_is_no_number_is_left_out_and_counted(text: str) -> None:
    for scanned in (True, False):
        item = soap.a_metric("vm-1", {6: text, 98: 5})
        readings = read_metrics(soap.answer("QueryPerf", item).encode(), scanned=scanned)
        assert readings.of("vm-1", "cpu") == {}
        assert readings.of("vm-1", "memory") == {soap.TICK: 5.0}
        assert readings.left_out["no number"] == (1 if text else 0)


@pytest.mark.parametrize(
    "at", ["", "yesterday", "2027-01-15T08:00:20", "99999-01-01T00:00:00Z", "1800000020"]
)
def test_what_has_no_time_is_left_out_and_counted(at: str) -> None:
    item = soap.a_metric("vm-1", {6: 5}).replace(soap.AT, at)
    for scanned in (True, False):
        readings = read_metrics(soap.answer("QueryPerf", item).encode(), scanned=scanned)
        assert readings.times() == set()
        assert readings.left_out["no time"] == 1


def test_another_interval_than_the_one_asked_for_is_no_value() -> None:
    item = soap.a_metric("vm-1", {6: 5}).replace("<interval>20<", "<interval>300<")
    readings = read_metrics(soap.answer("QueryPerf", item).encode())
    assert readings.times() == set()
    assert readings.left_out["no time"] == 1


def test_two_different_values_at_one_time_are_none() -> None:
    info = f"<sampleInfo><timestamp>{soap.AT}</timestamp><interval>20</interval></sampleInfo>"
    item = (
        soap.a_metric("vm-1", {6: 5})
        .replace(info, info + info)
        .replace("<value>5</value>", "<value>5</value><value>6</value>")
    )
    readings = read_metrics(soap.answer("QueryPerf", item).encode())
    assert readings.of("vm-1", "cpu") == {}
    assert readings.left_out["two values at one time"] == 1
