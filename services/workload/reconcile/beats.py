"""The beats themselves: silence, acting on what is leased, keeping house."""

from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import partial
from uuid import UUID

import structlog

from libs.common.clock import Clock
from libs.common.contracts.resource import Mode
from libs.common.db import Database, Session
from libs.common.secrets import Unsealable
from libs.providers.base import ProviderError
from libs.providers.sessions import is_spent
from services.workload.reconcile.hands import Hands
from services.workload.reconcile.limits import apply_limits
from services.workload.reconcile.machines import reconcile
from services.workload.reconcile.releasing import has_nothing_to_see
from services.workload.usecases import deriving, probing, renewing, silence, standing_in
from services.workload.usecases.following import Means
from services.workload.usecases.keeping import forget_old
from services.workload.usecases.leasing import Claimed, LeaseLost, back_off, tell_refused

log = structlog.get_logger(__name__)


async def judge_silent(database: Database, means: Means) -> None:
    """Silence acts too: clusters not heard of for three intervals go to the floor, all of them at every beat.

    Each organisation by itself: none waits for another's quota, or for what of another's cannot be judged.
    """
    more: dict[UUID, bool] = {}

    async def judge(session: Session, organisation_id: UUID) -> None:
        more[organisation_id] = await silence.judge_silence(means, session, organisation_id)

    async with database.transaction() as session:
        organisations = await silence.silent_organisations(means, session)
    while organisations:
        await _for_each(database, organisations, judge, "silence.not_judged", "organisation")
        organisations = [each for each in organisations if more[each]]


async def renew_all(database: Database, means: Means, *, by_manager: bool) -> None:
    """Machines that were made for what is no more, or whose guests do not work, make room for others."""
    renew = partial(renewing.renew, means, by_manager=by_manager)
    async with database.transaction() as session:
        resources = await renewing.resources_with_machines(session)
    await _for_each(database, resources, renew, "resource.not_renewed")


async def probe_all(database: Database, means: Means, *, has_door: bool) -> None:
    """Machines of probes are made, and it is told how far they are."""
    probe = partial(probing.probe, means, has_door=has_door)
    async with database.transaction() as session:
        resources = await probing.resources_with_probes(session)
    await _for_each(database, resources, probe, "resource.not_probed")


async def derive_all(database: Database, means: Means) -> None:
    """Builders of images are made and given up, and what is over is marked to go."""
    async with database.transaction() as session:
        resources = await deriving.resources_with_derivations(session)
    await _for_each(database, resources, partial(deriving.derive, means), "resource.not_derived")


async def _for_each(
    database: Database,
    ids: Sequence[UUID],
    work: Callable[[Session, UUID], Awaitable[object]],
    failure: str,
    kind: str = "resource",
) -> None:
    """One transaction each. One that fails holds up no other; the beat has failed all the same, and is tried again."""
    failed: list[Exception] = []
    for one in ids:
        try:
            async with database.transaction() as session:
                await work(session, one)
        except Exception as error:
            log.exception(failure, **{kind: str(one)})
            failed.append(error)
    if failed:
        raise failed[0]


async def note_away(database: Database, clock: Clock) -> None:
    """Clouds that have been away for long enough are stood in for, as their owners said, until they are back.

    Who dies between the two leaves the second to the next beat.
    """
    async with database.transaction() as session:
        await standing_in.note_away(session, clock.now())
    async with database.transaction() as session:
        await standing_in.assign_stand_ins(session)


async def keep_house(database: Database, clock: Clock) -> None:
    """Forget what is past its time."""
    async with database.transaction() as session:
        await forget_old(session, clock.now())


async def act(hands: Hands) -> None:
    """Every resource that this replica holds, or that it was woken for, in lanes of its own: limits never wait for a
    clone."""
    for resource in await hands.claim(hands.means.errands.take()):
        if resource.mode is Mode.OBSERVE and has_nothing_to_see(resource):
            continue
        key = resource.resource_id
        about = {"resource": resource.name, "resource_id": str(key)}
        setting = partial(_guarded, hands, resource, apply_limits)
        hands.lanes.start(("limits", key), setting, kind="limits", **about)
        if hands.may_look(resource):
            making = partial(_guarded, hands, resource, reconcile)
            hands.lanes.start(("machines", key), making, kind="machines", **about)


async def _guarded(
    hands: Hands, resource: Claimed, work: Callable[[Hands, Claimed], Awaitable[None]]
) -> None:
    """Work on one resource; what its cloud or its lease says no to ends here and is tried again later."""
    try:
        await work(hands, resource)
    except LeaseLost:
        log.info("lease.lost", resource=resource.name)
        await hands.sessions.drop(resource.resource_id)
    except (ProviderError, Unsealable) as error:
        log.warning("resource.refused", resource=resource.name, lane=work.__name__, error=str(error))
        failures = 1
        with suppress(LeaseLost):
            async with hands.settling(resource) as (session, row):
                if row.revision == resource.revision:  # else it was the old password, or the old address
                    tell_refused(session, row, error, hands.clock.now())
                    back_off(row, error, hands.clock.now())
                    failures = row.failures
        # What a session knows of clones under way goes with it.
        if is_spent(error, failures):
            await hands.sessions.drop_used(resource.connection)
