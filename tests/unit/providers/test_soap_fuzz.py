"""Answers changed in every way: none is read as something else, and both ways of reading agree."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from libs.providers.vsphere.faults import Refused
from libs.providers.vsphere.soap.answer import FaultSeen, Garbled
from libs.providers.vsphere.soap.updates import TaskNews
from libs.providers.vsphere.soap.values import parse_int, parse_time
from tests.unit.providers import soap_writing as soap
from tests.unit.providers.soap_reading import (
    COUNTERS,
    LEAVES,
    TRUE_METRICS,
    TRUE_NEWS,
    TRUE_OBJECTS,
    metrics_answer,
    objects_answer,
    plain,
    read_metrics,
    read_news,
    read_objects,
    updates_answer,
)

MORE_TIME = settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.too_slow])
changes = st.sampled_from(soap.CHANGES)
numbers = st.integers(0, 100_000)
portions = st.lists(numbers, max_size=4)


def outcome(read: Callable[[], Any]) -> Any:
    try:
        return read()
    except (Garbled, FaultSeen, Refused):
        return None


@MORE_TIME
@given(
    change=changes, choice=numbers, word=st.sampled_from(soap.NO_NUMBERS), cuts=portions, vcsim=st.booleans()
)
def test_no_change_of_an_inventory_makes_a_wrong_value(
    change: str, choice: int, word: str, cuts: list[int], vcsim: bool
) -> None:
    data = soap.mutate(objects_answer(soap.XSI if vcsim else "xsi:type"), change, choice, word)
    pages = [outcome(lambda way=way: read_objects(data, cuts, way)) for way in (True, False)]  # type: ignore[misc]
    assert (pages[0] is None) == (pages[1] is None)
    if pages[0] is None:
        return
    assert [(row.ref, row.values, set(row.broken)) for row in pages[0].rows] == [
        (row.ref, row.values, set(row.broken)) for row in pages[1].rows
    ]
    for row in pages[0].rows:
        told = TRUE_OBJECTS.get(row.ref.id, {})
        for path, value in plain(row).items():
            assert type(row.values[path]) is LEAVES[path]
            if told and isinstance(value, int):
                assert value in (told[path], -7)


@MORE_TIME
@given(
    change=changes, choice=numbers, word=st.sampled_from(soap.NO_NUMBERS), cuts=portions, csv=st.booleans()
)
def test_no_change_of_a_measurement_makes_a_wrong_value(
    change: str, choice: int, word: str, cuts: list[int], csv: bool
) -> None:
    data = soap.mutate(metrics_answer(csv), change, choice, word)
    ways = [outcome(lambda way=way: read_metrics(data, cuts, way)) for way in (True, False)]  # type: ignore[misc]
    assert (ways[0] is None) == (ways[1] is None)
    if ways[0] is None:
        return
    assert ways[0].series == ways[1].series
    assert +ways[0].left_out == +ways[1].left_out
    numbers_of = {name: number for number, name in COUNTERS.items()}
    for (ref, name), series in ways[0].series.items():
        assert series in ({}, {soap.TICK: float(TRUE_METRICS[ref][numbers_of[name]])})


def test_tasks_are_read_as_they_are_told() -> None:
    assert read_news(updates_answer().encode()) == TRUE_NEWS


def check_news(change: str, choice: int, word: str, cuts: list[int]) -> None:
    """Whatever is said of a task is true, or nothing is said."""
    news = outcome(lambda: read_news(soap.mutate(updates_answer(), change, choice, word), cuts))
    for ref, found in (news or {}).items():
        true = TRUE_NEWS.get(ref, TaskNews())
        for name in ("state", "progress", "cancelable"):
            assert getattr(found, name) in (getattr(true, name), None) or ref not in TRUE_NEWS
        assert not found.is_gone, "nobody said that a task is unknown"


@MORE_TIME
@given(change=changes, choice=numbers, word=st.sampled_from(soap.NO_NUMBERS), cuts=portions)
def test_no_change_of_what_is_told_of_tasks_makes_a_wrong_end(
    change: str, choice: int, word: str, cuts: list[int]
) -> None:
    check_news(change, choice, word, cuts)


@pytest.mark.parametrize("word", soap.NO_NUMBERS)
def test_no_word_in_place_of_another_makes_a_wrong_end_of_a_task(word: str) -> None:
    for choice in range(60):
        check_news("say", choice, word, [])


@MORE_TIME
@given(data=st.binary(max_size=300), cuts=portions)
def test_noise_is_garbled(data: bytes, cuts: list[int]) -> None:
    for read in (read_objects, read_metrics):
        assert outcome(lambda read=read: read(data, cuts)) is None  # type: ignore[misc]


@given(st.text())
def test_numbers_and_times_are_parsed_or_refused(text: str) -> None:
    number, at = parse_int(text), parse_time(text)
    assert number is None or str(number) == text.lstrip("-0").rjust(1, "0") or text.startswith(("-", "0"))
    assert at is None or isinstance(at, int)
