"""Where the agents of machines report: their own tokens and secrets, nobody else's."""

from datetime import datetime, timedelta
from typing import Annotated, Any
from uuid import UUID

import structlog
from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, ConfigDict, Field, SecretStr

from libs.common.auth import Principal, Role, allow, public
from libs.common.errors import forbidden, too_often, unauthorised
from libs.common.names import ONE_LINE
from libs.common.paging import Cursor, Limit, Page, page_of, read_cursor
from services.contribution.api.door import Door, HasDoor, address_of, may_come
from services.contribution.domain import DEAD_MAN_S, HEARTBEAT_S, Health, health_of
from services.contribution.models import Guest, GuestOrder, Machine
from services.contribution.usecases import guests as usecases
from services.contribution.usecases import ordering
from services.contribution.usecases.guests import Told
from services.contribution.usecases.health import vitals_of
from services.contribution.usecases.ordering import Person

log = structlog.get_logger(__name__)

_LONGEST_ALERT = 200

guests = APIRouter(prefix="/guests", tags=["guests"], dependencies=[Depends(public)])

health = APIRouter(prefix="/v1/guests", tags=["guests"])

Operator = Annotated[Principal, Depends(allow(Role.OPERATOR))]
Secret = Annotated[SecretStr, Field(min_length=32, max_length=200)]
Version = Annotated[str, Field(max_length=16, pattern=r"^[0-9A-Za-z.+-]*$")]


Address = Annotated[str, Field(max_length=256)]
Complaint = Annotated[str, Field(max_length=1000)]
CommandId = Annotated[str, Field(max_length=80)]


class Body(BaseModel):
    """An agent's word; agents of other versions may say more."""

    model_config = ConfigDict(extra="ignore")


class Enrolment(Body):
    """The one-time token, and the secret that the machine drew itself."""

    token: Annotated[SecretStr, Field(min_length=1, max_length=200)]
    secret: Secret
    version: Version = ""


class TaskNow(Body):
    """A task of the client, as far as it is counted."""

    executing: bool = False


class Beat(Body):
    """How BOINC does, and what became of commands."""

    version: Version = ""
    held: bool = False
    tasks: Annotated[tuple[TaskNow, ...], Field(max_length=200)] = ()
    task_count: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    boinc_error: Annotated[str | None, Field(max_length=200)] = None
    alerts: Annotated[dict[Address, Complaint], Field(max_length=20)] = {}
    """What projects last complained of to the client, by their addresses: strangers' words."""
    outcomes: Annotated[
        dict[CommandId, Annotated[dict[CommandId, Any], Field(max_length=20)]], Field(max_length=100)
    ] = {}


class Orders(BaseModel):
    """When to come again, when to give up, and what to do."""

    heartbeat_s: float = HEARTBEAT_S
    dead_man_s: float = DEAD_MAN_S
    commands: list[dict[str, Any]] = []


class OrdersView(BaseModel):
    """What a guest was told, by whom and until when, and what it acknowledged."""

    model_config = ConfigDict(from_attributes=True)
    throttle_percent: float | None
    throttle_until: datetime | None
    throttle_by: str | None
    throttle_reason: str | None
    cap_percent: float | None
    """By workload, where the cloud has no limits."""
    applied_percent: float | None
    """What holds by the agent's own word; null: it has acknowledged nothing and runs free."""
    applied_at: datetime | None
    error: str | None
    stop_until: datetime | None
    """Until when the order to end could be fetched."""
    stop_by: str | None
    stop_reason: str | None
    stopped_at: datetime | None


Reason = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]+$"), ONE_LINE]


class Stop(BaseModel):
    """Why a guest shall end at once."""

    model_config = ConfigDict(extra="forbid")
    reason: Reason


class Throttle(Stop):
    """How much of its processors a guest may use, and for how long."""

    percent: float = Field(ge=0, le=100, allow_inf_nan=False)
    """0: nothing is computed."""
    for_s: float = Field(default=3600.0, ge=60, le=7 * 86_400, allow_inf_nan=False)


class GuestView(BaseModel):
    """A machine as its agent tells of it."""

    machine_id: UUID
    organisation_id: UUID
    resource_id: UUID
    health: Health
    """As it is now."""
    told: Health | None
    """What others were told of it: only what has held for some time. Workload goes by it."""
    told_at: datetime | None
    told_why: str | None
    enrolled_at: datetime | None
    beat_at: datetime | None
    version: str
    boinc_error: str | None
    alerts: dict[str, str]
    """What projects complained of to its client, by their addresses, in their own words."""
    tasks: int
    running: int
    drained_at: datetime | None
    lost_cpu_s: float | None
    """CPU seconds that its drain lost."""
    orders: "OrdersView | None"
    """What it was told besides its drain; null: nothing ever."""


@health.get("")
async def list_guests(
    who: Annotated[Principal, Depends(allow(Role.VIEWER))],
    door: HasDoor,
    cursor: Cursor = None,
    limit: Limit = 50,
) -> Page[GuestView]:
    """How the machines of the organisation do, those that are gone left out."""
    after = None if cursor is None else read_cursor(cursor, UUID)[0]
    now = door.clock.now()
    async with door.database.transaction() as session:
        found = await usecases.guests(session, who, after, limit + 1)

    def shown(row: Ordered) -> GuestView:
        return _view(row, now, expects_agent=door.expects_agents)

    return page_of(found, limit, shown, lambda row: (str(row[0].machine_id),))


@health.post("/{machine_id}/throttle", status_code=202)
async def throttle_guest(who: Operator, door: HasDoor, machine_id: UUID, wish: Throttle) -> GuestView:
    """Let a guest use only so much of its processors for a while; its next heartbeat fetches it."""
    person, now = Person(who, wish.reason), door.clock.now()
    async with door.database.transaction() as session:
        lasts = timedelta(seconds=wish.for_s)
        row = await ordering.throttle(session, machine_id, person, wish.percent, lasts, now)
        return _view(row, now, expects_agent=door.expects_agents)


@health.post("/{machine_id}/stop", status_code=202)
async def stop_guest(who: Operator, door: HasDoor, machine_id: UUID, why: Stop) -> GuestView:
    """Let a guest end its work at once, whatever is lost, and shut its machine down; the machine is given up."""
    now = door.clock.now()
    async with door.database.transaction() as session:
        row = await ordering.stop(session, machine_id, Person(who, why.reason), now)
        return _view(row, now, expects_agent=door.expects_agents)


Ordered = tuple[Guest, Machine, GuestOrder | None]


def _view(row: Ordered, now: datetime, *, expects_agent: bool) -> GuestView:
    guest, machine, order = row
    return GuestView(
        machine_id=machine.id,
        organisation_id=machine.organisation_id,
        resource_id=machine.resource_id,
        health=health_of(vitals_of(guest, machine, expects_agent=expects_agent), now),
        told=None if guest.said is None else Health(guest.said),
        told_at=guest.said_at,
        told_why=guest.said_why,
        enrolled_at=guest.enrolled_at,
        beat_at=guest.beat_at,
        version=guest.version,
        boinc_error=guest.boinc_error,
        alerts=guest.alerts or {},
        tasks=guest.tasks,
        running=guest.running,
        drained_at=guest.drained_at,
        lost_cpu_s=guest.lost_cpu_s,
        orders=None if order is None else OrdersView.model_validate(order),
    )


async def _insist_on_patience(door: Door, token: str, address: str) -> None:
    verdict = await may_come(door, token, address)
    if verdict.wait_s:
        raise too_often(verdict.wait_s)


@guests.post("/enrol")
async def enrol(request: Request, body: Enrolment, door: HasDoor) -> Orders:
    """Let a machine's agent in. The same token and secret again is the same enrolment."""
    token, address = body.token.get_secret_value(), address_of(request)
    await _insist_on_patience(door, token, address)
    try:
        async with door.database.transaction() as session:
            await usecases.enrol(
                session,
                token,
                body.secret.get_secret_value(),
                body.version,
                door.clock.now(),
            )
    except usecases.Unknown as unknown:
        door.limits.note(token, address, known=False)
        if unknown.machine_id is not None:
            log.warning("guest.second_enrolment", machine=str(unknown.machine_id))
        raise forbidden("This token lets nobody in.") from None
    door.limits.note(token, address, known=True)
    return Orders()


@guests.post("/beat")
async def beat(request: Request, body: Beat, door: HasDoor) -> Orders:
    """One heartbeat: a machine reads and changes nothing but its own."""
    secret, address = request.headers.get("authorization", "").removeprefix("Bearer "), address_of(request)
    await _insist_on_patience(door, secret, address)
    error = body.boinc_error
    told = Told(
        version=body.version,
        boinc_error=None if error is None else _printable(error),
        tasks=max(body.task_count, len(body.tasks)),
        running=sum(task.executing for task in body.tasks),
        held=body.held,
        outcomes=body.outcomes,
        alerts={_printable(url): _printable(text)[:_LONGEST_ALERT] for url, text in body.alerts.items()},
    )
    try:
        async with door.database.transaction() as session:
            commands = await usecases.beat(session, secret, told, door.clock.now())
    except usecases.Unknown:
        door.limits.note(secret, address, known=False)
        raise unauthorised("This secret is not known.") from None
    door.limits.note(secret, address, known=True)
    return Orders(commands=commands)


def _printable(text: str) -> str:
    return "".join(character for character in text if character.isprintable())
