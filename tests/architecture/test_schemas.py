"""The frozen schemas: what counts as a break, and that the documents hold together."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
from pydantic import BaseModel

from libs.common.contracts.catalogue import CATALOGUE
from tools import schemas
from tools.additive import REMEDY, breaks


class Place(BaseModel):
    """Part of an event."""

    name: str
    rank: int = 0


class Moved(BaseModel):
    """An event as it was."""

    key: ClassVar[str] = "thing.moved.v1"
    id: int
    note: str | None = None
    places: tuple[Place, ...] = ()


def _change(**fields: Any) -> list[str]:
    """What the rule says when fields of `Moved` change: None takes one away."""
    kept = {name: (info.annotation, info) for name, info in Moved.model_fields.items()} | fields
    kept = {name: field for name, field in kept.items() if field is not None}
    return _judge(type("Moved", (BaseModel,), _namespace(kept)))


def _judge(after: type[BaseModel]) -> list[str]:
    return breaks(
        {"thing.moved.v1": Moved.model_json_schema()}, {"thing.moved.v1": after.model_json_schema()}
    )


def _namespace(fields: dict[str, Any]) -> dict[str, Any]:
    annotations = {name: kind for name, (kind, _) in fields.items()}
    defaults = {name: default for name, (_, default) in fields.items() if default is not ...}
    return {"__annotations__": annotations, "__module__": __name__, **defaults}


def test_an_addition_is_no_break() -> None:
    assert _change() == []
    assert _change(new=(int, 3), other=(Place | None, None)) == []
    assert breaks({}, {"thing.moved.v1": Moved.model_json_schema()}) == []


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"note": None}, "note is gone"),
        ({"id": (str, ...)}, "id changed its type from {'type': 'integer'} to {'type': 'string'}"),
        ({"id": (int | None, ...)}, "id changed its type"),
        ({"note": (str, "")}, "note changed its type"),
        ({"new": (int, ...)}, "new is new and has no default"),
        ({"note": (str | None, ...)}, "note lost its default"),
        ({"places": (list[int], [])}, "places[] changed its type"),
    ],
)
def test_a_break_is_named_with_its_remedy(fields: dict[str, Any], complaint: str) -> None:
    (said,) = _change(**fields)
    assert said.startswith(f"thing.moved.v1: {complaint}")
    assert said.endswith(REMEDY)


def test_a_break_deep_inside_is_found() -> None:
    old = Moved.model_json_schema()
    new = json.loads(json.dumps(old))
    del new["$defs"]["Place"]["properties"]["rank"]
    new["$defs"]["Place"]["properties"]["name"]["type"] = "integer"
    said = breaks({"thing.moved.v1": old}, {"thing.moved.v1": new})
    assert [line.split(";")[0] for line in said] == [
        "thing.moved.v1: places[].name changed its type from {'type': 'string'} to {'type': 'integer'}",
        "thing.moved.v1: places[].rank is gone",
    ]


def test_an_enumeration_grows_but_does_not_shrink() -> None:
    def kind(*values: str) -> dict[str, Any]:
        return {"thing.moved.v1": {"properties": {"kind": {"enum": list(values), "type": "string"}}}}

    assert breaks(kind("a"), kind("a", "b")) == []
    assert breaks(kind("a", "b"), kind("a")) == [f"thing.moved.v1: kind lost the value 'b'; {REMEDY}"]


def test_an_event_that_goes_is_a_break() -> None:
    assert breaks({"thing.moved.v1": {}}, {}) == [f"thing.moved.v1: the event is gone; {REMEDY}"]


def test_the_checked_in_events_can_still_be_read() -> None:
    assert schemas.broken_events() == []


def test_a_broken_event_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    events = schemas.event_schemas()
    events["resource.recovered.v1"]["schema"]["properties"]["was_there"] = {"type": "string"}
    before = json.dumps(events)
    (tmp_path / "events.json").write_text(before)
    monkeypatch.setattr(schemas.broken_events, "__defaults__", (tmp_path,))
    monkeypatch.setattr(schemas.write, "__defaults__", (tmp_path,))

    assert schemas.main([]) == 1
    assert "resource.recovered.v1: was_there is gone; put a .v2 beside" in capsys.readouterr().out
    assert (tmp_path / "events.json").read_text() == before
    assert schemas.main(["--unreleased"]) == 0
    assert "was_there" not in (tmp_path / "events.json").read_text()


def test_a_stale_or_stray_file_is_said(tmp_path: Path) -> None:
    fresh = {"events.json": '{\n "a": 1\n}\n', "openapi/policy.json": "{}\n"}
    schemas.write(fresh, tmp_path)
    assert schemas.differences(fresh, tmp_path) == []
    (tmp_path / "events.json").write_text('{\n "a": 2\n}\n')
    (tmp_path / "openapi" / "gone.json").write_text("{}\n")
    stray, stale = schemas.differences(fresh, tmp_path)
    assert stray == "schemas/openapi/gone.json belongs to nothing any more"
    assert '- "a": 2' in stale
    assert '+ "a": 1' in stale
    schemas.write(fresh, tmp_path)
    assert schemas.differences(fresh, tmp_path) == []


def test_the_documents_are_the_same_each_time_and_hold_together() -> None:
    services = schemas.compose()
    fresh = schemas.documents(services)
    assert fresh == schemas.documents(services)
    assert {f"openapi/{service.name}.json" for service in services} <= fresh.keys()
    for name, text in fresh.items():
        document = json.loads(text)
        assert json.dumps(document, indent=1, sort_keys=True, ensure_ascii=False) + "\n" == text, name
        roots = [row["schema"] for row in document.values()] if name == "events.json" else [document]
        for root in roots:
            for reference in _references(root):
                found = root
                for step in reference.removeprefix("#/").split("/"):
                    found = found[step]
                assert found, (name, reference)


def test_only_a_public_event_has_a_channel_for_outsiders() -> None:
    channels = schemas.bus_document()["channels"]
    exchange = {name: row["bindings"]["amqp"]["exchange"]["name"] for name, row in channels.items()}
    assert {name.removeprefix("public.") for name, where in exchange.items() if where == "tides"} == {
        entry.event.key for entry in CATALOGUE if entry.public
    }
    assert {name for name, where in exchange.items() if where == "tides.internal"} == {
        entry.event.key for entry in CATALOGUE
    }


def _references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        for inner in value.values():
            yield from _references(inner)
    if isinstance(value, list):
        for inner in value:
            yield from _references(inner)
