"""Samples and decisions as they are stored: JSON, NaN as text, so that PostgreSQL keeps what the cloud said."""

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, TypeAdapter

from libs.common.contracts.usage import Sample
from libs.common.db import Json
from libs.harvest.types import Decision, Facts, Missing, Observation

_CONFIG = ConfigDict(ser_json_inf_nan="strings")
T = TypeVar("T")


class Inputs(BaseModel):
    """Everything that a decision was made from and what it said."""

    model_config = _CONFIG
    observation: Sample | Missing
    facts: Facts
    decision: Decision


# A data class takes no configuration from an adapter; what is in a tuple does.
_SAMPLE = TypeAdapter(tuple[Sample], config=_CONFIG)
_MISSING = TypeAdapter(tuple[Missing], config=_CONFIG)
_FACTS = TypeAdapter(tuple[Facts], config=_CONFIG)
_DECISION = TypeAdapter(tuple[Decision], config=_CONFIG)


def observation_as_json(observation: Observation) -> Json:
    """A sample, or its absence, as it is stored."""
    if isinstance(observation, Missing):
        return _write(_MISSING, observation)
    return _write(_SAMPLE, observation)


def facts_as_json(facts: Facts) -> Json:
    """Facts as they are stored."""
    return _write(_FACTS, facts)


def decision_as_json(decision: Decision) -> Json:
    """A decision as it is stored."""
    return _write(_DECISION, decision)


def _write(adapter: TypeAdapter[tuple[T]], value: T) -> Json:
    return Json(adapter.serializer.to_json((value,))[1:-1].decode())


def differs(known: Mapping[str, Any] | None, decision: Decision) -> bool:
    """Whether a decision is worth a row beside the one that was stored: anything but its time and the owner's load
    moved."""
    return known is None or _essence_of_stored(known) != _essence(decision)


def _essence(decision: Decision) -> object:
    what = [decision.verdict, decision.rung, decision.wanted, decision.running, decision.cap_mhz]
    budgets = [(budget.host, budget.budget_mhz) for budget in decision.budgets]
    return (what, list(decision.suspend), decision.reason.code, budgets)


def _essence_of_stored(decision: Mapping[str, Any]) -> object:
    what = [decision[name] for name in ("verdict", "rung", "wanted", "running", "cap_mhz")]
    budgets = [(budget["host"], budget["budget_mhz"]) for budget in decision["budgets"]]
    return (what, decision.get("suspend") or [], decision["reason"]["code"], budgets)
