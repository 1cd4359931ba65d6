"""Samples and decisions as they are stored: JSON, NaN as text, so that PostgreSQL keeps what the cloud said."""

from typing import Any

from pydantic import BaseModel, ConfigDict
from pydantic_core import from_json

from libs.common.contracts.usage import Sample
from libs.harvest.types import Decision, Facts, Missing, Observation


class _Stored(BaseModel):
    model_config = ConfigDict(ser_json_inf_nan="strings")

    def as_json(self) -> dict[str, Any]:
        """JSON values by field."""
        stored: dict[str, Any] = from_json(self.model_dump_json())
        return stored


class Inputs(_Stored):
    """Everything that a decision was made from and what it said."""

    observation: Sample | Missing
    facts: Facts
    decision: Decision


class _Decided(_Stored):
    decision: Decision


class _Seen(_Stored):
    sample: Sample


def inputs_as_json(observation: Observation, facts: Facts, decision: Decision) -> dict[str, Any]:
    """What went into a decision and came out, by the columns of its record."""
    return Inputs(observation=observation, facts=facts, decision=decision).as_json()


def decision_as_json(decision: Decision) -> dict[str, Any]:
    """A decision as it is stored."""
    stored: dict[str, Any] = _Decided(decision=decision).as_json()["decision"]
    return stored


def sample_as_json(sample: Sample) -> dict[str, Any]:
    """A sample as it is stored."""
    stored: dict[str, Any] = _Seen(sample=sample).as_json()["sample"]
    return stored


def differs(known: dict[str, object] | None, decision: dict[str, object]) -> bool:
    """Whether a decision is worth a row: anything but its time and the owner's load moved."""
    return known is None or _essence(known) != _essence(decision)


def _essence(decision: dict[str, object]) -> object:
    reason, budgets = decision["reason"], decision["budgets"]
    assert isinstance(reason, dict)
    assert isinstance(budgets, list)
    what = [decision[name] for name in ("verdict", "rung", "wanted", "running", "cap_mhz")]
    what.append(decision.get("suspend") or [])
    return (what, reason["code"], [(budget["host"], budget["budget_mhz"]) for budget in budgets])
