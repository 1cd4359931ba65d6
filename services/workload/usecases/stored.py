"""Samples and decisions as they are stored: JSON, NaN as text, so that PostgreSQL keeps what the cloud said."""

import logging
from collections.abc import Mapping, Sequence
from enum import IntEnum
from typing import Any, NamedTuple, TypeVar

import structlog
from pydantic import BaseModel, ConfigDict, TypeAdapter

from libs.common.alike import add_alike
from libs.common.contracts.usage import Sample
from libs.common.db import Json, Session
from libs.harvest.types import Decision, Facts, Missing, Observation
from services.workload.models import DecisionRecord

log = structlog.get_logger(__name__)

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


class Moved(IntEnum):
    """What a decision changes beside the one before it; its time and the owner's load alone change nothing."""

    NOTHING = 0
    BUDGETS = 1
    """How much is lent, as it does with nearly every sample; what becomes of it is told by who sets the limits."""
    COURSE = 2
    """Verdict, rung, machines or reason."""


def what_moved(known: Mapping[str, Any] | None, decision: Decision) -> Moved:
    """How far a decision departs from the one that was stored; what moved at all is worth a row."""
    if known is None or _course_of_stored(known) != _course(decision):
        return Moved.COURSE
    budgets = [(budget.host, budget.budget_mhz) for budget in decision.budgets]
    stored = [(budget["host"], budget["budget_mhz"]) for budget in known["budgets"]]
    is_same = known["cap_mhz"] == decision.cap_mhz and stored == budgets
    return Moved.NOTHING if is_same else Moved.BUDGETS


def _course(decision: Decision) -> object:
    what = [decision.verdict, decision.rung, decision.wanted, decision.running]
    return (what, list(decision.suspend), decision.reason.code)


def _course_of_stored(decision: Mapping[str, Any]) -> object:
    what = [decision[name] for name in ("verdict", "rung", "wanted", "running")]
    return (what, decision.get("suspend") or [], decision["reason"]["code"])


_KEPT = (
    DecisionRecord.id, DecisionRecord.cluster_id, DecisionRecord.at, DecisionRecord.policy_id,
    DecisionRecord.policy_revision, DecisionRecord.state_before, DecisionRecord.observation, DecisionRecord.facts,
    DecisionRecord.decision, DecisionRecord.reason,
)  # fmt: skip


class Told(NamedTuple):
    """A decision in which something moved: what is kept of it, and what the log is to say."""

    kept: Mapping[str, Any]
    said: Mapping[str, object]
    moved: Moved


async def keep(session: Session, told: Sequence[Told | None]) -> None:
    """Store the decisions in which something moved."""
    await add_alike(session, [one.kept for one in told if one is not None], _KEPT)


def log_decided(told: Sequence[Told | None]) -> None:
    """Say what was decided, once it cannot be rolled back alone any more; of budgets alone only who asks for it hears.

    At thousands of samples a second they would be all that a log holds, and a fifteenth of the time.
    """
    for one in told:
        if one is not None:
            level = logging.INFO if one.moved is Moved.COURSE else logging.DEBUG
            log.log(level, "cluster.decided", **one.said)
