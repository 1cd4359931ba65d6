"""HTTP of derivations: a version that a machine of ours makes from another one."""

import asyncio
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from libs.boinc.image import Component, Proxy, Surroundings, render_image_data
from libs.common.errors import conflict, invalid, unavailable
from libs.common.paging import Cursor, Limit, Page, page_of, read_cursor
from libs.common.repeats import HasOnce
from libs.guest import agent_source
from libs.providers.base import Capability, ProviderError
from libs.providers.registry import UnknownDriver
from services.templates import usecases
from services.templates.api import Db, Number, Operator, Viewer, database_of
from services.templates.domain import REMEDIES, Outcome
from services.templates.models import Derivation
from services.templates.usecases import LOOK_WITHIN_S, Target, deriving
from services.templates.usecases.deriving import Wish

router = APIRouter(prefix="/v1/templates", tags=["templates"])

HostPort = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9.-]{0,250}:[0-9]{1,5}$")]
CaPem = Annotated[str, Field(min_length=1, max_length=12_000)]


class DeriveRequest(BaseModel):
    """What is put into the new version."""

    model_config = ConfigDict(extra="forbid")

    components: Annotated[list[Component], Field(min_length=1, max_length=len(Component))]
    ca_pem: CaPem | None = None
    """Certificates in PEM; with the component `ca`, and only with it."""
    proxy: HostPort | None = None
    """HOST:PORT by which the builder fetches packages; its machines fetch theirs so, too."""
    auto_approve: bool = False
    """Let the new version be deployed at once; else it is a draft."""
    within_minutes: Annotated[float, Field(ge=5, le=1440, allow_inf_nan=False)] = 60.0
    """When it has failed if its builder has not turned itself off."""


class DerivationView(BaseModel):
    """A version that is made from another, and how far it is."""

    id: UUID
    template_id: UUID
    source: int
    """The version that it is made from."""
    components: list[str]
    auto_approve: bool
    state: Outcome
    step: str
    """waiting, requested, running, made or ended; words may be added."""
    reason: str
    """What it waits for, or how it ended."""
    remedy: str | None
    """What to do about one that failed."""
    machine_id: UUID | None
    version: int | None
    """What came of it."""
    asked_by: str
    until: datetime
    created_at: datetime
    ended_at: datetime | None


@router.post("/{template_id}/versions/{number}/derive", status_code=202)
async def derive_version(
    who: Operator,
    template_id: UUID,
    number: Number,
    asked: DeriveRequest,
    request: Request,
    once: HasOnce,
) -> DerivationView:
    """Make a new version from an approved one: a small machine installs the components and becomes a template."""
    _check(asked)
    database = database_of(request)
    async with database.transaction() as session:
        await once.look(session)
        template, source = await deriving.source_of(session, who, template_id, number)
        reference, resource_id = source.reference, template.resource_id
        target = await usecases.target_of(session, who, resource_id, request.app.state.installation_id)
    await _look(request, target, reference)
    async with once.transaction(database) as session:
        now = request.app.state.clock.now()
        until = now + timedelta(minutes=asked.within_minutes)
        components = frozenset(asked.components)
        wish = Wish(components, asked.ca_pem, asked.proxy, asked.auto_approve, until)
        derivation = await deriving.begin(session, who, template_id, number, wish, now)
        return once.answers(_view(derivation, await deriving.numbers_of(session, [derivation])))


@router.get("/{template_id}/derivations")
async def list_derivations(
    who: Viewer, template_id: UUID, database: Db, cursor: Cursor = None, limit: Limit = 50
) -> Page[DerivationView]:
    """Derivations of a template, newest first."""
    before = None if cursor is None else read_cursor(cursor, UUID)[0]
    async with database.transaction() as session:
        await usecases.find(session, who, template_id)
        found = await deriving.page(session, template_id, before, limit + 1)
        numbers = await deriving.numbers_of(session, found)
    return page_of(found, limit, lambda row: _view(row, numbers), lambda row: (str(row.id),))


@router.post("/{template_id}/derivations/{derivation_id}/cancel")
async def cancel_derivation(
    who: Operator, template_id: UUID, derivation_id: UUID, request: Request, database: Db
) -> DerivationView:
    """End a derivation: its builder is destroyed with its disks, and nothing of it is left."""
    async with database.transaction() as session:
        now = request.app.state.clock.now()
        derivation = await deriving.cancel(session, who, template_id, derivation_id, now)
        return _view(derivation, await deriving.numbers_of(session, [derivation]))


def proxy_of(given: str | None) -> Proxy | None:
    """HOST:PORT as it goes into a machine's files."""
    if given is None:
        return None
    host, _, port = given.rpartition(":")
    return Proxy(host, int(port))


def _check(asked: DeriveRequest) -> None:
    """The builder's document is written once here, so that what cannot be is refused at its field."""
    around = Surroundings(asked.ca_pem, proxy_of(asked.proxy))
    try:
        render_image_data(frozenset(asked.components), agent_source=agent_source(), around=around)
    except ValueError as error:
        field, _, why = str(error).partition(": ")
        name = field if field in DeriveRequest.model_fields else "ca_pem"
        raise invalid(name, f"It cannot be put in: {why}.", "Give what the message asks for.") from None


async def _look(request: Request, target: Target, reference: str) -> None:
    """Raises 409 where the resource makes no templates, or has lost the source; 503 where it does not answer."""
    sessions = request.app.state.sessions
    try:
        async with asyncio.timeout(LOOK_WITHIN_S):
            provider = await sessions.get(target.provider, target.connection)
        seen = await usecases.look_up(sessions, target, reference)
    except (ProviderError, UnknownDriver, TimeoutError) as error:
        cause = error.cause.value if isinstance(error, ProviderError) else type(error).__name__
        raise unavailable(f"The resource cannot be asked ({cause}).", 30) from None
    if Capability.TEMPLATES not in provider.capabilities:
        remedy = "Make the image by hand and register it (`tides template add --next --derived-from`)."
        raise conflict("This resource cannot make templates: it lacks the capability `templates`.", remedy)
    if seen is None:
        raise conflict("The resource has no such template any more.", "Derive from a version that is there.")


def _view(derivation: Derivation, numbers: Mapping[UUID, int]) -> DerivationView:
    is_failed = derivation.state == Outcome.FAILED
    return DerivationView(
        id=derivation.id,
        template_id=derivation.template_id,
        source=numbers[derivation.source_id],
        components=derivation.components,
        auto_approve=derivation.auto_approve,
        state=Outcome(derivation.state),
        step=derivation.step,
        reason=derivation.reason,
        remedy=REMEDIES.get(derivation.step, REMEDIES["ended"]) if is_failed else None,
        machine_id=derivation.machine_id,
        version=numbers.get(derivation.id),
        asked_by=derivation.asked_by,
        until=derivation.until,
        created_at=derivation.created_at,
        ended_at=derivation.ended_at,
    )
