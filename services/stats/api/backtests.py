"""`/v1/stats/backtests`: what a policy would have lent on a cluster's own history, worked out in the background."""

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Response
from pydantic import BaseModel, ConfigDict, Field

from libs.common.errors import invalid
from libs.common.paging import Cursor, Limit, Page, page_of, read_cursor
from libs.common.repeats import HasOnce
from libs.harvest.document import PRESETS, InvalidPolicy, parse
from libs.harvest.reading import Unreadable, check_plain
from services.stats.api.door import HasDoor, Operator, Viewer
from services.stats.domain.history import MOST_DAYS, Actuator, State
from services.stats.usecases import backtests, reporting
from services.stats.usecases.backtests import Asked

router = APIRouter(prefix="/v1/stats/backtests", tags=["backtests"])

_ANY_MACHINE = {"template": "-", "vcpus": 1, "memory_mib": 1024, "disk_gib": 10.0}


class BacktestGiven(BaseModel):
    """Which cluster, which policy, how far back."""

    model_config = ConfigDict(extra="forbid")

    cluster_id: UUID
    policy: dict[str, Any] | None = Field(default=None, description="A policy document; or give `preset`.")
    preset: str | None = Field(
        default=None,
        max_length=100,
        description="One of the presets, with a machine as wide as a host on each.",
    )
    days: Annotated[int, Field(ge=1, le=MOST_DAYS)] = 30
    guard_seconds: Annotated[float, Field(ge=0, le=300)] = Field(
        default=30.0, description="How soon a new level of the owner is seen; 0: at the next 5-minute mean."
    )
    actuator: Actuator = Actuator.HOST


class SeriesShown(BaseModel):
    """Shares of the cluster's CPU as means of stretches of `step_s`; `at_s` counts from `since`."""

    step_s: float
    at_s: list[int]
    owner: list[float]
    lent: list[float]


class ResultShown(BaseModel):
    """What would have been; the names of the figures are those of `tides policy backtest --json`."""

    sentence: str
    covered_percent: float
    """Of the cluster's host-time: what was measured."""
    memory_known: bool
    """False: the history has no memory, so CPU alone decided."""
    figures: dict[str, float | int | None]
    series: SeriesShown | None
    """Null in lists."""


class BacktestShown(BaseModel):
    """One backtest; `result` when it is done, `error` when it failed."""

    id: UUID
    organisation_id: UUID
    cluster_id: UUID
    policy: str
    days: int
    since: datetime
    until: datetime
    state: State
    progress: float
    """0 to 1."""
    created_at: datetime
    ended_at: datetime | None
    result: ResultShown | None
    error: str | None


@router.post("", status_code=202)
async def ask_backtest(
    body: BacktestGiven, who: Operator, door: HasDoor, response: Response, once: HasOnce
) -> BacktestShown:
    """Begin one; 409 while another one of the organisation has not ended."""
    name, document = _read_policy(body)
    asked = Asked(
        policy=name,
        document=document,
        is_preset=body.preset is not None,
        guard_s=body.guard_seconds,
        actuator=body.actuator,
    )
    async with once.transaction(door.database) as session:
        await reporting.insist_on_cluster(session, who, body.cluster_id)
        row = await backtests.ask(session, who, body.cluster_id, asked, body.days, door.clock.now())
        response.headers["Location"] = f"/v1/stats/backtests/{row.id}"
        shown = once.answers(_show(row), 202)
    door.replay.set()
    return shown


@router.get("")
async def list_backtests(
    who: Viewer, door: HasDoor, limit: Limit = 50, cursor: Cursor = None
) -> Page[BacktestShown]:
    """Newest first, of the last 90 days."""
    before = None if cursor is None else read_cursor(cursor, UUID)[0]
    async with door.database.transaction() as session:
        rows = await backtests.page(session, who, before, limit + 1)
    return page_of(rows, limit, _show_briefly, lambda row: (str(row.id),))


@router.get("/{backtest_id}")
async def read_backtest(backtest_id: UUID, who: Viewer, door: HasDoor) -> BacktestShown:
    """How far it is, and its result."""
    async with door.database.transaction() as session:
        return _show(await backtests.find(session, who, backtest_id))


@router.post("/{backtest_id}/cancel")
async def cancel_backtest(backtest_id: UUID, who: Operator, door: HasDoor) -> BacktestShown:
    """End it without a result; one that has ended stays as it is."""
    async with door.database.transaction() as session:
        row = await backtests.cancel(session, who, backtest_id, door.clock.now())
    door.replay.set()
    return _show(row)


def _read_policy(body: BacktestGiven) -> tuple[str, dict[str, Any]]:
    """The policy's name and document. Raises 422."""
    if (body.policy is None) == (body.preset is None):
        raise invalid("policy", "Give either `policy` or `preset`.")
    if body.preset is not None:
        if body.preset not in PRESETS:
            raise invalid("preset", "There is no such preset.", f"Give one of {', '.join(PRESETS)}.")
        return f"preset:{body.preset}", {**PRESETS[body.preset], "machine": _ANY_MACHINE}
    document = body.policy or {}
    try:
        check_plain(document)
        parse(document)
    except Unreadable as error:
        raise invalid("policy", str(error)) from None
    except InvalidPolicy as error:
        raise invalid(f"policy.{error.field}" if error.field else "policy", f"{error}.") from None
    return str(document["name"]), document


def _show_briefly(row: Any) -> BacktestShown:
    shown = _show(row)
    if shown.result is not None:
        shown.result.series = None
    return shown


def _show(row: Any) -> BacktestShown:
    return BacktestShown.model_validate(row, from_attributes=True)
