"""The policy document: what an operator writes, checked field by field, to and from `Policy`.

Fractions are 0 to 1, times are seconds unless the name says otherwise. Only this module knows pydantic.
"""

import re
from collections.abc import Mapping
from dataclasses import asdict
from datetime import date, time
from types import MappingProxyType
from typing import Annotated, Any, Literal, Self
from zoneinfo import ZoneInfo

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from libs.harvest.quota import Quota
from libs.harvest.types import Ladder, MachineSize, Policy, Thresholds, Window

Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
_DAYS: tuple[Day, ...] = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_ZONE = re.compile(r"[A-Za-z][A-Za-z0-9_+-]*(/[A-Za-z0-9_+-]+)*")
_STRICT = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Seconds = Annotated[float, Field(ge=0.0, le=604800.0)]
TimeOfDay = Annotated[str, Field(pattern=r"^([01][0-9]|2[0-3]):[0-5][0-9]$", examples=["18:00"])]


class InvalidPolicy(ValueError):
    """A document that is no policy: `field` is the dotted path, the message begins with it."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field} {problem}" if field else problem)
        self.field = field


def _one_line(text: str) -> str:
    if not text.isprintable() or text != text.strip():
        raise PydanticCustomError("printable", "must be printable, without blanks around it")
    return text


class ThresholdsDocument(BaseModel):
    """Fractions of capacity used by the owner: idle < stop_new < reclaim."""

    model_config = _STRICT

    idle: Fraction = Field(description="Below this on all signals, long enough, the count may grow.")
    stop_new: Fraction = Field(description="From here on nothing new is started.")
    reclaim: Fraction = Field(
        description="From here on budgets fall to the floor at once and the ladder is climbed."
    )

    @field_validator("stop_new", "reclaim")
    @classmethod
    def _check_order(cls, value: float, info: ValidationInfo) -> float:
        other = "idle" if info.field_name == "stop_new" else "stop_new"
        if other in info.data and value <= info.data[other]:
            raise PydanticCustomError("above", "must be above {other}", {"other": other})
        return value


class MachineDocument(BaseModel):
    """What one machine is made of, and from which template."""

    model_config = _STRICT

    template: str = Field(min_length=1, max_length=200)
    vcpus: int = Field(ge=1, le=256)
    memory_mib: int = Field(ge=128, le=4194304)
    disk_gib: float = Field(gt=0.0, le=65536.0)

    @field_validator("template")
    @classmethod
    def _check_template(cls, value: str) -> str:
        return _one_line(value)


class LadderDocument(BaseModel):
    """Dwell per rung in seconds while the owner stays busy: how long until the next, harder step."""

    model_config = _STRICT

    stop_new_after_s: Seconds = 60.0
    suspend_after_s: Seconds = 600.0
    drain_after_s: Seconds = 14400.0
    drain_grace_s: Seconds = 600.0
    suspend: bool = Field(
        default=True, description="False: machines are drained where they would be suspended."
    )


class WindowDocument(BaseModel):
    """A weekly stretch in which lending is allowed; an end not after the start is on the next day."""

    model_config = _STRICT

    days: tuple[Day, ...] = Field(min_length=1, max_length=7)
    start: TimeOfDay
    end: TimeOfDay


class QuotaDocument(BaseModel):
    """What all machines of the organisation may be together, on all of its clusters. What is left out has no bound."""

    model_config = _STRICT

    machines: int | None = Field(default=None, ge=0, le=100_000)
    vcpus: int | None = Field(default=None, ge=0, le=10_000_000)
    memory_mib: int | None = Field(default=None, ge=0, le=2**40)
    disk_gib: float | None = Field(default=None, ge=0.0, le=1e9)


class PolicyDocument(BaseModel):
    """An operator's rules for one cluster."""

    model_config = _STRICT

    name: str = Field(min_length=1, max_length=100)
    machine: MachineDocument
    cpu: ThresholdsDocument = ThresholdsDocument(idle=0.75, stop_new=0.85, reclaim=0.92)
    memory: ThresholdsDocument | None = None
    ladder: LadderDocument = LadderDocument()
    target: float = Field(
        default=0.90, ge=0.10, le=1.0, description="Owner and ours together, fraction of a host."
    )
    margin: float = Field(default=0.01, ge=0.0, le=0.50)
    sigma: float = Field(
        default=6.0, ge=0.0, le=20.0, description="Standard deviations of owner load kept free."
    )
    steered: bool = Field(
        default=True,
        description="Whether sigma follows what is measured on the cluster, by a gain of 0.5 to 3.",
    )
    contention_max: float = Field(
        default=0.001,
        ge=0.00001,
        le=0.1,
        description="Share of host time that may pass above the target, where a surprise is seen within 75 s.",
    )
    hard_max: float = Field(
        default=0.0005,
        ge=0.00001,
        le=0.1,
        description="Share of host time that may pass above all of a host.",
    )
    idle_dwell_s: Seconds = 300.0
    busy_dwell_s: Seconds = 60.0
    cooldown_s: Seconds = 600.0
    max_share: Fraction = Field(
        default=1.0, description="Fraction of a host's capacity that may ever be lent."
    )
    max_machines: int = Field(default=64, ge=0, le=10000)
    machines_per_host: int = Field(default=1, ge=1, le=64)
    step_machines: int = Field(default=2, ge=1, le=1000)
    floor_mhz_per_vcpu: float = Field(default=200.0, ge=50.0, le=5000.0)
    useful_share: Fraction = Field(default=0.11, validate_default=True)
    dead_band: float = Field(default=0.01, ge=0.0, le=0.50)
    rise_s: float = Field(default=120.0, ge=0.0, le=3600.0)
    stale_after_s: float = Field(default=60.0, ge=5.0, le=3600.0)
    windows: tuple[WindowDocument, ...] = Field(default=(), max_length=50, description="Empty: always.")
    holidays: tuple[Annotated[str, Field(pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$")], ...] = Field(
        default=(), max_length=200, description="Days that count as Sundays for the windows, as 2026-12-25."
    )
    time_zone: str = Field(default="UTC", min_length=1, max_length=64, examples=["Europe/Zurich"])
    datastore_free_min: float = Field(default=0.20, ge=0.0, le=0.95)
    release: Literal["suspend", "destroy"] = "suspend"
    minimum_life_s: Seconds = Field(
        default=0.0,
        description="A machine lives so long before a quota, a cap or a count may take it; the owner never waits.",
    )
    quota: QuotaDocument | None = Field(
        default=None,
        description="For all machines of the organisation together, on all of its clusters; the tightest holds.",
    )

    @field_validator("name")
    @classmethod
    def _check_name(cls, value: str) -> str:
        return _one_line(value)

    @field_validator("margin")
    @classmethod
    def _check_margin(cls, value: float, info: ValidationInfo) -> float:
        if value >= info.data.get("target", 1.0):
            raise PydanticCustomError("below", "must be below {other}", {"other": "target"})
        return value

    @field_validator("useful_share")
    @classmethod
    def _check_useful_share(cls, value: float, info: ValidationInfo) -> float:
        if value > info.data.get("max_share", 1.0) > 0:
            raise PydanticCustomError("below", "must not be above {other}", {"other": "max_share"})
        return value

    @field_validator("holidays")
    @classmethod
    def _check_holidays(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        try:
            return tuple(date.fromisoformat(day).isoformat() for day in value)
        except ValueError as error:
            raise PydanticCustomError("date", "must be days of the calendar, as 2026-12-25") from error

    @field_validator("time_zone")
    @classmethod
    def _check_time_zone(cls, value: str) -> str:
        try:
            if not _ZONE.fullmatch(value):  # it becomes the name of a file
                raise ValueError(value)
            ZoneInfo(value)
        except (KeyError, ValueError, OSError) as error:
            raise PydanticCustomError(
                "time_zone", "must be the name of a time zone, as Europe/Zurich"
            ) from error
        return value

    def to_policy(self) -> Policy:
        """The engine's form of this document."""
        plain = {name: getattr(self, name) for name in _PLAIN}
        return Policy(
            cpu=Thresholds(**self.cpu.model_dump()),
            memory=None if self.memory is None else Thresholds(**self.memory.model_dump()),
            machine=MachineSize(**self.machine.model_dump()),
            ladder=Ladder(**self.ladder.model_dump()),
            windows=tuple(_to_window(window) for window in self.windows),
            holidays=frozenset(map(date.fromisoformat, self.holidays)),
            quota=None if self.quota is None else Quota(**self.quota.model_dump()),
            **plain,
        )

    @classmethod
    def from_policy(cls, policy: Policy) -> Self:
        """The document of a policy. Raises pydantic.ValidationError for one that no document can describe."""
        return cls.model_validate(
            {
                **asdict(policy),
                "windows": [_from_window(window) for window in policy.windows],
                "holidays": [day.isoformat() for day in sorted(policy.holidays)],
            }
        )


_NESTED = {"cpu", "memory", "machine", "ladder", "windows", "holidays", "quota"}
_PLAIN = tuple(PolicyDocument.model_fields.keys() - _NESTED)


def parse(document: Mapping[str, Any]) -> Policy:
    """The policy of a document, defaults filled in. Raises InvalidPolicy for the first wrong field."""
    try:
        return PolicyDocument.model_validate(dict(document)).to_policy()
    except ValidationError as error:
        raise name_problem(error) from error


def dump(policy: Policy) -> dict[str, Any]:
    """The whole document of a policy, JSON-serialisable: `parse(dump(policy)) == policy`."""
    return PolicyDocument.from_policy(policy).model_dump(mode="json")


_ADDED: Mapping[str, Any] = MappingProxyType({"minimum_life_s": 0.0, "quota": None})
"""Later fields with what says nothing: who reads by an older version takes no field that it does not know."""


def for_older(document: Mapping[str, Any]) -> dict[str, Any]:
    """The document without later fields that say nothing: a process that is not upgraded yet can read it."""
    return {name: value for name, value in document.items() if name not in _ADDED or value != _ADDED[name]}


def name_problem(error: ValidationError) -> InvalidPolicy:
    """The first problem of a failed validation, as a sentence that begins with the field."""
    first = error.errors(include_url=False, include_input=False)[0]
    path = [str(part) for part in first["loc"]]
    field = ".".join(path)
    match first["type"]:
        case "above":
            return InvalidPolicy(field, f"must be above {'.'.join((*path[:-1], first['ctx']['other']))}")
        case "missing":
            return InvalidPolicy(field, "is missing")
        case "extra_forbidden":
            return InvalidPolicy(field, "is not a field of a policy")
        case "printable" | "below" | "time_zone" | "date":
            return InvalidPolicy(field, first["msg"])
        case _:
            return InvalidPolicy(field, f"is not valid: {first['msg'][:1].lower()}{first['msg'][1:]}")


def _to_window(window: WindowDocument) -> Window:
    days = frozenset(_DAYS.index(day) for day in window.days)
    return Window(days, time.fromisoformat(window.start), time.fromisoformat(window.end))


def _from_window(window: Window) -> dict[str, Any]:
    return {
        "days": [_DAYS[day] for day in sorted(window.days)],
        "start": window.start.strftime("%H:%M"),
        "end": window.end.strftime("%H:%M"),
    }


def _preset(name: str, **changes: Any) -> dict[str, Any]:
    machine = MachineDocument(template="-", vcpus=1, memory_mib=1024, disk_gib=10.0)
    document = PolicyDocument(name=name, machine=machine, **changes)
    return document.model_dump(mode="json", exclude={"machine"})


PRESETS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "balanced": _preset("balanced"),
        "gentle": _preset(
            "gentle",
            cpu=ThresholdsDocument(idle=0.30, stop_new=0.45, reclaim=0.60),
            ladder=LadderDocument(stop_new_after_s=0.0, suspend_after_s=180.0, drain_after_s=7200.0),
            sigma=9.0,
            contention_max=0.0004,
            hard_max=0.0002,
            idle_dwell_s=900.0,
            busy_dwell_s=0.0,
            cooldown_s=1800.0,
            max_share=0.75,
            step_machines=1,
            rise_s=300.0,
            datastore_free_min=0.30,
        ),
        "greedy": _preset(
            "greedy",
            cpu=ThresholdsDocument(idle=0.80, stop_new=0.88, reclaim=0.95),
            ladder=LadderDocument(stop_new_after_s=120.0, suspend_after_s=1800.0, drain_after_s=43200.0),
            sigma=3.5,
            contention_max=0.0025,
            hard_max=0.001,
            idle_dwell_s=120.0,
            busy_dwell_s=120.0,
            cooldown_s=300.0,
            step_machines=4,
            rise_s=60.0,
        ),
    }
)
"""Documents that lack only `machine`: `parse({**PRESETS["balanced"], "machine": {...}})`."""
