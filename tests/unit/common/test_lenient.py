"""Words of a newer writer: each enum of the catalogue has one to be careful by, and nothing else is forgiven."""

import json
import re
from copy import deepcopy
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

import pytest
from pydantic import TypeAdapter, ValidationError

from libs.common.bus.base import Message
from libs.common.bus.messages import UnreadableMessage, decode
from libs.common.contracts import lenient, resource, supply, usage
from libs.common.contracts.base import Event
from libs.common.contracts.catalogue import CATALOGUE, Entry
from libs.common.contracts.lenient import CAREFUL, REFUSED, Strange
from libs.common.contracts.usage import Announced, Coming, Drs, Exposure, HostState, Quality, UsageSampled

AT = datetime(2026, 3, 1, 12, tzinfo=UTC)
ID = UUID("00000000-0000-7000-8000-00000000000a")
NEW = "a word of tomorrow"
KNOWN: dict[str, type[StrEnum]] = {
    name: thing
    for module in (resource, supply, usage)
    for name, thing in vars(module).items()
    if isinstance(thing, type) and issubclass(thing, StrEnum) and thing is not StrEnum
}


def instance(schema: dict[str, Any], definitions: dict[str, Any], enum: str) -> Any:
    """The least document of a JSON schema in which every place for this enum is filled."""
    if reference := schema.get("$ref"):
        return instance(definitions[reference.rsplit("/", 1)[1]] | {"title": reference}, definitions, enum)
    if "anyOf" in schema:
        return instance(
            max(schema["anyOf"], key=lambda one: enum in json.dumps([one, definitions_of(one, definitions)])),
            definitions,
            enum,
        )
    if "enum" in schema:
        return schema["enum"][0]
    if schema.get("type") == "object":
        return {name: instance(one, definitions, enum) for name, one in schema.get("properties", {}).items()}
    if schema.get("type") == "array":
        return [instance(schema["items"], definitions, enum)] if "items" in schema else []
    plain = {"date-time": AT.isoformat(), "uuid": str(ID)}.get(schema.get("format", ""), "text")
    return {"number": 1.0, "integer": 1, "boolean": False, "null": None}.get(schema.get("type", ""), plain)


def definitions_of(schema: dict[str, Any], definitions: dict[str, Any]) -> Any:
    """What a reference leads to."""
    return definitions.get(schema.get("$ref", "").rsplit("/", 1)[-1])


def enums_of(event: type[Event]) -> set[str]:
    """Names of the enums in the wire form of an event."""
    definitions = event.model_json_schema(mode="serialization").get("$defs", {})
    return {name for name, schema in definitions.items() if "enum" in schema}


def replaced(document: Any, words: set[str]) -> Any:
    """The document with a new word wherever one of these stands."""
    if isinstance(document, dict):
        return {name: replaced(one, words) for name, one in document.items()}
    if isinstance(document, list):
        return [replaced(one, words) for one in document]
    return NEW if document in words else document


WITH_WORDS = [(entry, enum) for entry in CATALOGUE for enum in sorted(enums_of(entry.event))]


@pytest.mark.parametrize(
    ("entry", "name"), WITH_WORDS, ids=[f"{entry.event.key}-{name}" for entry, name in WITH_WORDS]
)
def test_a_new_word_anywhere_in_an_event_is_read_as_the_careful_one(entry: Entry, name: str) -> None:
    enum = KNOWN[name]
    schema = entry.event.model_json_schema(mode="serialization")
    document = instance(schema, schema.get("$defs", {}), name)
    first = next(iter(enum)).value
    newer = json.dumps(replaced(document, {first})).encode()
    assert NEW.encode() in newer
    with pytest.raises(ValidationError):
        entry.event.decode(newer)  # as a writer would be told
    heard: list[Strange] = []
    if enum in REFUSED:
        with pytest.raises(UnreadableMessage, match="enum"):
            decode(Message("m1", entry.event.key, newer), heard.append)
        return

    read = decode(Message("m1", entry.event.key, newer), heard.append)

    careful = json.loads(json.dumps(document).replace(f'"{first}"', f'"{CAREFUL[enum].value}"'))
    assert read == entry.event.model_validate(careful)
    assert {(one.word, one.taken_for) for one in heard} == {(NEW, CAREFUL[enum].value)}


def test_every_enum_of_the_catalogue_is_decided_on() -> None:
    named = {name for _, name in WITH_WORDS}

    assert named == {enum.__name__ for enum in CAREFUL.keys() | REFUSED}
    assert named == KNOWN.keys()
    assert len({tuple(enum) for enum in CAREFUL}) == len(CAREFUL), "they are told apart by their words"


def a_round() -> dict[str, Any]:
    """A newer monitor's sample of three hosts, with a new word in every place that has one."""
    columns = {
        name: [1.0, 2.0, 3.0]
        for name in (
            *("cpu_capacity_mhz", "cpu_used_mhz", "cpu_ours_mhz", "cpu_limit_mhz", "memory_capacity_mib"),
            *("memory_used_mib", "memory_ours_mib", "contention_percent"),
        )
    }
    sample = {
        "cluster": "c1", "name": "C", "at": AT.isoformat(), "interval_s": 20.0, "machines": [0, 0, 0],
        "hosts": ["h1", "h2", "h3"], "host_names": ["1", "2", "3"], "states": ["connected", NEW, "quarantined"],
        "quality": NEW, "exposed": NEW, "drs": NEW, "coming": [{"kind": NEW, "begins_at": AT.isoformat()}],
    }  # fmt: skip
    about = {"at": AT.isoformat(), "resource_id": str(ID), "received_at": AT.isoformat()}
    return about | {"samples": [sample | columns]}


def test_the_rest_of_a_sample_is_read_and_each_new_word_is_told_once_with_its_place() -> None:
    body = json.dumps(a_round()).replace("1.0", "NaN")  # what is impossible passes as ever
    read, strange = lenient.read(UsageSampled, body.encode())

    [sample] = read.samples
    assert sample.states == (HostState.CONNECTED, HostState.FAILED, HostState.FAILED)
    assert (sample.quality, sample.exposed, sample.drs) == (
        Quality.BACKFILLED,
        Exposure.POOL_ALTERED,
        Drs.ON,
    )
    assert [one.kind for one in sample.coming] == [Coming.CALENDAR]
    assert sample.cpu_used_mhz[0] != sample.cpu_used_mhz[0]
    assert {(one.field, one.word) for one in strange} == {
        ("samples.states", NEW), ("samples.states", "quarantined"), ("samples.quality", NEW),
        ("samples.exposed", NEW), ("samples.drs", NEW), ("samples.coming.kind", NEW),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda sample: sample.update(states=[1, NEW, NEW]), "enum"),
        (lambda sample: sample.update(drs=["on"]), "enum"),
        (lambda sample: sample.update(drs=NEW, interval_s="often"), "float_parsing"),
        (lambda sample: sample.pop("states"), "missing"),
    ],
)
def test_what_is_no_word_is_refused_as_ever(change: Any, why: str) -> None:
    body = a_round()
    change(body["samples"][0])
    with pytest.raises(UnreadableMessage, match=re.escape(why)):
        decode(Message("m1", UsageSampled.key, json.dumps(body).encode()))


def test_a_word_may_be_as_long_as_its_writer_likes() -> None:
    body = a_round()
    body["samples"][0]["drs"] = "x" * 10_000
    _, strange = lenient.read(UsageSampled, json.dumps(body).encode())
    assert max(len(one.word) for one in strange) <= 40


def test_what_a_newer_process_wrote_into_a_row_is_read_and_left_as_it_is() -> None:
    kept = [{"kind": NEW, "begins_at": AT.isoformat(), "host": "h1"}]
    before = deepcopy(kept)
    read, _ = lenient.validate(TypeAdapter(tuple[Announced, ...]).validate_python, kept)
    assert read == (Announced(Coming.CALENDAR, AT, host="h1"),)
    assert kept == before


def test_one_word_of_a_row_is_read_like_those_of_an_event() -> None:
    assert lenient.word_of(resource.Mode, "draining") is resource.Mode.DRAINING
    assert lenient.word_of(resource.Mode, NEW) is CAREFUL[resource.Mode]
