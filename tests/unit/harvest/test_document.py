"""The policy document: what an operator writes."""

import json
import math
from datetime import UTC, date, datetime, time
from pathlib import Path
from typing import Any

import pytest
import yaml

from libs.harvest.document import PRESETS, InvalidPolicy, PolicyDocument, dump, for_older, parse
from libs.harvest.quota import Quota
from libs.harvest.types import Thresholds, Window
from libs.harvest.windows import is_open
from tests.unit.harvest.story import POLICY

MACHINE = {"template": "worker", "vcpus": 4, "memory_mib": 8192, "disk_gib": 20}
SMALL: dict[str, Any] = {"name": "nights", "machine": MACHINE}


def changed(path: str, value: object) -> dict[str, Any]:
    """A good document with one field replaced."""
    document: dict[str, Any] = json.loads(json.dumps({**PRESETS["balanced"], "machine": MACHINE}))
    *parents, last = path.split(".")
    place = document
    for part in parents:
        place = place[part]
    place[last] = value
    return document


def test_a_small_document_is_filled_with_defaults() -> None:
    policy = parse(SMALL)
    assert (policy.name, policy.machine.vcpus, policy.memory) == ("nights", 4, None)
    assert policy.cpu == Thresholds(0.75, 0.85, 0.92)


def test_windows_and_memory_are_read() -> None:
    window = {"days": ["mon", "sun"], "start": "18:00", "end": "06:30"}
    memory = {"idle": 0.6, "stop_new": 0.7, "reclaim": 0.9}
    policy = parse({**SMALL, "windows": [window], "time_zone": "Europe/Zurich", "memory": memory})
    assert policy.windows == (Window(frozenset({0, 6}), time(18), time(6, 30)),)
    assert policy.memory == Thresholds(0.6, 0.7, 0.9)
    assert parse(dump(policy)) == policy


def test_holidays_are_days_of_the_calendar() -> None:
    policy = parse({**SMALL, "holidays": ["2026-12-25", "2027-01-01"]})
    assert policy.holidays == {date(2026, 12, 25), date(2027, 1, 1)}
    assert parse(dump(policy)) == policy
    for wrong in (["christmas"], [7], ["2026-13-01"], "2026-12-25"):
        with pytest.raises(InvalidPolicy, match=r"^holidays"):
            parse({**SMALL, "holidays": wrong})


@pytest.mark.parametrize("name", ["balanced", "gentle", "greedy"])
def test_presets_lack_only_the_machine(name: str) -> None:
    policy = parse({**PRESETS[name], "machine": MACHINE})
    assert policy.name == name
    assert parse(json.loads(json.dumps(dump(policy)))) == policy
    with pytest.raises(InvalidPolicy, match=r"^machine is missing$"):
        parse(PRESETS[name])


def test_presets_differ_in_how_much_they_dare() -> None:
    gentle, balanced, greedy = (
        parse({**PRESETS[name], "machine": MACHINE}) for name in ("gentle", "balanced", "greedy")
    )
    assert gentle.cpu.idle < balanced.cpu.idle < greedy.cpu.idle
    assert gentle.sigma > balanced.sigma > greedy.sigma


def test_every_policy_of_the_engine_has_a_document() -> None:
    assert parse(dump(POLICY)) == POLICY


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("cpu.stop_new", 0.4, "cpu.stop_new must be above cpu.idle"),
        ("cpu.reclaim", 0.65, "cpu.reclaim must be above cpu.stop_new"),
        (
            "memory",
            {"idle": 0.5, "stop_new": 0.5, "reclaim": 0.9},
            "memory.stop_new must be above memory.idle",
        ),
        ("cpu.idle", -0.1, "cpu.idle is not valid: input should be greater than or equal to 0"),
        ("cpu.idle", math.nan, "cpu.idle is not valid: input should be a finite number"),
        ("cpu.idel", 0.1, "cpu.idel is not a field of a policy"),
        ("target", 1.5, "target is not valid: input should be less than or equal to 1"),
        ("margin", 0.5, None),
        ("name", "", "name is not valid: string should have at least 1 character"),
        ("name", "x" * 101, "name is not valid: string should have at most 100 characters"),
        ("name", "a\nb", "name must be printable, without blanks around it"),
        ("machine.vcpus", 0, "machine.vcpus is not valid: input should be greater than or equal to 1"),
        ("machine.disk_gib", math.inf, "machine.disk_gib is not valid: input should be a finite number"),
        (
            "ladder.suspend_after_s",
            -1,
            "ladder.suspend_after_s is not valid: input should be greater than or equal to 0",
        ),
        ("time_zone", "Atlantis/Deep", "time_zone must be the name of a time zone, as Europe/Zurich"),
        ("time_zone", "../../etc/passwd", "time_zone must be the name of a time zone, as Europe/Zurich"),
        ("release", "keep", "release is not valid: input should be 'suspend' or 'destroy'"),
        ("max_share", 0.05, "useful_share must not be above max_share"),
        ("windows", [{"days": [], "start": "18:00", "end": "06:00"}], None),
        ("windows", [{"days": ["mon"], "start": "25:00", "end": "06:00"}], None),
        ("windows", [{"days": ["someday"], "start": "18:00", "end": "06:00"}], None),
    ],
)
def test_a_wrong_field_is_named(path: str, value: object, message: str | None) -> None:
    if path == "margin":
        document = {**changed("target", 0.4), "margin": value}
        message = "margin must be below target"
    else:
        document = changed(path, value)
    with pytest.raises(InvalidPolicy) as refused:
        parse(document)
    assert refused.value.field.startswith(path if message is None else message.split(" ", maxsplit=1)[0])
    if message is not None:
        assert str(refused.value) == message


@pytest.mark.parametrize("document", [{}, {"name": 7}, {"name": None, "machine": None}, {**SMALL, "cpu": 7}])
def test_what_is_no_document_is_refused(document: dict[str, Any]) -> None:
    with pytest.raises(InvalidPolicy):
        parse(document)


def test_the_document_has_a_schema_for_the_api() -> None:
    schema = PolicyDocument.model_json_schema()
    assert schema["required"] == ["name", "machine"]
    assert schema["additionalProperties"] is False


def test_the_example_profile_is_a_policy_with_the_figures_of_its_source() -> None:
    text = (Path(__file__).parents[3] / "docs/examples/balticlsc.yaml").read_text(encoding="utf-8")
    policy = parse(yaml.safe_load(text))
    assert policy.quota == Quota(machines=50, vcpus=100, memory_mib=256_000, disk_gib=10_000)
    assert (policy.machine.vcpus, policy.machine.memory_mib) == (2, 256)
    assert is_open(policy, datetime(2026, 12, 24, 12, tzinfo=UTC)), "a holiday counts as a Sunday"
    assert not is_open(policy, datetime(2026, 12, 23, 12, tzinfo=UTC))
    assert parse(dump(policy)) == policy


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"quota": {"cores": 5}}, "quota.cores is not a field of a policy"),
        ({"quota": {"vcpus": -1}}, "quota.vcpus is not valid: input should be greater than or equal to 0"),
        ({"minimum_life_s": -1}, "minimum_life_s is not valid: input should be greater than or equal to 0"),
    ],
)
def test_a_wrong_quota_or_life_is_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidPolicy) as refused:
        parse({**SMALL, **changes})
    assert str(refused.value) == message


def test_a_process_of_before_is_told_of_no_field_that_says_nothing() -> None:
    plain, bounded = dump(parse(SMALL)), dump(parse({**SMALL, "quota": {"vcpus": 8}, "minimum_life_s": 60}))
    assert plain.keys() - for_older(plain).keys() == {"quota", "minimum_life_s"}
    assert parse(for_older(plain)) == parse(SMALL)
    assert for_older(bounded) == bounded, "what bounds is told, and refused by who cannot keep to it"
