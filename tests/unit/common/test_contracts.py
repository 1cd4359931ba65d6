"""Events on the wire: every one survives it, tolerates what it does not know, and says who it is."""

import json
import math
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import AwareDatetime, ValidationError

from libs.common.bus.base import Message
from libs.common.bus.messages import UnreadableMessage, decode, to_message
from libs.common.contracts.base import Event, StateEvent, is_newer
from libs.common.contracts.catalogue import BY_KEY, CATALOGUE, Entry, Kind, entry_of
from libs.common.contracts.resource import ResourceRecovered
from libs.common.contracts.usage import (
    LATER_COLUMNS,
    Announced,
    Coming,
    HostState,
    Sample,
    UsageSampled,
)

AT = datetime(2026, 3, 1, 12, tzinfo=UTC)
ID = UUID("00000000-0000-7000-8000-00000000000a")

TIMES = st.datetimes(min_value=AT.replace(tzinfo=None), timezones=st.just(UTC))
st.register_type_strategy(AwareDatetime, TIMES)
st.register_type_strategy(datetime, TIMES)


def an_event(entry: Entry) -> st.SearchStrategy[Event]:
    """Any event of this kind that its types allow."""
    fields = {
        name: st.dictionaries(st.text(), st.text(), max_size=3)
        if info.annotation == dict[str, Any]
        else TIMES
        if info.annotation is AwareDatetime or name.endswith("_at") or name == "at"
        else st.from_type(info.annotation)  # type: ignore[arg-type]
        for name, info in entry.event.model_fields.items()
    }
    return st.builds(entry.event, **fields)


def a_sample(**changes: Any) -> Sample:
    """One host, half used."""
    return Sample(
        **{
            "cluster": "domain-c8",
            "name": "Cluster",
            "at": AT,
            "interval_s": 20.0,
            "hosts": ("host-1",),
            "host_names": ("one",),
            "states": (HostState.CONNECTED,),
            "cpu_capacity_mhz": (10_000.0,),
            "cpu_used_mhz": (5_000.0,),
            "cpu_ours_mhz": (0.0,),
            "cpu_limit_mhz": (0.0,),
            "memory_capacity_mib": (4096.0,),
            "memory_used_mib": (1024.0,),
            "memory_ours_mib": (0.0,),
            "contention_percent": (None,),
            "machines": (0,),
            **changes,
        }
    )


@pytest.mark.parametrize("entry", CATALOGUE, ids=lambda entry: entry.event.key)
@settings(max_examples=15, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(data=st.data())
def test_any_event_survives_the_wire(entry: Entry, data: st.DataObject) -> None:
    event = data.draw(an_event(entry))
    message = to_message(event, "/tides/test")
    read = decode(message)
    assert type(read) is entry.event
    assert read.encode() == event.encode()
    assert "NaN" in event.model_dump_json() or read == event
    assert (message.id, message.key) == (str(event.id), entry.event.key)
    assert message.headers == {
        "ce-specversion": "1.0",
        "ce-id": str(event.id),
        "ce-source": "/tides/test",
        "ce-type": entry.event.key,
        "ce-time": event.at.isoformat(),
        "ce-subject": event.subject,
    }


def test_impossible_measurements_arrive_as_they_were_measured() -> None:
    used = (math.nan, math.inf, -math.inf, -5.0)
    sent = UsageSampled(at=AT, resource_id=ID, samples=(a_sample(cpu_used_mhz=used),), received_at=AT)
    read = UsageSampled.decode(sent.encode())
    arrived = read.samples[0].cpu_used_mhz
    assert math.isnan(arrived[0])
    assert arrived[1:] == used[1:]


def _with(sample: Sample, **columns: Any) -> Sample:
    return replace(sample, **columns)


def test_a_sample_is_whole_where_every_column_has_a_value_for_each_host() -> None:
    whole = a_sample(coming=(Announced(Coming.BACKUP, AT),) * 2)
    columns = [name for name in whole.__slots__ if isinstance(getattr(whole, name), tuple)]
    assert whole.is_whole()
    for name in set(columns) - {"coming", *LATER_COLUMNS}:
        column = getattr(whole, name)
        assert not _with(whole, **{name: column[:-1]}).is_whole(), name
        assert not _with(whole, **{name: (*column, column[0])}).is_whole(), name
    for name in LATER_COLUMNS:
        assert _with(whole, **{name: (None,) * len(whole.hosts)}).is_whole(), name
        assert not _with(whole, **{name: (None,) * (1 + len(whole.hosts))}).is_whole(), name


def test_fields_of_a_newer_publisher_are_ignored_at_every_depth() -> None:
    sent = UsageSampled(at=AT, resource_id=ID, samples=(a_sample(),), received_at=AT)
    body = json.loads(sent.encode())
    body["added"] = body["samples"][0]["added"] = {"later": 1}
    assert UsageSampled.decode(json.dumps(body).encode()) == sent


def test_an_event_cannot_be_changed() -> None:
    event = ResourceRecovered(at=AT, resource_id=ID, outage_s=1)
    with pytest.raises(ValidationError, match="frozen"):
        event.outage_s = 2  # type: ignore[misc]


def test_a_time_without_a_zone_is_refused() -> None:
    with pytest.raises(ValidationError, match="timezone"):
        ResourceRecovered(at=datetime(2026, 3, 1), resource_id=ID, outage_s=1)  # noqa: DTZ001 - what is refused


def test_two_facts_are_two_and_a_fact_keeps_its_id() -> None:
    one, other = (ResourceRecovered(at=AT, resource_id=ID, outage_s=1) for _ in range(2))
    assert one.id < other.id
    assert ResourceRecovered.decode(one.encode()).id == one.id


def test_a_state_is_newer_only_by_revision() -> None:
    entry = next(entry for entry in CATALOGUE if entry.kind is Kind.STATE)
    event = entry.event.model_construct(id=ID, at=AT, revision=3)
    assert isinstance(event, StateEvent)
    assert [is_newer(event, known) for known in (None, 2, 3, 4)] == [True, True, False, False]


def test_the_kind_in_the_catalogue_is_that_of_the_class() -> None:
    for entry in CATALOGUE:
        assert issubclass(entry.event, StateEvent) == (entry.kind is Kind.STATE), entry.event.key


def test_the_catalogue_finds_events_by_class_and_knows_no_other() -> None:
    class Stranger(Event):
        """Not in the catalogue."""

        key = "stranger.arrived.v1"

    assert all(entry_of(entry.event) is entry for entry in CATALOGUE)
    assert len(BY_KEY) == len(CATALOGUE)
    with pytest.raises(KeyError, match="stranger"):
        entry_of(Stranger)


@pytest.mark.parametrize(
    ("key", "body", "why"),
    [
        ("stranger.arrived.v1", b"{}", "no event stranger.arrived.v1 in the catalogue (message m1)"),
        ("resource.recovered.v1", b"{", "message m1 is not resource.recovered.v1 (body: json_invalid)"),
        (
            "resource.recovered.v1",
            b'{"at": "2026-03-01T12:00:00Z", "resource_id": "hunter2", "outage_s": 1}',
            "message m1 is not resource.recovered.v1 (resource_id: uuid_parsing)",
        ),
    ],
)
def test_what_cannot_be_read_is_named_without_its_values(key: str, body: bytes, why: str) -> None:
    with pytest.raises(UnreadableMessage) as raised:
        decode(Message("m1", key, body))
    assert str(raised.value) == why
    assert raised.value.__suppress_context__ or raised.value.__context__ is None
